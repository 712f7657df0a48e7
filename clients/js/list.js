// The uploads that a page shows: those of this visit and those that a reload has interrupted. It knows no
// framework; `react.js` and `element.js` render it.

import { UploadError, fromCause } from "./requests.js";
import { follow } from "./sessions.js";
import { discard } from "./upload.js";

/** @typedef {import("./index.js").Client} Client */
/** @typedef {import("./index.js").Session} Session */
/** @typedef {import("./index.js").Upload} Upload */
/** @typedef {import("./index.js").Uploaded} Uploaded */
/** @typedef {import("./index.js").UploadState} UploadState */
/** @typedef {Omit<import("./index.js").UploadOptions, "signal" | "onProgress" | "onState">} ListOptions */

/**
 * @typedef {object} UploadItem A file in the list. It is never changed, but replaced.
 * @property {string} id
 * @property {string} name
 * @property {number} size
 * @property {string | undefined} policy
 * @property {UploadState | "done" | "refused" | "failed" | "interrupted"} state
 * - as those of an upload, and
 * - `done`: the file is in the store, under `key`
 * - `refused`: presignd does not allow this file; `error` says why
 * - `failed`: `error` says why; `resume(id)` of the list tries again
 * - `interrupted` by a reload: adding the same file again resumes it
 * @property {number} loaded How many bytes were sent.
 * @property {number} total
 * @property {UploadError} [error]
 * @property {string} [key]
 * @property {Uploaded} [uploaded]
 */

/** States in which an upload is in progress. */
export const ACTIVE = new Set(["waiting", "uploading", "reconnecting", "finishing", "verifying", "cancelling"]);
export const FINISHED = new Set(["done", "refused"]);

/** Progress is shown this often. */
const PROGRESS_EVERY_MS = 100;

/** @typedef {{ client: Client, item: UploadItem, file: File | null, session: Session | null, upload: Upload | null, options: ListOptions }} Entry */

let lastId = 0;

export class UploadList {
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** @type {readonly UploadItem[]} */
  #snapshot = [];
  /** @type {Set<() => void>} */
  #listeners = new Set();
  /** @type {Client} */
  #client;
  #offers;
  #isDue = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {(() => void) | undefined} */
  #unfollow;

  /**
   * @param {Client} client
   * @param {(session: Session) => boolean} [offers] Whether an interrupted upload belongs in this list; by default, if
   *   it has the client's policy.
   */
  constructor(client, offers = ({ policy }) => policy === this.#client.policy) {
    this.#client = client;
    this.#offers = offers;
  }

  /** @param {() => void} listener Called when `getSnapshot()` has changed. */
  subscribe = (listener) => {
    this.#listeners.add(listener);
    this.#unfollow ??= this.#follow();
    return () => {
      this.#listeners.delete(listener);
      if (this.#listeners.size) return;
      this.#unfollow?.();
      this.#unfollow = undefined;
    };
  };

  getSnapshot = () => this.#snapshot;

  #follow() {
    const { url, shared } = this.#client;
    return follow(
      shared.sessions,
      (session) => session.url === url && this.#offer(session),
      (id) => this.#withdraw(id),
    );
  }

  /**
   * Has another client upload the files that are added from now on, and offers the uploads of its server that were
   * interrupted. The others stay with the client that they were added with.
   *
   * @param {Client} client
   */
  use(client) {
    this.#client = client;
    for (const { item } of this.#entries.values()) if (item.state === "interrupted") this.#entries.delete(item.id);
    if (this.#unfollow) {
      this.#unfollow();
      this.#unfollow = this.#follow();
    }
    this.#changed();
  }

  /**
   * Uploads files. One that was interrupted by a reload is resumed.
   *
   * @param {Iterable<File>} files
   * @param {ListOptions} [options]
   */
  add(files, options = {}) {
    for (const file of files) {
      const interrupted = [...this.#entries.values()].find(
        ({ item, session }) =>
          item.state === "interrupted" &&
          session &&
          this.#offers(session) &&
          session.name === file.name &&
          session.size === file.size &&
          session.lastModified === file.lastModified,
      );
      if (interrupted) {
        interrupted.file = file;
        interrupted.options = options;
        this.#begin(interrupted);
        continue;
      }
      const { name, size } = file;
      const item = this.#item(name, size, options.policy, "waiting");
      const entry = { client: this.#client, item, file, session: null, upload: null, options };
      this.#entries.set(item.id, entry);
      this.#begin(entry);
    }
  }

  /** @param {string} id */
  pause(id) {
    this.#entries.get(id)?.upload?.pause();
  }

  /**
   * After a pause, or again after a failure.
   *
   * @param {string} id
   * @param {{ ticket?: ListOptions["ticket"] }} [options] The ticket of another attempt, as the one with which the file
   *   was added may have expired.
   */
  resume(id, { ticket } = {}) {
    const entry = this.#entries.get(id);
    if (entry?.item.state === "paused") entry.upload?.resume();
    else if (entry?.file && (entry.item.state === "failed" || entry.item.state === "refused")) {
      if (ticket) entry.options = { ...entry.options, ticket };
      this.#begin(entry);
    }
  }

  /**
   * Removes a file from the list. One that has not arrived is cancelled: the store removes what it has.
   *
   * @param {string} id
   * @param {{ ticket?: ListOptions["ticket"] }} [options] The ticket with which an interrupted upload is discarded.
   */
  async remove(id, { ticket } = {}) {
    const entry = this.#entries.get(id);
    if (!entry) return;
    const { item, session } = entry;
    // The first call is still discarding an interrupted upload.
    if (item.state === "cancelling" && !entry.upload) return;
    try {
      if (item.state === "interrupted" && session) {
        this.#update(entry, { state: "cancelling", error: undefined });
        await this.#discard(entry.client, session, ticket);
      } else if (!FINISHED.has(item.state)) {
        await entry.upload?.abort();
      }
    } catch (error) {
      this.#update(entry, {
        state: entry.file ? "failed" : "interrupted",
        error: error instanceof UploadError ? error : fromCause(error),
      });
      return;
    }
    this.#entries.delete(id);
    this.#changed();
  }

