// A client for presignd: asks it for leave, sends the bytes straight to the store, and keeps at it
// when the connection drops. It knows nothing of any page, so copy this file into your own:
//
//   const upload = new Upload(file, { onchange: (upload) => show(upload.state, upload.loaded) });
//   upload.start();

const MiB = 1024 * 1024;

/** Up to this size a file goes in one request; a larger one in parts, which can be resumed. */
const SINGLE_REQUEST_MAX = 16 * MiB;
/** S3 takes 10,000 parts of at least 5 MiB. Larger parts mean fewer requests and more to repeat. */
const PART_MIN = 8 * MiB;
const PARTS_MAX = 10_000;
/** Browsers open six connections to a host over HTTP/1.1; more requests would only wait in them. */
const REQUESTS_AT_ONCE = 4;
/** How often one request is tried. With the pauses between, that is most of a minute. */
const ATTEMPTS = 8;
const LONGEST_PAUSE_MS = 15_000;
/** A request that has begun and then sends nothing for so long has lost its connection. */
const STALLED_AFTER_MS = 30_000;

/** What went wrong, in words for people. */
export class UploadError extends Error {
  name = "UploadError";

  constructor(message, { status = 0, refused = false, retry = false, retryAfterMs = 0 } = {}) {
    super(message);
    /** The HTTP status; 0 if there was no answer. */
    this.status = status;
    /** Whether it was the service that said no; asking again will not help. */
    this.refused = refused;
    /** Whether the same request may work later. */
    this.retry = retry;
    this.retryAfterMs = retryAfterMs;
  }
}

/**
 * One file on its way.
 *
 * `state` is one of
 * - `waiting`: for other uploads
 * - `uploading`
 * - `reconnecting`: something failed that may work later; it goes on by itself
 * - `paused`: until `start()`
 * - `finishing`: all bytes are there; the store puts the parts together
 * - `verifying`: the service asks the store whether it has what was granted
 * - `done`: it has; `key` says where
 * - `refused`: the service does not want this file; `message` says why
 * - `failed`: `message` says why, `start()` tries again
 * - `cancelling`, then `cancelled`
 */
export class Upload {
  state = "paused";
  /** How many bytes have gone out. */
  loaded = 0;
  /** How many of them the store keeps, whatever happens now. */
  kept = 0;
  key = null;
  message = "";

  #stop = null;
  /** The key under which all bytes were sent. */
  #sent = null;
  #running = Promise.resolve();
  #partsUnderWay = new Map();

  /**
   * `session` is what `onsession` was called with, maybe before the page was reloaded: the upload goes on
   * where that one ended. `onsession(null)` says that there is nothing to go on with any more.
   */
  constructor(file, { service = "", policy, session = null, onchange = () => {}, onsession = () => {} } = {}) {
    this.file = file;
    this.service = service;
    /** The name of the policy; if there is none, the service's default. */
    this.policy = policy;
    this.session = session;
    this.onchange = onchange;
    this.onsession = onsession;
  }

  /** Starts, goes on after a pause, or tries again after a failure. */
  start() {
    if (this.#stop) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#change("waiting");
    // What was just paused may still have a request to wind up.
    this.#running = this.#running.then(() => this.#run(stop));
  }

  pause() {
    if (!this.#stop) return;
    this.#halt();
    this.#change("paused");
  }

  /** Gives up, and has the store throw away the parts that it has. */
  async cancel() {
    this.#halt();
    this.#change("cancelling");
    // A part that arrives after the store has thrown the others away would stay there.
    await this.#running;
    try {
      if (this.session) await discard(this.session, this.service);
      this.#keep(null);
      this.#change("cancelled");
    } catch (error) {
      this.#change("failed", `The parts are still in the store. ${error.message}`);
    }
  }

  #halt() {
    this.#stop?.abort();
    this.#stop = null;
  }

  async #run(stop) {
    const { signal } = stop;
    try {
      signal.throwIfAborted();
      const inParts = this.session || this.file.size > SINGLE_REQUEST_MAX;
      this.#sent ??= inParts ? await this.#sendParts(signal) : await this.#sendWhole(signal);
      this.loaded = this.file.size;
      await this.#verify(signal);
      this.key = this.#sent;
      this.#stop = null;
      this.#change("done");
    } catch (error) {
      if (signal.aborted) return;
      this.#stop = null;
      if (!(error instanceof UploadError)) console.error(error);
      this.#change(error.refused ? "refused" : "failed", error.message);
    }
  }

