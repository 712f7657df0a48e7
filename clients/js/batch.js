// Grants and verifications of many files in few calls.

import { problem, unlessAborted } from "./requests.js";

/** @typedef {import("./requests.js").UploadError} UploadError */
/** @typedef {import("./requests.js").FieldError} FieldError */
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
  /** @type {Set<Wanted>} The files that need a grant and have none yet. */
  waiting = new Set();
  #ask;

  /** @param {Ask} ask */
  constructor(ask) {
    this.#ask = ask;
  }

  /**
   * The grant of a file whose turn has come.
   *
   * @param {Wanted} wanted
   * @param {AbortSignal} signal
   */
  async get(wanted, signal) {
    // Until it has its grant, the first file that tries again asks for the others, too.
    this.waiting.add(wanted);
    // Files that are added at the same time share the call of the first one.
    await null;
    if (!isFresh(wanted)) this.#request(wanted);
    const grant = await unlessAborted(signal, /** @type {Promise<Grant>} */ (wanted.grant));
    this.waiting.delete(wanted);
    return grant;
  }

  /** @param {Wanted} first */
  #request(first) {
    const batch = [first];
    let bytes = first.body.size;
    for (const other of this.waiting) {
      if (other === first || isFresh(other) || other.form !== first.form) continue;
      bytes += other.body.size;
      const most = first.form || other.body.metadata ? FORMS_MAX : FILES_MAX;
      if (bytes > BYTES_AHEAD || batch.length >= most) break;
      batch.push(other);
    }
    const grants = this.#grants(batch.map(({ body }) => body), first.form);
    batch.forEach((wanted, index) => keepGrant(wanted, grants[index]));
  }

  /**
   * The grant of each file.
   *
   * @param {Wanted["body"][]} files
   * @param {boolean} forms
   * @returns {Promise<Grant>[]}
   */
  #grants(files, forms) {
    /** @type {Promise<(Grant | Promise<Grant>)[]>} */
    const answer = this.#ask("POST", "/upload/presigned-urls", { body: { files, forms } }).then(
      ({ uploads }) => uploads,
      (/** @type {UploadError} */ error) => {
        const { code, status, errors } = error;
        // A load balancer of AWS passes on at most 1 MB of what a function answers.
        if (code === "answer-too-large" && files.length > 1) {
          const half = files.splice(0, files.length / 2);
          return [...this.#grants(half, forms), ...this.#grants(files, forms)];
        }
        // One refused file has the service refuse them all; it names the file in its errors.
        /** @type {FieldError[][]} */
        const ofFiles = files.map(() => []);
        for (const error of errors) {
          const [, index, pointer] = error.pointer.match(/^.files.(\d+)(.*)/s) ?? [];
          ofFiles[+index]?.push({ ...error, pointer });
        }
        const others = files.filter((_, index) => !ofFiles[index].length);
        if (others.length === files.length) throw error;
        const grants = others.length ? this.#grants(others, forms) : [];
        return ofFiles.map((errors) => {
          if (!errors.length) return /** @type {Promise<Grant>} */ (grants.shift());
          return Promise.reject(problem({ ...error, code: status === 400 ? code : errors[0].code, errors }, status));
        });
      },
    );
    return files.map((_, index) => answer.then((grants) => grants[index]));
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
export function isFresh({ grant, freshUntil }) {
  return grant && performance.now() <= /** @type {number} */ (freshUntil);
}

/** The service verifies this many keys at once. */
const KEYS_MAX = 100;
/** While files are sent, the keys of those that have arrived gather for this long. */
const GATHER_MS = 300;

/** Verifications of the uploads under one policy. */
export class Verifications {
  /** @type {{ key: string, resolve: (upload: Promise<any>) => void }[]} */
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
    const verified = new Promise((resolve) => this.#queue.push({ key, resolve }));
    if (this.#slots.busy && this.#queue.length < KEYS_MAX) this.#timer ??= setTimeout(() => this.#flush(), GATHER_MS);
    else this.#flush();
    return unlessAborted(signal, verified);
  }

  #flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const batch = this.#queue.splice(0);
    const keys = batch.map(({ key }) => key);
    const which = keys.length > 1 ? { keys } : { key: keys[0] };
    const asked = this.#ask("POST", "/upload/verify", { body: { ...which, policy: this.#policy } });
    batch.forEach(({ resolve }, index) => {
      const verified = asked.then((answer) => {
        // The answer for one key is its upload.
        const { upload, problem: document, status } = answer.results ? answer.results[index] : { upload: answer };
        if (upload) return upload;
        throw problem(document, status);
      });
      resolve(verified);
    });
  }
}
