/** The page at `/`: sign-in, and which parts a user sees. Payments are made by payment-client.js. */

import { PaymentClient, PaymentError, PaymentUnknown } from './payment-client.js';
import { History } from './history.js';
import { PayForm } from './pay-form.js';
import { LANGUAGE, say } from './reader.js';
import { Result } from './result.js';

const element = (id) => document.getElementById(id);

/** Shared by all parts of the page: the client, the signed-in user, and how progress and errors are shown. */
class Session {
  /** The signed-in user, or null. */
  me = null;
  methods = {};
  /** Element that shows the progress of the running request. @type {HTMLElement|null} */
  #progress = null;
  #ended = new AbortController();

  constructor() {
    this.client = new PaymentClient({ language: LANGUAGE, onProgress: (step) => this.#tell(step) });
  }

  get isStaff() {
    return this.me.role === 'admin';
  }

  /** Passed to every call: after sign-out a user's requests are abandoned, and their results are not shown. */
  get call() {
    return { signal: this.#ended.signal };
  }

  end() {
    this.me = null;
    this.#ended.abort();
    this.#ended = new AbortController();
    this.client.signOut();
  }

  /**
   * Run `work`; show its progress in one element and its error in another.
   * @param {{progress?: HTMLElement|null, problem?: HTMLElement, unknown?: string}} [where] the elements, and the name of
   *   the text for an unknown outcome
   */
  async attempt(work, { progress = null, problem = element('page-problem'), unknown = 'unknown' } = {}) {
    const { signal } = this.call;
    problem.textContent = '';
    if (progress) this.#progress = progress;
    try {
      await work();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof PaymentError && error.status === 401 && this.me) leave(say('session_over'));
      else problem.textContent = inWords(error, unknown);
    } finally {
      if (progress && !signal.aborted) {
        progress.textContent = '';
        this.#progress = null;
      }
    }
  }

  /** Run a button's work; the button is disabled meanwhile. */
  async press(button, work) {
    button.disabled = true;
    await this.attempt(work);
    button.disabled = false;
  }

  #tell(step) {
    if (!this.#progress) return;
    if (step.phase === 'waiting') this.#progress.textContent = say('waiting', step);
    if (step.phase === 'asking') this.#progress.textContent = say('asking');
  }
}

/** An error as a text for the user. A bug of the page goes to the console too. */
function inWords(error, unknown) {
  if (error instanceof PaymentError) {
    const reasons = Object.values(error.problem.errors ?? {}).flat();
    if (error.status === 0) return say('no_answer');
    return reasons.length ? reasons.join(' ') : error.message;
  }
  if (!(error instanceof PaymentUnknown)) console.error(error);
  return say(unknown);
}

const session = new Session();
const result = new Result(session, () => refresh());
const history = new History(session, (paymentId) => session.attempt(() => result.load(paymentId)));
const payForm = new PayForm(session, result, () => refresh());

/** Reload consultations and payments. */
async function refresh() {
  await session.attempt(() => Promise.all([session.isStaff ? null : payForm.load(), history.load()]));
}

async function enter() {
  const { client, call } = session;
  const [me, methods] = await Promise.all([client.read('/me', call), client.read('/payment-methods', call)]);
  if (!['patient', 'admin'].includes(me.data.role)) {
    leave(say('not_for_you'));
    return;
  }
  session.me = me.data;
  session.methods = Object.fromEntries(methods.data.map((method) => [method.code, method.name]));
  payForm.offer(methods.data);
  await Promise.all([session.isStaff ? null : payForm.load(), history.load()]);
  element('account-name').textContent = say('signed_in_as', { name: session.me.name });
  element('sign-in').hidden = true;
  element('account').hidden = false;
  element('checkout').hidden = session.isStaff;
  element('history-section').hidden = false;
}

/** Sign out: show the sign-in form with a reason, and remove all data of the user from the page. */
function leave(reason = '') {
  session.end();
  for (const part of [result, history, payForm]) part.clear();
  for (const part of ['account', 'checkout', 'history-section']) element(part).hidden = true;
  for (const text of document.querySelectorAll('.problem, .progress')) text.textContent = '';
  element('sign-in').hidden = false;
  element('sign-in-problem').textContent = reason;
}

/** After a reload the user is still signed in. */
async function start() {
  const progress = element('page-progress');
  element('again').hidden = true;
  if (!session.client.signedIn) {
    leave();
    return;
  }
  progress.textContent = say('loading');
  await session.attempt(enter, { progress });
  element('again').hidden = Boolean(session.me) || !session.client.signedIn;
}

element('sign-in-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  const button = form.querySelector('button');
  const { email, password } = Object.fromEntries(new FormData(form));
  const progress = element('sign-in-progress');
  button.disabled = true;
  progress.textContent = say('signing_in');
  await session.attempt(
    async () => {
      await session.client.signIn(email, password, session.call);
      form.reset();
      await enter();
    },
    { progress, problem: element('sign-in-problem') },
  );
  button.disabled = false;
});

element('sign-out').addEventListener('click', () => leave());

element('again').addEventListener('click', start);

element('language').addEventListener('change', (event) => {
  location.assign(`?${new URLSearchParams({ language: event.currentTarget.value })}`);
});

await start();
