/** The page at `/`: signing in, and what is shown to whom. Paying itself is payment-client.js. */

import { PaymentClient, PaymentError, PaymentUnknown } from './payment-client.js';
import { History } from './history.js';
import { PayForm } from './pay-form.js';
import { LANGUAGE, say } from './reader.js';
import { Result } from './result.js';

const element = (id) => document.getElementById(id);

/** What the parts of the page share: the client, who is signed in, and how trouble is told. */
class Session {
  /** Where the steps of a payment under way are told. @type {HTMLElement|null} */
  progress = null;
  me = null;
  methods = {};

  constructor() {
    this.client = new PaymentClient({ language: LANGUAGE, onProgress: (step) => this.#tell(step) });
  }

  get isStaff() {
    return this.me.role === 'admin';
  }

  /** Do something, telling its progress in one place and what went wrong in another. */
  async attempt(work, { progress = null, problem = element('page-problem') } = {}) {
    problem.textContent = '';
    this.progress = progress;
    try {
      return await work();
    } catch (error) {
      if (error instanceof PaymentError && error.status === 401) leave(say('session_over'));
      else problem.textContent = inWords(error);
      return undefined;
    } finally {
      if (progress) progress.textContent = '';
      this.progress = null;
    }
  }

  #tell(step) {
    if (!this.progress) return;
    if (step.phase === 'waiting') this.progress.textContent = say('waiting', step);
    if (step.phase === 'asking') this.progress.textContent = say('asking');
  }
}

/** What went wrong, for the person in front of it; a bug of the page's is the console's, too. */
function inWords(error) {
  if (error instanceof PaymentUnknown) return say('unknown');
  if (error instanceof PaymentError && error.status > 0) {
    const reasons = Object.values(error.problem.errors ?? {}).flat();
    return reasons.length ? reasons.join(' ') : error.message;
  }
  if (!(error instanceof PaymentError)) console.error(error);
  return say('no_answer');
}

const session = new Session();
const result = new Result(session, () => refresh());
const history = new History(session, (paymentId) => session.attempt(() => result.load(paymentId)));
const payForm = new PayForm(session, result, () => refresh());

async function refresh() {
  await Promise.all([session.isStaff ? null : payForm.load(), history.load()]);
}

async function enter() {
  const [me, methods] = await Promise.all([session.client.read('/me'), session.client.read('/payment-methods')]);
  if (!['patient', 'admin'].includes(me.data.role)) {
    leave(say('not_for_you'));
    return;
  }
  session.me = me.data;
  session.methods = Object.fromEntries(methods.data.map((method) => [method.code, method.name]));
  payForm.offer(methods.data);
  await refresh();
  element('account-name').textContent = say('signed_in_as', { name: session.me.name });
  element('sign-in').hidden = true;
  element('account').hidden = false;
  element('checkout').hidden = session.isStaff;
  element('history-section').hidden = false;
}

/** Back to the door, with a reason where there is one. */
function leave(reason = '') {
  session.client.signOut();
  for (const part of ['account', 'checkout', 'history-section', 'result']) element(part).hidden = true;
  element('sign-in').hidden = false;
  element('sign-in-problem').textContent = reason;
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
      await session.client.signIn(email, password);
      form.reset();
      await enter();
    },
    { progress, problem: element('sign-in-problem') },
  );
  button.disabled = false;
});

element('sign-out').addEventListener('click', () => leave());

element('language').addEventListener('change', (event) => {
  location.assign(`?${new URLSearchParams({ language: event.currentTarget.value })}`);
});

if (session.client.signedIn) await session.attempt(enter);
else leave();
