// One file in the list: an upload, or what a reload has left of one.

import { Upload, discard } from "./upload.js";
import { hold, load, newEntry, save } from "./saved.js";
import { announce, bytes, duration, extension, setText } from "./text.js";

/** States in which an upload is in progress. */
export const ACTIVE = new Set(["waiting", "uploading", "reconnecting", "finishing", "verifying", "cancelling"]);
export const FINISHED = new Set(["done", "refused"]);

/** Browsers take too long to scale larger pictures down. */
const PREVIEW_MAX = 25_000_000;
/** The speed is the mean of this time. */
const SPEED_OVER_MS = 6_000;

const template = document.getElementById("row");

export class Row {
  upload = null;
  #page;
  #samples = [];
  #isCopied = false;
  /** Gives the upload back to other tabs. */
  #release = () => {};

  /**
   * `file` is `null` after a reload: then `saved` says what the file was. `page` has
   * - `headers()`: headers for requests to the service
   * - `choose()`: lets the user choose files
   * - `changed(row)`: called when the state of a row changes or the row is gone
   */
  constructor(file, saved, page) {
    this.saved = saved;
    this.name = saved.name;
    this.size = saved.size;
    this.state = file ? "waiting" : "interrupted";
    this.#page = page;
    this.element = template.content.firstElementChild.cloneNode(true);
    this.parts = Object.fromEntries(
      ["thumb", "ext", "filename", "policy", "status", "key", "primary", "secondary"].map((name) => [
        name,
        this.element.querySelector(`.${name}`),
      ]),
    );
    this.progress = this.element.querySelector("progress");
    const { filename, policy, ext, primary, secondary } = this.parts;
    filename.textContent = this.name;
    filename.title = this.name;
    ext.textContent = extension(this.name);
    policy.hidden = !saved.policy;
    policy.textContent = `Policy: ${saved.policy}`;
    this.element.setAttribute("aria-label", this.name);
    this.progress.setAttribute("aria-label", `Progress of ${this.name}`);
    primary.onclick = () => this.#actions().primary?.[1]();
    secondary.onclick = () => this.#actions().secondary?.[1]();
    if (file) this.begin(file);
    this.render();
  }

  static of(file, policy, page) {
    const { name, size, lastModified } = file;
    return new Row(file, { entry: newEntry(), name, size, lastModified, policy, session: null }, page);
  }

  /** Whether `file` is the one that was uploading when the page was reloaded. */
  awaits(file) {
    const { name, size, lastModified } = this.saved;
    return !this.upload && file.name === name && file.size === size && file.lastModified === lastModified;
  }

  async begin(file) {
    const isResumed = this.state === "interrupted";
    this.upload = new Upload(file, {
      policy: this.saved.policy,
      headers: this.#page.headers,
      session: this.saved.session,
      onchange: () => this.#changed(),
      onsession: (session) => {
        this.saved.session = session;
        save(this.saved);
      },
    });
    if (!(await this.#hold())) return;
    if (isResumed) announce(`${this.name}: resumed.`);
    // The other tabs learn from the change that it is resumed here.
    this.saved.begun = Date.now();
    save(this.saved);
    this.#preview(file);
    this.upload.start();
  }

  /** Takes the upload for this tab. Without it, another tab does all there is to do. */
  async #hold() {
    const release = await hold(this.saved.entry);
    if (release) {
      this.#release = release;
      return true;
    }
    announce(`${this.name} is uploaded in another tab.`);
    this.leave();
    return false;
  }

  #changed() {
    const { state, kept } = this.upload;
    if (kept !== this.saved.kept && state !== "waiting") {
      this.saved.kept = kept;
      save(this.saved);
    }
    if (state === this.state) return;
    this.state = state;
    this.#samples = [];
    const { message } = this.upload;
    const news = {
      paused: "paused.",
      cancelled: "cancelled.",
      done: "uploaded and verified.",
      refused: `refused. ${message}`,
      failed: `failed. ${message}`,
      reconnecting: `${message} Trying again.`,
    };
    if (news[state]) announce(`${this.name}: ${news[state]}`);
    if (state === "cancelled") return this.leave();
    this.render();
    this.#page.changed(this);
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
    const focused = document.activeElement;
    this.#button(parts.primary, primary);
    this.#button(parts.secondary, secondary);
    if (this.element.contains(focused) && focused.hidden) this.focus();
  }

  focus() {
    (this.element.querySelector("button:not([hidden])") ?? this.element).focus();
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
        return `${percent} of ${size} · ${message} Trying again…`;
      case "paused":
        return `${percent} of ${size} · paused`;
      case "finishing":
        return `${size} · sent; the store is joining the parts…`;
      case "verifying":
        return `${size} · sent; checking that it arrived…`;
      case "cancelling":
        return "Cancelling…";
      case "done":
        return `${size} · uploaded and verified`;
      case "refused":
        return `Refused: ${message}`;
      case "failed":
        return `Failed: ${message}`;
      default:
        return `${percent} of ${size} · interrupted. Choose or drop this file again to resume the upload.`;
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
    const hide = ["Hide", () => this.leave()];
    switch (this.state) {
      case "waiting":
      case "uploading":
      case "reconnecting":
        return { primary: ["Pause", () => upload.pause()], secondary: cancel };
      case "paused":
        return { primary: ["Resume", () => this.#resume()], secondary: cancel };
      case "failed":
        return { primary: ["Try again", () => upload.start()], secondary: cancel };
      case "done":
        return { primary: [this.#isCopied ? "Copied" : "Copy key", () => this.#copy()], secondary: hide };
      case "refused":
        return { secondary: hide };
      case "interrupted":
        return { primary: ["Choose file", () => this.#page.choose()], secondary: ["Discard", () => this.#discard()] };
      default:
        return {};
    }
  }

  #button(button, action) {
    button.hidden = !action;
    if (!action || button.dataset.label === action[0]) return;
    button.dataset.label = action[0];
    button.textContent = action[0];
    // The visible word comes first, for people who control the page by voice.
    button.setAttribute("aria-label", `${action[0]}: ${this.name}`);
  }

  #resume() {
    announce(`${this.name}: resumed.`);
    this.upload.start();
  }

  async #copy() {
    const { key } = this.upload;
    try {
      await navigator.clipboard.writeText(key);
    } catch {
      // Without permission for the clipboard the user has to copy it.
      getSelection().selectAllChildren(this.parts.key.firstElementChild);
      announce("The key is selected. Copy it with your keyboard.");
      return;
    }
    announce("The key is copied.");
    this.#isCopied = true;
    this.render();
    setTimeout(() => {
      this.#isCopied = false;
      this.render();
    }, 2_000);
  }

  async #discard() {
    if (!(await this.#hold())) return;
    const { session } = load(this.saved.entry) ?? {};
    try {
      if (session) await discard(session, { headers: this.#page.headers });
    } catch (error) {
      this.#release();
      setText(this.parts.status, `The parts are still in the store. ${error.message}`);
      announce(`${this.name}: not discarded. ${error.message}`);
      return;
    }
    save({ ...this.saved, session: null });
    announce(`${this.name}: discarded.`);
    this.leave();
  }

  leave() {
    // The keyboard's focus moves to a neighbour instead of the top of the page.
    const hadFocus = this.element.contains(document.activeElement);
    const neighbour = this.element.nextElementSibling ?? this.element.previousElementSibling;
    this.#release();
    this.element.remove();
    this.#page.changed(this, hadFocus ? neighbour : undefined);
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
    // The letters stay if the browser cannot show the picture.
    image.onerror = () => URL.revokeObjectURL(url);
    image.src = url;
  }
}
