// The upload of one file: how it is sent, paused, resumed after a reload, retried and verified.

import { isFresh, keepGrant } from "./batch.js";
import { UploadError, aborted, fromCause, prefersForm, send, sleep, unlessAborted, unreadableAnswer } from "./requests.js";

/** @typedef {import("./sessions.js").Session} Session */
/** @typedef {import("./index.js").UploadOptions} UploadOptions */
/** @typedef {import("./index.js").Uploaded} Uploaded */
/** @typedef {import("./index.js").UploadState} UploadState */

const MiB = 2 ** 20;

/** Up to this size one request sends the file. A larger one is sent in parts, which can be resumed. */
const MULTIPART_THRESHOLD = 16 * MiB;
/**
 * A file has this many parts, unless they would be smaller or larger than this. Each part costs some round trips, and
 * an interruption costs what was sent of a part.
 */
const PARTS = 24;
const PART_SIZE_USUAL = 8 * MiB;
const PART_SIZE_LARGE = 48 * MiB;
/** S3 accepts 10,000 parts of at least 5 MiB. */
const PARTS_MAX = 10_000;
const PART_SIZE_MIN = 5 * MiB;
/** Parts of one file that are sent at once: as many as a client sends requests. */
const CONCURRENCY = 8;
/** How often one request is tried. With the pauses in between, that takes most of a minute. */
const ATTEMPTS = 8;
const LONGEST_PAUSE_MS = 15_000;
/** A part that was on its way when its upload was aborted has arrived after this time. */
const LATE_MS = 2_000;
/** An abort waits this long until the parts are removed. The request for that goes on. */
const REMOVED_WITHIN_MS = 30_000;

/**
 * @typedef {object} Scope What the uploads to one server under one policy, and with one ticket, share.
 * @property {string} url
 * @property {string | undefined} policy
 * @property {UploadOptions["ticket"]} ticket
 * @property {import("./batch.js").Ask} ask
 * @property {import("./batch.js").Grants} grants
 * @property {import("./batch.js").Verifications} verifications
 * @property {{ checksum?: boolean, whole?: boolean, form?: boolean }} needs What the policy turned out to need:
 *   a checksum, files in one request each, forms (or, if this is `false`, no forms).
 */

/**
 * @typedef {object} Shared What all uploads of a client share.
 * @property {import("./requests.js").Slots} slots Requests to the store, as they share the browser's connections.
 * @property {import("./requests.js").Slots} hashing Files that are read for a checksum.
 * @property {import("./sessions.js").Sessions} sessions
 */

/** @typedef {{ number: number, start: number, size: number }} Part */
/** @typedef {{ PartNumber: number, ETag: string }} Completed A part that the store has. */
/** @typedef {Completed & { Size: number }} StoredPart The same, as the store lists it. */
/**
 * @typedef {object} Sent A file that the store has.
 * @property {string} key
 * @property {string | null} [etag]
 * @property {Uploaded} [upload] What the service has found in the store, if it was asked to verify the upload.
 * @property {Record<string, string>} [fields] Those of the form that has sent it.
 * @property {UploadError} [taken] The store's refusal to overwrite an object, which may be this file or another one.
 */

export class Run {
  /** @type {any} These two settle the promise. */
  #resolve;
  /** @type {any} */
  #reject;
  /** @type {UploadState} */
  #state = "paused";
  /** @type {AbortController | null | undefined} */
  #stop;
  #running = Promise.resolve();
  /** @type {Promise<void> | null | undefined} */
  #aborting;
  #isSettled = false;
  #shared;
  #scope;
  #file;
  #options;

  /** How many bytes the store has as complete parts. */
  #kept = 0;
  /** @type {Map<number, number>} */
  #partsInProgress = new Map();
  /** @type {Map<number, import("./batch.js").Granted<{ url: string }>>} */
  #partUrls = new Map();
  #id;
  /** @type {Session | null | undefined} */
  #session;
  /** @type {(() => void) | null | undefined} Gives the session back to other tabs; `undefined` before it is claimed. */
  #release;

  /** @type {Sent | undefined} */
  #sent;
  /** Whether the connection was lost while the file was sent. */
  #wasLost = false;
  /** @type {string | undefined} */
  #sha256;
  /** @type {Promise<string> | null | undefined} */
  #crc64nvme;

