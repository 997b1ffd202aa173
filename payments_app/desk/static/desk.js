/** The page of the front desk: sign-in, what is searched, and the keys. What is open is in the address, after the #. */

import { midnight, say, today } from '../../checkout/static/reader.js';
import { Session } from '../../checkout/static/session.js';
import { comeBack, onSignIn, showSignIn } from '../../checkout/static/sign-in.js';
import { saveFile } from '../../checkout/static/views.js';
import { OpenPayment } from './open-payment.js';
import { PaymentList } from './payment-list.js';

/** Milliseconds after the last key until a search begins. */
const TYPING_MS = 250;
/** Milliseconds between two looks at the queues, while the page is visible. */
const COUNT_AGAIN_MS = 60_000;
/** What the address says. Never what is searched: names and addresses of patients are not for logs and histories. */
const IN_ADDRESS = ['payment', 'queue', 'status', 'method', 'day'];

const element = (id) => document.getElementById(id);

const session = new Session(() => leave(say('session_over')));
const onPage = { problem: element('page-problem') };
const list = new PaymentList(session, (id) => navigate({ payment: String(id) }));
const open = new OpenPayment(session, () => refresh());

/** What is shown now. */
let shown = {};

function inAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(IN_ADDRESS.map((name) => [name, given.get(name) ?? '']));
}

function navigate(changes) {
  const wanted = Object.entries({ ...inAddress(), ...changes }).filter(([, value]) => value);
  history.pushState(null, '', `${location.pathname}${location.search}#${new URLSearchParams(wanted)}`);
  return show();
}

/** Show what the address says. */
async function show() {
  const before = shown;
  shown = inAddress();
  for (const chip of document.querySelectorAll('[data-queue]')) chip.setAttribute('aria-pressed', String(chip.dataset.queue === shown.queue));
  for (const name of ['status', 'method', 'day']) element(name).value = shown[name];
  element('today').setAttribute('aria-pressed', String(shown.day === today()));
  const isSearchNew = ['queue', 'status', 'method', 'day'].some((name) => before[name] !== shown[name]);
  document.body.classList.toggle('has-open', Boolean(shown.payment));
  list.mark(shown.payment || null);
  await Promise.all([isSearchNew ? search() : null, shown.payment === before.payment ? null : showPayment(before.payment)]);
}

async function showPayment(before) {
  if (/^[1-9][0-9]*$/.test(shown.payment)) {
    await open.open(shown.payment);
    return;
  }
  open.close();
  if (before) list.goTo(before);
}

function search() {
  const { queue, status, method, day } = shown;
  return list.load({ search: element('search').value.trim(), queue, status, payment_method: method, day });
}

/** A payment has changed. */
async function refresh() {
  await Promise.all([list.load(), session.attempt(() => list.count(), onPage)]);
}

async function enter() {
  const { client, call } = session;
  const [me, methods] = await Promise.all([client.read('/me', call), client.read('/payment-methods', call)]);
  if (me.data.role !== 'admin') {
    leave(say('for_staff'));
    return;
  }
  session.begin(me.data, methods.data);
  for (const method of methods.data) session.methods.set(method.code, method); // also what this page could not pay by
  const names = methods.data.map(({ code, name }) => new Option(name, code));
  element('method').replaceChildren(element('method').options[0], ...names);
  element('account-name').textContent = say('staff', { name: session.me.name });
  for (const part of ['desk', 'account', 'search-form']) element(part).hidden = false;
  element('sign-in').hidden = true;
  await Promise.all([show(), session.attempt(() => list.count(), onPage)]);
}

/** Sign out: show the sign-in form with a reason, and remove all data from the page. */
function leave(reason = '') {
  session.end();
  open.close();
  list.clear();
  shown = {};
  element('search').value = '';
  for (const part of ['desk', 'account', 'search-form']) element(part).hidden = true;
  showSignIn(reason);
}

const start = () => comeBack(session, enter, leave);

function exportPayments() {
  const { status, method, day, queue } = shown;
  const conditions = {
    status,
    payment_method: method,
    created_from: day && midnight(day),
    created_to: day && midnight(day, 1),
    needs_review: queue === 'needs_review' && 'true',
  };
  const query = new URLSearchParams(Object.entries(conditions).filter(([, value]) => value));
  const progress = element('export-progress');
  progress.textContent = say('downloading');
  const save = async () => {
    const { blob } = await session.client.download(`/payments.csv?${query}`, session.call);
    saveFile({ blob, name: `payments-${day || today()}.csv` });
  };
  return session.press(element('export'), save, { progress, problem: element('export-problem') });
}

onSignIn(session, enter);
element('sign-out').addEventListener('click', () => leave());
element('again').addEventListener('click', start);
element('close').addEventListener('click', () => navigate({ payment: '' }));
element('export').addEventListener('click', exportPayments);
element('today').addEventListener('click', () => navigate({ day: shown.day === today() ? '' : today() }));
for (const chip of document.querySelectorAll('[data-queue]')) chip.addEventListener('click', () => navigate({ queue: chip.dataset.queue }));
for (const name of ['status', 'method', 'day']) element(name).addEventListener('change', (event) => navigate({ [name]: event.currentTarget.value }));
element('language').addEventListener('change', (event) => {
  location.search = new URLSearchParams({ language: event.currentTarget.value });
});
addEventListener('popstate', () => session.me && show());

let typing = 0;
element('search').addEventListener('input', () => {
  clearTimeout(typing);
  typing = setTimeout(search, TYPING_MS);
});
element('search-form').addEventListener('submit', (event) => {
  event.preventDefault();
  clearTimeout(typing);
  search();
});

addEventListener('keydown', (event) => {
  if (!session.me || event.altKey || event.ctrlKey || event.metaKey || document.querySelector('dialog[open]')) return;
  const isTyping = event.target.matches('input, select, textarea');
  const isSearch = event.target === element('search');
  const by = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  if (event.key === 'Escape' && shown.payment) navigate({ payment: '' });
  else if (event.key === '/' && !isTyping) element('search').focus();
  else if (by && (!isTyping || (isSearch && event.key === 'ArrowDown'))) list.move(by);
  else return;
  event.preventDefault();
});

setInterval(() => {
  if (session.me && document.visibilityState === 'visible') list.count().catch(() => {}); // the next one may get through
}, COUNT_AGAIN_MS);

await start();
