/** The one payment that is open: its facts, its history, and what staff can do with it. */

import { day, money, parsedAmount, say, typed, when } from '../../checkout/static/reader.js';
import { filled, saveFile } from '../../checkout/static/views.js';
import { Question, RefundDialog } from './dialogs.js';
import { acceptAll, connect, refuse, refuseAll } from './fields.js';
import { actorInWords, consultationName, disputeInWords, eventInWords, outcomeInWords, paint, refundInWords, states } from './words.js';

/** Statuses in which money that is paid by hand can be recorded. */
const CONFIRMABLE = ['pending', 'expired'];
/** Statuses in which a patient can still be asked to pay. */
const PAYABLE = ['pending', 'failed', 'cancelled', 'expired'];

const element = (id) => document.getElementById(id);

export class OpenPayment {
  #section = element('open');
  #heading = element('open-heading');
  #body = element('open-body');
  #progress = element('open-progress');
  #problem = element('open-problem');
  #session;
  #onChange;
  #question = new Question();
  #refundDialog;
  /** The row of the desk with the payment that is shown. */
  #row = null;
  /** Number of the latest request: only its payment is shown. */
  #latest = 0;

  /** @param {() => Promise<void>} onChange called if a payment may have changed */
  constructor(session, onChange) {
    this.#session = session;
    this.#onChange = onChange;
    this.#refundDialog = new RefundDialog(session, {
      onOutcome: (outcome) => this.#changed(outcomeInWords(outcome, this.#row.payment.currency)),
      onChange: () => this.#changed(''),
      findRow: (id) => this.#findRow(id),
    });
  }

  close() {
    this.#latest += 1;
    this.#row = null;
    this.#refundDialog.close();
    this.#section.hidden = true;
    this.#body.replaceChildren();
    for (const text of [this.#heading, this.#problem, this.#progress, element('open-notice')]) text.textContent = '';
  }

  /** Read a payment and show it. @param {{notice?: string}} [words] */
  async open(id, { notice = '' } = {}) {
    const turn = (this.#latest += 1);
    this.#section.hidden = false;
    if (String(this.#row?.payment.id) !== String(id)) {
      this.#body.replaceChildren();
      this.#heading.textContent = say('payment', { id });
    }
    this.#progress.textContent = say('loading');
    element('open-notice').textContent = '';
    await this.#session.attempt(
      async () => {
        const { client, call } = this.#session;
        const [row, payment, events, refunds] = await Promise.all([
          this.#findRow(id),
          client.getPayment(id, call),
          client.read(`/payments/${id}/events`, call),
          client.read(`/refunds?payment_id=${id}&per_page=100`, call),
        ]);
        if (turn !== this.#latest) return;
        this.#row = row;
        this.#show(row, payment, events.data, refunds.data);
        element('open-notice').textContent = notice;
        this.#section.scrollTop = 0;
        this.#section.scrollIntoView({ block: 'nearest' });
        this.#heading.focus({ preventScroll: true }); // screen readers read it
      },
      { problem: this.#problem },
    );
    if (turn === this.#latest) this.#progress.textContent = '';
  }

  /** The row of a payment; undefined if there is none, which the payment's own address says better. */
  async #findRow(id) {
    const { data } = await this.#session.client.read(`/desk/payments?payment_id=${id}`, this.#session.call);
    return data[0];
  }

  /** Something was done: show what is so now, and what was done. */
  async #changed(notice) {
    await Promise.all([this.open(this.#row.payment.id, { notice }), this.#onChange()]);
  }

  #show(row, payment, events, refunds) {
    const { patient, consultation, refundable_amount: refundable, dispute } = row;
    const amount = money(payment.amount, payment.currency);
    const about = [say('payment', { id: payment.id }), consultationName(consultation), consultation.description, this.#session.methodName(payment.payment_method)];
    const [invoice] = payment.invoices;
    const shown = filled('payment-template', {
      about: about.filter(Boolean).join(' · '),
      confirm: say('confirm_amount', { amount }),
      email: patient.email,
      starts: consultation.starts_at && day(consultation.starts_at),
      dispute: dispute && disputeInWords(dispute),
      transaction: payment.transaction_id,
      completed: payment.completed_at && when(payment.completed_at),
      returned: payment.refunded_amount > 0 ? money(payment.refunded_amount, payment.currency) : null,
      refundable: refundable > 0 ? money(refundable, payment.currency) : null,
      invoice: invoice && say('invoice', { number: invoice.invoice_number, status: say(`invoice_${invoice.status}`) }),
    });
    this.#heading.textContent = say('heading', { name: patient.name, amount });
    for (const state of states(row)) {
      const pill = document.createElement('span');
      pill.className = 'pill';
      paint(pill, state);
      shown.querySelector('.pills').append(pill, ' ');
    }
    connect(shown);
    this.#offer(shown, row, payment);
    const files = shown.querySelector('[data-part=files]');
    for (const each of payment.invoices) files.append(this.#file(say('invoice_file'), `/invoices/${each.id}.pdf`));
    shown.querySelector('.refunds').append(...refunds.toReversed().map((refund) => this.#refundLine(refund)));
    shown.querySelector('[data-part=refunds]').hidden = refunds.length === 0;
    shown.querySelector('.trail').append(...events.toReversed().map((event) => this.#eventLine(event)));
    this.#body.replaceChildren(shown);
  }

  /** Leave of the forms and buttons what can be done now. */
  #offer(shown, { payment, consultation, by_hand: byHand, refundable_amount: refundable }) {
    const { client, call } = this.#session;
    const { id, status } = payment;
    const part = (name) => shown.querySelector(`[data-part=${name}]`);
    const offer = (name, isPossible, work) => {
      if (isPossible) part(name).addEventListener('click', work);
      else part(name).remove();
    };
    const form = part('confirm');
    if (byHand && CONFIRMABLE.includes(status)) {
      form.addEventListener('submit', (event) => {
        event.preventDefault();
        this.#confirm(form);
      });
    } else form.remove();
    offer('refund', refundable > 0, () => this.#refundDialog.open(this.#row));
    offer('cancel', status === 'pending', async (event) => {
      const button = event.currentTarget;
      if (!(await this.#question.ask(say('cancel_question'), button.textContent.replace(' …', '')))) return;
      await this.#do(button, 'cancelling', async () => {
        await client.cancelPayment(id, call);
        return say('cancelled');
      });
    });
    offer('review', payment.needs_review, async (event) => {
      const button = event.currentTarget;
      if (!(await this.#question.ask(say('review_question'), button.textContent.replace(' …', '')))) return;
      await this.#do(button, 'saving', async () => {
        await client.post(`/payments/${id}/resolve-review`, { expected_version: payment.version }, call);
        return say('reviewed');
      });
    });
    offer('refresh', !byHand && ['pending', 'processing'].includes(status), (event) =>
      this.#do(event.currentTarget, 'asking_gateway', async () => {
        const found = await client.refreshPayment(id, call);
        return say('still', { status: say(`status_${found.status}`) });
      }),
    );
    offer('link', PAYABLE.includes(status), (event) => this.#link(event.currentTarget, consultation.id));
  }

  /** Run what a button does, and show the payment as it is then. @param {() => Promise<string>} work its notice */
  async #do(button, progress, work, problem = this.#problem) {
    this.#progress.textContent = say(progress);
    await this.#session.press(button, async () => this.#changed(await work()), { progress: this.#progress, problem });
  }

  /** Money by hand has come: the whole amount, or nothing is recorded. */
  async #confirm(form) {
    const { transaction_id: reference, received } = form.elements;
    const { payment } = this.#row;
    const amount = parsedAmount(received.value);
    acceptAll(form);
    if (!reference.value.trim()) refuse(reference, say('reference_missing'));
    if (amount === null) refuse(received, say('amount_bad', { example: typed(payment.amount) }));
    else if (amount !== payment.amount) refuse(received, say('amount_other', { amount: money(payment.amount, payment.currency) }));
    if (form.querySelector('[aria-invalid]')) return;
    const { client, call } = this.#session;
    const progress = form.querySelector('.progress');
    progress.textContent = say('confirming');
    await this.#session.press(
      form.querySelector('button'),
      async () => {
        try {
          await client.confirmPayment(payment.id, { transactionId: reference.value.trim() }, call);
        } catch (error) {
          if (error.code === 'transaction-already-used') refuse(reference, await this.#whose(reference.value));
          else if (!refuseAll(form, error)) throw error;
          return;
        }
        await this.#changed(say('confirmed', { amount: money(payment.amount, payment.currency) }));
      },
      { progress, problem: form.querySelector('.problem') },
    );
  }

  /** Which payment a reference has paid. */
  async #whose(reference) {
    const query = new URLSearchParams({ search: reference.trim() });
    const { data } = await this.#session.client.read(`/desk/payments?${query}`, this.#session.call);
    const used = data.find(({ payment }) => payment.transaction_id && plain(payment.transaction_id) === plain(reference));
    if (!used) return say('reference_used_before');
    const { id, completed_at: completedAt, created_at: createdAt } = used.payment;
    return say('reference_used', { id, name: used.patient.name, when: when(completedAt ?? createdAt) });
  }

  async #link(button, consultationId) {
    const { client, call } = this.#session;
    this.#progress.textContent = say('linking');
    await this.#session.press(
      button,
      async () => {
        const { url } = (await client.post(`/consultations/${consultationId}/links`, {}, call)).data;
        const shown = this.#body.querySelector('[data-part=made-link]');
        const field = shown.querySelector('input');
        field.value = url;
        shown.hidden = false;
        field.focus();
        field.select();
        // Browsers allow it on https and on this computer only.
        const isCopied = await navigator.clipboard?.writeText(url).then(() => true, () => false);
        element('open-notice').textContent = say(isCopied ? 'link_copied' : 'link_made');
      },
      { progress: this.#progress, problem: this.#problem },
    );
  }

  #file(label, path) {
    const { client, call } = this.#session;
    const button = filled('file-template', { name: label }).firstElementChild;
    button.addEventListener('click', () => {
      this.#progress.textContent = say('downloading');
      const where = { progress: this.#progress, problem: this.#problem };
      this.#session.press(button, async () => saveFile(await client.download(path, call)), where);
    });
    return button;
  }

  #refundLine(refund) {
    const { client, call } = this.#session;
    const amount = money(refund.amount, refund.currency);
    const about = [say('refund_heading', { id: refund.id }), when(refund.created_at), refund.reason, refund.reference, refund.decline_reason];
    const line = filled('refund-template', {
      amount,
      status: refundInWords(refund),
      about: about.filter(Boolean).join(' · '),
      send: say('refund_now_to_be_sent', { amount }),
    });
    const part = (name) => line.querySelector(`[data-part=${name}]`);
    line.querySelector('.pill').dataset.tone = { succeeded: 'ok', failed: 'bad', unknown: 'bad' }[refund.status] ?? 'wait';
    connect(line);
    const form = part('settle');
    if (refund.status === 'pending' && refund.by_hand) {
      form.addEventListener('submit', (event) => {
        event.preventDefault();
        this.#settle(form, refund.id);
      });
    } else form.remove();
    const isOwn = refund.requested_by === this.#session.me.id;
    const isRequested = refund.status === 'requested';
    part('own').textContent = isRequested && isOwn ? say('refund_your_own') : '';
    if (isRequested && !isOwn) {
      part('approve').addEventListener('click', async (event) => {
        const button = event.currentTarget;
        if (!(await this.#question.ask(say('approve_question', { amount }), button.textContent.replace(' …', '')))) return;
        await this.#do(button, 'saving', async () => {
          await client.post(`/refunds/${refund.id}/approve`, {}, call);
          return say('refund_approved');
        });
      });
      part('reject').addEventListener('click', async (event) => {
        const button = event.currentTarget;
        const yes = button.textContent.replace(' …', '');
        const answer = await this.#question.ask(`${yes}: ${amount}`, yes, { withReason: true });
        if (!answer) return;
        await this.#do(button, 'saving', async () => {
          await client.post(`/refunds/${refund.id}/reject`, { reason: answer.why }, call);
          return say('refund_rejected');
        });
      });
    } else part('decide').remove();
    const shown = line.firstElementChild;
    if (refund.credit_note_id) shown.append(this.#file(say('credit_note'), `/credit-notes/${refund.credit_note_id}.pdf`));
    return shown;
  }

  /** The money of a refund by hand was sent. */
  async #settle(form, refundId) {
    const { client, call } = this.#session;
    const { reference } = form.elements;
    acceptAll(form);
    if (!reference.value.trim()) {
      refuse(reference, say('reference_missing'));
      return;
    }
    const progress = form.querySelector('.progress');
    progress.textContent = say('saving');
    await this.#session.press(
      form.querySelector('button'),
      async () => {
        try {
          await client.post(`/refunds/${refundId}/settle`, { reference: reference.value.trim() }, call);
        } catch (error) {
          if (error.status === 409 && !error.retryable) refuse(reference, error.message);
          else if (!refuseAll(form, error)) throw error;
          return;
        }
        await this.#changed(say('refund_sent'));
      },
      { progress, problem: form.querySelector('.problem') },
    );
  }

  #eventLine(event) {
    const line = filled('event-template', {
      event: eventInWords(event),
      when: when(event.created_at),
      actor: actorInWords(event, this.#session.me.id),
    });
    line.querySelector('time').dateTime = event.created_at;
    return line;
  }
}

/** A reference without what does not count in it: capitals, spaces, hyphens, invisible characters. */
function plain(reference) {
  return reference.normalize('NFKC').toLowerCase().replace(/[\s\p{Cf}\p{Pd}]/gu, '');
}
