// Requests to the service and to the store, and what all uploads share: their errors, pauses and turns.

/** A request that has sent nothing for this long after its first byte has lost its connection. */
const STALLED_AFTER_MS = 30_000;

/** What went wrong, in words for people. */
export class UploadError extends Error {
  name = "UploadError";

  constructor(message, { status = 0, codes = [], refused = false, retry = false, retryAfterMs = 0 } = {}) {
    super(message);
    /** The HTTP status; 0 if there was no answer. */
    this.status = status;
    /** The codes of the service's problem document. */
    this.codes = codes;
    /** Whether the service refused this file, so that the same request would be refused again. */
    this.refused = refused;
    /** Whether the same request may work later. */
    this.retry = retry;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Sends a request to the service. */
export async function ask(method, url, { body, headers, signal, keepalive } = {}) {
  let response, answer;
  try {
    response = await fetch(url, {
      method,
      signal,
      keepalive,
      headers: body ? { ...headers, "content-type": "application/json" } : headers,
      body: body && JSON.stringify(body),
    });
    answer = await response.text();
  } catch {
    signal?.throwIfAborted();
    throw new UploadError("The service cannot be reached.", { retry: true });
  }
  if (response.ok) return JSON.parse(answer);
  throw refusal(response, answer);
}

/** What the service's errors call the fields of a request, in words for people. */
const FIELDS = {
  "/filename": "The file name",
  "/contentType": "The content type",
  "/type": "The content type",
  "/size": "The size",
  "/policy": "The policy",
  "/checksumSha256": "A checksum",
};

/** The error in an answer of the service, which is a problem document (RFC 9457). */
function refusal(response, answer) {
  const { status } = response;
  let message = `The service answered ${status}.`;
  let codes = [];
  try {
    const { code, detail, errors = [], requestId } = JSON.parse(answer);
    codes = [code, ...errors.map((error) => error.code)];
    const reasons = errors.map((error) => FIELDS[error.pointer] && `${FIELDS[error.pointer]} ${error.detail}.`);
    if (errors.length && reasons.every(Boolean)) message = reasons.join(" ");
    // The cause of a fault of the service is in its log, under this id.
    else if (detail) message = `${detail[0].toUpperCase()}${detail.slice(1)}${status < 500 ? "" : ` (${requestId})`}.`;
  } catch {
    // It is no problem document: most likely a proxy's page.
  }
  const retry = mayWorkLater(status);
  return new UploadError(message, {
    status,
    codes,
    // With another credential the same request may work.
    refused: !retry && status < 500 && status !== 401,
    retry,
    retryAfterMs: Number(response.headers.get("retry-after") ?? 0) * 1000 || 0,
  });
}

/** Sends bytes to the store. `fetch` would not report the progress. */
export function send({ method, url, headers }, body, { signal, onprogress }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const xhr = new XMLHttpRequest();
    const abort = () => xhr.abort();
    let stalled;
    xhr.open(method, url);
    for (const [name, value] of Object.entries(headers)) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = ({ loaded }) => {
      clearTimeout(stalled);
      stalled = setTimeout(abort, STALLED_AFTER_MS);
      onprogress(loaded);
    };
    xhr.onloadend = () => {
      clearTimeout(stalled);
      signal.removeEventListener("abort", abort);
      if (xhr.status >= 200 && xhr.status < 300) return resolve(xhr);
      onprogress(0);
      if (signal.aborted) return reject(signal.reason);
      if (xhr.status === 0) return reject(new UploadError("The connection to the store was lost.", { retry: true }));
      const reason = xhr.responseText.match(/<Message>([^<]*)<\/Message>/)?.[1];
      reject(new UploadError(`The store answered ${xhr.status}${reason ? `: ${reason}` : "."}`, {
        status: xhr.status,
        // The next attempt uses a new URL.
        retry: mayWorkLater(xhr.status) || /expired/i.test(reason),
      }));
    };
    signal.addEventListener("abort", abort);
    xhr.send(body);
  });
}

function mayWorkLater(status) {
  return [408, 429, 502, 503, 504].includes(status);
}

/** Waits, but not longer than until the browser is online again or `signal` is aborted. */
export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
    signal.addEventListener("abort", end);
  });
}

/** Lets a few requests run at a time, in the order in which they came. */
export class Slots {
  #queue = [];

  constructor(free) {
    this.free = free;
  }

  async use(signal, task) {
    signal.throwIfAborted();
    if (this.free > 0) this.free -= 1;
    else await this.#turn(signal);
    try {
      return await task();
    } finally {
      const next = this.#queue.shift();
      if (next) next();
      else this.free += 1;
    }
  }

  #turn(signal) {
    return new Promise((resolve, reject) => {
      const turn = () => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        this.#queue.splice(this.#queue.indexOf(turn), 1);
        reject(signal.reason);
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#queue.push(turn);
    });
  }
}
