/** What follows the press of *Pay*, on both pages: one payment, then its gateway's page or its instructions. */

import { ENDED } from './payment-client.js';
import { money, say } from './reader.js';

/** Statuses of payments that hold the money. */
export const PAID = ['completed', 'partially_refunded'];

/**
 * Create the payment, or find the one that the consultation has, and go on with it.
 * @param {(payment: object) => string|undefined} returnTo where the gateway's page leads back to
 * @returns {Promise<{payment?: object, checkout?: object, isExisting?: boolean, isOther?: boolean, isLeaving?: boolean}>}
 *   what is to be shown; `isLeaving`: nothing, the browser goes to the gateway's page
 */
export async function pay(session, wanted, returnTo) {
  const { client, call } = session;
  const { type, data } = await client.createPayment(wanted, call);
  const isExisting = type === 'existing';
  const payment = await client.getPayment(data.payment_id, call);
  const isOther = payment.amount !== wanted.amount || payment.payment_method !== wanted.paymentMethod;
  if (payment.status !== 'pending' || (isExisting && isOther)) return { payment, isExisting, isOther };
  return { payment, isExisting, ...(await goOn(session, payment, returnTo(payment))) };
}

/** Open the payment's session and go to its gateway's page; or return it, if it is paid by hand. */
export async function goOn(session, payment, returnTo) {
  const { client, call } = session;
  const checkout = await client.openCheckout(payment.id, call);
  if (!checkout.redirect_url) return { checkout };
  call.signal.throwIfAborted();
  client.goToGateway(checkout, { returnTo });
  return { isLeaving: true };
}

/** That an earlier payment is not finished, and is another than the one that was asked for. */
export function otherInWords(session, payment) {
  const about = { amount: money(payment.amount, payment.currency), method: session.methodName(payment.payment_method) };
  return say('other_open_notice', about);
}

export function isPaid({ status }) {
  return PAID.includes(status);
}

export function hasEnded({ status }) {
  return ENDED.includes(status);
}
