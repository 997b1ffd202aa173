/**
 * A payment that is not finished, on both pages: what to do now, and whether the money has arrived. Never a dead end: it
 * can be continued or cancelled as long as its gateway is not carrying it out.
 */

import { PaymentError } from './payment-client.js';
import { goOn } from './paying.js';
import { day, money, say, time } from './reader.js';
import { filled } from './views.js';

/**
 * Seconds between two questions to the service. Short at first, because most gateways report within seconds; later rare,
 * because a patient who has left the page open is not waiting any more.
 */
const PAUSES_SECONDS = [1, 2, 2, 3, 5, 8, 13, 20, 30];
/** For money that people send and staff confirm. */
const PAUSE_BY_HAND_SECONDS = 30;
/** Afterwards the reader asks again by a button: a tab that is forgotten must not ask for days. */
const MOST_QUESTIONS = 40;

export class Pending {
  #session;
  #onChange;
  #onCancelled;
  #returnTo;
  #watching = new AbortController();

  /**
   * @param {{onChange: (payment: object) => unknown, onCancelled: (payment: object) => unknown,
   *   returnTo?: (payment: object) => string}} page what the page does when the payment has changed, or when the reader
   *   has cancelled it; and where the gateway's page leads back to, if not to this address
   */
  constructor(session, { onChange, onCancelled, returnTo = () => undefined }) {
    this.#session = session;
    this.#onChange = onChange;
    this.#onCancelled = onCancelled;
    this.#returnTo = returnTo;
  }

  /** Stop asking. */
  stop() {
    this.#watching.abort();
  }

  /**
   * The payment's heading and body; from now on the service is asked what becomes of it.
   * @param {{checkout?: object, readOnly?: boolean}} [more] `checkout`: its session, if it was opened
   * @returns {Promise<{heading: string, lead: string, body: DocumentFragment, isByHand: boolean}>}
   */
  async show(payment, { checkout, readOnly = false } = {}) {
    this.stop();
    const watching = (this.#watching = new AbortController());
    const isUnpaid = payment.status === 'pending';
    const { client, call } = this.#session;
    // Opening the session of a payment by hand has no effect at any gateway, and says how to pay.
    if (!checkout && isUnpaid && !readOnly && this.#session.isByHand(payment)) {
      checkout = await client.openCheckout(payment.id, call);
    }
    const shown = checkout?.instructions ? this.#instructions(payment, checkout) : this.#waiting(payment);
    const part = (name) => shown.body.querySelector(`[data-part=${name}]`);
    const [progress, again] = [part('progress'), part('again')];
    const goes = { problem: part('problem'), progress };
    for (const [name, work] of [
      ['continue', () => this.#continue(payment, progress)],
      ['cancel', () => this.#cancel(payment, progress)],
    ]) {
      const button = part(name);
      if (!button) continue;
      // A payment that its gateway is carrying out can be neither continued nor cancelled.
      button.hidden = readOnly || !isUnpaid;
      button.addEventListener('click', () => this.#session.press(button, work, goes));
    }
    const checked = part('checked');
    const watch = () => this.#watch(payment, { checked, again, readOnly, isByHand: shown.isByHand }, watching.signal);
    again.addEventListener('click', watch);
    queueMicrotask(watch);
    return shown;
  }

  #waiting(payment) {
    const code = payment.payment_method;
    const method = this.#session.methodName(code);
    const body = filled('waiting-template', { continue: say(`continue_with_${code}`, { method }, 'continue_with') });
    const isUnpaid = payment.status === 'pending';
    return {
      heading: say(`waiting_for_${code}`, { method }, 'waiting_for'),
      lead: say(isUnpaid ? 'waiting_lead' : 'processing_lead'),
      body,
      isByHand: false,
    };
  }

  #instructions(payment, { instructions, expires_at: end }) {
    const amount = money(payment.amount, payment.currency);
    const number = String(payment.id);
    const method = this.#session.methodName(payment.payment_method);
    const body = filled('instructions-template', { number, instructions, exact: say('send_exactly', { amount, number }) });
    const copy = body.querySelector('[data-part=copy]');
    const copied = body.querySelector('[data-part=copied]');
    copy.addEventListener('click', async () => {
      copied.textContent = say((await copyText(number)) ? 'copied' : 'copy_failed');
    });
    const lead = end ? say('send_until', { method, end: day(end) }) : say('send_by', { method });
    return { heading: say('send_amount', { amount }), lead, body, isByHand: true };
  }

  async #continue(payment, progress) {
    progress.textContent = say('opening');
    const { isLeaving } = await goOn(this.#session, payment, this.#returnTo(payment));
    if (!isLeaving) await this.#onChange(payment);
    // Until the browser has left, nothing else is to be pressed.
    else await new Promise((resolve) => addEventListener('pageshow', resolve, { once: true }));
  }

  async #cancel(payment, progress) {
    const { client, call } = this.#session;
    progress.textContent = say('cancelling');
    try {
      await client.cancelPayment(payment.id, call);
    } catch (error) {
      if (!(error instanceof PaymentError && error.code === 'invalid-transition')) throw error;
      await this.#onChange(payment); // it was paid, or has ended, in the meantime
      return;
    }
    this.stop();
    await this.#onCancelled(payment);
  }

  /** Ask until the payment has changed; less and less often, and only while somebody looks at the page. */
  async #watch(payment, { checked, again, readOnly, isByHand }, signal) {
    again.hidden = true;
    checked.hidden = false;
    for (let question = 0; question < MOST_QUESTIONS; question += 1) {
      if (question > 0 || isByHand) {
        const seconds = isByHand ? PAUSE_BY_HAND_SECONDS : (PAUSES_SECONDS[question - 1] ?? PAUSES_SECONDS.at(-1));
        await somebodyLooks(seconds, signal);
      }
      if (signal.aborted) return;
      try {
        const found = await this.#ask(payment, readOnly);
        if (signal.aborted) return;
        if (found.status !== payment.status) {
          this.stop();
          await this.#onChange(payment);
          return;
        }
        checked.textContent = say('checked_at', { time: time(new Date().toISOString()) });
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof PaymentError && !error.retryable) {
          this.stop();
          await this.#onChange(payment); // such as a link that was revoked
          return;
        }
        checked.textContent = say('check_failed');
      }
    }
    again.hidden = false;
  }

  #ask(payment, readOnly) {
    const { client, call } = this.#session;
    return readOnly ? client.getPayment(payment.id, call) : client.refreshPayment(payment.id, call);
  }
}

/** Whether the text is in the clipboard now; the browser may not allow it. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // plain http, or refused
  }
}

/** Wait so many seconds and until the page is visible, or until somebody comes back to it; no longer than `signal`. */
function somebodyLooks(seconds, signal) {
  return new Promise((resolve) => {
    let isTime = false;
    const check = (event) => {
      if (!signal.aborted && (document.visibilityState === 'hidden' || !(isTime || event))) return;
      document.removeEventListener('visibilitychange', check);
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(() => {
      isTime = true;
      check();
    }, seconds * 1000);
    document.addEventListener('visibilitychange', check);
    signal.addEventListener('abort', check, { once: true });
  });
}