  async #sendWhole(signal) {
    let grant = null;
    return this.#persist(signal, () => slots.use(signal, async () => {
      this.#change("uploading");
      // A second attempt goes to the same key: the store may have the first one, though we never heard.
      grant ??= await ask("POST", `${this.service}/upload/presigned-url`, {
        signal,
        body: { filename: this.file.name, contentType: typeOf(this.file), size: this.file.size, policy: this.policy },
      });
      const onprogress = (loaded) => this.#progress(loaded);
      try {
        await send(grant, this.file, { signal, onprogress });
      } catch (error) {
        if (error.status) grant = null;
        throw error;
      }
      return grant.key;
    }));
  }

  async #sendParts(signal) {
    const { size } = this.file;
    // Part number → ETag, of those that the store has.
    const parts = (await this.#partsThere(signal)) ?? (await this.#create(signal));
    const { partSize } = this.session;
    const sizeOf = (number) => Math.min(partSize, size - (number - 1) * partSize);
    const missing = [];
    for (let number = 1; number <= Math.ceil(size / partSize); number += 1) {
      if (!parts.has(number)) missing.push(number);
    }
    this.kept = [...parts.keys()].reduce((sum, number) => sum + sizeOf(number), 0);
    this.#partsUnderWay.clear();
    this.#progress(this.kept);

    // One part that fails for good stops the others.
    const failure = new AbortController();
    const either = AbortSignal.any([signal, failure.signal]);
    const sendMissing = async () => {
      for (let number; (number = missing.shift()); ) {
        parts.set(number, await this.#sendPart(number, sizeOf(number), either));
      }
    };
    const workers = Array.from({ length: REQUESTS_AT_ONCE }, () =>
      sendMissing().catch((error) => {
        failure.abort(error);
      }),
    );
    await Promise.all(workers);
    signal.throwIfAborted();
    if (failure.signal.aborted) throw failure.signal.reason;
    return this.#complete(parts, signal);
  }

  async #create(signal) {
    // Not to be aborted: if the store begins an upload and we do not hear its id, nobody can end it.
    const { key, uploadId } = await this.#persist(signal, () =>
      ask("POST", `${this.service}/s3/multipart`, {
        body: { filename: this.file.name, type: typeOf(this.file), size: this.file.size, policy: this.policy },
      }),
    );
    const least = Math.ceil(this.file.size / PARTS_MAX);
    const partSize = Math.max(PART_MIN, Math.ceil(least / MiB) * MiB);
    this.#keep({ key, uploadId, partSize });
    signal.throwIfAborted();
    return new Map();
  }

  /** Asks the store what it has; `null` if it knows of no such upload any more. */
  async #partsThere(signal) {
    if (!this.session) return null;
    const { partSize } = this.session;
    const { size } = this.file;
    try {
      const list = await this.#persist(signal, () => ask("GET", address(this.session, "", this.service), { signal }));
      const whole = list.filter(({ PartNumber: number, Size }) =>
        Size === Math.min(partSize, size - (number - 1) * partSize),
      );
      return new Map(whole.map(({ PartNumber, ETag }) => [PartNumber, ETag]));
    } catch (error) {
      signal.throwIfAborted();
      // Too old, or ended elsewhere. Then there is nothing to lose by beginning anew.
      if (!error.refused) throw error;
      this.#lose();
      return null;
    }
  }

  /** Sends one part; its ETag. */
  async #sendPart(number, size, signal) {
    const start = (number - 1) * this.session.partSize;
    // Only a reference to the file: the browser reads it while it sends.
    const blob = this.file.slice(start, start + size);
    const onprogress = (loaded) => {
      this.#partsUnderWay.set(number, loaded);
      let sum = this.kept;
      for (const bytes of this.#partsUnderWay.values()) sum += bytes;
      this.#progress(sum);
    };
    try {
      const etag = await this.#persist(signal, () => slots.use(signal, async () => {
        // Asked for just before it is used, so that it cannot end while it waits for its turn.
        const { url } = await ask("GET", address(this.session, `/${number}`, this.service), { signal });
        const xhr = await send({ method: "PUT", url, headers: {} }, blob, { signal, onprogress });
        return xhr.getResponseHeader("etag");
      }));
      if (!etag) throw new UploadError("The store does not show its ETag: its CORS rule must expose that header.");
      this.kept += size;
      return etag;
    } catch (error) {
      // What the service refuses now, or the store does not know, cannot go on; but it can begin anew.
      if (error.refused || error.status === 404) {
        this.#lose();
        throw new UploadError(error.message);
      }
      throw error;
    } finally {
      onprogress(0);
      this.#partsUnderWay.delete(number);
    }
  }

  async #complete(parts, signal) {
    const { session } = this;
    const list = [...parts].sort(([a], [b]) => a - b).map(([PartNumber, ETag]) => ({ PartNumber, ETag }));
    try {
      await this.#persist(signal, async () => {
        this.#change("finishing");
        try {
          await ask("POST", address(session, "/complete", this.service), { signal, body: { parts: list } });
        } catch (error) {
          if (error.retry) session.maybeComplete = true;
          throw error;
        }
      });
    } catch (error) {
      signal.throwIfAborted();
      if (error.refused) {
        discard(session, this.service).catch(() => {});
        this.#lose();
      }
      throw error;
    }
    this.#keep(null);
    return session.key;
  }

  async #verify(signal) {
    const body = { key: this.#sent, size: this.file.size, policy: this.policy };
    try {
      await this.#persist(signal, () => {
        this.#change("verifying");
        return ask("POST", `${this.service}/upload/verify`, { signal, body });
      });
    } catch (error) {
      // What is not there, or something else, has to be sent again.
      if (error.refused) this.#sent = null;
      throw error;
    }
  }

  /** Remembers what it takes to go on after a reload. */
  #keep(session) {
    this.session = session;
    this.onsession(session, this);
  }

  /** Forgets an upload that cannot go on. */
  #lose() {
    const { session } = this;
    this.#keep(null);
    if (session?.maybeComplete) {
      throw new UploadError(
        `The connection was lost while the store put the parts together. The file may be there already, as ${session.key}.`,
      );
    }
  }

  /** Tries `attempt` again, ever more slowly, as long as there is hope. */
  async #persist(signal, attempt) {
    for (let failures = 0, pauses = 0; ; pauses += 1) {
      try {
        return await attempt();
      } catch (error) {
        signal.throwIfAborted();
        // A file that was changed or removed looks like a lost connection.
        if (error.status === 0) await assertReadable(this.file);
        // Being offline says nothing about how long; so it does not count. It is no reason to wait for
        // `online` alone, either: the service may be on this very machine.
        if (navigator.onLine) failures += 1;
        if (!error.retry || failures >= ATTEMPTS) throw error;
        this.#change("reconnecting", error.message);
        const pause = Math.min(500 * 2 ** pauses, LONGEST_PAUSE_MS);
        // Not all at the same moment.
        await sleep(Math.max(pause * (0.5 + Math.random() / 2), error.retryAfterMs), signal);
      }
    }
  }

  #progress(loaded) {
    this.loaded = Math.min(loaded, this.file.size);
    const moves = this.#stop && loaded > 0;
    this.#change(moves ? "uploading" : this.state, moves ? "" : this.message);
  }

  #change(state, message = "") {
    this.state = state;
    this.message = message;
    this.onchange(this);
  }
}

