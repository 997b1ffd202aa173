/** The page at `/`: sign-in, and which parts a user sees. Payments are made by payment-client.js. */

import { History } from './history.js';
import { PayForm } from './pay-form.js';
import { isPaid } from './paying.js';
import { forgetWayBack } from './payment-client.js';
import { say } from './reader.js';
import { endedInWords, Result } from './result.js';
import { Session } from './session.js';
import { comeBack, onSignIn, showSignIn } from './sign-in.js';

const element = (id) => document.getElementById(id);

const session = new Session(() => leave(say('session_over')));
const onPage = { problem: element('page-problem') };
const result = new Result(session, () => refresh());
const history = new History(session, (paymentId) => session.attempt(() => result.load(paymentId), onPage));
const payForm = new PayForm(session, result, () => refresh());

/** Reload consultations and payments. */
async function refresh() {
  await session.attempt(() => Promise.all([session.isStaff ? null : payForm.load(), history.load()]), onPage);
}

async function enter() {
  const { client, call } = session;
  const [me, methods] = await Promise.all([client.read('/me', call), client.read('/payment-methods', call)]);
  if (!['patient', 'admin'].includes(me.data.role)) {
    leave(say('not_for_you'));
    return;
  }
  session.begin(me.data, methods.data);
  payForm.offer(session.methods.values());
  await Promise.all([session.isStaff ? null : payForm.load(), history.load()]);
  element('account-name').textContent = say('signed_in_as', { name: session.me.name });
  element('sign-in').hidden = true;
  element('account').hidden = false;
  element('checkout').hidden = session.isStaff;
  element('history-section').hidden = false;
  await showReturned();
}

/** Show the payment that the address names: one that the reader comes back from paying. */
async function showReturned() {
  const returned = /^#payment=([0-9]+)$/.exec(location.hash);
  if (!returned) return;
  forgetWayBack(location.pathname + location.search + location.hash);
  window.history.replaceState(null, '', location.pathname + location.search);
  const payment = await session.client.getPayment(returned[1], session.call);
  await result.show(payment, isPaid(payment) ? { heading: say('paid') } : endedInWords(payment));
}

/** Sign out: show the sign-in form with a reason, and remove all data of the user from the page. */
function leave(reason = '') {
  session.end();
  for (const part of [result, history, payForm]) part.clear();
  for (const part of ['account', 'checkout', 'history-section']) element(part).hidden = true;
  showSignIn(reason);
}

const start = () => comeBack(session, enter, leave);

onSignIn(session, enter);

element('sign-out').addEventListener('click', () => leave());

element('again').addEventListener('click', start);

element('language').addEventListener('change', (event) => {
  location.assign(`?${new URLSearchParams({ language: event.currentTarget.value })}`);
});

// A page from the browser's memory shows what was so before the reader left it.
addEventListener('pageshow', async (event) => {
  if (!event.persisted || !session.me) return;
  payForm.wake();
  result.clear();
  await refresh();
});

await start();
