// What is needed to resume uploads after a reload. Each upload in parts has a session, and a Web Lock of the
// same name, which the tab that uploads it holds: no other tab takes it over until that tab is closed.

/**
 * @typedef {object} Session
 * @property {string} id Made of the server, the policy and the file.
 * @property {string} url The server that granted the upload.
 * @property {string} [policy]
 * @property {string} name
 * @property {number} size
 * @property {number} lastModified
 * @property {string} key
 * @property {string} uploadId
 * @property {number} partSize
 * @property {number} created When, in milliseconds since 1970.
 * @property {number} [kept] How many bytes the store has.
 * @property {boolean} [completing] Whether the store was asked to join the parts.
 */

/**
 * @typedef {object} SessionStore Where sessions are kept. Each function may be asynchronous.
 * @property {(id: string) => Session | undefined | null | Promise<Session | undefined | null>} get
 * @property {(id: string, session: Session) => unknown} set
 * @property {(id: string) => unknown} delete
 * @property {() => Session[] | Promise<Session[]>} list
 */

/** The service honours an upload's id for this long. */
const VALID_MS = 7 * 24 * 3600 * 1000;
const LOCK = "presignd:";

export class Sessions {
  /** @param {SessionStore | null | undefined} store */
  constructor(store) {
    this.store = store;
  }

  /**
   * Without a place to keep sessions, as in some private windows, a reload loses the upload and nothing else.
   *
   * @param {keyof SessionStore} action
   * @param {unknown[]} values
   * @returns {Promise<any>}
   */
  async try(action, ...values) {
    try {
      return await /** @type {any} */ (this.store)?.[action](...values);
    } catch {
      return undefined;
    }
  }

  /** @param {string} id */
  async delete(id) {
    await this.try("delete", id);
    notify(id);
  }

  /**
   * Takes the upload for this tab. Returns a function that gives it back; `null` if another upload has it.
   *
   * @param {string} id
   */
  async hold(id) {
    const release = await lock(id);
    if (release) notify(id);
    return release;
  }
}

/**
 * Calls `show` with each session that no tab holds: now, or when its tab has been closed. Calls `hide` with the id of
 * one that another tab has resumed or removed. Returns a function that stops it.
 *
 * @param {Sessions} sessions
 * @param {(session: Session) => void} show
 * @param {(id: string) => void} hide
 */
export function follow(sessions, show, hide) {
  const stop = new AbortController();
  const { signal } = stop;
  /** @type {Set<string>} */
  const awaited = new Set();
  /** @param {string} id */
  const whenFree = async (id) => {
    if (awaited.has(id)) return;
    awaited.add(id);
    try {
      await globalThis.navigator?.locks?.request(LOCK + id, { mode: "shared", signal }, () => {});
    } catch {
      return;
    }
    awaited.delete(id);
    /** @type {Session | undefined} */
    const session = await sessions.try("get", id);
    if (!session || signal.aborted) return;
    if (Date.now() - session.created < VALID_MS) show(session);
    else sessions.delete(id);
  };
  if (globalThis.BroadcastChannel) {
    const channel = new BroadcastChannel(LOCK);
    channel.onmessage = ({ data }) => {
      hide(data);
      whenFree(data);
    };
    signal.addEventListener("abort", () => channel.close());
  }
  sessions.try("list").then((/** @type {Session[] | undefined} */ list) => list?.forEach(({ id }) => whenFree(id)));
  return () => stop.abort();
}

/** Node 20 and pages without HTTPS have no locks. There two tabs may send the same parts. @type {Set<string>} */
const held = new Set();

/**
 * @param {string} id
 * @returns {Promise<(() => void) | null>}
 */
async function lock(id) {
  const locks = globalThis.navigator?.locks;
  if (!locks) {
    if (held.has(id)) return null;
    held.add(id);
    return () => held.delete(id);
  }
  /** @returns {Promise<(() => void) | null>} */
  const attempt = () =>
    new Promise((resolve) => {
      // The lock is held until the inner promise resolves, so the function that resolves it releases the lock.
      const hold = (/** @type {Lock | null} */ lock) => lock && new Promise(/** @type {any} */ (resolve));
      // Pages in a sandbox may not use locks.
      const over = () => resolve(null);
      locks.request(LOCK + id, { ifAvailable: true }, hold).then(over, over);
    });
  // A tab that waits for its turn to show the upload holds the lock for a moment.
  return (await attempt()) ?? (await new Promise((resolve) => setTimeout(resolve, 100)), attempt());
}

/**
 * Has other tabs look at a session again.
 *
 * @param {string} id
 */
function notify(id) {
  if (!globalThis.BroadcastChannel) return;
  const channel = new BroadcastChannel(LOCK);
  channel.postMessage(id);
  channel.close();
}

/**
 * The IndexedDB of the page's origin; `null` where there is none.
 *
 * @returns {SessionStore | null}
 */
export function indexedDbSessions() {
  if (!globalThis.indexedDB) return null;
  /**
   * @param {"get" | "put" | "delete" | "getAll"} method
   * @param {any[]} values
   * @returns {Promise<any>}
   */
  const run = async (method, ...values) => {
    /** @type {IDBDatabase} */
    const database = await new Promise((resolve, reject) => {
      const request = indexedDB.open("presignd", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("sessions");
      request.onsuccess = () => resolve(request.result);
      request.onerror = reject;
    });
    const transaction = database.transaction("sessions", "readwrite");
    // That happens after the transaction. A connection that is kept may be one that the browser has closed.
    database.close();
    /** @type {any} */
    const store = transaction.objectStore("sessions");
    const request = store[method](...values);
    return new Promise((resolve, reject) => {
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = reject;
    });
  };
  return {
    get: (id) => run("get", id),
    set: (id, session) => run("put", session, id),
    delete: (id) => run("delete", id),
    list: () => run("getAll"),
  };
}
