// One file in the list of `<presignd-upload>`.

import { FINISHED } from "../list.js";
import { bytes, duration, extension, make, reason, setText } from "./text.js";

/** @typedef {import("../list.js").UploadItem} UploadItem */

/** Browsers take too long to scale larger pictures down. */
const PREVIEW_MAX = 25_000_000;
/** The speed is the mean of this time. */
const SPEED_OVER_MS = 6_000;

/**
 * @typedef {object} Page What a row needs of what is around it.
 * @property {import("../list.js").UploadList} list
 * @property {import("./text.js").Announcer} announcer
 * @property {(id: string) => void} choose Lets the user choose the file of an interrupted upload.
 * @property {(id: string) => Promise<void>} remove
 * @property {(id: string) => void} resume
 * @property {() => boolean} isDisabled Whether the element is.
 * @property {() => boolean} showsKeys Whether each file shows its key.
 * @property {() => boolean} showsPolicies Whether each file shows its policy.
 */

/** @typedef {[label: string, action: () => void]} Action */

export class Row {
  /** @type {[number, number][]} */
  #samples = [];
  #isCopied = false;
  #hasPreview = false;
  #page;

  /**
   * @param {UploadItem} item
   * @param {Page} page
   */
  constructor(item, page) {
    this.item = item;
    this.#page = page;
    const { name, policy } = item;
    this.thumb = make("div", { class: "thumb", part: "thumb", "aria-hidden": "true" }, extension(name));
    this.progress = make("progress", { part: "progress", max: "1", value: "0", "aria-label": `Progress of ${name}` });
    this.status = make("p", { class: "status", part: "status" });
    this.key = make("code");
    this.primary = make("button", { type: "button", class: "primary", part: "button primary" });
    this.secondary = make("button", { type: "button", class: "secondary", part: "button secondary" });
    this.element = make(
      "li",
      { class: "row", part: "row", tabindex: "-1", "aria-label": name },
      this.thumb,
      make(
        "div",
        { class: "what" },
        make("p", { class: "filename", part: "filename", title: name }, name),
        ...(policy && page.showsPolicies() ? [make("p", { class: "policy", part: "policy" }, `Policy: ${policy}`)] : []),
        this.progress,
        this.status,
      ),
      make("p", { class: "key", part: "key", hidden: "" }, this.key),
      make("div", { class: "actions", part: "actions" }, this.primary, this.secondary),
    );
    this.primary.onclick = () => this.#actions().primary?.[1]();
    this.secondary.onclick = () => this.#actions().secondary?.[1]();
    this.#render();
  }

  /** @param {UploadItem} item */
  update(item) {
    const before = this.item;
    this.item = item;
    if (item.state !== before.state) this.#samples = [];
    if (item.state === "uploading") {
      const now = performance.now();
      this.#samples.push([now, item.loaded]);
      while (now - this.#samples[0][0] > SPEED_OVER_MS) this.#samples.shift();
    }
    this.#preview();
    this.#render();
    const news = item.state === before.state ? "" : this.#news(before.state);
    if (news) this.#page.announcer.say(`${item.name}: ${news}`);
  }

  /**
   * What screen readers say of a new state.
   *
   * @param {UploadItem["state"]} before
   */
  #news(before) {
    const { state, error } = this.item;
    switch (state) {
      case "paused":
        return "paused.";
      case "done":
        return "uploaded and verified.";
      case "refused":
        return `refused. ${reason(error)}`;
      case "failed":
        return `failed. ${reason(error)}`;
      case "reconnecting":
        return `${reason(error)} Trying again.`;
      case "interrupted":
        return `not discarded. ${reason(error)}`;
      default:
        return before === "paused" || before === "interrupted" ? "resumed." : "";
    }
  }

  #render() {
    const { state, size, loaded, key } = this.item;
    const { primary, secondary } = this.#actions();
    // A new text or state would make the browser compute the layout of the list again.
    if (this.element.dataset.state !== state) this.element.dataset.state = state;
    this.progress.hidden = FINISHED.has(state);
    this.progress.value = size ? loaded / size : 0;
    setText(this.status, this.#status());
    const showsKey = state === "done" && this.#page.showsKeys();
    /** @type {HTMLElement} */ (this.key.parentElement).hidden = !showsKey;
    if (showsKey) setText(this.key, key ?? "");
    const root = /** @type {ShadowRoot | Document} */ (this.element.getRootNode());
    const focused = root.activeElement;
    this.#button(this.primary, primary);
    this.#button(this.secondary, secondary);
    // The keyboard's focus stays with the file when its button is gone.
    if ((focused === this.primary || focused === this.secondary) && /** @type {HTMLElement} */ (focused).hidden) {
      this.element.focus();
    }
  }

