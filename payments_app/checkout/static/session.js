/** Shared by all parts of a page: the client, the user, and how progress and errors are shown. */

import { PaymentClient, PaymentError, PaymentUnknown } from './payment-client.js';
import { LANGUAGE, say } from './reader.js';

export class Session {
  /** The user, or null. */
  me = null;
  /** Methods that this page can pay by, by their codes. */
  methods = new Map();
  #whenOver;
  /** Element that shows the progress of the running request. @type {HTMLElement|null} */
  #progress = null;
  #ended = new AbortController();

  /** @param {() => void} whenOver called when the service no longer accepts the login or the link */
  constructor(whenOver) {
    this.#whenOver = whenOver;
    this.client = new PaymentClient({ language: LANGUAGE, onProgress: (step) => this.#tell(step) });
  }

  get isStaff() {
    return this.me?.role === 'admin';
  }

  /** Passed to every call: after the end a user's requests are abandoned, and their results are not shown. */
  get call() {
    return { signal: this.#ended.signal };
  }

  /** Keep the user and the methods. A method that needs a card form is left out: these pages have none. */
  begin(me, methods) {
    this.me = me;
    this.methods = new Map(methods.map((method) => [method.code, method]));
    for (const { code, checkout } of methods) if (checkout === 'client_secret') this.methods.delete(code);
  }

  methodName(code) {
    return this.methods.get(code)?.name ?? code;
  }

  /** Whether the payment is paid by hand, so that its instructions can be shown at once. */
  isByHand(payment) {
    return this.methods.get(payment.payment_method)?.checkout === 'instructions';
  }

  end() {
    this.me = null;
    this.abandon();
    this.client.signOut();
  }

  /** Abandon the requests that are under way. */
  abandon() {
    this.#ended.abort();
    this.#ended = new AbortController();
  }

  /**
   * Run `work`; show its progress in one element and its error in another.
   * @param {() => Promise<unknown>} work
   * @param {{progress?: HTMLElement|null, problem: HTMLElement, unknown?: string}} where the elements, and the name of
   *   the text for an unknown outcome
   */
  async attempt(work, { progress = null, problem, unknown = 'unknown' }) {
    const { signal } = this.call;
    problem.textContent = '';
    if (progress) this.#progress = progress;
    try {
      await work();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof PaymentError && error.status === 401 && this.me) this.#whenOver();
      else problem.textContent = errorInWords(error, unknown);
    } finally {
      if (progress && !signal.aborted) {
        progress.textContent = '';
        this.#progress = null;
      }
    }
  }

  /** Run a button's work; the button is disabled meanwhile. @param {{problem: HTMLElement}} where */
  async press(button, work, where) {
    if (button.disabled) return;
    button.disabled = true;
    await this.attempt(work, where);
    button.disabled = false;
  }

  #tell(step) {
    if (!this.#progress) return;
    if (step.phase === 'waiting') this.#progress.textContent = say('waiting', step);
    if (step.phase === 'asking') this.#progress.textContent = say('asking');
  }
}

/** An error as a text for the user. A bug of the page goes to the console too. */
function errorInWords(error, unknown) {
  if (error instanceof PaymentError) {
    const reasons = Object.values(error.problem.errors ?? {}).flat();
    if (error.status === 0) return say('no_answer');
    return reasons.length ? reasons.join(' ') : error.message;
  }
  if (!(error instanceof PaymentUnknown)) console.error(error);
  return say(unknown);
}