  /**
   * Removes the parts of an interrupted upload from the store.
   *
   * @param {Client} client
   * @param {Session} session
   * @param {ListOptions["ticket"]} ticket
   */
  async #discard(client, session, ticket) {
    const { sessions } = client.shared;
    const release = await sessions.hold(session.id);
    if (!release) return; // another tab has resumed it
    try {
      await discard(client.scope({ policy: session.policy, ticket }).ask, session);
      await sessions.delete(session.id);
    } finally {
      release();
    }
  }

  /**
   * @param {string} name
   * @param {number} size
   * @param {string | undefined} policy
   * @param {UploadItem["state"]} state
   * @returns {UploadItem}
   */
  #item(name, size, policy, state, loaded = 0) {
    lastId += 1;
    return { id: String(lastId), name, size, policy, state, loaded, total: size };
  }

  /** @param {Entry} entry */
  #begin(entry) {
    const { session } = entry;
    const file = /** @type {File} */ (entry.file);
    const upload = entry.client.upload(file, {
      ...entry.options,
      // It is resumed under its own policy.
      policy: session ? session.policy : entry.options.policy,
      onProgress: ({ loaded }) => this.#update(entry, { loaded }, PROGRESS_EVERY_MS),
      onState: (state, error) => this.#update(entry, { state, error }),
    });
    entry.upload = upload;
    this.#update(entry, { state: "waiting", error: undefined });
    upload.then(
      (uploaded) => this.#update(entry, { state: "done", loaded: file.size, error: undefined, key: uploaded.key, uploaded }),
      (/** @type {UploadError} */ error) => {
        if (error.code !== "aborted") this.#update(entry, { state: error.refused ? "refused" : "failed", error });
      },
    );
  }

  /** @param {Session} session */
  #offer(session) {
    if (!this.#offers(session)) return;
    const isShown = (/** @type {Entry} */ entry) => entry.session?.id === session.id || this.#isOf(entry, session);
    // The same file may have been uploaded before.
    if ([...this.#entries.values()].some((entry) => !FINISHED.has(entry.item.state) && isShown(entry))) return;
    const { name, size, policy, kept } = session;
    const item = this.#item(name, size, policy, "interrupted", kept);
    this.#entries.set(item.id, { client: this.#client, item, file: null, session, upload: null, options: {} });
    this.#changed();
  }

  /**
   * Whether an upload that has failed here, and can be tried again here, has left this session.
   *
   * @param {Entry} entry
   * @param {Session} session
   */
  #isOf({ item, file }, { name, size, lastModified, policy }) {
    return item.name === name && item.size === size && (item.policy ?? policy) === policy && file?.lastModified === lastModified;
  }

  /** @param {string} id */
  #withdraw(id) {
    for (const { item, session } of this.#entries.values()) {
      if (session?.id !== id || item.state !== "interrupted") continue;
      this.#entries.delete(item.id);
      this.#changed();
    }
  }

  /**
   * @param {Entry} entry
   * @param {Partial<UploadItem>} change
   */
  #update(entry, change, afterMs = 0) {
    entry.item = { ...entry.item, ...change };
    this.#changed(afterMs);
  }

  /** Tells the listeners once, however much changes at the same time. */
  #changed(afterMs = 0) {
    if (afterMs) {
      this.#timer ??= setTimeout(() => this.#emit(), afterMs);
    } else if (!this.#isDue) {
      this.#isDue = true;
      queueMicrotask(() => this.#emit());
    }
  }

  #emit() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#isDue = false;
    this.#snapshot = [...this.#entries.values()].map(({ item }) => item);
    for (const listener of this.#listeners) listener();
  }

  /**
   * The file of an item that was added during this visit.
   *
   * @param {string} id
   */
  file(id) {
    return this.#entries.get(id)?.file ?? null;
  }
}
