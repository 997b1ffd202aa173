/** The form: choose a consultation and a method, and pay once. */

import { ENDED } from './payment-client.js';
import { GREATEST_AMOUNT, LEAST_AMOUNT, money, say } from './reader.js';
import { consultationChoice, inWords } from './views.js';

/** Statuses of active payments that are paid. */
const PAID = ['completed', 'partially_refunded'];

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
    this.#more.addEventListener('click', () => session.press(this.#more, () => this.#loadPage()));
  }

  /** Offer these methods. */
  offer(methods) {
    this.#method.replaceChildren(...methods.map(({ code, name }) => new Option(name, code)));
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
    const { client, call } = this.#session;
    const progress = document.getElementById('progress');
    const wanted = {
      consultationId: this.#chosen().id,
      amount: Number(this.#amount.value),
      paymentMethod: this.#method.value,
    };
    progress.textContent = say('sending');
    await this.#session.attempt(async () => this.#proceed(await client.createPayment(wanted, call), wanted, call, progress), {
      progress,
      problem: document.getElementById('pay-problem'),
    });
    if (call.signal.aborted) return;
    await this.#onChange(); // also after a failure: the list may be out of date
    this.#button.disabled = false;
  }

  /** Continue with a new or an existing payment: show it, confirm it in the sandbox, or show how to pay. */
  async #proceed({ type, data }, wanted, call, progress) {
    const { client, methods } = this.#session;
    const payment = await client.getPayment(data.payment_id, call);
    const isOther = payment.amount !== wanted.amount || payment.payment_method !== wanted.paymentMethod;
    if (payment.status !== 'pending') await this.#result.show(payment, wordsFor(payment, type === 'existing'));
    else if (type === 'existing' && isOther) {
      const about = { amount: money(payment.amount), method: methods[payment.payment_method] ?? payment.payment_method };
      await this.#result.show(payment, { heading: say('open'), notice: say('other_open_notice', about) });
    } else if (payment.gateway === 'sandbox') {
      progress.textContent = say('confirming');
      // Always the same transaction id: another tab that confirms it too gets the same payment.
      await client.confirmPayment(payment.id, { transactionId: `sandbox-${payment.id}` }, call);
      await this.#result.load(payment.id, { heading: say('paid') });
    } else {
      const { instructions, reference } = await client.openCheckout(payment.id, call);
      const already = type === 'existing' ? `${say('already_open_notice')} ` : '';
      const how = instructions ?? say('card_notice', { reference });
      await this.#result.show(payment, { heading: say('open'), notice: already + how });
    }
  }
}

/** Heading and notice of a payment for which the patient has nothing to do. */
function wordsFor(payment, isExisting) {
  if (ENDED.includes(payment.status)) return { notice: say('ended_notice', { status: inWords(payment.status) }) };
  if (!isExisting) return {};
  if (PAID.includes(payment.status)) return { heading: say('already_paid'), notice: say('already_paid_notice') };
  return { notice: say('already_open_notice') };
}
