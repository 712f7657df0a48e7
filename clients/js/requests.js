// Requests to the service and to the store, and what all uploads share: their errors, pauses and turns.

/** A request that has made no progress for this long has lost its connection. */
const STALLED_AFTER_MS = 60_000;
/** The service answers within 150 s, as a store may take minutes to join thousands of parts. */
const ANSWERED_WITHIN_MS = 180_000;

/** No pause is longer, whatever the service asks for: a timer of more than 24 days would fire at once. */
const LONGEST_RETRY_AFTER_MS = 60_000;

/** A larger file shows its progress, for which browsers send a preflight in any case. */
const FORM_MAX = 256 * 1024;

/**
 * Whether to ask for a form instead of a PUT. A browser sends a CORS preflight before each PUT to a new URL, and none
 * before a form. Other programs send none at all.
 *
 * @param {number} size
 */
export function prefersForm(size) {
  return !!globalThis.XMLHttpRequest && size <= FORM_MAX;
}

/**
 * @typedef {object} FieldError One reason of a refusal.
 * @property {string} pointer Where: a JSON pointer into the request, such as `/filename`.
 * @property {string} code What, for programs.
 * @property {string} detail What, for people.
 */

/**
 * @typedef {object} Details
 * @property {string} [code]
 * @property {number} [status]
 * @property {FieldError[]} [errors]
 * @property {string} [requestId]
 * @property {boolean} [refused]
 * @property {boolean} [retry]
 * @property {number} [retryAfterMs]
 * @property {unknown} [cause]
 */

/** What went wrong. `message` is a sentence for people. */
export class UploadError extends Error {
  name = "UploadError";

  /**
   * @param {string} message
   * @param {Details} [details]
   */
  constructor(message, { cause, ...details } = {}) {
    super(message, { cause });
    Object.assign(this, details);
  }

  /**
   * The code of the service's problem document, the store's error code, or one of `failed`, `network`, `aborted`,
   * `headers` (these could not be made), `unreadable-file`, `unreadable-answer`, `mismatch` and `hidden-etag`.
   */
  code = "failed";
  /** The HTTP status; 0 if there was no answer. */
  status = 0;
  /** @type {FieldError[]} All reasons of a refusal. */
  errors = [];
  /** @type {string | undefined} The id under which the log of the service, or of the store, has this request. */
  requestId;
  /** Whether the service refused this file, so that the same request would be refused again. */
  refused = false;
  /** Whether the same request may work later. */
  retry = false;
  retryAfterMs = 0;

  /** @param {string[]} codes */
  has(...codes) {
    return [this, ...this.errors].some(({ code }) => codes.includes(code));
  }
}

/**
 * The error that something else has caused, such as a function of the app.
 *
 * @param {any} cause
 * @param {Details} [details]
 */
export function fromCause(cause, details) {
  return new UploadError(cause?.message ?? String(cause), { ...details, cause });
}

/**
 * The error of an answer that is incomplete, or that presignd did not send.
 *
 * @param {Details} details
 */
export function unreadableAnswer(details) {
  return new UploadError("The answer cannot be read.", { code: "unreadable-answer", retry: true, ...details });
}

/** The error of an upload that was aborted. */
export function aborted() {
  return new UploadError("The upload was aborted.", { code: "aborted" });
}

/**
 * @typedef {object} Call
 * @property {unknown} [body]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {boolean} [keepalive]
 */

/**
 * Sends a request to the service.
 *
 * @param {string} method
 * @param {string} url
 * @param {Call} call
 * @param {string | null} [ticket] It takes the place of `authorization` in the headers.
 * @returns {Promise<any>}
 */
export async function ask(method, url, { body, headers, signal, keepalive }, ticket) {
  let request, response;
  try {
    const limit = AbortSignal.timeout(ANSWERED_WITHIN_MS);
    // `headers` may have the same names with capital letters.
    const all = new Headers({ ...headers });
    if (ticket) all.set("authorization", `Bearer ${ticket}`);
    if (body) all.set("content-type", "application/json");
    request = new Request(url, {
      method,
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      keepalive,
      headers: all,
      body: JSON.stringify(body),
    });
    response = await fetch(request);
  } catch (cause) {
    // An address or a header that is not valid will not become so.
    if (!request) throw fromCause(cause);
    throw new UploadError("The service cannot be reached.", { code: "network", retry: true, cause });
  }
  const { status } = response;
  // It is null if the connection was lost in the middle of it, or if a proxy answered instead of the service.
  const answer = await response.json().catch(() => null);
  if (!response.ok) {
    const retryAfterMs = Math.min(Number(response.headers.get("retry-after")) * 1000 || 0, LONGEST_RETRY_AFTER_MS);
    // What a proxy answers, for example while the service restarts, is no problem document, and refuses nothing.
    throw problem(typeof answer?.code === "string" ? answer : {}, status, retryAfterMs);
  }
  if (!answer) throw unreadableAnswer({ status });
  return answer;
}

