// The list of uploads. What sends the files is in upload.js.

import { Upload, discard } from "./upload.js";

const $ = (id) => document.getElementById(id);
const list = $("list");

/** The rows of the list, in its order. */
const rows = new Set();

/** States in which an upload is under way. */
const ACTIVE = new Set(["waiting", "uploading", "reconnecting", "finishing", "verifying", "cancelling"]);
const FINISHED = new Set(["done", "refused"]);

/** `/?policy=avatar` uploads under that policy. */
const policy = new URLSearchParams(location.search).get("policy") ?? undefined;

/** Pictures over this size take the browser too long to scale down. */
const PREVIEW_MAX = 25_000_000;
/** Speed is what came through in this time. */
const SPEED_OVER_MS = 6_000;

/** One file in the list: an upload, or what a reload has left of one. */
class Row {
  upload = null;
  state = "interrupted";
  #samples = [];
  #copied = false;

  /** `file` is `null` after a reload: then `saved` says what the file was. */
  constructor(file, saved) {
    this.saved = saved;
    this.name = saved.name;
    this.size = saved.size;
    this.element = $("row").content.firstElementChild.cloneNode(true);
    this.parts = Object.fromEntries(
      ["thumb", "ext", "filename", "status", "key", "primary", "secondary"].map((name) => [
        name,
        this.element.querySelector(`.${name}`),
      ]),
    );
    this.progress = this.element.querySelector("progress");
    const { filename, ext, primary, secondary } = this.parts;
    filename.textContent = this.name;
    filename.title = this.name;
    ext.textContent = extension(this.name);
    this.progress.setAttribute("aria-label", `Progress of ${this.name}`);
    primary.onclick = () => this.#actions().primary?.[1]();
    secondary.onclick = () => this.#actions().secondary?.[1]();
    rows.add(this);
    list.append(this.element);
    if (file) this.begin(file);
    else this.render();
  }

  /** Whether `file` is the one that was uploading when the page was reloaded. */
  awaits(file) {
    const { name, size, lastModified } = this.saved;
    return !this.upload && file.name === name && file.size === size && file.lastModified === lastModified;
  }

  begin(file) {
    this.upload = new Upload(file, {
      policy,
      session: this.saved.session,
      onchange: () => this.#changed(),
      onsession: (session) => {
        this.saved.session = session;
        this.#save();
      },
    });
    this.#preview(file);
    this.upload.start();
  }

