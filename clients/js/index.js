// A client for presignd: it asks for permission to upload, sends the bytes straight to the store, and
// retries when the connection drops. No dependency, no framework.

import { Grants, Verifications } from "./batch.js";
import { Slots, UploadError, ask, fromCause } from "./requests.js";
import { Sessions, indexedDbSessions } from "./sessions.js";
import { Run } from "./upload.js";

export { UploadError };

/** @typedef {import("./sessions.js").Session} Session */
/** @typedef {import("./sessions.js").SessionStore} SessionStore */
/** @typedef {import("./requests.js").FieldError} FieldError */

/**
 * Browsers open six connections to a host over HTTP/1.1. Two more requests wait for one, so that bytes are sent while
 * others begin or end.
 */
const REQUESTS_AT_ONCE = 8;
/** A file is read for its checksum faster than it is sent. */
const FILES_HASHED_AT_ONCE = 2;

/**
 * @typedef {object} ClientOptions
 * @property {string} [url] The address of presignd; by default the page's own origin.
 * @property {() => Record<string, string> | Promise<Record<string, string>>} [headers] Called for each request to
 *   presignd, for a plain object, so that a token can be fresh: `async () => ({ authorization: `Bearer ${await token()}` })`.
 * @property {string} [policy] The policy of uploads that name none.
 * @property {SessionStore | null} [sessions] Where uploads are remembered that a reload interrupts; by default
 *   IndexedDB. `null` remembers none.
 */

/**
 * @typedef {"waiting" | "uploading" | "reconnecting" | "paused" | "finishing" | "verifying" | "cancelling"} UploadState
 * - `waiting`: for other uploads
 * - `uploading`
 * - `reconnecting`: something failed that may work later; it is retried without a call
 * - `paused`: until `resume()`
 * - `finishing`: all bytes are sent; the store joins the parts
 * - `verifying`: presignd checks that the store has what was granted
 * - `cancelling`: the store removes the parts that it has
 */

/**
 * @typedef {object} UploadOptions
 * @property {string} [policy]
 * @property {Record<string, string>} [metadata] What the store keeps with the file, as far as the policy allows it.
 * @property {"sha256" | "crc64nvme"} [checksum] `sha256` sends the file in one request, and the store accepts no other
 *   bytes. `crc64nvme` also works in parts: presignd compares it with what the store has computed.
 * @property {AbortSignal} [signal] Aborts the upload, as `abort()` does.
 * @property {(progress: { loaded: number, total: number }) => void} [onProgress] In bytes. It may go backwards when a
 *   request has to be repeated.
 * @property {(state: UploadState, error?: UploadError) => void} [onState] `error` is why it is `reconnecting`.
 * @property {number} [multipartThreshold] Up to this many bytes, a file is sent in one request; 16 MiB by default.
 * @property {number} [partSize] In bytes, at least 5 MiB; by default a 24th of the file, but 8 to 48 MiB. It is larger
 *   where a file would have over 10,000 parts.
 * @property {number} [concurrency] How many parts are sent at once; 8 by default.
 * @property {string | (() => string | Promise<string>)} [ticket] A token for this upload, instead of the client's
 *   `authorization` header. Files with the same token or function share calls, so it has to allow each of them.
 * @property {boolean} [verify] `false` does not ask presignd whether the store has the file.
 */

/**
 * @typedef {object} Uploaded
 * @property {string} key The name of the object in the bucket.
 * @property {number} size
 * @property {string | null} etag `null` if it is unknown, which it never is after verifying.
 * @property {string} contentType
 * @property {string} [receipt] Proof for your back end, if presignd issues receipts.
 */

/**
 * @typedef {object} Controls
 * @property {() => void} pause
 * @property {() => void} resume Goes on after a pause. After a failure, call `upload` again.
 * @property {() => Promise<void>} abort Removes the parts that were sent; an object that is complete
 *   stays. The upload's promise rejects with the code `aborted`.
 */

/** @typedef {Promise<Uploaded> & Controls} Upload */