/**
 * The error in an answer of the service, which is a problem document (RFC 9457).
 *
 * @param {{ code?: string, detail?: string, errors?: FieldError[], requestId?: string }} document
 * @param {number} status
 * @param {number} [retryAfterMs]
 */
export function problem({ code = "failed", detail, errors = [], requestId }, status, retryAfterMs = 0) {
  const retry = mayWorkLater(status) || code === "replaced";
  // With another credential the same request may work, and what is not there can be uploaded.
  const refused = code !== "failed" && !retry && ![401, 404, 501].includes(status);
  // The cause of a fault of the service is in its log, under this id.
  const id = status >= 500 && requestId ? ` (${requestId})` : "";
  const sentence = detail ? `${detail[0].toUpperCase()}${detail.slice(1)}${id}.` : `The service answered ${status}.`;
  const sentences = errors.map(({ pointer, detail }) => {
    // In words for people: `/contentType` is "The content type". Names of metadata stay as they are.
    const [, field = "request", name] = pointer.split("/");
    return `The ${field.replace(/[A-Z]/g, " $&").toLowerCase()}${name ? ` "${name}"` : ""} ${detail}.`;
  });
  const message = sentences.join(" ") || sentence;
  return new UploadError(message, { code, status, errors, requestId, refused, retry, retryAfterMs });
}

/** @param {number} status */
function mayWorkLater(status) {
  return [408, 425, 429].includes(status) || (status >= 500 && status !== 501);
}

/**
 * @typedef {object} StoreRequest
 * @property {string} method
 * @property {string} url
 * @property {Record<string, string>} [headers]
 * @property {Record<string, string>} [fields] Those of a form.
 */

/**
 * Sends bytes to the store; resolves to the ETag of what it has stored, if it shows one.
 *
 * @param {StoreRequest} request
 * @param {Blob} bytes
 * @param {AbortSignal} signal
 * @param {(loaded: number) => void} onprogress
 * @returns {Promise<string | null>}
 */
export async function send({ method, url, headers = {}, fields }, bytes, signal, onprogress) {
  signal.throwIfAborted();
  /** @type {Blob | FormData} */
  let body = bytes;
  if (fields) {
    body = new FormData();
    for (const name in fields) body.append(name, fields[name]);
    body.append("file", bytes);
  }
  const answer = await (globalThis.XMLHttpRequest ? sendByXhr : sendByFetch)(
    { method, url, headers, body, isSimple: fields && prefersForm(bytes.size), signal },
    // The form around a file counts as progress, too.
    (loaded) => onprogress(Math.min(loaded, bytes.size)),
  );
  if (answer.status >= 200 && answer.status < 300) {
    onprogress(bytes.size);
    return answer.etag;
  }
  onprogress(0);
  signal.throwIfAborted();
  throw answer.status === 0
    ? new UploadError("The store cannot be reached.", { code: "network", retry: true })
    : storeError(answer.status, answer.text);
}

/**
 * @typedef {object} Sending
 * @property {string} method
 * @property {string} url
 * @property {Record<string, string>} headers
 * @property {Blob | FormData} body
 * @property {boolean | undefined} isSimple Whether it must need no preflight, so that its progress is not followed.
 * @property {AbortSignal} signal
 */
/** @typedef {{ status: number, text: string, etag: string | null }} StoreAnswer */

/**
 * `fetch` would not report the progress.
 *
 * @param {Sending} sending
 * @param {(loaded: number) => void} onprogress
 * @returns {Promise<StoreAnswer>}
 */
