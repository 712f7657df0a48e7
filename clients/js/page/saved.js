// What is needed to resume uploads after a reload, in localStorage. Each upload has an entry of its own and
// a Web Lock of the same name, which the tab that uploads it holds. Without a place to keep it, as in some
// private windows, a reload loses the upload.

const PREFIX = "presignd:upload:";

export function newEntry() {
  return PREFIX + crypto.randomUUID();
}

/** Keeps `saved` while it has a session. */
export function save(saved) {
  try {
    if (saved.session) localStorage.setItem(saved.entry, JSON.stringify(saved));
    else localStorage.removeItem(saved.entry);
  } catch {
    // There is no place to keep it.
  }
}

/** What was saved under an entry; `null` if there is nothing. */
export function load(entry) {
  try {
    return JSON.parse(localStorage.getItem(entry));
  } catch {
    return null;
  }
}

/** Takes the upload for this tab. Returns a function that gives it back; `null` if another tab has it. */
export function hold(entry) {
  return new Promise((resolve) => {
    navigator.locks.request(entry, { ifAvailable: true }, (lock) => {
      if (!lock) return resolve(null);
      return new Promise((release) => resolve(release));
    });
  });
}

/**
 * Calls `show` with each saved upload that no tab holds: now, or when its tab has been closed. Calls `hide`
 * with the entry of an upload that another tab has resumed or discarded.
 */
export function follow(show, hide) {
  const awaited = new Set();
  const whenFree = async (entry) => {
    if (awaited.has(entry)) return;
    awaited.add(entry);
    await navigator.locks.request(entry, { mode: "shared" }, () => {});
    awaited.delete(entry);
    const saved = load(entry);
    if (saved) show(saved);
  };
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(PREFIX)) return;
    hide(key);
    if (newValue !== null) whenFree(key);
  });
  try {
    Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).forEach(whenFree);
  } catch {
    // Nothing can have been kept.
  }
}
