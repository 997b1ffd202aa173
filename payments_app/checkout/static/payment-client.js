/**
 * Pays once from a browser: one idempotency key for each intention, stored until the response is definite.
 *
 * A key per attempt is the bug that this module prevents. A user who clicks twice, reloads, opens a second tab or sends
 * again after a timeout still means one payment. So the client makes the key together with the intention, stores it in
 * localStorage by user and consultation, and sends it with every attempt. The server gives one key one response.
 *
 * No dependencies, no build step. Types: payment-client.d.ts. Behaviour: docs/javascript-client.md.
 *
 * @typedef {import('./payment-client.js').Outcome} Outcome
 * @typedef {import('./payment-client.js').Options} Options
 * @typedef {import('./payment-client.js').Id} Id
 * @typedef {import('./payment-client.js').Progress} Progress
 * @typedef {{signal?: AbortSignal}} Call
 * @typedef {{key: string, request: object, isKept: boolean}} Intention
 * @typedef {{status: number, body: any, replayed: boolean}} Answer
 * @typedef {{method: string, path: string, body?: object, key?: string, bearer?: string|null, unsure?: boolean, accept?: string, signal?: AbortSignal}} Request
 * @typedef {{answer: Promise<Outcome>, stop: AbortController, callers: number}} Job
 * @typedef {{token: string, bearer: string, renewAt: number}} OpenLink
 */

/** Milliseconds after which an attempt is abandoned. Longer than nginx's timeout (60 s), the one before it in line. */
const ATTEMPT_TIMEOUT_MS = 75_000;
/** Attempts at one request before the caller gets `PaymentUnknown` or the last error. */
const MAX_ATTEMPTS = 6;
/** Milliseconds before the second attempt; doubled for each one after it, up to the greatest. */
const FIRST_PAUSE_MS = 500;
const GREATEST_PAUSE_MS = 8_000;
/** Milliseconds. Users do not watch a spinner for longer: if the server asks for more, the caller gets an error. */
const LONGEST_WAIT_MS = 15_000;
/** Milliseconds for which the way back from a gateway's page is kept: no session of a gateway lasts longer. */
const WAY_BACK_TTL_MS = 24 * 3_600_000;
/** Name of the stored way back, in both storages. */
const WAY_BACK = 'payment-return';

/** Media type of invoices and credit notes. */
const ANY_FILE = '*/*';

/** The greatest id of the service, which has 64 bits. JavaScript's numbers are exact up to 2^53 only. */
const GREATEST_ID = 2n ** 63n - 1n;
/** Members of a request that must be JSON numbers, but may be too large for a number of JavaScript. */
const IDS_IN_REQUESTS = ['consultation_id'];

/** Statuses of payments that have ended: their consultations may be paid again. */
export const ENDED = ['failed', 'cancelled', 'expired', 'refunded'];
/** Statuses of refunds without an outcome yet. */
export const OPEN = ['requested', 'pending', 'unknown'];

