/**
 * Paying once, from a browser: one key for one intention, kept until the answer is definite.
 *
 * A key per attempt is the bug this module exists to prevent. Whoever clicks twice, reloads, opens a second tab or sends
 * again after a timeout still means one payment: so the key is made when the intention is, kept in localStorage under
 * the user and the consultation, and sent with every attempt. The server answers the same key with the same answer.
 *
 * No dependencies, no build step. Types: payment-client.d.ts.
 */

/** Milliseconds after which an attempt is given up; longer than the server's own patience with its gateway (30 s). */
const ATTEMPT_TIMEOUT_MS = 35_000;
/** Attempts at one request before the caller is told that nobody knows. */
const MAX_ATTEMPTS = 6;
/** Milliseconds before the second attempt; doubled for each one after it, up to the greatest. */
const FIRST_PAUSE_MS = 500;
const GREATEST_PAUSE_MS = 8_000;

const STORAGE_PREFIX = 'payment-intention';

/** A definite refusal: the server understood, and said no. */
export class PaymentError extends Error {
  /**
   * @param {number} status
   * @param {object} problem problem details (RFC 9457)
   */
  constructor(status, problem) {
    super(problem.message ?? problem.detail ?? `The server answered ${status}.`);
    this.name = 'PaymentError';
    this.status = status;
    this.problem = problem;
    /** The last part of the problem's type, such as `validation-failed`. */
    this.code = String(problem.type ?? '').split('/').pop();
    this.retryable = problem.retryable === true;
  }
}

/**
 * We don't know yet: no attempt was answered, and the key tells nothing so far. Call the same method again, now or after
 * a reload: it goes on with the same key.
 */
export class PaymentUnknown extends Error {
  /** @param {string} key @param {unknown} cause */
  constructor(key, cause) {
    super('There was no answer, so we do not know yet. Trying again is safe: nothing is paid twice.', { cause });
    this.name = 'PaymentUnknown';
    this.key = key;
  }
}

export class PaymentClient {
  #baseUrl;
  #token;
  #language;
  #storage;
  #fetch;
  #onProgress;
  #timeoutMs;
  #maxAttempts;
  #firstPauseMs;
  #inFlight = new Map();

  /** @param {import('./payment-client').PaymentClientOptions} options */
  constructor({
    token,
    baseUrl = '',
    language = undefined,
    storage = globalThis.localStorage,
    fetch = globalThis.fetch.bind(globalThis),
    onProgress = () => {},
    timeoutMs = ATTEMPT_TIMEOUT_MS,
    maxAttempts = MAX_ATTEMPTS,
    firstPauseMs = FIRST_PAUSE_MS,
  }) {
    this.#token = token;
    this.#baseUrl = baseUrl;
    this.#language = language;
    this.#storage = storage;
    this.#fetch = fetch;
    this.#onProgress = onProgress;
    this.#timeoutMs = timeoutMs;
    this.#maxAttempts = maxAttempts;
    this.#firstPauseMs = firstPauseMs;
  }

  /**
   * Make the payment of a consultation, once.
   * @param {import('./payment-client').NewPayment} wanted
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<import('./payment-client').Outcome>}
   */
  createPayment({ consultationId, amount, paymentMethod }, { signal } = {}) {
    const body = { consultation_id: consultationId, amount, payment_method: paymentMethod };
    return this.#once(`create:${consultationId}`, '/payments', body, signal);
  }

  /**
   * Report that a payment was paid.
   * @param {number} paymentId
   * @param {{transactionId: string, receiptUrl?: string}} proof
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<import('./payment-client').Outcome>}
   */
  confirmPayment(paymentId, { transactionId, receiptUrl }, { signal } = {}) {
    const body = { transaction_id: transactionId, ...(receiptUrl ? { receipt_url: receiptUrl } : {}) };
    return this.#once(`confirm:${paymentId}`, `/payments/${paymentId}/confirm`, body, signal);
  }

  /**
   * Give a pending payment up.
   * @param {number} paymentId
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<import('./payment-client').Outcome>}
   */
  cancelPayment(paymentId, { signal } = {}) {
    return this.#once(`cancel:${paymentId}`, `/payments/${paymentId}/cancel`, {}, signal);
  }