  /**
   * @param {Shared} shared
   * @param {Scope} scope
   * @param {File} file
   * @param {UploadOptions} options
   */
  constructor(shared, scope, file, options) {
    this.#shared = shared;
    this.#scope = scope;
    this.#file = file;
    this.#options = options;
    const { name, size, lastModified } = file ?? {};
    // Its session is that of the same file under the same policy of the same server.
    this.#id = JSON.stringify([scope.url, scope.policy, name, size, lastModified]);
    const { signal } = options;
    const onabort = () => this.abort().catch(() => {}); // the upload's promise has the error
    signal?.addEventListener("abort", onabort);
    /** @type {Promise<Uploaded>} */
    this.promise = new Promise((...settle) => ([this.#resolve, this.#reject] = settle)).finally(() => {
      signal?.removeEventListener("abort", onabort);
    });
    if (signal?.aborted) onabort();
  }

  /** Starts, or resumes after a pause. */
  resume = () => {
    if (this.#stop || this.#isSettled) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#change("waiting");
    // A run that was just paused may still have a request to finish.
    this.#running = this.#running.then(() => this.#run(stop.signal));
  };

  pause = () => {
    if (!this.#stop) return;
    this.#halt();
    this.#change("paused");
  };

  /**
   * Stops for good, and has the store remove the parts that it has. After a failure it removes the parts that
   * another attempt would have gone on with. Calls that overlap share one attempt.
   */
  abort = () => (this.#aborting ??= this.#abort());

  async #abort() {
    const isOver = this.#isSettled;
    this.#isSettled = true;
    this.#halt();
    if (!isOver) this.#change("cancelling");
    const wasSending = this.#partsInProgress.size > 0;
    await this.#running;
    try {
      // A session that was not kept is known to this upload alone. One that was kept may have been taken by
      // another tab, or by another upload of this file, after this one had failed.
      const wasKept = this.#release;
      if (isOver && wasKept && this.#session) this.#release = await this.#shared.sessions.hold(this.#id);
      const session = this.#session;
      if (session && (this.#release || !wasKept)) {
        await discard(this.#scope.ask, session);
        // A part whose bytes were all on their way may arrive after that, and would stay in the store.
        const again = () => discard(this.#scope.ask, session).catch(() => {}); // best effort
        if (wasSending) setTimeout(again, LATE_MS);
      }
      await this.#forget();
      this.#reject(aborted());
    } catch (/** @type {any} */ cause) {
      const error = new UploadError(`The store has parts left. ${cause.message}`, { ...cause, cause, refused: false });
      this.#reject(error);
      throw error;
    } finally {
      this.#aborting = null;
      this.#release?.();
    }
  }

  #halt() {
    this.#stop?.abort(aborted());
    this.#stop = null;
  }

  /** @param {AbortSignal} signal */
  async #run(signal) {
    try {
      signal.throwIfAborted();
      this.#sent ??= await this.#send(signal);
      this.#progress(this.#file.size);
      const uploaded = await this.#verify(this.#sent, signal);
      await this.#forget();
      this.#resolve(uploaded);
      this.#end();
    } catch (error) {
      if (signal.aborted) return;
      // It cannot be resumed, but a new upload can start.
      if (isFinal(error) && this.#session) {
        discard(this.#scope.ask, this.#session).catch(() => {}); // best effort
        await this.#forget();
      }
      this.#fail(error);
    }
  }

  /** @param {unknown} cause */
  #fail(cause) {
    const error = cause instanceof UploadError ? cause : fromCause(cause);
    // What is kept can be resumed, with another credential for example.
    if (this.#session) error.refused = false;
    this.#reject(error);
    // An abort goes on.
    if (!this.#isSettled) this.#end();
  }

  #end() {
    this.#isSettled = true;
    this.#halt();
    this.#release?.();
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<Sent>}
   */
  async #send(signal) {
    const { checksum, multipartThreshold = MULTIPART_THRESHOLD } = this.#options;
    if (!this.#file?.name) throw new UploadError("A File with a name is needed.");
    if (checksum && checksum !== "sha256" && checksum !== "crc64nvme") {
      throw new UploadError("The checksum must be sha256 or crc64nvme.");
    }
    const { needs } = this.#scope;
    const isWhole = this.#file.size <= multipartThreshold || needs.whole || checksum === "sha256";
    const before = { ...needs };
    try {
      return await (isWhole ? this.#sendWhole(signal) : this.#sendParts(signal));
    } catch (/** @type {any} */ error) {
      // Some policies allow no parts, because parts have no SHA-256 of the whole file for example.
      if (!isWhole && error.has?.("multipart-not-supported", "multipart-not-allowed", "forms-only")) needs.whole = true;
      else if (!before.checksum && error.has?.("checksum-required")) needs.checksum = true;
      else if (!before.form && error.has?.("forms-only")) needs.form = true;
      else throw error;
      return this.#send(signal);
    }
  }

  /**
   * What the service is asked to grant.
   *
   * @param {AbortSignal} signal
   */
  async #request(signal) {
    const { checksum, metadata } = this.#options;
    if (checksum === "sha256" || this.#scope.needs.checksum) {
      this.#sha256 ??= await this.#hash("sha256", signal);
    }
    const { name: filename, size } = this.#file;
    return {
      filename,
      contentType: typeOf(this.#file),
      size,
      policy: this.#scope.policy,
      metadata,
      checksumSha256: this.#sha256,
      checksumCrc64nvme: await this.#crc(signal),
    };
  }

  /**
   * @param {"sha256" | "crc64nvme"} algorithm
   * @param {AbortSignal} signal
   */
  async #hash(algorithm, signal) {
    // Few uploads need a checksum, so the others do not load the code.
    const checksums = await import("./checksum.js");
    return this.#shared.hashing.use(signal, () => checksums[algorithm](this.#file, signal)).catch((error) => {
      signal.throwIfAborted();
      throw unreadable(error);
    });
  }

  /** @param {AbortSignal} signal */
  async #crc(signal) {
    // S3 accepts one checksum of a file, and a policy that requires one wants the SHA-256.
    if (this.#options.checksum !== "crc64nvme" || this.#sha256) return undefined;
    return (this.#crc64nvme ??= this.#hash("crc64nvme", signal).catch((error) => {
      // A pause stops it; after that it has to begin again.
      this.#crc64nvme = null;
      throw error;
    }));
  }

  /**
   * Sends the file with one request: a PUT, or a form.
   *
   * @param {AbortSignal} signal
   * @returns {Promise<Sent>}
   */
  async #sendWhole(signal) {
    const { grants, needs } = this.#scope;
    const body = await this.#request(signal);
    // Some stores do not compare the checksum of a form, or do not keep it.
    const form = needs.form ?? (!this.#sha256 && !this.#crc64nvme && prefersForm(this.#file.size));
    /** @type {import("./batch.js").Wanted} */
    const wanted = { body, form };
    grants.waiting.add(wanted);
    try {
      return await this.#persist(signal, () =>
        this.#shared.slots.use(signal, async () => {
          this.#change("uploading");
          // A second attempt uses the same key: the store may have received the first one although its
          // answer was lost.
          const grant = await grants.get(wanted, signal);
          try {
            const etag = await send(grant, this.#file, signal, (loaded) => this.#progress(loaded));
            return { key: grant.key, fields: grant.fields, etag };
          } catch (/** @type {any} */ error) {
            const { status, retry } = error;
            // The policy forbids overwriting. What is there may be this file, from an attempt whose answer was lost: a
            // browser, too, sends a request again if the connection that it had kept open is closed.
            if (status === 412) return { key: grant.key, taken: error };
            // Stores have many words for a grant that has expired, and some hide their answer from the page.
            error.retry ||= !isFresh(wanted);
            if (status) wanted.grant = null;
            // Not every store that should accept forms does, and a CORS rule may hide their answers.
            if (grant.fields && !needs.form && (status ? !retry : retry && this.#wasLost)) {
              needs.form = wanted.form = false;
              wanted.grant = null;
              error.retry = true;
            }
            this.#wasLost ||= !status && retry;
            throw error;
          }
        }),
      );
    } finally {
      grants.waiting.delete(wanted);
    }
  }

  /** @param {AbortSignal} signal */
  async #sendParts(signal) {
    // Reading the file again for its checksum is cheaper than waiting for it first.
    this.#crc(signal).catch(() => {}); // verifying asks for it again
    if (this.#release === undefined) {
      const { sessions } = this.#shared;
      this.#release = await sessions.hold(this.#id);
      // Otherwise another upload of the same file is in progress, and this one has no session to resume.
      if (this.#release) this.#session = (await sessions.try("get", this.#id)) || null;
    }
    const there = this.#session && (await this.#partsThere(this.#session, signal));
    if (there === true) return { key: /** @type {Session} */ (this.#session).key };
    const session = this.#session ?? (await this.#create(signal));

    const { size } = this.#file;
    const { partSize } = session;
    const stored = new Map(there);
    /** @type {Completed[]} Those that the store has, in the order of the file. */
    const parts = [];
    /** @type {Part[]} */
    const missing = [];
    this.#kept = 0;
    for (let number = 1, start = 0; start < size; number += 1, start += partSize) {
      const part = { number, start, size: Math.min(partSize, size - start) };
      const known = stored.get(number);
      if (known?.Size === part.size) {
        parts[number - 1] = { PartNumber: number, ETag: known.ETag };
        this.#kept += part.size;
      } else missing.push(part);
    }
    this.#progress(this.#kept);

    const concurrency = Math.min(Math.max(this.#options.concurrency || CONCURRENCY, 1), CONCURRENCY);
    // A part that cannot be sent stops the others.
    const failure = new AbortController();
    const either = AbortSignal.any([signal, failure.signal]);
    const sendMissing = async () => {
      for (let part; (part = missing.shift()); ) {
        const next = () => missing.slice(0, concurrency);
        const ETag = await this.#sendPart(session, part, next, either);
        parts[part.number - 1] = { PartNumber: part.number, ETag };
      }
    };
    const senders = Array.from({ length: concurrency }, () => sendMissing().catch((error) => failure.abort(error)));
    await Promise.all(senders);
    either.throwIfAborted();
    await this.#keep({ ...session, kept: size, completing: true });
    return this.#persist(signal, () => {
      this.#change("finishing");
      // What compares a checksum is a call of its own.
      const body = { parts, verify: this.#options.verify !== false && !this.#crc64nvme };
      return this.#ask(signal, "POST", pathOf(session, "/complete"), body);
    });
  }

  /** @param {AbortSignal} signal */
  async #create(signal) {
    const { name, size, lastModified } = this.#file;
    const { url, policy, ask } = this.#scope;
    const sizeOf = (/** @type {number} */ parts) => Math.ceil(size / parts / MiB) * MiB;
    const usual = Math.min(Math.max(sizeOf(PARTS), PART_SIZE_USUAL), PART_SIZE_LARGE);
    const partSize = Math.max(this.#options.partSize || usual, PART_SIZE_MIN, sizeOf(PARTS_MAX));
    const { key, uploadId, presignedUrls } = await this.#persist(signal, () => {
      const body = { filename: name, type: typeOf(this.#file), size, policy, partSize, metadata: this.#options.metadata };
      // The call itself goes on after an abort: without the answer, which has the id, nobody can remove the upload.
      const created = ask("POST", "/s3/multipart", { body });
      return unlessAborted(signal, created).catch((error) => {
        created.then((late) => discard(ask, late)).catch(() => {}); // best effort
        throw error;
      });
    });
    const session = { id: this.#id, url, policy, name, size, lastModified, key, uploadId, partSize, created: Date.now() };
    this.#partUrls.clear();
    // The others are asked for one by one.
    for (const number in presignedUrls) {
      this.#partUrls.set(+number, keepGrant({}, Promise.resolve({ url: presignedUrls[number] })));
    }
    await this.#keep(session);
    return session;
  }

  /**
   * The parts that the store has, by number, or whether it has joined them; `undefined` if there is no such upload any more.
   *
   * @param {Session} session
   * @param {AbortSignal} signal
   * @returns {Promise<(readonly [number, StoredPart])[] | true | undefined>}
   */
  async #partsThere(session, signal) {
    const list = this.#persist(signal, async () => {
      /** @type {StoredPart[]} */
      const parts = await this.#ask(signal, "GET", pathOf(session));
      return parts.map((part) => /** @type {const} */ ([part.PartNumber, part]));
    });
    const there = await unlessFinal(list);
    if (there) return there;
    // The store may have joined the parts although the answer was lost, or the page was closed then.
    const verify = async () => {
      const found = await this.#scope.verifications.verify(session.key, signal);
      return found.size === session.size && this.#isThisFile(found, signal);
    };
    if (session.completing && (await unlessFinal(this.#persist(signal, verify)))) return true;
    // Otherwise the upload is too old, or was removed elsewhere. Nothing is lost by starting again.
    await this.#forget();
    return undefined;
  }

  /**
   * The URL of a part. It binds the part's size.
   *
   * @param {Session} session
   * @param {Part} part
   * @param {AbortSignal} signal
   */
  #partUrl(session, { number, size }, signal) {
    const known = this.#partUrls.get(number) ?? {};
    this.#partUrls.set(number, known);
    if (!isFresh(known)) {
      keepGrant(known, this.#ask(signal, "GET", pathOf(session, `/${number}`, { size })));
    }
    return known;
  }

  /**
   * Sends one part; its ETag.
   *
   * @param {Session} session
   * @param {Part} part
   * @param {() => Part[]} next The parts that come next.
   * @param {AbortSignal} signal
   * @returns {Promise<string>}
   */
  async #sendPart(session, part, next, signal) {
    const { number, start, size } = part;
    // This is only a reference to the file, which the browser reads while it sends.
    const blob = this.#file.slice(start, start + size);
    /** @param {number} loaded */
    const onprogress = (loaded) => {
      this.#partsInProgress.set(number, loaded);
      let sum = this.#kept;
      this.#partsInProgress.forEach((bytes) => (sum += bytes));
      this.#progress(sum);
    };
    try {
      const etag = await this.#persist(signal, () =>
        this.#shared.slots.use(signal, async () => {
          this.#change("uploading");
          const wanted = this.#partUrl(session, part, signal);
          // Those that follow need not wait for theirs.
          for (const following of next()) this.#partUrl(session, following, signal);
          const { url } = await /** @type {Promise<{ url: string }>} */ (wanted.grant);
          this.#partsInProgress.set(number, 0);
          try {
            return await send({ method: "PUT", url }, blob, signal, onprogress);
          } catch (/** @type {any} */ error) {
            error.retry ||= !isFresh(wanted);
            throw error;
          } finally {
            // Another attempt needs another URL, as this one may have expired.
            this.#partUrls.delete(number);
          }
        }),
      );
      if (!etag) {
        throw new UploadError("The store's CORS rule must expose ETag.", { code: "hidden-etag" });
      }
      this.#partsInProgress.delete(number);
      this.#kept += size;
      await this.#keep({ ...session, kept: this.#kept });
      return etag;
    } finally {
      this.#partsInProgress.delete(number);
    }
  }

  /**
   * @param {Sent} sent
   * @param {AbortSignal} signal
   * @returns {Promise<Uploaded>}
   */
  async #verify({ key, etag = null, upload, fields, taken }, signal) {
    const { size } = this.#file;
    const scope = this.#scope;
    if (this.#options.verify === false && !taken) return { key, size, etag, contentType: typeOf(this.#file) };
    const checksumCrc64nvme = await this.#crc(signal);
    try {
      const uploaded = await this.#persist(signal, async () => {
        this.#change("verifying");
        const body = { key, size, policy: scope.policy, checksumCrc64nvme };
        const found = await (checksumCrc64nvme
          ? this.#ask(signal, "POST", "/upload/verify", body)
          : upload ?? scope.verifications.verify(key, signal));
        if (taken && !(await this.#isThisFile(found, signal))) throw taken;
        return found;
      });
      signal.throwIfAborted();
      if (uploaded.size === size) return uploaded;
      throw new UploadError(`The store has ${uploaded.size} bytes instead of ${size}.`, { code: "mismatch", refused: true });
    } catch (/** @type {any} */ error) {
      if (taken && isFinal(error)) throw taken;
      // Some stores do not keep all that a form says.
      if (fields && !scope.needs.form && error.code === "mismatch") {
        scope.needs.form = false;
        return this.#verify((this.#sent = await this.#send(signal)), signal);
      }
      throw error;
    }
  }

  /**
   * Whether an object in the store is this file. Its size and its date do not tell: it may be an older object, or
   * another upload may have been faster.
   *
   * @param {any} uploaded
   * @param {AbortSignal} signal
   */
  async #isThisFile({ checksumSha256, checksumCrc64nvme }, signal) {
    const checksum = checksumSha256 ?? checksumCrc64nvme;
    if (checksum) return checksum === (await this.#hash(checksumSha256 ? "sha256" : "crc64nvme", signal));
    // A key that is never granted twice was granted to this upload.
    // The size does not matter here, and S3 accepts no PUT of more than 5 GiB.
    const request = { ...(await this.#request(signal)), size: 1 };
    const body = { files: [request, request] };
    const { uploads: [one, other] } = await this.#ask(signal, "POST", "/upload/presigned-urls", body);
    return one.key !== other.key;
  }

  /**
   * Asks the service. A function of the app that makes the headers may take any time, and cannot be aborted.
   *
   * @param {AbortSignal} signal
   * @param {string} method
   * @param {string} path
   * @param {object} [body]
   */
  #ask(signal, method, path, body) {
    return unlessAborted(signal, this.#scope.ask(method, path, { signal, body }));
  }

  /** @param {Session} session */
  async #keep(session) {
    this.#session = session;
    if (this.#release) await this.#shared.sessions.try("set", this.#id, session);
  }

  /** Forgets an upload that cannot, or need not, be resumed. */
  async #forget() {
    const wasKept = this.#session && this.#release;
    this.#session = null;
    if (wasKept) await this.#shared.sessions.delete(this.#id);
  }

  /**
   * Retries `attempt` with growing pauses, while its error may go away.
   *
   * @template T
   * @param {AbortSignal} signal
   * @param {() => Promise<T>} attempt
   * @returns {Promise<T>}
   */
  async #persist(signal, attempt) {
    for (let failures = 0, pauses = 0; ; pauses += 1) {
      try {
        signal.throwIfAborted();
        return await attempt();
      } catch (cause) {
        // Reading an answer of another shape is a TypeError.
        const error = cause instanceof UploadError ? cause : unreadableAnswer({ cause });
        // A file that was changed or removed looks like a lost connection.
        if (error.status === 0) {
          await this.#file.slice(0, 1).arrayBuffer().catch((cause) => {
            throw unreadable(cause);
          });
        }
        // A pause that came meanwhile has the last word.
        signal.throwIfAborted();
        // Failures while the browser is offline do not count, as that can take any time. Waiting for
        // `online` alone would be wrong, too: the service may be on this machine.
        if (globalThis.navigator?.onLine !== false) failures += 1;
        if (!error.retry || failures >= ATTEMPTS) throw error;
        this.#change("reconnecting", error);
        const pause = Math.min(500 * 2 ** pauses, LONGEST_PAUSE_MS);
        // The pause is partly random, so that clients do not all come back at the same moment.
        await sleep(Math.max(pause * (0.5 + Math.random() / 2), error.retryAfterMs), signal);
      }
    }
  }

  /** @param {number} loaded */
  #progress(loaded) {
    if (this.#stop) this.#call(() => this.#options.onProgress?.({ loaded, total: this.#file.size }));
  }

  /**
   * @param {UploadState} state
   * @param {UploadError} [error]
   */
  #change(state, error) {
    if (state === this.#state && !error) return;
    this.#state = state;
    this.#call(() => this.#options.onState?.(state, error));
  }

  /** @param {() => void} callback What it throws fails the upload, and not whoever has called it. */
  #call(callback) {
    try {
      callback();
    } catch (error) {
      this.#fail(error);
    }
  }
}

