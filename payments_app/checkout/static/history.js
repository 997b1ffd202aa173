/** Payments, newest first, fifteen at a time. */

import { historyLine } from './views.js';

export class History {
  #list = document.getElementById('history');
  #more = document.getElementById('more');
  #session;
  #onDetails;
  #cursor = null;

  /** @param {(paymentId: number|string) => void} onDetails */
  constructor(session, onDetails) {
    this.#session = session;
    this.#onDetails = onDetails;
    this.#more.addEventListener('click', () => session.press(this.#more, () => this.#loadMore(), { problem: document.getElementById('page-problem') }));
  }

  clear() {
    this.#list.replaceChildren();
    this.#cursor = null;
  }

  /** Reload the newest page. */
  async load() {
    const page = await this.#session.client.listPayments({}, this.#session.call);
    this.clear();
    document.getElementById('no-payments').hidden = page.data.length > 0;
    this.#show(page);
  }

  async #loadMore() {
    if (!this.#cursor) return;
    const page = await this.#session.client.listPayments({ cursor: this.#cursor }, this.#session.call);
    this.#show(page)?.querySelector('button').focus();
  }

  /** Append a page; returns the first new line. */
  #show({ data, meta }) {
    const shown = this.#list.children.length;
    this.#list.append(...data.map((payment) => historyLine(payment, this.#onDetails)));
    this.#cursor = meta.next_cursor;
    this.#more.hidden = !this.#cursor;
    return this.#list.children[shown];
  }
}
