/**
 * One payment with its invoice and VAT. For its patient also what is left to do, if it is not finished; for staff its
 * history and the refund dialog.
 */

import { OPEN } from './payment-client.js';
import { hasEnded, isPaid } from './paying.js';
import { Pending } from './pending.js';
import { money, say } from './reader.js';
import { inWords, paymentDetails, staffDetails } from './views.js';

/** Statuses that can be refunded. A payment in another status can hold money only if it needs a review. */
const REFUNDABLE = ['completed', 'partially_refunded'];

export class Result {
  #section = document.getElementById('result');
  #notice = document.getElementById('result-notice');
  #problem = document.getElementById('result-problem');
  #dialog = document.getElementById('refund-dialog');
  #amount = document.getElementById('refund-amount');
  #reason = document.getElementById('refund-reason');
  #session;
  #onChange;
  #pending;
  /** Number of the latest request: if several payments were requested, only the last one is shown. */
  #latest = 0;
  /** The payment in the refund dialog. */
  #asked = null;
  /** A refund request without a response: only the same request is safe to send again. */
  #unanswered = null;

  /** @param {() => Promise<void>} onChange called if a payment may have changed */
  constructor(session, onChange) {
    this.#session = session;
    this.#onChange = onChange;
    this.#pending = new Pending(session, {
      returnTo: addressOf,
      onChange: (payment) => this.#reload(payment),
      onCancelled: (payment) => this.#reload(payment),
    });
    this.#dialog.addEventListener('close', () => {
      if (this.#dialog.returnValue === 'refund') this.#refund(this.#asked);
    });
  }

  clear() {
    this.#pending.stop();
    this.#latest += 1;
    this.#unanswered = null;
    this.#dialog.close();
    this.#section.hidden = true;
    document.getElementById('result-body').replaceChildren();
  }

  /** Read a payment and show it. */
  async load(paymentId, words = {}) {
    await this.show(this.#session.client.getPayment(paymentId, this.#session.call), words);
  }

  /**
   * @param payment a payment, or a promise of one
   * @param {{heading?: string, notice?: string, checkout?: object}} [words] `checkout`: its session, if it was opened
   */
  async show(payment, { heading, notice = '', checkout } = {}) {
    const turn = (this.#latest += 1);
    this.#pending.stop();
    const shown = await payment;
    const body = [paymentDetails(shown, (code) => this.#session.methodName(code))];
    let lead = '';
    if (this.#session.isStaff) body.push(await this.#forStaff(shown));
    else if (['pending', 'processing'].includes(shown.status)) {
      const next = await this.#pending.show(shown, { checkout });
      body.unshift(next.body);
      heading = next.heading;
      lead = next.lead;
    }
    if (turn !== this.#latest) return;
    document.getElementById('result-heading').textContent = heading ?? say('payment_heading', { id: shown.id });
    document.getElementById('result-lead').textContent = lead;
    this.#notice.textContent = notice;
    this.#notice.hidden = !notice;
    this.#problem.textContent = '';
    document.getElementById('result-body').replaceChildren(...body);
    this.#section.hidden = false;
    this.#section.focus(); // screen readers read its heading, and the browser scrolls to it
  }

  /** Show what has become of a payment. */
  async #reload({ id }) {
    await this.#session.attempt(
      async () => {
        const payment = await this.#session.client.getPayment(id, this.#session.call);
        await this.show(payment, isPaid(payment) ? { heading: say('paid') } : endedInWords(payment));
      },
      { problem: this.#problem },
    );
    await this.#onChange();
  }

  async #forStaff(payment) {
    const events = await this.#session.client.read(`/payments/${payment.id}/events`, this.#session.call);
    const mayRefund = REFUNDABLE.includes(payment.status) || payment.needs_review;
    return staffDetails(events.data, mayRefund ? () => this.#ask(payment) : null);
  }

  #ask(payment) {
    const before = this.#unanswered?.id === payment.id ? this.#unanswered : null;
    // A payment under review may hold more or less than its amount, and only the service knows how much.
    const left = payment.needs_review ? null : leftOf(payment);
    document.getElementById('refund-question').textContent =
      left === null
        ? say('refund_review_question', { id: payment.id })
        : say('refund_question', { id: payment.id, left: money(left, payment.currency) });
    this.#amount.required = left !== null;
    this.#amount.value = before?.amount ?? left ?? '';
    this.#reason.value = before?.reason ?? '';
    this.#asked = payment;
    this.#dialog.returnValue = '';
    this.#dialog.showModal();
  }

  async #refund(payment) {
    const { id, currency } = payment;
    const { client, call } = this.#session;
    const progress = document.getElementById('result-progress');
    const button = this.#section.querySelector('[data-testid=refund]');
    const amount = this.#amount.value ? Number(this.#amount.value) : undefined;
    const reason = this.#reason.value || undefined;
    // The amount that staff saw: if a colleague has refunded meanwhile, the service refuses this refund.
    const expectedRefundable = payment.needs_review ? undefined : leftOf(payment);
    button.disabled = true;
    progress.textContent = say('refunding');
    this.#unanswered = { id, amount, reason };
    await this.#session.attempt(
      async () => {
        const outcome = await client.refundPayment(id, { amount, reason, expectedRefundable }, call);
        this.#unanswered = null;
        await this.load(id, { notice: refundInWords(outcome, currency) });
      },
      { progress, problem: this.#problem, unknown: 'refund_unknown' },
    );
    if (call.signal.aborted) return;
    button.disabled = false;
    await this.#onChange();
  }
}

/** Where a gateway's page leads back to: this page with that payment. */
export function addressOf({ id }) {
  return `${location.pathname}${location.search}#payment=${id}`;
}

/** That a payment has ended without money, and what now. */
export function endedInWords(payment) {
  return hasEnded(payment) ? { notice: say('ended_notice', { status: inWords(payment.status) }) } : {};
}

/** Refundable amount of a payment that needs no review. Rounded to hundredths, because 0.1 + 0.2 is not 0.3. */
function leftOf({ amount, refunded_amount: refunded, refunds }) {
  const setAside = refunds.filter(({ status }) => OPEN.includes(status)).reduce((sum, refund) => sum + refund.amount, 0);
  return Math.round((amount - refunded - setAside) * 100) / 100;
}

/** The outcome of a refund, for staff. */
function refundInWords({ success, status, replayed, data }, currency) {
  const amount = money(data.refund_amount, currency);
  if (data.refund?.status === 'requested') return say('refund_requested_notice', { amount });
  if (status === 202) return data.refund?.by_hand ? say('refund_to_be_sent_notice', { amount }) : say('refund_open_notice');
  if (!success) return say('refund_failed_notice', { amount });
  return say(replayed ? 'refund_made_before_notice' : 'refunded_notice', { amount });
}