  #changed() {
    const { state, kept } = this.upload;
    if (kept !== this.saved.kept) {
      this.saved.kept = kept;
      this.#save();
    }
    if (state === this.state) return;
    this.state = state;
    this.#samples = [];
    if (state === "cancelled") return this.leave();
    if (state === "done") announce(`${this.name} is uploaded and verified.`);
    if (state === "refused") announce(`${this.name} was refused: ${this.upload.message}`);
    if (state === "failed") announce(`${this.name} failed: ${this.upload.message}`);
    if (state === "reconnecting") announce(`${this.name}: ${this.upload.message} Trying again.`);
    this.render();
    summarise();
  }

  /** Called every now and then while there is something to see. */
  tick() {
    if (this.state === "uploading") {
      const now = performance.now();
      this.#samples.push([now, this.upload.loaded]);
      while (now - this.#samples[0][0] > SPEED_OVER_MS) this.#samples.shift();
    }
    this.render();
  }

  render() {
    const { parts, state } = this;
    const { primary, secondary } = this.#actions();
    this.element.dataset.state = state;
    this.progress.hidden = FINISHED.has(state);
    const loaded = this.upload ? this.upload.loaded : (this.saved.kept ?? 0);
    this.progress.value = this.size ? loaded / this.size : 0;
    setText(parts.status, this.#status(loaded));
    parts.key.hidden = state !== "done";
    if (state === "done") setText(parts.key.firstElementChild, this.upload.key);
    this.#button(parts.primary, primary, parts.secondary);
    this.#button(parts.secondary, secondary);
  }

  #status(loaded) {
    const size = bytes(this.size);
    const percent = `${this.size ? Math.floor((loaded / this.size) * 100) : 0}%`;
    const { message } = this.upload ?? {};
    switch (this.state) {
      case "waiting":
        return `${size} · waiting`;
      case "uploading": {
        const speed = this.#speed();
        const left = speed > 0 ? ` · ${bytes(speed)}/s · ${duration((this.size - loaded) / speed)} left` : "";
        return `${percent} of ${size}${left}`;
      }
      case "reconnecting":
        return `${percent} of ${size} · ${message} Trying again …`;
      case "paused":
        return `${percent} of ${size} · paused`;
      case "finishing":
        return `${size} · the store puts the parts together …`;
      case "verifying":
        return `${size} · sent; is it there? …`;
      case "cancelling":
        return "Cancelling …";
      case "done":
        return `${size} · uploaded and verified`;
      case "refused":
        return `Refused: ${message}`;
      case "failed":
        return `Failed: ${message}`;
      default:
        return `${percent} of ${size} · interrupted. Choose or drop this file again, and it goes on from there.`;
    }
  }

  #speed() {
    const [first] = this.#samples;
    const last = this.#samples.at(-1);
    if (!first || last[0] - first[0] < 400) return 0;
    return Math.max(0, ((last[1] - first[1]) / (last[0] - first[0])) * 1000);
  }

  /** What the two buttons say and do in this state. */
  #actions() {
    const { upload } = this;
    const cancel = ["Cancel", () => upload.cancel()];
    const remove = ["Remove", () => this.leave()];
    switch (this.state) {
      case "waiting":
      case "uploading":
      case "reconnecting":
        return { primary: ["Pause", () => upload.pause()], secondary: cancel };
      case "paused":
        return { primary: ["Resume", () => upload.start()], secondary: cancel };
      case "failed":
        return { primary: ["Try again", () => upload.start()], secondary: cancel };
      case "done":
        return { primary: [this.#copied ? "Copied" : "Copy key", () => this.#copy()], secondary: remove };
      case "refused":
        return { secondary: remove };
      case "interrupted":
        return { primary: ["Choose file", () => $("input").click()], secondary: ["Discard", () => this.#discard()] };
      default:
        return {};
    }
  }

  #button(button, action, other) {
    const hide = !action;
    if (hide && document.activeElement === button && other) other.focus();
    button.hidden = hide;
    if (hide || button.dataset.label === action[0]) return;
    button.dataset.label = action[0];
    button.textContent = action[0];
    // The word that is seen comes first, so that who speaks to the computer can say it.
    button.setAttribute("aria-label", `${action[0]}: ${this.name}`);
  }

  async #copy() {
    const { key } = this.upload;
    try {
      await navigator.clipboard.writeText(key);
    } catch {
      // No leave to use the clipboard: then select it, for the user to copy.
      getSelection().selectAllChildren(this.parts.key.firstElementChild);
      announce("The key is selected. Copy it with your keyboard.");
      return;
    }
    announce("The key is copied.");
    this.#copied = true;
    this.render();
    setTimeout(() => {
      this.#copied = false;
      this.render();
    }, 2_000);
  }

  async #discard() {
    try {
      await discard(this.saved.session);
    } catch (error) {
      setText(this.parts.status, `The parts are still in the store. ${error.message}`);
      return;
    }
    this.saved.session = null;
    this.#save();
    this.leave();
  }

  leave() {
    // Whoever works by keyboard must not be thrown back to the top of the page.
    if (this.element.contains(document.activeElement)) {
      const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
      (next?.querySelector("button:not([hidden])") ?? $("choose")).focus();
    }
    rows.delete(this);
    this.element.remove();
    summarise();
  }

  #preview(file) {
    if (!file.type.startsWith("image/") || file.size > PREVIEW_MAX || this.parts.thumb.querySelector("img")) return;
    const url = URL.createObjectURL(file);
    const image = new Image();
    image.decoding = "async";
    image.alt = "";
    image.onload = () => {
      URL.revokeObjectURL(url);
      this.parts.thumb.replaceChildren(image);
    };
    // Of a kind that this browser does not show: the letters stay.
    image.onerror = () => URL.revokeObjectURL(url);
    image.src = url;
  }

  #save() {
    save(this.saved);
  }
}

