/** The page at `/pay/<token>`: one consultation, paid once, by somebody without a password. One screen at a time. */

import { forgetWayBack, PaymentError, wayBack } from './payment-client.js';
import { hasEnded, isPaid, otherInWords, pay } from './paying.js';
import { Pending } from './pending.js';
import { day, GREATEST_AMOUNT, LEAST_AMOUNT, money, percent, say, when } from './reader.js';
import { Session } from './session.js';
import { filled, inWords, saveFile } from './views.js';

const element = (id) => document.getElementById(id);

/** The last part of the address. It is sent to the exchange only; the way back from a gateway's page needs it too. */
const TOKEN = location.pathname.split('/').at(-1);
const HERE = location.pathname + location.search;

const session = new Session(() => start());
const pending = new Pending(session, {
  returnTo: () => HERE,
  onChange: () => start(),
  onCancelled: () => start({ notice: say('cancelled_notice') }),
});

/** What the link is for; read again whenever something may have changed. */
let link = null;
let consultation = null;
/** The id of the unfinished payment that this page has shown. */
let awaited = null;
/** Number of the latest start: an earlier one must not show anything any more. */
let latest = 0;

/** Show one screen, and read its heading out. */
function show(name) {
  for (const screen of document.querySelectorAll('[data-screen]')) screen.hidden = screen.dataset.screen !== name;
  const screen = document.querySelector(`[data-screen=${name}]`);
  const heading = screen.querySelector('h1');
  if (heading) {
    document.title = `${heading.textContent} – ${document.body.dataset.title}`;
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

/** Find out what is to be shown, and show it. @param {{notice?: string}} [words] said on the screen that follows */
async function start({ notice = '' } = {}) {
  const turn = (latest += 1);
  pending.stop();
  session.abandon();
  if (!document.querySelector('[data-screen]:not([hidden])')) show('loading');
  const { client, call } = session;
  try {
    link = await client.openLink(TOKEN, call);
    const asked = { consultationId: link.consultationId, perPage: 1 };
    const [consultations, payments, methods, me] = await Promise.all([
      client.read(`/consultations/${link.consultationId}`, call),
      client.listPayments(asked, call),
      client.read('/payment-methods', call),
      client.read('/me', call),
    ]);
    consultation = consultations.data;
    session.begin(me.data, methods.data);
    const paymentId = consultation.active_payment?.id ?? payments.data[0]?.id;
    const payment = paymentId === undefined ? null : await client.getPayment(paymentId, call);
    if (turn !== latest) return;
    const isBack = wayBackHere() !== null;
    if (payment && (isPaid(payment) || hasEnded(payment))) forgetWayBack(wayBackHere());
    await showPayment(payment, { notice, isBack });
  } catch (error) {
    if (turn !== latest || call.signal.aborted) return;
    if (error instanceof PaymentError && (error.code === 'not-found' || error.status === 401)) {
      forgetWayBack(wayBackHere());
      show('invalid');
    } else {
      if (!(error instanceof PaymentError)) console.error(error);
      element('trouble-reason').textContent = error.status > 0 ? error.message : say('no_answer');
      show('trouble');
    }
  }
}

/** The stored way back, if it leads to this link. */
function wayBackHere() {
  const to = wayBack();
  return to !== null && new URL(to, location.origin).pathname === location.pathname ? to : null;
}

/**
 * Show a payment, or, if there is none that counts, the ways to pay.
 * @param {{notice?: string, isBack?: boolean, checkout?: object}} [about] `isBack`: the reader comes from a gateway's
 *   page; `checkout`: the payment's session, if it was opened
 */
async function showPayment(payment, { notice = '', isBack = false, checkout } = {}) {
  if (!payment) showChoice(notice);
  else if (isPaid(payment)) showPaid(payment, isBack || awaited === payment.id);
  else if (!hasEnded(payment)) await showPending(payment, notice, checkout);
  else if (payment.status === 'failed') showEnded(payment, 'failed');
  else if (payment.status === 'refunded') showEnded(payment, 'refunded');
  else if (link.readOnly || consultation.status === 'closed') showEnded(payment, 'ended');
  else showChoice(notice || (payment.status === 'expired' ? say('expired_notice', amountOf(payment)) : ''));
}

const amountOf = (payment) => ({
  amount: money(payment.amount, payment.currency),
  method: session.methodName(payment.payment_method),
});

/** The name of what is paid, and when it is. */
function what() {
  return consultation.description || say('consultation', { id: consultation.id });
}

// Ways to pay.

function showChoice(notice) {
  if (consultation.status === 'closed' || link.readOnly) {
    show('closed');
    return;
  }
  const { fee, currency } = consultation;
  element('what').textContent = what();
  element('when').textContent = consultation.starts_at ? day(consultation.starts_at) : '';
  element('fee').hidden = fee === null;
  element('fee').textContent = fee === null ? '' : money(fee, currency);
  element('free-amount').hidden = fee !== null;
  const amount = element('amount');
  amount.disabled = fee !== null;
  amount.min = LEAST_AMOUNT;
  amount.max = GREATEST_AMOUNT;
  element('amount-range').textContent = say('amount_range', {
    least: money(LEAST_AMOUNT, currency),
    greatest: money(GREATEST_AMOUNT, currency),
  });
  const chosen = new FormData(element('pay-form')).get('method');
  const ways = [...session.methods.values()];
  element('ways').replaceChildren(...ways.map((method, index) => way(method, chosen ? method.code === chosen : index === 0)));
  element('no-ways').hidden = ways.length > 0;
  element('pay').hidden = ways.length === 0;
  element('choice-notice').textContent = notice;
  element('pay-problem').textContent = '';
  element('pay').disabled = false;
  nameButton();
  show('choose');
}

function way({ code, name, checkout }, isChosen) {
  const choice = filled('way-template', { name, next: say(`next_${checkout}_${code}`, {}, `next_${checkout}`) });
  const input = choice.querySelector('input');
  input.value = code;
  input.checked = isChosen;
  choice.querySelector('label').dataset.testid = `way-${code}`;
  return choice;
}

/** The amount that is to be paid; null if it was not entered yet. */
function wantedAmount() {
  if (consultation.fee !== null) return consultation.fee;
  return element('amount').value ? Number(element('amount').value) : null;
}

/** The button says what it does: how much, and by what. */
function nameButton() {
  const method = session.methods.get(new FormData(element('pay-form')).get('method'));
  const amount = wantedAmount();
  const about = { amount: amount === null ? '' : money(amount, consultation.currency), method: method?.name ?? '' };
  element('pay').textContent = say(amount === null ? 'pay_by' : 'pay_amount_by', about);
}

element('pay-form').addEventListener('input', nameButton);

element('pay-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = element('pay');
  if (button.disabled) return;
  button.disabled = true;
  const progress = element('pay-progress');
  element('choice-notice').textContent = '';
  const wanted = {
    consultationId: consultation.id,
    amount: wantedAmount(),
    paymentMethod: new FormData(event.currentTarget).get('method'),
  };
  progress.textContent = say('sending');
  let isLeaving = false;
  await session.attempt(
    async () => {
      const found = await pay(session, wanted, () => HERE);
      isLeaving = Boolean(found.isLeaving);
      if (isLeaving) return;
      const { payment, isOther, isExisting, checkout } = found;
      if (hasEnded(payment)) await start();
      else await showPayment(payment, { checkout, notice: isExisting && isOther ? otherInWords(session, payment) : '' });
    },
    { progress, problem: element('pay-problem') },
  );
  if (isLeaving) progress.textContent = say('opening');
  else button.disabled = false;
});

// A payment that is not finished.

async function showPending(payment, notice, checkout) {
  awaited = payment.id;
  const shown = await pending.show(payment, { checkout, readOnly: link.readOnly });
  element('pending-heading').textContent = shown.heading;
  const lead = link.readOnly ? say('read_only_lead') : shown.lead;
  element('pending-lead').textContent = notice ? '' : lead;
  element('pending-notice').textContent = notice;
  element('pending-what').replaceChildren(
    ...lines([
      [what(), money(payment.amount, payment.currency)],
      [shown.isByHand ? null : say('payment'), payment.id], // by hand it is shown large
    ]),
  );
  element('pending-body').replaceChildren(shown.body);
  element('pending').dataset.kind = shown.isByHand ? 'by-hand' : 'waiting';
  show('pending');
}

// Paid, or ended without money.

/** @param {boolean} isNow false: it was paid before this page was opened */
function showPaid(payment, isNow) {
  const { amount, method } = amountOf(payment);
  const at = payment.completed_at ? when(payment.completed_at) : '';
  const [invoice] = payment.invoices;
  const [tax] = payment.tax_records;
  element('paid-heading').textContent = isNow ? say('paid_thanks', { name: session.me.name }) : say('already_paid');
  element('paid-lead').textContent = say(isNow ? 'paid_lead' : 'already_paid_lead', { amount, method, at });
  element('receipt').replaceChildren(
    ...lines([
      [what(), consultation.starts_at && day(consultation.starts_at)],
      ...(isNow ? [] : [[say('amount'), amount], [say('paid_by'), method]]), // else the line above says so
      [say('reference'), payment.transaction_id],
      [say('invoice'), invoice?.invoice_number],
      [tax && say('tax', { rate: percent(tax.tax_rate) }), tax && money(tax.amount, payment.currency)],
      [say('refunded'), payment.refunded_amount > 0 ? money(payment.refunded_amount, payment.currency) : null],
      [say('refund_to_be_sent'), toBeSent(payment)],
      [say('payment'), payment.id],
    ]),
  );
  element('papers').replaceChildren(...papers(payment));
  element('papers-problem').textContent = '';
  leadOn(element('lead-on'));
  show('paid');
}

/** @param {'failed'|'refunded'|'ended'} how */
function showEnded(payment, how) {
  const mayPay = !link.readOnly && consultation.status !== 'closed';
  element('ended').dataset.kind = how;
  element('ended-heading').textContent = say(`${how}_heading_${payment.payment_method}`, amountOf(payment), `${how}_heading`);
  element('ended-lead').textContent = say(`${how}_lead`, { ...amountOf(payment), status: inWords(payment.status) });
  element('ended-what').replaceChildren(
    ...lines([
      [what(), money(payment.amount, payment.currency)],
      [say('payment'), payment.id],
      [say('refunded'), payment.refunded_amount > 0 ? money(payment.refunded_amount, payment.currency) : null],
      [say('refund_to_be_sent'), toBeSent(payment)],
    ]),
  );
  element('ended-papers').replaceChildren(...(how === 'refunded' ? papers(payment) : []));
  element('ended-papers-problem').textContent = '';
  element('choose-again').hidden = !mayPay;
  leadOn(element('ended-lead-on'));
  show('ended');
}

/** Buttons for the invoice and the credit notes. The token goes in a header, so they cannot be plain links. */
function papers({ invoices: [invoice], refunds }) {
  const notes = refunds.filter(({ status, credit_note_id: id }) => status === 'succeeded' && id !== null);
  return [
    ...(invoice ? [paper(say('invoice_pdf'), `/invoices/${invoice.id}.pdf`)] : []),
    ...notes.map((refund) =>
      paper(
        say('credit_note_pdf', { amount: money(refund.amount, refund.currency) }),
        `/credit-notes/${refund.credit_note_id}.pdf`,
      ),
    ),
  ];
}

function paper(name, path) {
  const row = filled('paper-template', { name });
  const button = row.querySelector('button');
  button.addEventListener('click', (event) => {
    const problem = event.currentTarget.closest('.screen').querySelector('.problem');
    session.press(button, async () => saveFile(await session.client.download(path, session.call)), { problem });
  });
  return row;
}

/** The amount that the clinic still has to send back by hand; null if there is none. */
function toBeSent({ refunds = [], currency }) {
  const amount = refunds
    .filter(({ by_hand: byHand, status }) => byHand && status === 'pending')
    .reduce((sum, refund) => sum + refund.amount, 0);
  return amount > 0 ? money(amount, currency) : null;
}

/** The link to where the booking system wants the patient to go on. */
function leadOn(anchor) {
  anchor.hidden = !link.returnUrl;
  if (link.returnUrl) anchor.href = link.returnUrl;
}

/** Rows of a list; those without a value are left out. */
function lines(rows) {
  return rows
    .filter(([name, value]) => name && value !== null && value !== undefined && value !== '')
    .map(([name, value]) => filled('line-template', { name, value }));
}

element('choose-again').addEventListener('click', () => showChoice(''));
element('print').addEventListener('click', () => print());
element('again').addEventListener('click', () => start());
element('language').addEventListener('change', (event) => {
  location.replace(`?${new URLSearchParams({ language: event.currentTarget.value })}`);
});

// A page from the browser's memory shows what was so before the reader left for the gateway's page.
addEventListener('pageshow', (event) => {
  if (event.persisted) start();
});

await start();