/**
 * @typedef {object} DownloadOptions
 * @property {string} [policy] The policy that granted the upload.
 * @property {"inline" | "attachment"} [disposition]
 * @property {string} [filename] The name under which browsers save the file.
 */

/** @typedef {{ url: string, key: string, method: string, headers: Record<string, string>, expiresAt: string }} Download */

/** @param {ClientOptions} [options] */
export function createClient(options) {
  return new Client(options);
}

export class Client {
  #headers;
  /** @type {Map<string | undefined, import("./upload.js").Scope>} By policy: those of the latest ticket. */
  #scopes = new Map();

  /** @param {ClientOptions} [options] */
  constructor({ url = "", headers, policy, sessions = indexedDbSessions() } = {}) {
    this.url = url.replace(/\/+$/, "");
    this.#headers = headers;
    this.policy = policy;
    /** @internal */
    this.shared = {
      slots: new Slots(REQUESTS_AT_ONCE),
      hashing: new Slots(FILES_HASHED_AT_ONCE),
      sessions: new Sessions(sessions),
    };
  }

  /**
   * Uploads one file, or continues its interrupted upload, which is found by the server, the policy and the file's
   * name, size and date. Files that are uploaded at the same time share calls to presignd.
   *
   * @param {File} file
   * @param {UploadOptions} [options]
   * @returns {Upload}
   */
  upload(file, options = {}) {
    const { promise, ...controls } = new Run(this.shared, this.scope(options), file, options);
    controls.resume();
    return Object.assign(promise, controls);
  }

  /**
   * Uploads many files under one policy: resolves when each has arrived or failed.
   *
   * @param {Iterable<File>} files
   * @param {UploadOptions} [options] `onProgress` gets the sums of all files.
   * @returns {Promise<PromiseSettledResult<Uploaded>[]>} In the order of `files`.
   */
  uploadAll(files, options = {}) {
    const list = [...files];
    const total = list.reduce((sum, file) => sum + (file?.size ?? 0), 0);
    let loaded = 0;
    const uploads = list.map((file) => {
      let before = 0;
      /** @param {{ loaded: number }} progress */
      const onProgress = (progress) => {
        loaded += progress.loaded - before;
        before = progress.loaded;
        options.onProgress?.({ loaded, total });
      };
      return this.upload(file, { ...options, onProgress });
    });
    return Promise.allSettled(uploads);
  }

  /**
   * A URL from which the file can be fetched for a while.
   *
   * @param {string} key
   * @param {DownloadOptions} [options]
   * @returns {Promise<Download>}
   */
  download(key, { policy = this.policy, ...options } = {}) {
    return this.scope().ask("POST", "/download/presigned-url", { body: { key, policy, ...options } });
  }

  /**
   * Deletes an uploaded file.
   *
   * @param {string} key
   * @param {{ policy?: string }} [options]
   * @returns {Promise<void>}
   */
  async remove(key, { policy = this.policy } = {}) {
    await this.scope().ask("POST", "/upload/delete", { body: { key, policy } });
  }

  /**
   * @internal
   * @param {{ policy?: string, ticket?: UploadOptions["ticket"] }} [options]
   * @returns {import("./upload.js").Scope}
   */
  scope({ policy = this.policy, ticket } = {}) {
    const { url } = this;
    const known = this.#scopes.get(policy);
    if (known && known.ticket === ticket) return known;
    /** @type {import("./batch.js").Ask} */
    const askService = async (method, path, call) => {
      let headers, token;
      try {
        headers = await this.#headers?.();
        token = await (typeof ticket === "function" ? ticket() : ticket);
      } catch (cause) {
        // `fetch` rejects with a TypeError while the network is down.
        throw fromCause(cause, { code: "headers", retry: cause instanceof TypeError });
      }
      return ask(method, url + path, { ...call, headers }, token);
    };
    const scope = {
      url,
      policy,
      ticket,
      ask: askService,
      grants: new Grants(askService),
      verifications: new Verifications(askService, policy, this.shared.slots),
      needs: {},
    };
    this.#scopes.set(policy, scope);
    return scope;
  }
}
