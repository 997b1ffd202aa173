/** What the desk says of a payment: its states, its refunds and its history. */

import { inWords } from '../../checkout/static/views.js';
import { date, knows, money, say } from '../../checkout/static/reader.js';

const OPEN_DISPUTES = ['inquiry', 'needs_response', 'under_review'];

/**
 * All that is to be said of a payment, what matters most first. `tone`: ok, wait, bad or none.
 * @returns {{text: string, tone: string}[]}
 */
export function states({ payment, dispute, open_refund: refund, by_hand: byHand }) {
  const found = [];
  if (dispute && [...OPEN_DISPUTES, 'lost'].includes(dispute.status)) found.push({ text: disputeInWords(dispute), tone: 'bad' });
  if (refund) found.push({ text: openRefundInWords(refund), tone: refund.status === 'unknown' ? 'bad' : 'wait' });
  if (payment.needs_review) found.push({ text: say('needs_review'), tone: 'bad' });
  found.push(statusInWords(payment, byHand));
  return found;
}

function statusInWords({ status, refunded_amount: refunded, currency }, byHand) {
  if (status === 'pending') return { text: byHand ? say('to_be_confirmed') : inWords(status), tone: byHand ? 'wait' : 'none' };
  if (status === 'partially_refunded') return { text: say('refunded_part', { amount: money(refunded, currency) }), tone: 'ok' };
  return { text: inWords(status), tone: { completed: 'ok', processing: 'wait' }[status] ?? 'none' };
}

export function disputeInWords({ status, due_at: due }) {
  if (status === 'needs_response' && due) return say('dispute_by', { day: date(due) });
  if (status === 'inquiry' && due) return say('dispute_inquiry_by', { day: date(due) });
  return say(`dispute_${status}`);
}

function openRefundInWords({ status, by_hand: byHand }) {
  return say(status === 'pending' && byHand ? 'refund_to_be_sent' : `refund_${status}`);
}

/** A refund's own status. */
export function refundInWords({ status, by_hand: byHand }) {
  return say(status === 'pending' && byHand ? 'refund_status_to_be_sent' : `refund_status_${status}`);
}

/** What has come of a request for a refund. @param {import('../../checkout/static/payment-client.js').Outcome} outcome */
export function outcomeInWords({ success, status, replayed, data: { refund, refund_amount: refunded } }, currency) {
  const amount = money(refunded, currency);
  if (status === 202) return say(refund.by_hand && refund.status === 'pending' ? 'refund_now_to_be_sent' : `refund_now_${refund.status}`, { amount });
  if (!success) return say('refund_failed', { amount });
  return say(replayed ? 'refund_done_before' : 'refunded', { amount });
}

export function eventInWords({ event }) {
  const name = `event_${event.replace('.', '_')}`;
  return knows(name) ? say(name) : event;
}

/** Who did it, such as `admin:7`. @param {number|string} me the id of the reader */
export function actorInWords({ actor }, me) {
  const [kind, id] = actor.split(/:(.*)/);
  if (kind === 'admin' && id === String(me)) return say('actor_you');
  return knows(`actor_${kind}`) ? say(`actor_${kind}`, { id }) : actor;
}

/** The consultation as people call it: BK-77, or its number. */
export function consultationName({ id, reference }) {
  return reference ?? say('consultation', { id });
}

/** Show a state on an element of the class `pill`. */
export function paint(pill, { text, tone }) {
  pill.textContent = text;
  pill.dataset.tone = tone;
}
