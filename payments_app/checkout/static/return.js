/** The page at `/pay/return`: on to where the patient left for the gateway's page, if this browser knows that. */

import { wayBack } from './payment-client.js';

const to = wayBack();
if (to) location.replace(to);
else document.getElementById('unknown').hidden = false;
document.getElementById('loading').hidden = Boolean(!to);
