/** Payments, newest first, fifteen at a time. */

import { historyLine } from './views.js';

export class History {
  #list = document.getElementById('history');
  #more = document.getElementById('more');
  #session;
  #onDetails;
  #cursor = null;

  /** @param {(paymentId: number) => void} onDetails */
  constructor(session, onDetails) {
    this.#session = session;
    this.#onDetails = onDetails;
    this.#more.addEventListener('click', () => session.attempt(() => this.#loadMore()));
  }

  /** The newest, afresh. */
  async load() {
    const page = await this.#session.client.listPayments();
    this.#list.replaceChildren();
    document.getElementById('no-payments').hidden = page.data.length > 0;
    this.#show(page);
  }

  async #loadMore() {
    this.#more.disabled = true; // a page is shown once, however often it is asked for
    try {
      const firstNew = this.#show(await this.#session.client.listPayments({ cursor: this.#cursor }));
      firstNew?.querySelector('button').focus();
    } finally {
      this.#more.disabled = false;
    }
  }

  #show({ data, meta }) {
    const shown = this.#list.children.length;
    this.#list.append(...data.map((payment) => historyLine(payment, this.#onDetails)));
    this.#cursor = meta.next_cursor;
    this.#more.hidden = !this.#cursor;
    return this.#list.children[shown];
  }
}
