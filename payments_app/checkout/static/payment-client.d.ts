/** Types of payment-client.js. Behaviour of the client: docs/javascript-client.md. */

export type PaymentStatus =
  | 'pending' | 'processing' | 'completed' | 'partially_refunded' | 'refunded' | 'failed' | 'cancelled' | 'expired';

/**
 * An id of the service, which has 64 bits. The client returns a number if that is exact (up to 2^53 - 1), else a string
 * of digits. It accepts both: 5 and "5" are the same id. Anything else (a fraction, a number that is not
 * safe, "1e3", "05", "+5") is a TypeError, and nothing is sent.
 */
export type Id = number | string;

/** Amounts are in major units, times ISO 8601 in UTC. */
export interface Payment {
  id: Id;
  user_id: Id;
  consultation_id: Id;
  amount: number;
  currency: string;
  payment_method: string;
  gateway: string;
  status: PaymentStatus;
  transaction_id: string | null;
  receipt_url: string | null;
  refunded_amount: number;
  needs_review: boolean;
  version: number;
  created_at: string;
  updated_at: string;
  completed_at: string | null;
}

export interface Invoice {
  id: Id;
  payment_id: Id;
  invoice_number: string;
  amount: number;
  currency: string;
  status: 'pending' | 'paid' | 'refunded' | 'void';
  issued_at: string;
  paid_at: string | null;
}

export interface TaxRecord {
  id: Id;
  payment_id: Id;
  tax_type: string;
  tax_rate: number;
  /** What the rate is of: the amount, or contained in it. */
  tax_basis: 'amount' | 'included';
  taxable_amount: number;
  amount: number;
  status: string;
}

export interface Refund {
  id: Id;
  payment_id: Id;
  amount: number;
  currency: string;
  status: 'requested' | 'pending' | 'unknown' | 'succeeded' | 'failed';
  /** Staff send the money: while the refund is pending, it is to be sent. */
  by_hand: boolean;
  reason: string | null;
  created_at: string;
  settled_at: string | null;
  /** For `/credit-notes/{id}.pdf`; null until it has succeeded, and if no invoice was paid. */
  credit_note_id: Id | null;
}

export interface PaymentDetails extends Payment {
  invoices: Invoice[];
  tax_records: TaxRecord[];
  refunds: Refund[];
}

/** How to pay: one of `redirect_url`, `client_secret` and `instructions`. */
export interface CheckoutSession {
  gateway: string;
  reference: string;
  /** When the payment ends if it is not paid. */
  expires_at: string;
  /** The gateway's own page: pass the session to `goToGateway`. */
  redirect_url?: string;
  client_secret?: string;
  instructions?: string;
  payment: Payment;
}

/** What a payment link is for. */
export interface OpenedLink {
  consultationId: Id;
  /** Where the booking system wants the patient to go on. */
  returnUrl: string | null;
  /** The link has expired: it shows the payment, and changes nothing. */
  readOnly: boolean;
}

export interface KeyStatus {
  key: string;
  operation:
    | 'create' | 'confirm' | 'cancel' | 'refund' | 'checkout'
    | 'settle-refund' | 'approve-refund' | 'reject-refund';
  payment_id: Id;
  refund_id: Id | null;
  status: string;
  first_response: { status: number; body: any } | null;
  created_at: string;
}

/** The result of a POST. `data` is the service's, as the OpenAPI document describes it for each endpoint. */
export interface Outcome {
  /** False: the consultation has another payment, or the refund made under this key has failed. */
  success: boolean;
  type: 'new' | 'existing';
  /** HTTP status; 202 while a refund has no outcome yet. */
  status: number;
  data: {
    payment_id?: Id;
    existing_payment_id?: Id;
    status?: PaymentStatus;
    payment?: Payment;
    invoice?: Invoice;
    refund?: Refund;
    refund_amount?: number;
  };
  /** The service's text, in the reader's language; empty if only the key was looked up. */
  message: string;
  /** It was done before, by an attempt whose response was lost, or by another tab. */
  replayed: boolean;
}

export interface Progress {
  /** First attempt; waiting before the next attempt; looking the key up; sent again. */
  phase: 'sending' | 'waiting' | 'asking' | 'again';
  /** The current or next attempt; the first is 1. */
  attempt: number;
  of: number;
  /** Milliseconds; with `waiting` only. */
  waitMs?: number;
}

export interface Options {
  /** Address of the service, without a slash at the end; default: the page's origin. */
  baseUrl?: string;
  /** Sent as Accept-Language; default: the browser's own. */
  language?: string;
  /** A bearer token; default: the one from `signIn`, stored in sessionStorage. */
  token?: string | (() => string | null | undefined) | null;
  /** Storage of the keys; default: localStorage. */
  storage?: Storage;
  /** Called for every step of a request that has an effect. */
  onProgress?: (step: Progress) => void;
  /** Most milliseconds of an attempt; default 75,000. */
  timeoutMs?: number;
  /** Default 6. */
  maxAttempts?: number;
  /** Milliseconds before the second attempt; default 500, doubled each time, up to 8 s. */
  firstPauseMs?: number;
  fetch?: typeof globalThis.fetch;
}