/** Has the store throw away an upload that will not go on. */
export async function discard(session, service = "") {
  try {
    // `keepalive`: also if the page is closed right now.
    await ask("DELETE", address(session, "", service), { keepalive: true });
  } catch (error) {
    // What is not there need not be thrown away.
    if (!error.refused) throw error;
  }
}

function address({ uploadId, key }, rest, service) {
  return `${service}/s3/multipart/${encodeURIComponent(uploadId)}${rest}?${new URLSearchParams({ key })}`;
}

/** Asks the service. Its errors are problem documents (RFC 9457), whose `detail` is for people. */
async function ask(method, url, { body, signal, keepalive } = {}) {
  let response, answer;
  try {
    response = await fetch(url, {
      method,
      signal,
      keepalive,
      headers: body ? { "content-type": "application/json" } : {},
      body: body && JSON.stringify(body),
    });
    answer = await response.text();
  } catch {
    signal?.throwIfAborted();
    throw new UploadError("The service cannot be reached.", { retry: true });
  }
  if (response.ok) return JSON.parse(answer);
  let message = `The service answered ${response.status}.`;
  try {
    const { detail, requestId } = JSON.parse(answer);
    // What is the service's fault is in its log, under this id.
    if (detail) message = response.status < 500 ? detail : `${detail} (${requestId})`;
  } catch {
    // A proxy's page, most likely.
  }
  const retry = mayWorkLater(response.status);
  throw new UploadError(message, {
    status: response.status,
    refused: !retry && response.status < 500,
    retry,
    retryAfterMs: Number(response.headers.get("retry-after") ?? 0) * 1000 || 0,
  });
}

/** Sends bytes to the store. Not with `fetch`, which does not tell how far it is. */
function send({ method, url, headers }, body, { signal, onprogress }) {
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
        // A new attempt gets a new URL.
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

function typeOf(file) {
  return file.type || "application/octet-stream";
}

async function assertReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new UploadError("The file cannot be read any more. Was it changed or moved? Choose it again.");
  }
}

/** Ends early when the browser says that it is online again, or when `signal` says that it is over. */
function sleep(ms, signal) {
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

/** Lets a few requests through at a time, in the order in which they came. */
class Slots {
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

/** Shared by all uploads of the page: the connections are, too. */
const slots = new Slots(REQUESTS_AT_ONCE);
