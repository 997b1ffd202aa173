/** Responses of the API as elements: copies of the page's templates, filled with text and never with markup. */

import { knows, LANGUAGE, money, percent, say, when } from './reader.js';

/** A copy of a template with each `data-fill` filled. A row whose value is null or undefined is removed. */
export function filled(template, values) {
  const copy = document.getElementById(template).content.cloneNode(true);
  for (const element of copy.querySelectorAll('[data-fill]')) {
    const value = values[element.dataset.fill];
    element.textContent = value ?? '';
    if (value === undefined || value === null) element.closest('dl > div')?.remove();
  }
  return copy;
}

/** A status in the reader's language. */
export function inWords(status) {
  return knows(`status_${status}`) ? say(`status_${status}`) : status;
}

/** A consultation to choose. @param {boolean} chosen */
export function consultationChoice(consultation, chosen) {
  const status = consultation.active_payment?.status ?? 'unpaid';
  const choice = filled('consultation-template', {
    name: say('consultation', { id: consultation.id }),
    fee: consultation.fee === null ? say('any_amount') : money(consultation.fee, consultation.currency),
    state: inWords(status),
  });
  choice.querySelector('label').dataset.testid = `consultation-${consultation.id}`;
  choice.querySelector('.state').dataset.status = status;
  const input = choice.querySelector('input');
  input.value = String(consultation.id);
  input.checked = chosen;
  return choice;
}

/** A line of the history. @param {(paymentId: number|string) => void} onDetails */
export function historyLine(payment, onDetails) {
  const line = filled('history-template', {
    amount: money(payment.amount, payment.currency),
    status: inWords(payment.status),
    name: say('consultation', { id: payment.consultation_id }),
    when: when(payment.created_at),
  });
  line.querySelector('time').dateTime = payment.created_at;
  line.querySelector('.state').dataset.status = payment.status;
  const details = line.querySelector('button');
  details.setAttribute('aria-label', `${details.textContent}: ${say('payment_heading', { id: payment.id })}`);
  details.addEventListener('click', () => onDetails(payment.id));
  return line;
}

/** A payment with its invoice and VAT. @param {(code: string) => string} methodName */
export function paymentDetails(payment, methodName) {
  const [invoice] = payment.invoices;
  const [tax] = payment.tax_records;
  const details = filled('payment-template', {
    consultation: payment.consultation_id,
    id: payment.id,
    status: inWords(payment.status),
    amount: money(payment.amount, payment.currency),
    tax_name: tax && say('tax', { rate: percent(tax.tax_rate) }),
    tax: tax && money(tax.amount, payment.currency),
    invoice: invoice && `${invoice.invoice_number} (${say(`invoice_${invoice.status}`)})`,
    method: methodName(payment.payment_method),
    transaction: payment.transaction_id,
    returned: payment.refunded_amount > 0 ? money(payment.refunded_amount, payment.currency) : null,
    created: when(payment.created_at),
  });
  details.querySelector('dl').append(...payment.refunds.map(refundLine));
  return details;
}

/** Staff have to send the money themselves. */
function isToBeSent(refund) {
  return refund.by_hand && refund.status === 'pending';
}

/** A refund as one more line of its payment. */
function refundLine(refund) {
  return filled('refund-template', {
    name: say('refund_heading', { id: refund.id }),
    outcome: `${money(refund.amount, refund.currency)} (${say(`refund_status_${isToBeSent(refund) ? 'to_be_sent' : refund.status}`)})`,
  });
}

/** History and refund button, for staff. @param {(() => void)|null} onRefund null: nothing can be refunded */
export function staffDetails(events, onRefund) {
  const details = filled('staff-template', {});
  const button = details.querySelector('button');
  if (onRefund) button.addEventListener('click', onRefund);
  else button.parentElement.remove();
  details.querySelector('.events').append(...events.map(eventLine));
  return details;
}

function eventLine(event) {
  const isMove = event.from_status !== event.to_status;
  const line = filled('event-template', {
    when: when(event.created_at),
    event: event.event,
    move: [event.from_status, event.to_status].filter((status) => status && isMove).map(inWords).join(' → '),
    actor: `${event.actor}, ${say('version', { version: event.version })}`,
  });
  line.querySelector('time').dateTime = event.created_at;
  line.querySelector('.what').lang = LANGUAGE === 'en' ? '' : 'en'; // names of events are English
  return line;
}

/** Hand a file to the browser, which saves or shows it. @param {{blob: Blob, name: string}} file */
export function saveFile({ blob, name }) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a phone may ask first what to do with the file
}