  focus() {
    /** @type {HTMLElement} */ (this.element.querySelector("button:not([hidden])") ?? this.element).focus();
  }

  #status() {
    const { item } = this;
    const size = bytes(item.size);
    const percent = `${item.size ? Math.floor((item.loaded / item.size) * 100) : 0}%`;
    const message = reason(item.error);
    switch (item.state) {
      case "waiting":
        return `${size} · waiting`;
      case "uploading": {
        const speed = this.#speed();
        const left = speed > 0 ? ` · ${bytes(speed)}/s · ${duration((item.size - item.loaded) / speed)} left` : "";
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
      case "interrupted":
        return message || `${percent} of ${size} · interrupted. Choose or drop this file again to resume the upload.`;
    }
  }

  #speed() {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (!first || !last || last[0] - first[0] < 400) return 0;
    return Math.max(0, ((last[1] - first[1]) / (last[0] - first[0])) * 1000);
  }

  /**
   * What the two buttons say and do in this state.
   *
   * @returns {{ primary?: Action, secondary?: Action }}
   */
  #actions() {
    const { id, state, error } = this.item;
    const { list, choose, remove, resume, showsKeys } = this.#page;
    /** @type {Action} */
    const cancel = ["Cancel", () => this.#cancel()];
    /** @type {Action} */
    const again = ["Try again", () => resume(id)];
    /** @type {Action} */
    const hide = [showsKeys() ? "Hide" : "Remove", () => remove(id)];
    switch (state) {
      case "waiting":
      case "uploading":
      case "reconnecting":
        return { primary: ["Pause", () => list.pause(id)], secondary: cancel };
      case "paused":
        return { primary: ["Resume", () => resume(id)], secondary: cancel };
      case "failed":
        return { primary: again, secondary: cancel };
      case "verifying":
        // The store keeps the object, but a form need not wait for an answer that may not come.
        return { secondary: cancel };
      case "done":
        if (!showsKeys()) return { secondary: hide };
        return { primary: [this.#isCopied ? "Copied" : "Copy key", () => this.#copy()], secondary: hide };
      case "refused":
        // With another credential the file may be allowed.
        return { primary: error?.status === 403 ? again : undefined, secondary: hide };
      case "interrupted":
        return { primary: ["Choose file", () => choose(id)], secondary: ["Discard", () => this.#cancel()] };
      default:
        return {};
    }
  }

  async #cancel() {
    const { id, name, state } = this.item;
    await this.#page.remove(id);
    const isGone = !this.#page.list.getSnapshot().some((item) => item.id === id && item.state !== "cancelling");
    if (isGone) this.#page.announcer.say(`${name}: ${state === "interrupted" ? "discarded" : "cancelled"}.`);
  }

  /**
   * @param {HTMLButtonElement} button
   * @param {Action | undefined} action
   */
  #button(button, action) {
    button.hidden = !action;
    button.disabled = this.#page.isDisabled();
    if (!action || button.textContent === action[0]) return;
    button.textContent = action[0];
    // The visible word comes first, for people who control the page by voice.
    button.setAttribute("aria-label", `${action[0]}: ${this.item.name}`);
  }

  async #copy() {
    const { announcer } = this.#page;
    try {
      await navigator.clipboard.writeText(this.item.key ?? "");
    } catch {
      // Without permission for the clipboard the user has to copy it.
      getSelection()?.selectAllChildren(this.key);
      announcer.say("The key is selected. Copy it with your keyboard.");
      return;
    }
    announcer.say("The key is copied.");
    this.#isCopied = true;
    this.#render();
    setTimeout(() => {
      this.#isCopied = false;
      this.#render();
    }, 2_000);
  }

  /** Shows a small picture instead of the letters. */
  #preview() {
    const file = this.#page.list.file(this.item.id);
    if (!file?.type.startsWith("image/") || file.size > PREVIEW_MAX || this.#hasPreview) return;
    // The next progress must not decode it again.
    this.#hasPreview = true;
    const url = URL.createObjectURL(file);
    const image = new Image();
    image.decoding = "async";
    image.alt = "";
    image.onload = () => {
      URL.revokeObjectURL(url);
      this.thumb.replaceChildren(image);
    };
    // The letters stay if the browser cannot show the picture.
    image.onerror = () => URL.revokeObjectURL(url);
    image.src = url;
  }
}
