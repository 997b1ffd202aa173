/** The form: choose a consultation and a method, and pay once. */

import { hasEnded, isPaid, otherInWords, pay } from './paying.js';
import { GREATEST_AMOUNT, LEAST_AMOUNT, money, say } from './reader.js';
import { addressOf, endedInWords } from './result.js';
import { consultationChoice } from './views.js';

export class PayForm {
  #form = document.getElementById('pay-form');
  #consultations = document.getElementById('consultations');
  #more = document.getElementById('more-consultations');
  #amount = document.getElementById('amount');
  #method = document.getElementById('method');
  #button = document.getElementById('pay');
  #session;
  #result;
  #onChange;
  /** Consultations by the digits of their ids. */
  #known = new Map();
  #cursor = null;

  /** @param {() => Promise<void>} onChange called when a payment may have been made or changed */
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
    this.#more.addEventListener('click', () => session.press(this.#more, () => this.#loadPage(), { problem: document.getElementById('page-problem') }));
  }

  /** Offer these methods. */
  offer(methods) {
    this.#method.replaceChildren(...[...methods].map(({ code, name }) => new Option(name, code)));
  }

  clear() {
    this.#known.clear();
    this.#consultations.replaceChildren();
    this.#amount.value = '';
    this.#button.disabled = false;
  }

  /** Reload the caller's consultations, as many as were shown before. The selection stays. */
  async load() {
    const chosen = this.#chosen()?.id;
    const pages = [await this.#read()];
    const shown = this.#known.size;
    for (let count = pages[0].data.length; count < shown && pages.at(-1).meta.next_cursor; ) {
      pages.push(await this.#read(pages.at(-1).meta.next_cursor));
      count += pages.at(-1).data.length;
    }
    this.#known.clear();
    this.#consultations.replaceChildren();
    for (const page of pages) this.#show(page, chosen);
    const isEmpty = this.#known.size === 0;
    document.getElementById('no-consultations').hidden = !isEmpty;
    this.#form.hidden = isEmpty;
    this.#showAmount();
  }

  async #loadPage() {
    if (this.#cursor) this.#show(await this.#read(this.#cursor));
  }

  #read(cursor = null) {
    const path = cursor ? `/consultations?${new URLSearchParams({ cursor })}` : '/consultations';
    return this.#session.client.read(path, this.#session.call);
  }

  #show({ data, meta }, chosen) {
    for (const consultation of data) {
      this.#known.set(String(consultation.id), consultation);
      this.#consultations.append(consultationChoice(consultation, consultation.id === chosen));
    }
    this.#cursor = meta.next_cursor;
    this.#more.hidden = !this.#cursor;
  }

  #chosen() {
    return this.#known.get(new FormData(this.#form).get('consultation'));
  }

  /** A consultation's fee is fixed. If it has none, the patient enters an amount within the limits. */
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
    this.#result.clear(); // or the outcome of another payment would be taken for this one's
    const { call } = this.#session;
    const progress = document.getElementById('progress');
    const wanted = {
      consultationId: this.#chosen().id,
      amount: Number(this.#amount.value),
      paymentMethod: this.#method.value,
    };
    progress.textContent = say('sending');
    let isLeaving = false;
    await this.#session.attempt(
      async () => {
        const found = await pay(this.#session, wanted, addressOf);
        isLeaving = Boolean(found.isLeaving);
        if (!isLeaving) await this.#result.show(found.payment, this.#wordsFor(found));
      },
      { progress, problem: document.getElementById('pay-problem') },
    );
    if (call.signal.aborted) return;
    if (isLeaving) {
      progress.textContent = say('opening');
      return;
    }
    await this.#onChange(); // also after a failure: the list may be out of date
    this.#button.disabled = false;
  }

  /** What is said of the payment that was found or made. */
  #wordsFor({ payment, checkout, isExisting, isOther }) {
    if (hasEnded(payment)) return endedInWords(payment);
    if (isExisting && isPaid(payment)) return { heading: say('already_paid'), notice: say('already_paid_notice') };
    if (isExisting && isOther && payment.status === 'pending') return { notice: otherInWords(this.#session, payment) };
    return { checkout, notice: isExisting ? say('already_open_notice') : '' };
  }

  /** The browser is back from a page of its memory: one may pay again. */
  wake() {
    document.getElementById('progress').textContent = '';
    this.#button.disabled = false;
  }
}
