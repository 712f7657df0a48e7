// Grants and verifications of many files in few calls.

import { UploadError, problem, unlessAborted } from "./requests.js";

/** @typedef {import("./requests.js").StoreRequest & { key: string }} Grant */

/** The service grants this many files at once. */
const FILES_MAX = 1_000;
/** And this many forms; more files with 2 KB of metadata each would be longer than the request may be. */
const FORMS_MAX = 250;
/** Those that come next are granted together with a file, but no more than can soon be sent. */
const BYTES_AHEAD = 2 ** 26;
/** A form does not say its lifetime in seconds. */
const FORM_LIFETIME_S = 120;

/**
 * @template T
 * @typedef {object} Granted
 * @property {Promise<T> | null} [grant]
 * @property {number} [freshUntil] By the clock of `performance`. Then it is asked for again.
 */
/**
 * @typedef {object} WantedFile
 * @property {{ size: number, metadata?: object }} body The request for one file.
 * @property {boolean} form Whether a form may upload it.
 */
/** @typedef {WantedFile & Granted<Grant>} Wanted */

/** @typedef {(method: string, path: string, call?: import("./requests.js").Call) => Promise<any>} Ask */

/** The grants of the files that go up in one request each, in the order in which they are sent. */
export class Grants {
  /** @type {Set<Wanted>} Those that have no grant yet. */
  #waiting = new Set();
  #ask;

  /** @param {Ask} ask */
  constructor(ask) {
    this.#ask = ask;
  }

  /**
   * Announces a file that will need a grant.
   *
   * @param {Wanted["body"]} body
   * @param {boolean} form
   * @returns {Wanted}
   */
  add(body, form) {
    /** @type {Wanted} */
    const wanted = { body, form };
    this.#waiting.add(wanted);
    return wanted;
  }

  /** @param {Wanted} wanted */
  remove(wanted) {
    this.#waiting.delete(wanted);
  }

  /**
   * The grant of a file whose turn has come.
   *
   * @param {Wanted} wanted
   * @param {AbortSignal} signal
   */
  async get(wanted, signal) {
    // Until it has its grant, the first file that tries again asks for the others, too.
    this.#waiting.add(wanted);
    // Files that are added at the same time share the call of the first one.
    await null;
    if (!isFresh(wanted)) this.#request(wanted);
    const grant = await unlessAborted(signal, /** @type {Promise<Grant>} */ (wanted.grant));
    this.#waiting.delete(wanted);
    return grant;
  }

  /** @param {Wanted} first */
  #request(first) {
    const batch = [first];
    let bytes = first.body.size;
    for (const other of this.#waiting) {
      if (other === first || isFresh(other) || other.form !== first.form) continue;
      bytes += other.body.size;
      const most = first.form || other.body.metadata ? FORMS_MAX : FILES_MAX;
      if (bytes > BYTES_AHEAD || batch.length >= most) break;
      batch.push(other);
    }
    const answer = this.#grant(batch.map(({ body }) => body), first.form);
    batch.forEach((wanted, index) => {
      const grant = answer.then((grants) => {
        const grant = grants[index];
        if (grant instanceof UploadError) throw grant;
        return grant;
      });
      keepGrant(wanted, grant);
    });
  }

  /**
   * A grant or an error for each file.
   *
   * @param {Wanted["body"][]} files
   * @param {boolean} forms
   * @returns {Promise<(Grant | UploadError)[]>}
   */
  async #grant(files, forms) {
    try {
      return (await this.#ask("POST", "/upload/presigned-urls", { body: { files, forms } })).uploads;
    } catch (error) {
      // One refused file has the service refuse them all; it names the file in its errors.
      const { status, requestId, errors } = /** @type {UploadError} */ (error);
      const ofFiles = files.map((_, index) => {
        const parent = `/files/${index}`;
        const under = errors.filter(({ pointer }) => `${pointer}/`.startsWith(`${parent}/`));
        return under.map((error) => ({ ...error, pointer: error.pointer.slice(parent.length) }));
      });
      const others = files.filter((_, index) => !ofFiles[index].length);
      if (others.length === files.length) throw error;
      const grants = others.length ? await this.#grant(others, forms) : [];
      return ofFiles.map((errors) => {
        if (!errors.length) return /** @type {Grant | UploadError} */ (grants.shift());
        return problem({ code: errors[0].code, errors, requestId }, status);
      });
    }
  }
}

/**
 * Keeps the answer of a call for half of the lifetime of its URL, as it may expire while the file is sent. The lifetime
 * counts from now, as the clock of this machine may be wrong.
 *
 * @template {{ url: string }} T
 * @template {Granted<T>} W
 * @param {W} wanted
 * @param {Promise<T>} answer
 */
export function keepGrant(wanted, answer) {
  // While the call is in progress, nobody asks again, however long it takes.
  wanted.freshUntil = Infinity;
  wanted.grant = answer.then((grant) => {
    const seconds = /X-Amz-Expires=(\d+)/.exec(grant.url)?.[1] ?? FORM_LIFETIME_S;
    wanted.freshUntil = performance.now() + 500 * +seconds;
    return grant;
  });
  // Whoever waits for it sees the error; whoever comes next asks again.
  wanted.grant.catch(() => (wanted.grant = null));
  return wanted;
}

/** @param {Granted<any>} granted */
export function isFresh({ grant, freshUntil = 0 }) {
  return grant && performance.now() <= freshUntil;
}

/** The service verifies this many keys at once. */
const KEYS_MAX = 100;
/** While files are sent, the keys of those that have arrived gather for this long. */
const GATHER_MS = 300;

/** Verifications of the uploads under one policy. */
export class Verifications {
  /** @type {{ key: string, resolve: (upload: any) => void, reject: (error: unknown) => void }[]} */
  #queue = [];
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #ask;
  #policy;
  #slots;

  /**
   * @param {Ask} ask
   * @param {string | undefined} policy
   * @param {import("./requests.js").Slots} slots Those of requests to the store.
   */
  constructor(ask, policy, slots) {
    this.#ask = ask;
    this.#policy = policy;
    this.#slots = slots;
  }

  /**
   * @param {string} key
   * @param {AbortSignal} signal
   * @returns {Promise<any>}
   */
  verify(key, signal) {
    const verified = new Promise((resolve, reject) => this.#queue.push({ key, resolve, reject }));
    if (this.#slots.busy && this.#queue.length < KEYS_MAX) this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS);
    else this.#flush();
    return unlessAborted(signal, verified);
  }

  async #flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const batch = this.#queue.splice(0);
    try {
      const keys = batch.map(({ key }) => key);
      const which = keys.length > 1 ? { keys } : { key: keys[0] };
      const answer = await this.#ask("POST", "/upload/verify", { body: { ...which, policy: this.#policy } });
      // The answer for one key is its upload.
      const { results = [{ upload: answer }] } = answer;
      batch.forEach(({ resolve, reject }, index) => {
        const { upload, problem: document, status } = results[index];
        if (upload) resolve(upload);
        else reject(problem(document, status));
      });
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }
}