export interface Call {
  /** Ends the wait of this caller only. The request may still have its effect, so the key stays. */
  signal?: AbortSignal;
}

/** Statuses of payments that have ended: their consultations may be paid again. */
export const ENDED: string[];
/** Statuses of refunds without an outcome yet: their amount is reserved. */
export const OPEN: string[];

/** A refusal, or no response (status 0). If `retryable`, the same call may succeed later; else it is definite. */
export class PaymentError extends Error {
  constructor(status: number, problem: Record<string, any>, more?: { cause?: unknown; retryAfterMs?: number });
  /** HTTP status; 0: no response. */
  status: number;
  /** Problem details (RFC 9457). */
  problem: Record<string, any>;
  /** The last part of the problem's type, such as `validation-failed`; `timeout` or `no-answer` with status 0. */
  code: string;
  retryable: boolean;
  /** Milliseconds after which the service wants to be asked again, where it said so. */
  retryAfterMs: number | undefined;
}

/** The outcome is unknown. Call the same method again, now or after a reload: it continues with the same key. */
export class PaymentUnknown extends Error {
  constructor(key: string, cause: unknown);
  key: string;
}

/**
 * Methods reject with PaymentError; those with an effect also with PaymentUnknown; all with the signal's reason, and
 * with a TypeError if an argument is not an id.
 */
export class PaymentClient {
  constructor(options?: Options);

  /** Stores a token in sessionStorage. PaymentError 401: wrong; 422: not filled in; 429: too many failures. */
  signIn(email: string, password: string, call?: Call): Promise<void>;
  /**
   * Exchanges the token of a payment link. From then on the calls are a payer's, and the token is exchanged again in
   * time. Nothing is stored. PaymentError 404: the link is unknown, expired or revoked.
   */
  openLink(token: string, call?: Call): Promise<OpenedLink>;
  /** Forgets the token, and a link. */
  signOut(): void;
  /** Whether there is a token that has not expired. A token given as an option is not checked for expiry. */
  readonly signedIn: boolean;

  /** Creates the payment of a consultation, once. */
  createPayment(
    wanted: { consultationId: Id; amount: number | string; paymentMethod: string },
    call?: Call,
  ): Promise<Outcome>;
  /** Confirms a payment by the gateway's transaction. */
  confirmPayment(
    paymentId: Id,
    proof: { transactionId: string; receiptUrl?: string },
    call?: Call,
  ): Promise<Outcome>;
  /** Cancels a pending payment. */
  cancelPayment(paymentId: Id, call?: Call): Promise<Outcome>;
  /**
   * Refunds money, for staff; without an amount, all that can be refunded. If that differs from `expectedRefundable`,
   * nothing is refunded: a `PaymentError` with status 409 and code `refundable-changed`.
   */
  refundPayment(
    paymentId: Id,
    wanted?: { amount?: number | string; reason?: string; expectedRefundable?: number | string },
    call?: Call,
  ): Promise<Outcome>;
  /** The gateway's session for paying the payment: opened now, or the one that is open. */
  openCheckout(paymentId: Id, call?: Call): Promise<CheckoutSession>;
  /**
   * Sends the browser to the gateway's page. It comes back by `/pay/return` to `returnTo`, a path of this origin;
   * default: this address. Then call `refreshPayment`: whoever comes back need not have paid.
   */
  goToGateway(session: { redirect_url?: string }, way?: { returnTo?: string }): void;
  /** Brings the payment up to what its gateway says of it; the service asks the gateway at most every 2 s. */
  refreshPayment(paymentId: Id, call?: Call): Promise<Payment>;

  getPayment(paymentId: Id, call?: Call): Promise<PaymentDetails>;
  /** A page of payments, newest first; `meta.next_cursor` is null at the end. */
  listPayments(
    filter?: { status?: string; consultationId?: Id | null; perPage?: number; cursor?: string | null },
    call?: Call,
  ): Promise<{ data: Payment[]; meta: { next_cursor: string | null; per_page?: number } }>;
  /** The result stored under a key; null: nothing so far, so send the same request again with the same key. */
  keyStatus(key: string, call?: Call): Promise<KeyStatus | null>;
  /** A file below /api/v1, such as `/invoices/7.pdf` or `/payments.csv`, with its name. */
  download(path: string, call?: Call): Promise<{ blob: Blob; name: string }>;
  /** Any GET below /api/v1; returns its whole body. */
  read(path: string, call?: Call): Promise<any>;
  /** Any POST below /api/v1 for which no method is made, with a key of its own; returns its whole body. */
  post(path: string, body?: object, call?: Call): Promise<any>;
}

/** Where the browser is to go on after a gateway's page, if `goToGateway` sent this browser there; null if not. */
export function wayBack(): string | null;
/** Removes the stored way back, if it leads to this address. */
export function forgetWayBack(to: string | null): void;
