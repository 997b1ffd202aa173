/** The page at `/`: signing in, and what is shown to whom. Paying itself is payment-client.js. */

import { PaymentClient, PaymentError, PaymentUnknown } from './payment-client.js';
import { History } from './history.js';
import { PayForm } from './pay-form.js';
import { LANGUAGE, say } from './reader.js';
import { Result } from './result.js';

const element = (id) => document.getElementById(id);

/** What the parts of the page share: the client, who is signed in, and how trouble is told. */
class Session {
  /** Who is signed in; null: nobody. */
  me = null;
  methods = {};
  /** Where the steps of a payment under way are told. @type {HTMLElement|null} */
  #progress = null;
  #ended = new AbortController();

  constructor() {
    this.client = new PaymentClient({ language: LANGUAGE, onProgress: (step) => this.#tell(step) });
  }

  get isStaff() {
    return this.me.role === 'admin';
  }

  /** For every call: what one user began is not gone on with, nor shown, once they have left. */
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
   * Do something, telling its progress in one place and what went wrong in another.
   * @param {{progress?: HTMLElement|null, problem?: HTMLElement, unknown?: string}} [where] and the text for not knowing
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

  /** Do what a button is for, once for each press that is not made meanwhile. */
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

/** What went wrong, for the person in front of it; a bug of the page's is the console's, too. */
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

/** Show what is so by now. */
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

/** Back to the door, with a reason where there is one; nothing of whoever leaves stays behind. */
function leave(reason = '') {
  session.end();
  for (const part of [result, history, payForm]) part.clear();
  for (const part of ['account', 'checkout', 'history-section']) element(part).hidden = true;
  for (const told of document.querySelectorAll('.problem, .progress')) told.textContent = '';
  element('sign-in').hidden = false;
  element('sign-in-problem').textContent = reason;
}

/** Whoever was signed in before a reload still is. */
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
