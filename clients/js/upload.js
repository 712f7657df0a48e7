// A client for presignd: it asks for a presigned URL, sends the bytes straight to the store, and retries
// when the connection drops. It depends on no page, so you can copy it and requests.js into your project:
//
//   const upload = new Upload(file, { onchange: (upload) => show(upload.state, upload.loaded) });
//   upload.start();

import { Slots, UploadError, ask, send, sleep } from "./requests.js";

export { UploadError };

const MiB = 1024 * 1024;

/** Up to this size one request sends the file. A larger one is sent in parts, which can be resumed. */
const SINGLE_REQUEST_MAX = 16 * MiB;
/** S3 accepts 10,000 parts of at least 5 MiB. Larger parts mean fewer requests, and more to repeat. */
const PART_MIN = 8 * MiB;
const PARTS_MAX = 10_000;
/** Browsers open six connections to a host over HTTP/1.1; more requests would only wait for one. */
const REQUESTS_AT_ONCE = 4;
/** How often one request is tried. With the pauses in between, that takes most of a minute. */
const ATTEMPTS = 8;
const LONGEST_PAUSE_MS = 15_000;

/**
 * The upload of one file.
 *
 * `state` is one of
 * - `waiting`: for other uploads
 * - `uploading`
 * - `reconnecting`: something failed that may work later; it is retried without a call
 * - `paused`: until `start()`
 * - `finishing`: all bytes are sent; the store joins the parts
 * - `verifying`: the service checks that the store has what was granted
 * - `done`: the file is in the store, under `key`
 * - `refused`: the service does not allow this file; `message` says why
 * - `failed`: `message` says why; `start()` tries again
 * - `cancelling`, then `cancelled`
 */
export class Upload {
  state = "paused";
  /** How many bytes were sent. */
  loaded = 0;
  /** How many of them the store has stored as complete parts. */
  kept = 0;
  key = null;
  message = "";

  #stop = null;
  /** The key under which all bytes were sent. */
  #sent = null;
  #running = Promise.resolve();
  #partsInProgress = new Map();
  /** Whether the policy allows no parts. */
  #isWhole = false;
  #checksum;

  /**
   * - `service`: the URL of presignd; by default the page's origin.
   * - `policy`: the name of the policy; by default the service's default one.
   * - `headers`: a function, which may be asynchronous, that returns headers for each request to the
   *   service, such as `authorization`.
   * - `session`: what `onsession` was called with before the page was reloaded. The upload goes on from
   *   there, at the service and under the policy of then. `onsession(null)` says that there is nothing
   *   to resume any more.
   */
  constructor(
    file,
    { service = "", policy, headers = () => ({}), session = null, onchange = () => {}, onsession = () => {} } = {},
  ) {
    this.file = file;
    this.service = session?.service ?? service;
    this.policy = session ? session.policy : policy;
    this.headers = headers;
    this.session = session;
    this.onchange = onchange;
    this.onsession = onsession;
  }

