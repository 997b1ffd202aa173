/** One payment, with its invoice and VAT; for staff also what happened to it, and a way to return its money. */

import { money, say } from './reader.js';
import { paymentDetails, staffDetails } from './views.js';

/** Statuses of payments whose money may be returned; others hold some only where it is to be reviewed. */
const REFUNDABLE = ['completed', 'partially_refunded'];

export class Result {
  #section = document.getElementById('result');
  #notice = document.getElementById('result-notice');
  #dialog = document.getElementById('refund-dialog');
  #amount = document.getElementById('refund-amount');
  #reason = document.getElementById('refund-reason');
  #session;
  #onChange;
  #payment = null;

  /** @param {() => Promise<void>} onChange called when money was returned */
  constructor(session, onChange) {
    this.#session = session;
    this.#onChange = onChange;
    this.#dialog.addEventListener('close', () => {
      if (this.#dialog.returnValue === 'refund') this.#refund();
    });
  }

  /** Read a payment and show it. */
  async load(paymentId, words = {}) {
    await this.show(await this.#session.client.getPayment(paymentId), words);
  }

  /** @param {{heading?: string, notice?: string|false}} [words] */
  async show(payment, { heading, notice } = {}) {
    const body = [paymentDetails(payment, this.#session.methods)];
    if (this.#session.isStaff) {
      const events = await this.#session.client.read(`/payments/${payment.id}/events`);
      const mayRefund = REFUNDABLE.includes(payment.status) || payment.needs_review;
      body.push(staffDetails(events.data, mayRefund ? () => this.#ask() : null));
    }
    this.#payment = payment;
    document.getElementById('result-heading').textContent = heading ?? say('payment_heading', { id: payment.id });
    this.#notice.textContent = notice || '';
    this.#notice.hidden = !notice;
    document.getElementById('result-body').replaceChildren(...body);
    this.#section.hidden = false;
    this.#section.focus(); // read out from its heading on, and scrolled to
  }

  #ask() {
    const { id, amount, refunded_amount: returned, currency } = this.#payment;
    const left = Math.round((amount - returned) * 100) / 100;
    document.getElementById('refund-question').textContent = say('refund_question', { id, left: money(left, currency) });
    this.#amount.value = String(left);
    this.#reason.value = '';
    this.#dialog.returnValue = '';
    this.#dialog.showModal();
  }

  async #refund() {
    const { id, currency } = this.#payment;
    const progress = document.getElementById('result-progress');
    const button = this.#section.querySelector('[data-testid=refund]');
    button.disabled = true;
    progress.textContent = say('refunding');
    await this.#session.attempt(
      async () => {
        const wanted = { amount: Number(this.#amount.value), reason: this.#reason.value || undefined };
        const outcome = await this.#session.client.refundPayment(id, wanted);
        const notice = refundInWords(outcome, currency);
        await this.load(id, { notice });
        await this.#onChange();
      },
      { progress, problem: document.getElementById('result-problem') },
    );
    button.disabled = false;
  }
}

/** What became of a refund, for staff. */
function refundInWords({ success, status, replayed, data }, currency) {
  if (status === 202) return say('refund_open_notice');
  const amount = money(data.refund_amount, currency);
  if (!success) return say('refund_failed_notice', { amount });
  return say(replayed ? 'refund_made_before_notice' : 'refunded_notice', { amount });
}
