/**
 * Paying once, from a browser: one key for one intention, kept until the answer is definite.
 *
 * A key per attempt is the bug this module exists to prevent. Whoever clicks twice, reloads, opens a second tab or sends
 * again after a timeout still means one payment: so the key is made when the intention is, kept in localStorage under
 * the user and the consultation, and sent with every attempt. The server answers the same key with the same answer.
 *
 * No dependencies, no build step. Types: payment-client.d.ts. What it does when: docs/javascript-client.md.
 *
 * @typedef {import('./payment-client.js').Outcome} Outcome
 * @typedef {import('./payment-client.js').Options} Options
 * @typedef {import('./payment-client.js').Id} Id
 * @typedef {import('./payment-client.js').Progress} Progress
 * @typedef {{signal?: AbortSignal}} Call
 * @typedef {{key: string, request: object, isKept: boolean}} Intention
 * @typedef {{status: number, body: any, replayed: boolean}} Answer
 * @typedef {{method: string, path: string, body?: object, key?: string, bearer?: string|null, unsure?: boolean, signal?: AbortSignal}} Request
 * @typedef {{answer: Promise<Outcome>, stop: AbortController, callers: number}} Job
 */

/** Milliseconds after which an attempt is given up: the last step of a ladder, after nginx has given up (60 s). */
const ATTEMPT_TIMEOUT_MS = 75_000;
/** Attempts at one request before the caller is told that nobody knows. */
const MAX_ATTEMPTS = 6;
/** Milliseconds before the second attempt; doubled for each one after it, up to the greatest. */
const FIRST_PAUSE_MS = 500;
const GREATEST_PAUSE_MS = 8_000;
/** Milliseconds. Nobody watches a spinner for longer: where the server asks for more, the caller is told instead. */
const LONGEST_WAIT_MS = 15_000;

/** The greatest id that the service has: it counts in 64 bits, a number of JavaScript is exact up to 2^53 only. */
const GREATEST_ID = 2n ** 63n - 1n;
/** Members of a request that the service takes as whole numbers, and that a number of JavaScript may not hold. */
const IDS_IN_REQUESTS = ['consultation_id'];

/** A payment that has ended: its consultation may be paid anew. */
export const ENDED = ['failed', 'cancelled', 'expired', 'refunded'];
/** A refund whose outcome is still to come. */
export const OPEN = ['pending', 'unknown'];