// What is needed to go on after a reload. One entry for each upload, so that two tabs do not overwrite
// each other's. Without a place to keep it (private windows) there is no going on, and that is all.

const PREFIX = "presignd:upload:";

function save(saved) {
  try {
    if (saved.session) {
      saved.entry ??= PREFIX + saved.session.key;
      localStorage.setItem(saved.entry, JSON.stringify(saved));
    } else if (saved.entry) {
      localStorage.removeItem(saved.entry);
      saved.entry = undefined;
    }
  } catch {
    // See above.
  }
}

function savedUploads() {
  try {
    return Object.keys(localStorage)
      .filter((entry) => entry.startsWith(PREFIX))
      .map((entry) => JSON.parse(localStorage.getItem(entry)));
  } catch {
    return [];
  }
}

function add(files) {
  for (const file of files) {
    const interrupted = [...rows].find((row) => row.awaits(file));
    if (interrupted) interrupted.begin(file);
    else new Row(file, { name: file.name, size: file.size, lastModified: file.lastModified });
  }
  if (files.length > 1) announce(`${files.length} files added.`);
  summarise();
}

function summarise() {
  const states = [...rows].map((row) => row.state);
  const count = (set) => states.filter((state) => set.has(state)).length;
  const active = count(ACTIVE);
  const parts = [
    [states.length, states.length === 1 ? "file" : "files"],
    [active, "under way"],
    ...["paused", "interrupted", "failed", "refused"].map((state) => [count(new Set([state])), state]),
    [count(new Set(["done"])), "uploaded"],
  ];
  const said = parts.filter(([number]) => number > 0).map(([number, what]) => `${number} ${what}`);
  setText($("summary"), said.join(" · "));
  $("uploads").hidden = states.length === 0;
  $("clear").hidden = count(FINISHED) < 2;
  if (active) timer ??= setInterval(tick, 500);
}

let timer = null;
const title = document.title;

function tick() {
  const active = [...rows].filter((row) => ACTIVE.has(row.state));
  for (const row of active) row.tick();
  const total = active.reduce((sum, row) => sum + row.size, 0);
  const loaded = active.reduce((sum, row) => sum + row.upload.loaded, 0);
  document.title = active.length ? `${total ? Math.floor((loaded / total) * 100) : 0}% · ${title}` : title;
  if (active.length) return;
  clearInterval(timer);
  timer = null;
}

let announcements = [];

/** Has screen readers say it, together with what else happens in the same moment. */
function announce(text) {
  announcements.push(text);
  if (announcements.length > 1) return;
  setTimeout(() => {
    const [most, rest] = [announcements.slice(0, 3), announcements.length - 3];
    $("announcer").textContent = most.join(" ") + (rest > 0 ? ` And ${rest} more.` : "");
    announcements = [];
  }, 500);
}

/** Leaves the text alone if it is the same: then screen readers and selections are not disturbed. */
function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function extension(name) {
  const match = name.match(/\.([^.]{1,4})$/);
  return match ? match[1].toUpperCase() : "";
}

function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 999.5 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number.toFixed(unit > 0 && number < 99.5 ? 1 : 0)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

$("choose").onclick = () => $("input").click();
$("input").onchange = ({ target }) => {
  add([...target.files]);
  // Otherwise choosing the same file again would not be a change.
  target.value = "";
};

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  $("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  $("drop").classList.remove("over");
  const items = [...event.dataTransfer.items].filter((item) => item.kind === "file");
  const files = items.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory).map((item) => item.getAsFile());
  $("notice").hidden = files.length === items.length;
  setText($("notice"), files.length === items.length ? "" : "A folder cannot be uploaded: drop the files in it instead.");
  add(files);
});

addEventListener("beforeunload", (event) => {
  if ([...rows].some((row) => ACTIVE.has(row.state))) event.preventDefault();
});

$("clear").onclick = () => {
  $("choose").focus();
  for (const row of [...rows]) if (FINISHED.has(row.state)) row.leave();
};

for (const saved of savedUploads()) new Row(null, saved);
summarise();