/**
 * Has the store remove the parts of an upload that will not be resumed.
 *
 * @param {import("./batch.js").Ask} ask
 * @param {{ uploadId: string, key: string }} session
 */
export function discard(ask, session) {
  // `keepalive` lets the request finish even if the page is closed now.
  const removed = unlessAborted(AbortSignal.timeout(REMOVED_WITHIN_MS), ask("DELETE", pathOf(session), { keepalive: true }));
  // What is not there need not be removed.
  return unlessFinal(removed);
}

/**
 * @param {{ uploadId: string, key: string }} session
 * @param {string} [path]
 * @param {Record<string, any>} [parameters]
 */
function pathOf({ uploadId, key }, path = "", parameters = {}) {
  return `/s3/multipart/${encodeURIComponent(uploadId)}${path}?${new URLSearchParams({ key, ...parameters })}`;
}

/**
 * Whether an error means that the upload cannot be resumed. After a 403, another credential may do it.
 *
 * @param {any} error
 */
function isFinal(error) {
  return error.has?.("no-such-upload", "NoSuchUpload", "not-uploaded") || (error.refused && error.status !== 403);
}

/**
 * Resolves to the answer of a call, or to `undefined` after a final error.
 *
 * @template T
 * @param {Promise<T>} call
 * @returns {Promise<T | undefined>}
 */
function unlessFinal(call) {
  return call.catch((error) => {
    if (!isFinal(error)) throw error;
    return undefined;
  });
}

/** @param {File} file */
function typeOf(file) {
  return file.type || "application/octet-stream";
}

/** @param {unknown} cause */
function unreadable(cause) {
  return new UploadError("The file was changed or moved. Choose it again.", { code: "unreadable-file", cause });
}