  /** Starts, resumes after a pause, or tries again after a failure. */
  start() {
    if (this.#stop) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#change("waiting");
    // A run that was just paused may still have a request to finish.
    this.#running = this.#running.then(() => this.#run(stop));
  }

  pause() {
    if (!this.#stop) return;
    this.#halt();
    this.#change("paused");
  }

  /** Stops for good, and has the store remove the parts that it has. */
  async cancel() {
    this.#halt();
    this.#change("cancelling");
    // A part that arrives after the store has removed the others would stay there.
    await this.#running;
    try {
      if (this.session) await discard(this.session, { headers: this.headers });
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
      this.#sent ??= await this.#send(signal);
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

  async #send(signal) {
    const isSmall = this.file.size <= SINGLE_REQUEST_MAX;
    if (!this.session && (isSmall || this.#isWhole)) return this.#sendWhole(signal);
    try {
      return await this.#sendParts(signal);
    } catch (error) {
      // Some policies allow no parts, because parts have no checksum of the whole file for example.
      if (!error.codes?.includes("multipart-not-supported")) throw error;
      this.#isWhole = true;
      return this.#sendWhole(signal);
    }
  }

  async #sendWhole(signal) {
    let grant = null;
    return this.#persist(signal, () => slots.use(signal, async () => {
      this.#change("uploading");
      // A second attempt uses the same key: the store may have received the first one although its
      // answer was lost.
      grant ??= await this.#grant(signal);
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

  /** Asks for a presigned PUT; with a checksum if the policy requires one. */
  async #grant(signal) {
    const { name: filename, size } = this.file;
    const request = () => {
      const body = { filename, contentType: typeOf(this.file), size, policy: this.policy, checksumSha256: this.#checksum };
      return this.#ask("POST", "/upload/presigned-url", { signal, body });
    };
    try {
      return await request();
    } catch (error) {
      if (this.#checksum || !error.codes?.includes("checksum-required")) throw error;
      this.#checksum = await sha256(this.file);
      return request();
    }
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
    this.#partsInProgress.clear();
    this.#progress(this.kept);

    // A part that cannot be sent stops the others.
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
    // It cannot be aborted: if the answer with the upload's id is lost, nobody can remove the upload.
    const { key, uploadId } = await this.#persist(signal, () =>
      this.#ask("POST", "/s3/multipart", {
        body: { filename: this.file.name, type: typeOf(this.file), size: this.file.size, policy: this.policy },
      }),
    );
    const least = Math.ceil(this.file.size / PARTS_MAX);
    const partSize = Math.max(PART_MIN, Math.ceil(least / MiB) * MiB);
    this.#keep({ service: this.service, policy: this.policy, key, uploadId, partSize });
    signal.throwIfAborted();
    return new Map();
  }

  /** The parts that the store has; `null` if there is no such upload any more. */
  async #partsThere(signal) {
    if (!this.session) return null;
    const { partSize } = this.session;
    const { size } = this.file;
    try {
      const list = await this.#persist(signal, () => this.#askAbout(this.session, "GET", "", { signal }));
      const whole = list.filter(({ PartNumber: number, Size }) =>
        Size === Math.min(partSize, size - (number - 1) * partSize),
      );
      return new Map(whole.map(({ PartNumber, ETag }) => [PartNumber, ETag]));
    } catch (error) {
      signal.throwIfAborted();
      // The upload is too old, or was completed or removed elsewhere. Nothing is lost by starting again.
      if (!error.refused) throw error;
      this.#lose();
      return null;
    }
  }

  /** Sends one part; its ETag. */
  async #sendPart(number, size, signal) {
    const start = (number - 1) * this.session.partSize;
    // This is only a reference to the file, which the browser reads while it sends.
    const blob = this.file.slice(start, start + size);
    const onprogress = (loaded) => {
      this.#partsInProgress.set(number, loaded);
      let sum = this.kept;
      for (const bytes of this.#partsInProgress.values()) sum += bytes;
      this.#progress(sum);
    };
    try {
      const etag = await this.#persist(signal, () => slots.use(signal, async () => {
        // It is presigned just before it is used, so that it cannot expire while it waits for its turn.
        const { url } = await this.#askAbout(this.session, "GET", `/${number}`, { signal });
        const xhr = await send({ method: "PUT", url, headers: {} }, blob, { signal, onprogress });
        return xhr.getResponseHeader("etag");
      }));
      if (!etag) throw new UploadError("The store hides the header ETag. Its CORS rule must expose it.");
      this.kept += size;
      return etag;
    } catch (error) {
      // An upload that the service refuses or the store does not know cannot go on, but a new one can start.
      if (error.refused || error.status === 404) {
        this.#lose();
        throw new UploadError(error.message);
      }
      throw error;
    } finally {
      onprogress(0);
      this.#partsInProgress.delete(number);
    }
  }

  async #complete(parts, signal) {
    const { session } = this;
    const list = [...parts].sort(([a], [b]) => a - b).map(([PartNumber, ETag]) => ({ PartNumber, ETag }));
    try {
      await this.#persist(signal, async () => {
        this.#change("finishing");
        try {
          await this.#askAbout(session, "POST", "/complete", { signal, body: { parts: list } });
        } catch (error) {
          if (error.retry) session.maybeComplete = true;
          throw error;
        }
      });
    } catch (error) {
      signal.throwIfAborted();
      if (error.refused) {
        discard(session, { headers: this.headers }).catch(() => {}); // best effort
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
        return this.#ask("POST", "/upload/verify", { signal, body });
      });
    } catch (error) {
      // The object is missing or is another one, so the file has to be sent again.
      if (error.refused) this.#sent = null;
      throw error;
    }
  }

  /** Hands out what is needed to resume after a reload. */
  #keep(session) {
    this.session = session;
    this.onsession(session, this);
  }

  /** Forgets an upload that cannot be resumed. */
  #lose() {
    const { session } = this;
    this.#keep(null);
    if (session?.maybeComplete) {
      throw new UploadError(
        `The connection was lost while the store joined the parts. The file may be in the store already, as ${session.key}.`,
      );
    }
  }

  /** Retries `attempt` with growing pauses, while its error may go away. */
  async #persist(signal, attempt) {
    for (let failures = 0, pauses = 0; ; pauses += 1) {
      try {
        return await attempt();
      } catch (error) {
        signal.throwIfAborted();
        // A file that was changed or removed looks like a lost connection.
        if (error.status === 0) await assertReadable(this.file);
        // Failures while the browser is offline do not count, as that can take any time. Waiting for
        // `online` alone would be wrong, too: the service may be on this machine.
        if (navigator.onLine) failures += 1;
        if (!error.retry || failures >= ATTEMPTS) throw error;
        this.#change("reconnecting", error.message);
        const pause = Math.min(500 * 2 ** pauses, LONGEST_PAUSE_MS);
        // The pause is partly random, so that clients do not all come back at the same moment.
        await sleep(Math.max(pause * (0.5 + Math.random() / 2), error.retryAfterMs), signal);
      }
    }
  }

  #progress(loaded) {
    this.loaded = Math.min(loaded, this.file.size);
    const moves = this.#stop && loaded > 0;
    this.#change(moves ? "uploading" : this.state, moves ? "" : this.message);
  }

  async #ask(method, path, options) {
    return ask(method, this.service + path, { ...options, headers: await this.headers() });
  }

  async #askAbout(session, method, path, options) {
    return ask(method, address(session, path), { ...options, headers: await this.headers() });
  }

  #change(state, message = "") {
    this.state = state;
    this.message = message;
    this.onchange(this);
  }
}

/** Has the store remove the parts of an upload that will not be resumed. */
export async function discard(session, { headers = () => ({}) } = {}) {
  try {
    // `keepalive` lets the request finish even if the page is closed now.
    await ask("DELETE", address(session), { keepalive: true, headers: await headers() });
  } catch (error) {
    // What is not there need not be removed.
    if (!error.refused) throw error;
  }
}

function address({ service, uploadId, key }, path = "") {
  return `${service}/s3/multipart/${encodeURIComponent(uploadId)}${path}?${new URLSearchParams({ key })}`;
}

function typeOf(file) {
  return file.type || "application/octet-stream";
}

/** The SHA-256 of a file in base64. */
async function sha256(file) {
  let bytes;
  try {
    bytes = await file.arrayBuffer();
  } catch {
    await assertReadable(file);
    throw new UploadError("The policy requires a checksum, and the file is too large for this browser to compute it.");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return btoa(String.fromCharCode(...digest));
}

async function assertReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new UploadError("The file cannot be read any more. It may have been changed or moved; choose it again.");
  }
}

/** All uploads of the page share them, as they share the connections. */
const slots = new Slots(REQUESTS_AT_ONCE);
