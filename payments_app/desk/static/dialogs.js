/** Two dialogs: the refund of a payment, and a question with two answers. Escape closes both. */

import { money, parsedAmount, say, typed } from '../../checkout/static/reader.js';
import { acceptAll, connect, refuse, refuseAll } from './fields.js';

const element = (id) => document.getElementById(id);

/** Ask, and wait for the answer. */
export class Question {
  #dialog = element('question-dialog');
  #form = element('question-form');
  #answer = () => {};

  constructor() {
    connect(this.#form);
    this.#part('leave').addEventListener('click', () => this.#dialog.close());
    this.#dialog.addEventListener('close', () => this.#answer(null));
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      const why = this.#form.elements.why;
      if (!this.#part('why').hidden && !why.value.trim()) {
        refuse(why, say('why_missing'));
        return;
      }
      this.#answer({ why: why.value.trim() });
      this.#dialog.close();
    });
  }

  /** @returns {Promise<{why: string} | null>} null: no */
  ask(question, yes, { withReason = false } = {}) {
    element('question').textContent = question;
    this.#part('yes').textContent = yes;
    this.#part('why').hidden = !withReason;
    this.#form.reset();
    acceptAll(this.#form);
    this.#dialog.showModal();
    return new Promise((resolve) => {
      this.#answer = resolve;
    });
  }

  #part(name) {
    return this.#form.querySelector(`[data-part=${name}]`);
  }
}

/** Refunds a payment, in whole or in part. It stays open until there is an outcome, and says at the field what is wrong. */
export class RefundDialog {
  #dialog = element('refund-dialog');
  #form = element('refund-form');
  #session;
  #row = null;
  #onOutcome;
  #onChange;
  #findRow;
  /** Whether the payment may be another one than the page shows behind the dialog. */
  #mayHaveChanged = false;

  /**
   * @param {(outcome: object) => Promise<void>} onOutcome
   * @param {() => Promise<void>} onChange called once it is closed without an outcome, if the payment may have changed
   * @param {(id: number) => Promise<object>} findRow
   */
  constructor(session, { onOutcome, onChange, findRow }) {
    this.#session = session;
    this.#onOutcome = onOutcome;
    this.#onChange = onChange;
    this.#findRow = findRow;
    this.#dialog.addEventListener('close', () => {
      if (this.#mayHaveChanged) this.#onChange();
      this.#mayHaveChanged = false;
    });
    connect(this.#form);
    this.#form.querySelector('[data-part=leave]').addEventListener('click', () => this.#dialog.close());
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  close() {
    this.#mayHaveChanged = false;
    this.#dialog.close();
    this.#form.reset();
    element('refund-question').textContent = '';
  }

  open(row) {
    this.#show(row);
    this.#form.elements.amount.value = typed(row.refundable_amount);
    this.#form.elements.reason.value = '';
    acceptAll(this.#form);
    element('refund-problem').textContent = '';
    this.#dialog.showModal();
    this.#form.elements.amount.select();
  }

  #show(row) {
    this.#row = row;
    const left = money(row.refundable_amount, row.payment.currency);
    element('refund-question').textContent = say('refund_question', { id: row.payment.id, left });
  }

  async #submit() {
    const { amount: field, reason } = this.#form.elements;
    const { payment, refundable_amount: left } = this.#row;
    const amount = parsedAmount(field.value);
    acceptAll(this.#form);
    if (!amount) refuse(field, say('amount_bad', { example: typed(left) }));
    else if (amount > left) refuse(field, say('amount_too_large', { amount: money(left, payment.currency) }));
    else await this.#refund({ amount, reason: reason.value.trim() || undefined, expectedRefundable: left });
  }

  async #refund(wanted) {
    const { client, call } = this.#session;
    const { id } = this.#row.payment;
    const progress = element('refund-progress');
    progress.textContent = say('refunding');
    this.#mayHaveChanged = true;
    await this.#session.press(
      this.#form.querySelector('button.main'),
      async () => {
        try {
          const outcome = await client.refundPayment(id, wanted, call);
          this.#mayHaveChanged = false;
          this.#dialog.close();
          await this.#onOutcome(outcome);
        } catch (error) {
          if (error.code !== 'refundable-changed') {
            if (!refuseAll(this.#form, error)) throw error;
            return;
          }
          this.#show(await this.#findRow(id));
          const left = money(this.#row.refundable_amount, this.#row.payment.currency);
          refuse(this.#form.elements.amount, say('refund_changed', { left }));
        }
      },
      { progress, problem: element('refund-problem'), unknown: 'refund_outcome_unknown' },
    );
  }
}