function sendByXhr({ method, url, headers, body, isSimple, signal }, onprogress) {
  return new Promise((resolve) => {
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let stalled;
    xhr.open(method, url);
    for (const name in headers) xhr.setRequestHeader(name, headers[name]);
    if (isSimple) {
      xhr.timeout = ANSWERED_WITHIN_MS;
    } else {
      const abortAfter = (/** @type {number} */ ms) => {
        clearTimeout(stalled);
        stalled = setTimeout(abort, ms);
      };
      // It begins with the first byte: until then the request may wait for a connection, for as long as other parts take.
      xhr.upload.onprogress = ({ loaded }) => {
        abortAfter(STALLED_AFTER_MS);
        onprogress(loaded);
      };
      // After the last byte the store may take its time.
      xhr.upload.onload = () => abortAfter(ANSWERED_WITHIN_MS);
    }
    xhr.onloadend = () => {
      clearTimeout(stalled);
      signal.removeEventListener("abort", abort);
      // Asking for a header that the store hides would be an error in the console.
      const etag = xhr.getAllResponseHeaders().match(/^etag: *(.+)/im)?.[1] ?? null;
      resolve({ status: xhr.status, text: xhr.responseText, etag });
    };
    signal.addEventListener("abort", abort);
    xhr.send(body);
  });
}

/**
 * For programs outside a browser.
 *
 * @param {Sending} sending
 * @returns {Promise<StoreAnswer>}
 */
async function sendByFetch({ method, url, headers, body, signal }) {
  try {
    const response = await fetch(url, { method, headers, body, signal });
    const text = await response.text();
    return { status: response.status, text, etag: response.headers.get("etag") };
  } catch {
    // The caller reads only `status` then.
    return /** @type {any} */ ({ status: 0 });
  }
}

/** @type {Record<string, string>} What the store's codes mean, in words for people. */
const STORE_CODES = {
  SignatureDoesNotMatch: "The request differs from the granted one.",
  PreconditionFailed: "An object has this name, perhaps this file.",
};

/**
 * @param {number} status
 * @param {string} xml
 */
function storeError(status, xml) {
  /** @param {string} name */
  const element = (name) => xml.match(`<${name}>([^<]*)<`)?.[1];
  const code = element("Code") ?? "failed";
  const reason = element("Message");
  const isExpired = /expired/i.test(reason ?? "");
  const text = isExpired ? "The grant has expired." : STORE_CODES[code] ?? reason;
  return new UploadError(`The store answered ${status}${text ? `: ${text}` : "."}`, {
    code,
    status,
    requestId: element("RequestId"),
    // After an expiry the next attempt uses a new URL. A 409 is about another request for the same object, which may be
    // one of this upload whose answer was lost.
    retry: mayWorkLater(status) || status === 409 || isExpired || code === "RequestTimeout",
  });
}

/**
 * Waits, but not longer than until the browser is online again. It fails when `signal` is aborted.
 *
 * @param {number} ms
 * @param {AbortSignal} signal
 */
export function sleep(ms, signal) {
  /** @type {ReturnType<typeof setTimeout>} */
  let timer;
  const waited = new Promise((resolve) => {
    timer = setTimeout(resolve, ms);
    globalThis.addEventListener?.("online", resolve, { signal });
  });
  return unlessAborted(signal, waited).finally(() => clearTimeout(timer));
}

/**
 * What `promise` resolves to, unless `signal` is aborted before that: other uploads share the call, so it goes on.
 *
 * @template T
 * @param {AbortSignal} signal
 * @param {Promise<T>} promise
 * @returns {Promise<T>}
 */
export function unlessAborted(signal, promise) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop);
    if (signal.aborted) stop();
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}

/** Lets a few requests run at a time, in the order in which they came. */
export class Slots {
  /** @type {(() => void)[]} */
  #queue = [];

  /** How many run or wait. */
  busy = 0;

  /** @param {number} most */
  constructor(most) {
    this.most = most;
  }

  /**
   * @template T
   * @param {AbortSignal} signal
   * @param {() => Promise<T>} task
   * @returns {Promise<T>}
   */
  async use(signal, task) {
    /** @type {Promise<void>} */
    const turn = new Promise((resolve) => {
      if (this.busy++ < this.most) resolve();
      else this.#queue.push(resolve);
    });
    try {
      await unlessAborted(signal, turn);
      return await task();
    } finally {
      // Whoever has stopped waiting passes the turn on when it comes.
      turn.then(() => {
        this.busy -= 1;
        this.#queue.shift()?.();
      });
    }
  }
}