/** A refusal, or no response (status 0). If `retryable`, the same call may succeed later; else it is definite. */
export class PaymentError extends Error {
  /**
   * @param {number} status
   * @param {Record<string, any>} problem problem details (RFC 9457)
   * @param {{cause?: unknown, retryAfterMs?: number}} [more]
   */
  constructor(status, problem, { cause, retryAfterMs } = {}) {
    super(problem.message ?? `The server answered ${status}.`, { cause });
    this.name = 'PaymentError';
    this.status = status;
    this.problem = problem;
    /** The last part of the problem's type, such as `validation-failed`. */
    this.code = String(problem.type).replace(/.*\//, '');
    this.retryable = problem.retryable === true;
    /** Milliseconds from the `Retry-After` header, if there was one. */
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * The outcome is unknown: no attempt got a response, and the server has stored nothing under the key so far. Call the
 * same method again, now or after a reload: it continues with the same key.
 */
export class PaymentUnknown extends Error {
  /** @param {string} key @param {unknown} cause */
  constructor(key, cause) {
    super('No response arrived, so the outcome is not known yet. Trying again is safe: nothing is paid twice.', { cause });
    this.name = 'PaymentUnknown';
    this.key = key;
  }
}

export class PaymentClient {
  #settings;
  #keys;
  #session = new Drawer(() => globalThis.sessionStorage);
  /** A payment link, and the bearer token that it was exchanged for: in memory only. @type {OpenLink | null} */
  #link = null;
  /** @type {Map<string, Job>} */
  #inFlight = new Map();

  /** @param {Options} [options] */
  constructor({
    baseUrl = '',
    language,
    token,
    storage,
    onProgress = () => {},
    timeoutMs = ATTEMPT_TIMEOUT_MS,
    maxAttempts = MAX_ATTEMPTS,
    firstPauseMs = FIRST_PAUSE_MS,
    fetch = globalThis.fetch.bind(globalThis),
  } = {}) {
    this.#settings = { baseUrl, language, token, onProgress, timeoutMs, maxAttempts, firstPauseMs, fetch };
    this.#keys = new Drawer(() => storage ?? globalThis.localStorage);
  }

  /** @param {string} email @param {string} password @param {Call} [call] */
  async signIn(email, password, { signal } = {}) {
    const { body } = await this.#persist({ method: 'POST', path: '/api/login', body: { email, password }, signal });
    // By this clock, which need not agree with the server's.
    const until = Date.now() + body.expires_in * 1000;
    this.#session.set(this.#tokenName, JSON.stringify({ token: body.token, until }));
  }

  /**
   * Exchange the token of a payment link; from then on the calls are a payer's, who may pay one consultation.
   * @param {string} token the last part of the link's address @param {Call} [call]
   */
  async openLink(token, { signal } = {}) {
    const path = '/api/v1/payment-links/exchange';
    const { body } = await this.#persist({ method: 'POST', path, body: { token }, bearer: null, signal });
    // Exchanged again after half of its life, so that what begins with it also ends with it.
    this.#link = { token, bearer: body.token, renewAt: Date.now() + body.expires_in * 500 };
    const claims = claimsOf(body.token);
    return { consultationId: claims.consultation, returnUrl: claims.return_url ?? null, readOnly: claims.read_only === true };
  }

  signOut() {
    this.#link = null;
    this.#session.remove(this.#tokenName);
  }

  get signedIn() {
    if (this.#link) return true;
    return this.#settings.token == null ? Date.now() < (this.#signedIn?.until ?? 0) : Boolean(this.#bearer);
  }

  /** @param {{consultationId: Id, amount: number|string, paymentMethod: string}} wanted @param {Call} [call] */
  async createPayment({ consultationId, amount, paymentMethod }, call) {
    const id = digits(consultationId);
    const body = { consultation_id: id, amount, payment_method: paymentMethod };
    return this.#once(`create:${id}:${plain(amount)}:${paymentMethod}`, '/payments', body, call);
  }

  /** @param {Id} paymentId @param {{transactionId: string, receiptUrl?: string}} proof @param {Call} [call] */
  async confirmPayment(paymentId, { transactionId, receiptUrl }, call) {
    const id = digits(paymentId);
    const body = { transaction_id: transactionId, receipt_url: receiptUrl || undefined };
    return this.#once(`confirm:${id}:${transactionId}`, `/payments/${id}/confirm`, body, call);
  }

  /** @param {Id} paymentId @param {Call} [call] */
  async cancelPayment(paymentId, call) {
    const id = digits(paymentId);
    return this.#once(`cancel:${id}`, `/payments/${id}/cancel`, {}, call);
  }

  /**
   * `expectedRefundable` is not part of the intention: the same refund again continues with its key.
   * @param {Id} paymentId @param {{amount?: number|string, reason?: string, expectedRefundable?: number|string}} [wanted]
   * @param {Call} [call]
   */
  async refundPayment(paymentId, { amount, reason, expectedRefundable } = {}, call) {
    const id = digits(paymentId);
    const body = { amount, reason: reason || undefined, expected_refundable: expectedRefundable };
    return this.#once(`refund:${id}:${plain(amount)}`, `/payments/${id}/refund`, body, call);
  }

  /**
   * The gateway's session, opened now or before. Its key is not stored: an old key would bring back the session of a
   * payment that has ended meanwhile.
   * @param {Id} paymentId @param {Call} [call]
   */
  async openCheckout(paymentId, { signal } = {}) {
    const path = `/api/v1/payments/${digits(paymentId)}/checkout`;
    return (await this.#persist({ method: 'POST', path, body: {}, key: newKey(), signal })).body.data;
  }

  /**
   * Send the browser to the gateway's page of a session with `redirect_url`. From there it comes back to `/pay/return`,
   * which leads on to `returnTo`: stored for this tab, and for the tab that a wallet's app may open instead.
   * @param {{redirect_url?: string}} session @param {{returnTo?: string}} [way]
   */
  goToGateway({ redirect_url: url }, { returnTo } = {}) {
    if (!url) throw new TypeError('This session has no redirect_url');
    const { pathname, search, hash } = globalThis.location;
    const kept = JSON.stringify({ to: returnTo ?? pathname + search + hash, until: Date.now() + WAY_BACK_TTL_MS });
    for (const drawer of wayBackDrawers()) drawer.set(WAY_BACK, kept);
    globalThis.location.assign(url);
  }

  /**
   * Bring the payment up to what its gateway says, and return it. The service asks at most every 2 s.
   * @param {Id} paymentId @param {Call} [call]
   */
  async refreshPayment(paymentId, { signal } = {}) {
    const path = `/api/v1/payments/${digits(paymentId)}/refresh`;
    return (await this.#persist({ method: 'POST', path, signal })).body.data.payment;
  }

  /** @param {Id} paymentId @param {Call} [call] */
  async getPayment(paymentId, call) {
    return (await this.read(`/payments/${digits(paymentId)}`, call)).data;
  }

  /**
   * @param {{status?: string, consultationId?: Id | null, perPage?: number, cursor?: string|null}} [filter]
   * @param {Call} [call]
   */
  async listPayments({ status, consultationId, perPage, cursor } = {}, call) {
    const id = consultationId == null ? null : digits(consultationId);
    const asked = { status, consultation_id: id, per_page: perPage, cursor };
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries(asked)) if (value != null) query.set(name, String(value));
    return this.read(`/payments?${query}`, call);
  }

  /** @param {string} key @param {Call} [call] */
  async keyStatus(key, call) {
    try {
      return (await this.read(keyPath(key), call)).data;
    } catch (error) {
      if (error instanceof PaymentError && error.code === 'idempotency-key-not-found') return null;
      throw error;
    }
  }

  /**
   * A file, such as `/invoices/7.pdf` or `/payments.csv`, with its name. Once it has begun it may take any time.
   * @param {string} path below /api/v1 @param {Call} [call] @returns {Promise<{blob: Blob, name: string}>}
   */
  async download(path, { signal } = {}) {
    return (await this.#persist({ method: 'GET', path: `/api/v1${path}`, accept: ANY_FILE, signal })).body;
  }

  /** @param {string} path below /api/v1 @param {Call} [call] @returns {Promise<any>} */
  async read(path, { signal } = {}) {
    return (await this.#persist({ method: 'GET', path: `/api/v1${path}`, signal })).body;
  }

  /**
   * Any POST below /api/v1 for which no method is made: sent again, with one key, until there is a response.
   * @param {string} path @param {object} [body] @param {Call} [call] @returns {Promise<any>}
   */
  async post(path, body = {}, { signal } = {}) {
    return (await this.#persist({ method: 'POST', path: `/api/v1${path}`, body, key: newKey(), signal })).body;
  }

  /**
   * One request in flight for one intention, even if several callers wait for it. Each caller may leave by its own
   * signal; the request is abandoned when the last one has left.
   * @param {string} intention its name, unique for its user
   * @param {string} path @param {object} body @param {Call} [call]
   * @returns {Promise<Outcome>}
   */
  async #once(intention, path, body, { signal } = {}) {
    const bearer = await this.#currentBearer(signal);
    const name = `payment-intention:${this.#settings.baseUrl}:${await this.#userId(bearer, signal)}:${intention}`;
    signal?.throwIfAborted();
    let job = this.#inFlight.get(name);
    if (!job) {
      const stop = new AbortController();
      // All attempts use this user's token, even if another user signs in meanwhile: keys belong to their user.
      const post = { method: 'POST', path: `/api/v1${path}`, body, bearer, signal: stop.signal };
      job = { answer: this.#settle(name, post, path === '/payments'), stop, callers: 0 };
      this.#inFlight.set(name, job);
    }
    return this.#wait(name, job, signal);
  }

  /** @param {string} name @param {Job} job @param {AbortSignal} [signal] @returns {Promise<Outcome>} */
  #wait(name, job, signal) {
    const end = () => this.#inFlight.get(name) === job && this.#inFlight.delete(name);
    job.callers += 1;
    return new Promise((resolve, reject) => {
      const leave = () => {
        job.callers -= 1;
        if (job.callers === 0 && end()) job.stop.abort(signal?.reason);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', leave, { once: true });
      const stay = () => signal?.removeEventListener('abort', leave);
      job.answer.finally(() => [end(), stay()]).then(resolve, reject);
    });
  }

  /**
   * Complete an intention. Its key is removed once the response is definite, and not before.
   * @param {string} name @param {Request & {body: object}} post @param {boolean} mayBeginAnew
   * @returns {Promise<Outcome>}
   */
  async #settle(name, post, mayBeginAnew) {
    const { key, request, isKept } = await this.#intend(name, post.body);
    const attempts = this.#persist({ ...post, body: request, key, unsure: isKept });
    const answer = await attempts.catch((error) => {
      // After a 401 the user may log in and continue.
      if (error instanceof PaymentError && !error.retryable && error.status !== 401) this.#forget(name, key);
      throw error;
    });
    const data = answer.replayed ? await this.#afresh(answer.body.data, key, post) : answer.body.data;
    const isOpen = OPEN.includes(data.refund?.status);
    if (!isOpen) this.#forget(name, key);
    // A stored key made a payment that has ended since: to pay now is another intention.
    if (isKept && mayBeginAnew && ENDED.includes(data.status)) return this.#settle(name, post, false);
    return {
      success: answer.status < 300 && data.refund?.status !== 'failed',
      type: data.type ?? 'new',
      status: isOpen ? 202 : answer.status,
      data,
      message: answer.body.message ?? '',
      replayed: answer.replayed,
    };
  }

  /**
   * A replay is the first response, and may be old: read its payment again.
   * @param {any} data @param {string} key @param {Request} post
   */
  async #afresh(data, key, { bearer, signal }) {
    const path = `/api/v1/payments/${data.payment_id ?? data.payment.id}`;
    const reading = this.#persist({ method: 'GET', path, bearer, signal });
    const answer = await reading.catch((error) => {
      throw error?.retryable ? new PaymentUnknown(key, error) : error;
    });
    const { invoices, tax_records, refunds, ...payment } = answer.body.data;
    const refund = refunds.find((/** @type {any} */ { id }) => id === data.refund?.id);
    const about = refund ? { refund, refund_amount: refund.amount } : { invoice: invoices[0], status: payment.status };
    return { ...data, payment, ...about };
  }

  /**
   * The intention stored under this name, or a new one. Under a lock that all tabs share, if the browser has Web Locks,
   * so that two tabs do not make two. The request is stored too: a key is valid for its first request only.
   * @param {string} name @param {object} request
   * @returns {Promise<Intention>}
   */
  async #intend(name, request) {
    const find = () => {
      const kept = parsed(this.#keys.get(name));
      if (kept) return { ...kept, isKept: true };
      const made = { key: newKey(), request };
      this.#keys.set(name, JSON.stringify(made));
      return { ...made, isKept: false };
    };
    try {
      return await globalThis.navigator.locks.request(name, find);
    } catch {
      return find(); // no Web Locks, as on plain http: then the server decides between two tabs
    }
  }

  /** Remove a key, unless another tab has stored a new one. @param {string} name @param {string} key */
  #forget(name, key) {
    if (parsed(this.#keys.get(name))?.key === key) this.#keys.remove(name);
  }

  /**
   * Make attempts, with growing pauses, until there is a definite response.
   * @param {Request} request @returns {Promise<Answer>}
   */
  async #persist({ unsure = false, bearer, ...rest }) {
    const request = { ...rest, bearer: bearer === undefined ? await this.#currentBearer(rest.signal) : bearer };
    for (let attempt = 1; ; attempt += 1) {
      this.#tell(request, { phase: attempt === 1 ? 'sending' : 'again', attempt });
      try {
        return await this.#attempt(request);
      } catch (error) {
        // A login is retried only if it got no response: each refusal counts against the limit.
        const mayTryAgain = error instanceof PaymentError && error.retryable;
        if (!mayTryAgain || (error.status > 0 && request.path === '/api/login')) throw error;
        const waitMs = this.#waitMs(attempt, error);
        const isLast = attempt >= this.#settings.maxAttempts || waitMs > LONGEST_WAIT_MS;
        // After a 409 or 429 the service did nothing; otherwise it may have, before the response was lost.
        unsure ||= error.status === 0 || error.status >= 500;
        if (request.key && (error.code === 'timeout' || (isLast && unsure))) {
          this.#tell(request, { phase: 'asking', attempt });
          const made = await this.#madeUnder({ ...request, key: request.key });
          if (made) return made;
        }
        if (isLast) throw request.key && unsure ? new PaymentUnknown(request.key, error) : error;
        this.#tell(request, { phase: 'waiting', attempt: attempt + 1, waitMs: Math.round(waitMs) });
        await pause(waitMs, request.signal);
      }
    }
  }

  /**
   * The response that is committed under a key. Null: nothing so far, or no response, or the full response is not in
   * it; then the same request is sent again with the same key.
   * @param {Request & {key: string}} request
   * @returns {Promise<Answer | null>}
   */
  async #madeUnder({ key, bearer, signal }) {
    let found;
    try {
      found = (await this.#attempt({ method: 'GET', path: `/api/v1${keyPath(key)}`, bearer, signal })).body.data;
    } catch {
      signal?.throwIfAborted();
      return null;
    }
    const { operation, status, payment_id, refund_id, first_response: first } = found;
    // The secret of a checkout is not stored, and a failed refund's reason is only in the service's response.
    if (operation === 'checkout' || (refund_id && status === 'failed')) return null;
    const existing = { data: { type: 'existing', payment_id, ...(refund_id ? { refund: { id: refund_id } } : {}) } };
    // A refund's first response may have been 202, and the refund has succeeded since.
    return { status: refund_id ? 200 : (first?.status ?? 200), body: first?.body ?? existing, replayed: true };
  }

  /** @param {Request} request @returns {Promise<Answer>} */
  async #attempt({ method, path, body, key, bearer, accept, signal }) {
    const tooLate = new AbortController();
    const timer = setTimeout(() => tooLate.abort(), this.#settings.timeoutMs);
    try {
      signal?.throwIfAborted();
      const { fetch, baseUrl } = this.#settings;
      const response = await fetch(baseUrl + path, {
        method,
        headers: this.#headers({ body, key, bearer, accept }),
        body: body && asJson(body),
        signal: signal ? AbortSignal.any([signal, tooLate.signal]) : tooLate.signal,
        cache: 'no-store',
        credentials: 'omit',
        redirect: 'error', // a redirected POST becomes a GET, and the token must not go elsewhere
      });
      if (accept === ANY_FILE && response.ok) {
        clearTimeout(timer);
        return { status: response.status, body: { blob: await response.blob(), name: nameOf(response) }, replayed: false };
      }
      return judge(response, await response.text().then(fromJson).catch(() => null));
    } catch (error) {
      signal?.throwIfAborted();
      if (tooLate.signal.aborted) throw noAnswer('timeout', { cause: error });
      throw error instanceof PaymentError ? error : noAnswer('no-answer', { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {Pick<Request, 'body' | 'key' | 'bearer' | 'accept'>} request @returns {Record<string, string>} */
  #headers({ body, key, bearer, accept = 'application/json' }) {
    return {
      Accept: `${accept}, application/problem+json`,
      ...(bearer ? { Authorization: `Bearer ${bearer}` } : {}),
      ...(this.#settings.language ? { 'Accept-Language': this.#settings.language } : {}),
      ...(body ? { 'Content-Type': 'application/json' } : {}),
      ...(key ? { 'Idempotency-Key': key } : {}),
    };
  }

  get #tokenName() {
    return `payment-token:${this.#settings.baseUrl}`;
  }

  /** @returns {{token: string, until: number} | null} */
  get #signedIn() {
    return parsed(this.#session.get(this.#tokenName));
  }

  /** The token to send; a link's is exchanged again in time. @param {AbortSignal} [signal] */
  async #currentBearer(signal) {
    if (this.#link && Date.now() > this.#link.renewAt) await this.openLink(this.#link.token, { signal });
    return this.#bearer;
  }

  get #bearer() {
    if (this.#link) return this.#link.bearer;
    if (this.#settings.token == null) return this.#signedIn?.token;
    return typeof this.#settings.token === 'function' ? this.#settings.token() : this.#settings.token;
  }

  /**
   * The id of the user whose keys these are: from the token, or, if it has none, from the service.
   * @param {string | null | undefined} bearer @param {AbortSignal} [signal]
   */
  async #userId(bearer, signal) {
    try {
      return claimsOf(bearer ?? '').sub;
    } catch {
      return (await this.read('/me', { signal })).data.id;
    }
  }

  /**
   * Milliseconds: from `Retry-After`, or a time that doubles. Partly random, so that clients do not retry in step.
   * @param {number} attempt @param {PaymentError} error
   */
  #waitMs(attempt, error) {
    if (error.retryAfterMs !== undefined) return error.retryAfterMs + Math.random() * this.#settings.firstPauseMs;
    const most = Math.min(this.#settings.firstPauseMs * 2 ** (attempt - 1), GREATEST_PAUSE_MS);
    return most * (0.5 + Math.random() / 2);
  }

  /** Report progress of a request that has an effect. @param {Request} request @param {Omit<Progress, 'of'>} step */
  #tell(request, step) {
    if (request.key) this.#settings.onProgress({ ...step, of: this.#settings.maxAttempts });
  }
}

/** Where the browser is to go on after a gateway's page, if this browser went there; null if not. */
export function wayBack() {
  for (const drawer of wayBackDrawers()) {
    const { to, until } = parsed(drawer.get(WAY_BACK)) ?? {};
    const { origin } = globalThis.location;
    if (until > Date.now() && URL.canParse(to, origin) && new URL(to, origin).origin === origin) return String(to);
  }
  return null;
}

/** Remove the way back to this address, once it has come to its end. @param {string | null} to */
export function forgetWayBack(to) {
  for (const drawer of wayBackDrawers()) if (to !== null && parsed(drawer.get(WAY_BACK))?.to === to) drawer.remove(WAY_BACK);
}

/** This tab's way back first. @returns {Drawer[]} */
function wayBackDrawers() {
  return [new Drawer(() => globalThis.sessionStorage), new Drawer(() => globalThis.localStorage)];
}

/** Storage that fails (switched off, full) must not stop a payment: then the values are kept in memory. */
class Drawer {
  static #inMemory = new Map();
  #storage;

  /** @param {() => Storage} storage called when it is needed: if storage is switched off, reading the property throws */
  constructor(storage) {
    this.#storage = storage;
  }

  /** @param {string} name @returns {string | null} */
  get(name) {
    try {
      return Drawer.#inMemory.get(name) ?? this.#storage().getItem(name);
    } catch {
      return null;
    }
  }

  /** @param {string} name @param {string} value */
  set(name, value) {
    try {
      this.#storage().setItem(name, value);
    } catch {
      Drawer.#inMemory.set(name, value);
    }
  }

  /** @param {string} name */
  remove(name) {
    Drawer.#inMemory.delete(name);
    try {
      this.#storage().removeItem(name);
    } catch {
      // then nothing is stored there
    }
  }
}

/**
 * A response, or an error if it is a refusal. "The consultation has a payment already" is not an error.
 * @param {Response} response @param {any} body @returns {Answer}
 */
function judge(response, body) {
  const { ok, status, headers } = response;
  const isExisting = status === 409 && body?.data?.type === 'existing';
  if (isExisting || (ok && (body?.data || body?.token))) {
    return { status, body, replayed: headers.get('Idempotent-Replayed') === 'true' };
  }
  const retryAfterMs = Number(headers.get('Retry-After') ?? NaN) * 1000;
  const more = Number.isNaN(retryAfterMs) ? {} : { retryAfterMs };
  if (typeof body?.retryable === 'boolean') throw new PaymentError(status, body, more);
  throw noAnswer('no-answer', more); // cut off, or from a proxy: not the service's response
}

/** The name of a file, as the service gives it. @param {Response} response */
function nameOf({ headers }) {
  return /filename="([^"]+)"/.exec(headers.get('Content-Disposition') ?? '')?.[1] ?? 'file';
}

/** @param {'timeout' | 'no-answer'} code @param {{cause?: unknown, retryAfterMs?: number}} more */
function noAnswer(code, more) {
  return new PaymentError(0, { type: code, message: 'The service did not answer.', retryable: true }, more);
}

/** One name for 5000, "5000" and "5000.00". @param {number | string | undefined} amount */
function plain(amount) {
  if (amount === undefined) return 'all';
  return Number.isNaN(Number(amount)) ? amount : Number(amount);
}

/**
 * The digits of an id: of a safe integer, or of a string of digits. Anything else was rounded before it came here, or is
 * no id, and is not sent.
 * @param {Id} id
 */
function digits(id) {
  const text = typeof id === 'string' || Number.isSafeInteger(id) ? String(id) : '';
  if (/^[1-9][0-9]{0,18}$/.test(text) && BigInt(text) <= GREATEST_ID) return text;
  throw new TypeError(`Not an id: use a safe integer above 0, or a string of its digits, not ${String(id)}`);
}

/** A request's body as JSON. Ids are numbers with every digit. @param {Record<string, any>} body */
function asJson(body) {
  const members = Object.entries(body)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => {
      const json = IDS_IN_REQUESTS.includes(name) ? digits(String(value)) : JSON.stringify(value);
      return `${JSON.stringify(name)}:${json}`;
    });
  return `{${members.join(',')}}`;
}

/**
 * Parse JSON; whole numbers that JavaScript would round become strings of their digits. Done in the text, because not
 * every browser gives a reviver the source text.
 * @param {string} text @returns {any}
 */
function fromJson(text) {
  const rounded = JSON.parse(text); // now it is known to be JSON
  if (!/[0-9]{16}/.test(text)) return rounded;
  const exact = text.replace(/"(?:[^"\\]+|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/g, (token) => {
    const isRounded = /^-?[0-9]+$/.test(token) && !Number.isSafeInteger(Number(token));
    return isRounded ? `"${token}"` : token;
  });
  return JSON.parse(exact);
}

/** What a bearer token says, which is for the service to check. @param {string} bearer @returns {any} */
function claimsOf(bearer) {
  const bytes = atob(bearer.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
  return fromJson(new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0))));
}

/** @param {string} key */
function keyPath(key) {
  return `/idempotency-keys/${encodeURIComponent(key)}`;
}

/** Our own stored value; null if it is not JSON. @param {string | null} text @returns {any} */
function parsed(text) {
  try {
    return JSON.parse(text ?? 'null');
  } catch {
    return null;
  }
}

/** @param {number} ms @param {AbortSignal} [signal] @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => [clearTimeout(timer), reject(signal?.reason)];
    const timer = setTimeout(() => [signal?.removeEventListener('abort', stop), resolve()], ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener('abort', stop, { once: true });
  });
}

/** Random, so that it reveals nothing, and long enough to be unique. */
function newKey() {
  if (globalThis.crypto.randomUUID) return globalThis.crypto.randomUUID(); // only on https and localhost
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
