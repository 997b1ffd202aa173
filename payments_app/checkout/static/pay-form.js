/** Choosing a consultation and a method, and paying it once. */

import { GREATEST_AMOUNT, LEAST_AMOUNT, money, say } from './reader.js';
import { consultationChoice } from './views.js';

/** Active payments whose money has come. */
const PAID = ['completed', 'partially_refunded'];

export class PayForm {
  #form = document.getElementById('pay-form');
  #consultations = document.getElementById('consultations');
  #moreConsultations = document.getElementById('more-consultations');
  #amount = document.getElementById('amount');
  #method = document.getElementById('method');
  #button = document.getElementById('pay');
  #session;
  #result;
  #onChange;
  /** Consultations by their ids. */
  #known = new Map();
  #cursor = null;

  /** @param {() => Promise<void>} onChange called when a payment was made or changed */
  constructor(session, result, onChange) {
    this.#session = session;
    this.#result = result;
    this.#onChange = onChange;
    this.#amount.min = LEAST_AMOUNT;
    this.#amount.max = GREATEST_AMOUNT;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#pay();
    });
    this.#consultations.addEventListener('change', () => this.#showAmount());
    this.#moreConsultations.addEventListener('click', () => session.attempt(() => this.#loadPage()));
  }

  /** Offer these methods. */
  offer(methods) {
    this.#method.replaceChildren(...methods.map(({ code, name }) => new Option(name, code)));
  }

  /** Show the caller's consultations afresh; what was chosen stays chosen. */
  async load() {
    const chosen = this.#chosen()?.id;
    const page = await this.#session.client.read('/consultations');
    this.#known.clear();
    this.#consultations.replaceChildren();
    this.#show(page, chosen);
    const isEmpty = page.data.length === 0;
    document.getElementById('no-consultations').hidden = !isEmpty;
    this.#form.hidden = isEmpty;
    this.#showAmount();
  }

  async #loadPage() {
    this.#show(await this.#session.client.read(`/consultations?${new URLSearchParams({ cursor: this.#cursor })}`));
  }

  #show({ data, meta }, chosen) {
    for (const consultation of data) {
      this.#known.set(consultation.id, consultation);
      this.#consultations.append(consultationChoice(consultation, consultation.id === chosen));
    }
    this.#cursor = meta.next_cursor;
    this.#moreConsultations.hidden = !this.#cursor;
  }

  #chosen() {
    return this.#known.get(Number(new FormData(this.#form).get('consultation')));
  }

  /** A consultation with a fee costs that; another one, what the patient says within the limits. */
  #showAmount() {
    const fee = this.#chosen()?.fee ?? null;
    const wasFixed = this.#amount.readOnly;
    this.#amount.readOnly = fee !== null;
    if (fee !== null) this.#amount.value = String(fee);
    else if (wasFixed || !this.#amount.value) this.#amount.value = String(Number(LEAST_AMOUNT));
    document.getElementById('amount-range').textContent =
      fee === null ? say('amount_range', { least: money(LEAST_AMOUNT), greatest: money(GREATEST_AMOUNT) }) : '';
  }

  async #pay() {
    if (this.#button.disabled) return;
    this.#button.disabled = true;
    const progress = document.getElementById('progress');
    progress.textContent = say('sending');
    await this.#session.attempt(
      async () => {
        const made = await this.#session.client.createPayment({
          consultationId: this.#chosen().id,
          amount: Number(this.#amount.value),
          paymentMethod: this.#method.value,
        });
        await this.#goOn(made, progress);
        await this.#onChange();
      },
      { progress, problem: document.getElementById('pay-problem') },
    );
    this.#button.disabled = false;
  }

  /** What is left to do for a payment, ours or the one that was there: show it, or lead the patient to its gateway. */
  async #goOn({ type, data }, progress) {
    const payment = await this.#session.client.getPayment(data.payment_id);
    const isExisting = type === 'existing';
    if (payment.status !== 'pending') {
      const isPaid = PAID.includes(payment.status);
      const notice = isExisting && say(isPaid ? 'already_paid_notice' : 'already_open_notice');
      await this.#result.show(payment, { heading: isExisting && isPaid ? say('already_paid') : undefined, notice });
      return;
    }
    const already = isExisting ? `${say('already_open_notice')} ` : '';
    if (payment.gateway === 'sandbox') {
      progress.textContent = say('confirming');
      // Always the same transaction: another tab that confirms it as well is told of the same payment.
      await this.#session.client.confirmPayment(payment.id, { transactionId: `sandbox-${payment.id}` });
      await this.#result.load(payment.id, { heading: say('paid'), notice: already });
      return;
    }
    const session = await this.#session.client.openCheckout(payment.id);
    const how = session.instructions ?? say('card_notice', { reference: session.reference });
    await this.#result.show(payment, { heading: say('open'), notice: already + how });
  }
}
