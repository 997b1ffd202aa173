/** The payments that were searched, newest first, and the queues with their lengths. */

import { day, isToday, money, say, time } from '../../checkout/static/reader.js';
import { filled } from '../../checkout/static/views.js';
import { consultationName, paint, states } from './words.js';

const element = (id) => document.getElementById(id);

export class PaymentList {
  #rows = element('rows');
  #more = element('more');
  #session;
  #onOpen;
  #cursor = null;
  #query = '';
  #open = null;
  /** Number of the latest request: only its payments are shown. */
  #latest = 0;

  /** @param {(id: number|string) => void} onOpen */
  constructor(session, onOpen) {
    this.#session = session;
    this.#onOpen = onOpen;
    this.#more.addEventListener('click', () => session.press(this.#more, () => this.#loadMore(), { problem: element('list-problem') }));
  }

  clear() {
    this.#latest += 1;
    this.#rows.replaceChildren();
    element('found').textContent = '';
  }

  /** Load the newest payments of a search. @param {Record<string, string>} conditions those without a value are ignored */
  async load(conditions = null) {
    if (conditions) this.#query = String(new URLSearchParams(Object.entries(conditions).filter(([, value]) => value)));
    const turn = (this.#latest += 1);
    const { client, call } = this.#session;
    const progress = element('list-progress');
    progress.textContent = say('loading');
    await this.#session.attempt(
      async () => {
        const page = await client.read(`/desk/payments?${this.#query}`, call);
        if (turn !== this.#latest) return;
        const focused = this.#buttons().findIndex((button) => button === document.activeElement);
        this.#rows.replaceChildren();
        this.#show(page);
        if (focused >= 0) this.#focus(focused);
      },
      { problem: element('list-problem') },
    );
    if (turn === this.#latest) progress.textContent = '';
  }

  /** The lengths of the queues. */
  async count() {
    const { data } = await this.#session.client.read('/desk/queues', this.#session.call);
    for (const chip of document.querySelectorAll('[data-queue]')) {
      const number = data[chip.dataset.queue];
      if (number !== undefined) chip.querySelector('b').textContent = number || '';
    }
  }

  /** Mark the row of the payment that is open; null: of none. */
  mark(id) {
    this.#open = id;
    for (const row of this.#rows.children) {
      const isOpen = row.dataset.id === String(id);
      row.classList.toggle('current', isOpen);
      row.querySelector('button').setAttribute('aria-expanded', String(isOpen));
    }
  }

  /** Go to a row: the next one (1) or the one before (-1), from where the reader is. */
  move(by) {
    const buttons = this.#buttons();
    const from = buttons.findIndex((button) => button === document.activeElement);
    this.#focus(from < 0 ? 0 : from + by);
  }

  /** Go back to the row of a payment, or else to the search. */
  goTo(id) {
    (this.#rows.querySelector(`[data-id="${id}"] button`) ?? element('search')).focus();
  }

  async #loadMore() {
    const shown = this.#rows.children.length;
    const next = new URLSearchParams(this.#query);
    next.set('cursor', this.#cursor);
    this.#show(await this.#session.client.read(`/desk/payments?${next}`, this.#session.call));
    this.#focus(shown);
  }

  #buttons() {
    return [...this.#rows.querySelectorAll('button')];
  }

  #focus(number) {
    const buttons = this.#buttons();
    buttons[Math.max(0, Math.min(number, buttons.length - 1))]?.focus();
  }

  #show({ data, meta }) {
    this.#rows.append(...data.map((row) => this.#line(row)));
    this.#cursor = meta.next_cursor;
    this.#more.hidden = !this.#cursor;
    const number = this.#rows.children.length;
    const name = this.#cursor ? 'found_more' : { 0: 'found_none', 1: 'found_one' }[number] ?? 'found';
    element('found').textContent = say(name, { number });
    this.mark(this.#open);
  }

  #line(row) {
    const { payment, patient, consultation } = row;
    const line = filled('row-template', {
      name: patient.name,
      email: patient.email,
      consultation: consultationName(consultation),
      description: consultation.description,
      method: this.#session.methodName(payment.payment_method),
      amount: money(payment.amount, payment.currency),
      when: isToday(payment.created_at) ? time(payment.created_at) : day(payment.created_at),
    }).firstElementChild;
    line.dataset.id = payment.id;
    line.querySelector('button').setAttribute('aria-label', say('open_payment', { name: patient.name, id: payment.id }));
    line.querySelector('time').dateTime = payment.created_at;
    paint(line.querySelector('.pill'), states(row)[0]);
    line.addEventListener('click', () => this.#onOpen(payment.id));
    return line;
  }
}