  /**
   * Return money; for staff. Without an amount: all that is left.
   * @param {number} paymentId
   * @param {{amount?: number|string, reason?: string}} [wanted]
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<import('./payment-client').Outcome>}
   */
  refundPayment(paymentId, { amount, reason } = {}, { signal } = {}) {
    const body = { ...(amount === undefined ? {} : { amount }), ...(reason ? { reason } : {}) };
    return this.#once(`refund:${paymentId}`, `/payments/${paymentId}/refund`, body, signal);
  }

  /**
   * Open the gateway's session by which the payment is paid, or come back to it.
   * @param {number} paymentId
   * @param {{signal?: AbortSignal}} [options]
   */
  async openCheckout(paymentId, { signal } = {}) {
    return (await this.#once(`checkout:${paymentId}`, `/payments/${paymentId}/checkout`, {}, signal)).data;
  }

  /** @param {number} paymentId @param {{signal?: AbortSignal}} [options] */
  async getPayment(paymentId, { signal } = {}) {
    return (await this.read(`/payments/${paymentId}`, { signal })).data;
  }

  /**
   * A page of payments, newest first; `meta.next_cursor` is null at the end.
   * @param {{status?: string, consultationId?: number, perPage?: number, cursor?: string}} [filter]
   * @param {{signal?: AbortSignal}} [options]
   */
  listPayments({ status, consultationId, perPage, cursor } = {}, { signal } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ status, consultation_id: consultationId, per_page: perPage, cursor })) {
      if (value !== undefined && value !== null) query.set(name, String(value));
    }
    return this.read(`/payments${query.size ? `?${query}` : ''}`, { signal });
  }

  /**
   * What is committed under a key, or null: nothing so far, so send the same request again with the same key.
   * @param {string} key
   * @param {{signal?: AbortSignal}} [options]
   */
  async keyStatus(key, { signal } = {}) {
    try {
      return (await this.read(`/idempotency-keys/${encodeURIComponent(key)}`, { signal })).data;
    } catch (error) {
      if (error instanceof PaymentError && error.status === 404) return null;
      throw error;
    }
  }

  /**
   * Any GET below /api/v1, with the same patience.
   * @param {string} path
   * @param {{signal?: AbortSignal}} [options]
   */
  async read(path, { signal } = {}) {
    return (await this.#persist({ method: 'GET', path, signal })).body;
  }

  /** One request in flight for one intention: whoever asks meanwhile is given the same promise. */
  #once(intention, path, body, signal) {
    const name = `${STORAGE_PREFIX}:${this.#userId()}:${intention}`;
    const running = this.#inFlight.get(name);
    if (running) return running;
    const started = this.#intend(name, path, body, signal).finally(() => this.#inFlight.delete(name));
    this.#inFlight.set(name, started);
    return started;
  }

  async #intend(name, path, body, signal) {
    const key = await this.#keyFor(name, body);
    let answer;
    try {
      answer = await this.#persist({ method: 'POST', path, body, key, signal });
    } catch (error) {
      if (isDefinite(error)) this.#forget(name, key);
      return this.#judgeRefusal(error);
    }
    // 202: on its way. Its key is the way to ask again, so it stays.
    if (answer.status !== 202) this.#forget(name, key);
    return { success: true, type: answer.body.data.type ?? 'new', status: answer.status, data: answer.body.data };
  }

  /** A consultation that has a payment already is an answer, and no error: nothing more was charged. */
  #judgeRefusal(error) {
    if (error instanceof PaymentError && error.problem.data?.type === 'existing') {
      return { success: false, type: 'existing', status: error.status, data: error.problem.data, message: error.message };
    }
    throw error;
  }

  /**
   * The key of an intention: the one that is kept, or a new one. Under a lock that all tabs share, where the browser has
   * such locks, so that two tabs do not make two. Another amount or method is another intention.
   */
  #keyFor(name, body) {
    const request = JSON.stringify(body);
    const find = () => {
      const kept = this.#kept(name);
      if (kept?.request === request) return kept.key;
      const key = newKey();
      this.#storage.setItem(name, JSON.stringify({ key, request }));
      return key;
    };
    const locks = globalThis.navigator?.locks;
    return locks ? locks.request(name, find) : find();
  }

  #kept(name) {
    try {
      return JSON.parse(this.#storage.getItem(name) ?? 'null');
    } catch {
      return null; // not written by us
    }
  }

  #forget(name, key) {
    if (this.#kept(name)?.key === key) this.#storage.removeItem(name);
  }

  /** Attempts, with pauses that grow, until there is a definite answer. */
  async #persist(request) {
    let last;
    for (let attempt = 1; attempt <= this.#maxAttempts; attempt += 1) {
      if (attempt > 1) {
        this.#onProgress({ attempt, of: this.#maxAttempts });
        await pause(this.#pauseMs(attempt, last), request.signal);
      }
      try {
        return await this.#attempt(request);
      } catch (error) {
        if (request.signal?.aborted || !mayTryAgain(error)) throw error;
        last = error;
        if (request.key && error instanceof TimedOut) {
          const made = await this.#madeUnder(request);
          if (made) return made;
        }
      }
    }
    if (last instanceof PaymentError) throw last;
    throw request.key ? new PaymentUnknown(request.key, last) : last;
  }

  /**
   * After a timeout we don't know yet, so we ask. What was answered is the answer; a 404 says that nothing happened so
   * far, and the request is sent again with the same key.
   */
  async #madeUnder({ key, signal }) {
    let found;
    try {
      found = (await this.#attempt({ method: 'GET', path: `/idempotency-keys/${encodeURIComponent(key)}`, signal })).body;
    } catch {
      return null; // not that either: the next attempt asks by sending the same key again
    }
    const first = found.data.first_response;
    return first && first.status < 300 && first.status !== 202 ? first : null;
  }

  async #attempt({ method, path, body, key, signal }) {
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), this.#timeoutMs);
    const abort = () => timeout.abort();
    signal?.addEventListener('abort', abort);
    try {
      signal?.throwIfAborted();
      const response = await this.#fetch(`${this.#baseUrl}/api/v1${path}`, {
        method,
        headers: this.#headers(body, key),
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: timeout.signal,
        cache: 'no-store',
        credentials: 'omit',
      });
      return await read(response);
    } catch (error) {
      signal?.throwIfAborted();
      if (timeout.signal.aborted) throw new TimedOut(error);
      throw error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
    }
  }

  #headers(body, key) {
    return {
      Accept: 'application/json, application/problem+json',
      Authorization: `Bearer ${this.#bearer()}`,
      ...(this.#language ? { 'Accept-Language': this.#language } : {}),
      ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      ...(key ? { 'Idempotency-Key': key } : {}),
    };
  }

  #bearer() {
    return typeof this.#token === 'function' ? this.#token() : this.#token;
  }

  /** Who pays, by the token's own account: keys belong to users. */
  #userId() {
    const claims = this.#bearer().split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return JSON.parse(atob(claims)).sub;
  }

  /** Milliseconds: what the server asks for, or else a random part of a time that doubles, so that nobody marches in step. */
  #pauseMs(attempt, error) {
    if (error?.retryAfterMs) return error.retryAfterMs + Math.random() * this.#firstPauseMs;
    const most = Math.min(this.#firstPauseMs * 2 ** (attempt - 2), GREATEST_PAUSE_MS);
    return most / 2 + (Math.random() * most) / 2;
  }
}

class TimedOut extends Error {
  constructor(cause) {
    super('no answer in time', { cause });
    this.name = 'TimedOut';
  }
}

/** The body of an answer; a refusal as an error. An answer that is cut off, or not ours, is no answer. */
async function read(response) {
  const body = await response.json();
  if (response.ok) return { status: response.status, body };
  const error = new PaymentError(response.status, body);
  error.retryAfterMs = Number(response.headers.get('Retry-After') ?? 0) * 1000;
  throw error;
}

/** A refusal that is no 401 will not change: the intention is over. Whoever is logged out may log in and go on. */
function isDefinite(error) {
  return error instanceof PaymentError && !error.retryable && error.status < 500 && error.status !== 401;
}

function mayTryAgain(error) {
  if (!(error instanceof PaymentError)) return true; // the network's, a timeout, or half an answer
  return error.status === 503 || ((error.status === 409 || error.status === 429) && error.retryable);
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
}

/** A new key: random, so that it says nothing, and long enough never to meet another. */
function newKey() {
  if (globalThis.crypto.randomUUID) return globalThis.crypto.randomUUID(); // only on https and localhost
  return Array.from(globalThis.crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');
}