/** A refusal, or no answer at all (status 0). With `retryable` the same call may succeed later; else it is definite. */
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
    /** Milliseconds after which the server wants to be asked again, where it said so. */
    this.retryAfterMs = retryAfterMs;
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
  #settings;
  #keys;
  #session = new Drawer(() => globalThis.sessionStorage);
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

  signOut() {
    this.#session.remove(this.#tokenName);
  }

  get signedIn() {
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
   * What the caller believes to be left is no part of the intention: the same refund again goes on with its key.
   * @param {Id} paymentId @param {{amount?: number|string, reason?: string, expectedRefundable?: number|string}} [wanted]
   * @param {Call} [call]
   */
  async refundPayment(paymentId, { amount, reason, expectedRefundable } = {}, call) {
    const id = digits(paymentId);
    const body = { amount, reason: reason || undefined, expected_refundable: expectedRefundable };
    return this.#once(`refund:${id}:${plain(amount)}`, `/payments/${id}/refund`, body, call);
  }

  /**
   * The gateway's session, opened now or before. Its key is kept for no longer than the call: an old key would bring
   * back the session of a payment that has ended meanwhile.
   * @param {Id} paymentId @param {Call} [call]
   */
  async openCheckout(paymentId, { signal } = {}) {
    const path = `/api/v1/payments/${digits(paymentId)}/checkout`;
    return (await this.#persist({ method: 'POST', path, body: {}, key: newKey(), signal })).body.data;
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

  /** @param {string} path below /api/v1 @param {Call} [call] @returns {Promise<any>} */
  async read(path, { signal } = {}) {
    return (await this.#persist({ method: 'GET', path: `/api/v1${path}`, signal })).body;
  }

  /**
   * One request in flight for one intention, however many callers wait for it. Each may leave by their own signal; the
   * request is given up when the last one has left.
   * @param {string} intention what tells it from others, for its user
   * @param {string} path @param {object} body @param {Call} [call]
   * @returns {Promise<Outcome>}
   */
  async #once(intention, path, body, { signal } = {}) {
    const bearer = this.#bearer;
    const name = `payment-intention:${this.#settings.baseUrl}:${await this.#userId(bearer, signal)}:${intention}`;
    signal?.throwIfAborted();
    let job = this.#inFlight.get(name);
    if (!job) {
      const stop = new AbortController();
      // All attempts are this user's, whoever signs in meanwhile: another's key of the same name is another key.
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
   * Bring an intention to its end. Its key is forgotten once the answer is definite, and not before.
   * @param {string} name @param {Request & {body: object}} post @param {boolean} mayBeginAnew
   * @returns {Promise<Outcome>}
   */
  async #settle(name, post, mayBeginAnew) {
    const { key, request, isKept } = await this.#intend(name, post.body);
    const attempts = this.#persist({ ...post, body: request, key, unsure: isKept });
    const answer = await attempts.catch((error) => {
      // Whoever is logged out may log in and go on.
      if (error instanceof PaymentError && !error.retryable && error.status !== 401) this.#forget(name, key);
      throw error;
    });
    const data = answer.replayed ? await this.#afresh(answer.body.data, key, post) : answer.body.data;
    const isOpen = OPEN.includes(data.refund?.status);
    if (!isOpen) this.#forget(name, key);
    // What was kept from an earlier time made a payment that has ended since: to pay now is another intention.
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
   * A replay is the first answer, and may be old: what it tells of, as it is now.
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
   * The intention that is kept under this name, or a new one. Under a lock that all tabs share, where the browser has
   * such locks, so that two tabs do not make two. The request is kept too: a key goes with its first request alone.
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
      return find(); // no such locks, as on plain http: then the server decides between two tabs
    }
  }

  /** Not what another tab has begun meanwhile. @param {string} name @param {string} key */
  #forget(name, key) {
    if (parsed(this.#keys.get(name))?.key === key) this.#keys.remove(name);
  }

  /**
   * Attempts, with pauses that grow, until there is a definite answer.
   * @param {Request} request @returns {Promise<Answer>}
   */
  async #persist({ unsure = false, bearer = this.#bearer, ...rest }) {
    const request = { ...rest, bearer };
    for (let attempt = 1; ; attempt += 1) {
      this.#tell(request, { phase: attempt === 1 ? 'sending' : 'again', attempt });
      try {
        return await this.#attempt(request);
      } catch (error) {
        // A login is tried again only where it was not answered: each refusal counts.
        const mayTryAgain = error instanceof PaymentError && error.retryable;
        if (!mayTryAgain || (error.status > 0 && request.path === '/api/login')) throw error;
        const waitMs = this.#waitMs(attempt, error);
        const isLast = attempt >= this.#settings.maxAttempts || waitMs > LONGEST_WAIT_MS;
        // The service did nothing where it says 409 or 429; otherwise it may have, before the answer was lost.
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
   * What is committed under a key. Null: nothing so far, or nobody to tell, or not for us to tell; then the same request
   * is sent again with the same key.
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
    // A session's secret is kept nowhere, and how a refund failed is the service's to say.
    if (operation === 'checkout' || (refund_id && status === 'failed')) return null;
    const existing = { data: { type: 'existing', payment_id, ...(refund_id ? { refund: { id: refund_id } } : {}) } };
    // A refund's first answer may have been 202, and it succeeded since.
    return { status: refund_id ? 200 : (first?.status ?? 200), body: first?.body ?? existing, replayed: true };
  }

  /** @param {Request} request @returns {Promise<Answer>} */
  async #attempt({ method, path, body, key, bearer, signal }) {
    const timeout = AbortSignal.timeout(this.#settings.timeoutMs);
    try {
      signal?.throwIfAborted();
      const { fetch, baseUrl } = this.#settings;
      const response = await fetch(baseUrl + path, {
        method,
        headers: this.#headers({ body, key, bearer }),
        body: body && asJson(body),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        cache: 'no-store',
        credentials: 'omit',
        redirect: 'error', // a redirected POST becomes a GET, and the token is for nobody else
      });
      return judge(response, await response.text().then(fromJson).catch(() => null));
    } catch (error) {
      signal?.throwIfAborted();
      if (timeout.aborted) throw noAnswer('timeout', { cause: error });
      throw error instanceof PaymentError ? error : noAnswer('no-answer', { cause: error });
    }
  }

  /** @param {Pick<Request, 'body' | 'key' | 'bearer'>} request @returns {Record<string, string>} */
  #headers({ body, key, bearer }) {
    return {
      Accept: 'application/json, application/problem+json',
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

  get #bearer() {
    if (this.#settings.token == null) return this.#signedIn?.token;
    return typeof this.#settings.token === 'function' ? this.#settings.token() : this.#settings.token;
  }

  /**
   * Whose keys these are, by the token; where that tells nothing, by the service.
   * @param {string | null | undefined} bearer @param {AbortSignal} [signal]
   */
  async #userId(bearer, signal) {
    try {
      const claims = (bearer ?? '').split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
      return JSON.parse(atob(claims)).sub;
    } catch {
      return (await this.read('/me', { signal })).data.id;
    }
  }

  /**
   * Milliseconds: what the server asks for, or else a time that doubles. Partly random, so that nobody marches in step.
   * @param {number} attempt @param {PaymentError} error
   */
  #waitMs(attempt, error) {
    if (error.retryAfterMs !== undefined) return error.retryAfterMs + Math.random() * this.#settings.firstPauseMs;
    const most = Math.min(this.#settings.firstPauseMs * 2 ** (attempt - 1), GREATEST_PAUSE_MS);
    return most * (0.5 + Math.random() / 2);
  }

  /** Progress is told of what has an effect. @param {Request} request @param {Omit<Progress, 'of'>} step */
  #tell(request, step) {
    if (request.key) this.#settings.onProgress({ ...step, of: this.#settings.maxAttempts });
  }
}

/** Storage that refuses (switched off, full) must not stop a payment: this page then remembers by itself. */
class Drawer {
  static #inMemory = new Map();
  #storage;

  /** @param {() => Storage} storage looked for when it is needed: where it is switched off, to look is an error */
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
      // then it is not there either
    }
  }
}

/**
 * An answer, or its refusal as an error. That a consultation has a payment already is an answer: nothing went wrong.
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
  throw noAnswer('no-answer', more); // cut off, or a proxy's: not the service's word
}

/** @param {'timeout' | 'no-answer'} code @param {{cause?: unknown, retryAfterMs?: number}} more */
function noAnswer(code, more) {
  return new PaymentError(0, { type: code, message: 'The service did not answer.', retryable: true }, more);
}

/** The same amount by the same name, whether 5000, "5000" or "5000.00". @param {number | string | undefined} amount */
function plain(amount) {
  if (amount === undefined) return 'all';
  return Number.isNaN(Number(amount)) ? amount : Number(amount);
}

/**
 * An id as its digits: of a safe integer, or of a string that is nothing else. Whatever else was rounded before it came
 * here, or is no id: nothing is sent.
 * @param {Id} id
 */
function digits(id) {
  const text = typeof id === 'string' || Number.isSafeInteger(id) ? String(id) : '';
  if (/^[1-9][0-9]{0,18}$/.test(text) && BigInt(text) <= GREATEST_ID) return text;
  throw new TypeError(`Not an id, which is a safe integer above 0 or a string of its digits: ${String(id)}`);
}

/** A request's body as JSON, with every digit of its ids, as numbers. @param {Record<string, any>} body */
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
 * What JSON says, with whole numbers that JavaScript would round as strings of their digits. In the text itself, and so
 * in every browser: what a reviver is told of the source, not all of them tell.
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

/** @param {string} key */
function keyPath(key) {
  return `/idempotency-keys/${encodeURIComponent(key)}`;
}

/** What we wrote; null for what somebody else did. @param {string | null} text @returns {any} */
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

/** Random, so that it says nothing, and long enough never to meet another. */
function newKey() {
  if (globalThis.crypto.randomUUID) return globalThis.crypto.randomUUID(); // only on https and localhost
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
