// `<presignd-upload>`: a form control that uploads files. Importing this module defines it; on a server the
// import does nothing.

import { createClient } from "./index.js";
import { ACTIVE, FINISHED, UploadList } from "./list.js";
import { Attributes } from "./element/attributes.js";
import { Row } from "./element/row.js";
import { styles } from "./element/style.js";
import { Announcer, make, setText } from "./element/text.js";

/** @typedef {import("./index.js").Client} Client */
/** @typedef {import("./list.js").UploadItem} UploadItem */

/**
 * Attributes:
 * - `url`: the address of presignd; by default the page's origin
 * - `policy`: for files that are added from now on
 * - `ticket`: for each call from now on
 * - `name`, `required`, `disabled`: as those of an input; the form's value is the key of each uploaded file, or its
 *   receipt with `receipts`
 * - `multiple`, `accept`: as those of a file input
 * - `keys`: each file shows its key, and finished ones can be hidden, for pages that are no form
 * - `page-drop`: files may be dropped anywhere on the page
 * - `any-policy`: interrupted uploads of all policies are offered, and resumed under theirs; each file shows its policy
 *
 * Each of them is a property, too, such as `anyPolicy`. Other properties: `headers` and `client` as for `createClient`,
 * `metadata` and `checksum` as for `upload`, `files`, `value`, `values`. Event: `change`, when a file has arrived or was
 * removed; `progress`, whenever `files` changes.
 */
export class PresigndUpload extends Attributes {
  static formAssociated = true;
  static observedAttributes = ["multiple", "accept", "required", "disabled", "keys", "name", "receipts", "url", "policy", "any-policy", "page-drop"];

  /** @type {ElementInternals | undefined} */
  #internals;
  /** @type {Client | undefined} */
  #client;
  /** Whether the page has set the client, so that `url` does not count. */
  #isClientSet = false;
  /** @type {UploadList | undefined} */
  #list;
  /** @type {Map<string, Row>} */
  #rows = new Map();
  /** @type {AbortController | undefined} */
  #connection;
  /** @type {AbortController | undefined} */
  #drops;
  /** @type {string | undefined} The interrupted upload whose file is being chosen. */
  #chosenFor;
  #isDisabled = false;
  #value = "";

  constructor() {
    super();
    // Properties may be set before this module is loaded: fields would overwrite them, and hide the accessor.
    /** @type {() => Record<string, string> | Promise<Record<string, string>>} */
    this.headers = this.headers ?? (() => ({}));
    /** @type {Record<string, string> | undefined} */
    this.metadata = this.metadata;
    /** @type {"sha256" | "crc64nvme" | undefined} */
    this.checksum = this.checksum;
    for (const name of Object.keys(this)) {
      if (!(name in PresigndUpload.prototype)) continue;
      const value = Reflect.get(this, name);
      Reflect.deleteProperty(this, name);
      Reflect.set(this, name, value);
    }
    this.#internals = this.attachInternals();
    // A label of the page names the group.
    this.#internals.role = "group";
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    root.adoptedStyleSheets = styles();
    this.choose = make("button", { id: "choose", type: "button", class: "main", part: "button choose" });
    this.input = make("input", { id: "input", type: "file", hidden: "", "aria-label": "Files" });
    this.dropZone = make(
      "div",
      { id: "drop", class: "drop", part: "drop" },
      make("slot", {}, make("p", { class: "drop-hint" }, "Drop files here")),
      this.choose,
      this.input,
    );
    this.notice = make("p", { id: "notice", class: "notice", part: "notice", role: "alert", hidden: "" });
    this.summary = make("p", { id: "summary", class: "summary", part: "summary" });
    this.hideFinished = make("button", { type: "button", part: "button hide", hidden: "" }, "Hide finished");
    this.rowList = make("ul", { id: "list", part: "list", role: "list" });
    this.section = make(
      "section",
      { class: "uploads", part: "uploads", "aria-labelledby": "summary", hidden: "" },
      make("div", { class: "bar", part: "bar" }, this.summary, this.hideFinished),
      this.rowList,
    );
    const announcer = make("p", { id: "announcer", class: "unseen", role: "status" });
    this.announcer = new Announcer(announcer);
    root.append(this.dropZone, this.notice, this.section, announcer);

    this.choose.onclick = () => this.#choose();
    this.input.onchange = () => {
      const interrupted = this.files.find(({ id }) => id === this.#chosenFor);
      this.add(this.input.files ?? []);
      if (interrupted && !this.#uploads.file(interrupted.id)) {
        const what = `${interrupted.name} was not resumed, as the chosen file is another one or has changed.`;
        this.showNotice(`${what} Choose the same file to resume it.`);
      }
      // Otherwise choosing the same file again would not be a change.
      this.input.value = "";
    };
    this.hideFinished.onclick = () => {
      this.choose.focus();
      for (const { id, state } of this.files) if (FINISHED.has(state)) this.#list?.remove(id);
    };
    this.attributeChangedCallback();
  }

  connectedCallback() {
    this.#connection = new AbortController();
    const { signal } = this.#connection;
    this.#listenForDrops();
    addEventListener("beforeunload", (event) => this.#isActive && event.preventDefault(), { signal });
    // `headers` and `client` may be set after the element was made, but before the first call.
    queueMicrotask(() => {
      if (signal.aborted) return;
      signal.addEventListener("abort", this.#uploads.subscribe(() => this.#render()));
      // Uploads may have gone on while the element was not connected.
      this.#render();
    });
    this.#setValue();
  }

  /** The uploads go on. */
  disconnectedCallback() {
    this.#connection?.abort();
    this.#drops?.abort();
  }

  /** @param {string} [name] @param {string | null} [before] @param {string | null} [value] */
  attributeChangedCallback(name, before, value) {
    if (name === "url" && value !== before && !this.#isClientSet) {
      this.#client = undefined;
      this.#list?.use(this.client);
    }
    // Other uploads that a reload interrupted are offered.
    if (name?.endsWith("policy") && value !== before) this.#list?.use(this.client);
    if (name === "page-drop" && this.isConnected) this.#listenForDrops();
    this.input.multiple = this.multiple;
    this.input.accept = this.accept;
    this.hideFinished.disabled = this.choose.disabled = this.#isDisabled;
    setText(this.choose, this.multiple ? "Choose files" : "Choose a file");
    // The list is made later, as `client` may still be set.
    if (this.#list) this.#render();
  }

  /** @param {boolean} isDisabled */
  formDisabledCallback(isDisabled) {
    this.#isDisabled = isDisabled;
    this.attributeChangedCallback();
  }

  formResetCallback() {
    this.#removeAdded();
  }

  /** Removes the files that were added here. What a reload interrupted can still be resumed. */
  #removeAdded() {
    for (const { id, state } of this.files) if (state !== "interrupted") this.#list?.remove(id);
  }

  /** The client that uploads; by default one for the attribute `url`. Set it before the element is connected. */
  get client() {
    this.#client ??= createClient({ url: this.url, headers: () => this.headers?.() ?? {} });
    return this.#client;
  }

  set client(client) {
    this.#isClientSet = Boolean(client);
    this.#client = client;
  }

  /** It is read for each call, as it may be renewed while files are sent. Uploads with the same function share calls. */
  #ticket = () => this.ticket;

  get #uploads() {
    this.#list ??= new UploadList(this.client, ({ policy }) => {
      return this.anyPolicy || policy === (this.policy || this.client.policy);
    });
    return this.#list;
  }

  /** @returns {readonly UploadItem[]} All files in the list. */
  get files() {
    return this.#list?.getSnapshot() ?? [];
  }

  /** The keys, or receipts, of the files that have arrived. */
  get values() {
    const { receipts } = this;
    const done = this.files.filter(({ state }) => state === "done");
    return done.map(({ key, uploaded }) => (receipts ? uploaded?.receipt : key) ?? "");
  }

  /** That of the file, or of the first one. */
  get value() {
    return this.values[0] ?? "";
  }

  /** @returns {HTMLFormElement | null} */
  get form() {
    return this.#internals?.form ?? null;
  }

  /** React sets the property for the attribute. @param {HTMLFormElement | string | null | undefined} id */
  set form(id) {
    if (typeof id === "string") this.setAttribute("form", id);
    else this.removeAttribute("form");
  }

  get validity() {
    return this.#internals?.validity;
  }

  get validationMessage() {
    return this.#internals?.validationMessage ?? "";
  }

  checkValidity() {
    return this.#internals?.checkValidity() ?? true;
  }

  reportValidity() {
    return this.#internals?.reportValidity() ?? true;
  }

  /**
   * Uploads files, as if they were chosen. It hides an earlier notice.
   *
   * @param {Iterable<File>} files
   */
  add(files) {
    let list = [...files];
    if (list.length === 0 || this.#isDisabled) return;
    this.showNotice(this.multiple || list.length === 1 ? "" : "Only one file can be uploaded here.");
    if (!this.multiple) {
      list = list.slice(0, 1);
      // The new file replaces the old one, unless it resumes it.
      this.#removeAdded();
    }
    this.#uploads.add(list, {
      policy: this.policy || undefined,
      ticket: this.#ticket,
      metadata: this.metadata,
      checksum: this.checksum,
    });
    this.announcer.say(list.length === 1 ? `${list[0].name}: added.` : `${list.length} files added.`);
  }

  /** @param {string} [id] The interrupted upload that is to be resumed. */
  #choose(id) {
    this.#chosenFor = id;
    this.input.click();
  }

  /** @param {string} text A message above the list; an empty one hides it. */
  showNotice(text) {
    this.notice.hidden = !text;
    setText(this.notice, text);
  }

  #listenForDrops() {
    this.#drops?.abort();
    this.#drops = new AbortController();
    const { signal } = this.#drops;
    const target = this.pageDrop ? window : this.dropZone;
    /** @param {string} type @param {(event: DragEvent, transfer: DataTransfer) => void} action */
    const on = (type, action) => {
      const listener = (/** @type {Event} */ event) => {
        const drag = /** @type {DragEvent} */ (event);
        if (this.#isDisabled || !drag.dataTransfer?.types.includes("Files")) return;
        action(drag, drag.dataTransfer);
      };
      target.addEventListener(type, listener, { signal });
    };
    on("dragover", (event, transfer) => {
      event.preventDefault();
      transfer.dropEffect = "copy";
      this.dropZone.classList.add("over");
    });
    on("dragleave", (event) => {
      const to = event.relatedTarget;
      if (!(to instanceof Node) || (target instanceof Node && !target.contains(to))) this.dropZone.classList.remove("over");
    });
    on("drop", (event, transfer) => {
      event.preventDefault();
      this.dropZone.classList.remove("over");
      const items = [...transfer.items].filter((item) => item.kind === "file");
      const files = items.filter((item) => !item.webkitGetAsEntry?.()?.isDirectory).map((item) => item.getAsFile());
      this.add(files.filter((file) => file !== null));
      if (files.length < items.length) this.showNotice("A folder cannot be uploaded. Drop the files in it instead.");
    });
  }

  get #isActive() {
    return this.files.some(({ state }) => ACTIVE.has(state));
  }

  #render() {
    const { files } = this;
    const root = /** @type {ShadowRoot} */ (this.shadowRoot);
    const ids = new Set(files.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (ids.has(id)) continue;
      // The keyboard's focus moves to a neighbour instead of the top of the page.
      const hadFocus = row.element.contains(root.activeElement);
      const neighbour = row.element.nextElementSibling ?? row.element.previousElementSibling;
      row.element.remove();
      this.#rows.delete(id);
      if (hadFocus) ([...this.#rows.values()].find(({ element }) => element === neighbour) ?? this.choose).focus();
    }
    /** @type {import("./element/row.js").Page} */
    const page = {
      list: this.#uploads,
      announcer: this.announcer,
      choose: (id) => this.#choose(id),
      remove: (id) => this.#uploads.remove(id, { ticket: this.#ticket }),
      resume: (id) => this.#uploads.resume(id, { ticket: this.#ticket }),
      isDisabled: () => this.#isDisabled,
      showsKeys: () => this.keys,
      showsPolicies: () => this.anyPolicy,
    };
    for (const item of files) {
      let row = this.#rows.get(item.id);
      if (!row) {
        row = new Row(item, page);
        this.#rows.set(item.id, row);
        this.rowList.append(row.element);
      }
      row.update(item);
    }
    this.#summarise();
    this.#setValue();
    this.dispatchEvent(new Event("progress"));
  }

  #summarise() {
    const { files } = this;
    /** @param {(state: UploadItem["state"]) => boolean} test */
    const count = (test) => files.filter(({ state }) => test(state)).length;
    const rest = ["paused", "interrupted", "failed", "refused"].map((name) => ({
      number: count((state) => state === name),
      what: name,
    }));
    const parts = [
      { number: files.length, what: files.length === 1 ? "file" : "files" },
      { number: count((state) => ACTIVE.has(state)), what: "in progress" },
      ...rest,
      { number: count((state) => state === "done"), what: "uploaded" },
    ];
    setText(this.summary, parts.filter(({ number }) => number > 0).map(({ number, what }) => `${number} ${what}`).join(" · "));
    this.section.hidden = files.length === 0;
    // In a form it would remove the files from what is sent.
    this.hideFinished.hidden = !this.keys || count((state) => FINISHED.has(state)) < 2;
  }

  /** Gives the form its value, and keeps it from being sent before the files have arrived. */
  #setValue() {
    const internals = this.#internals;
    const { values } = this;
    const data = new FormData();
    for (const value of values) data.append(this.name, value);
    internals?.setFormValue(values.length && this.name ? data : null);
    if (this.files.some(({ state }) => ACTIVE.has(state) || state === "paused")) {
      internals?.setValidity({ customError: true }, "Please wait until the files are uploaded.", this.choose);
    } else if (this.required && values.length === 0) {
      internals?.setValidity({ valueMissing: true }, "Please choose a file.", this.choose);
    } else {
      internals?.setValidity({});
    }
    const value = values.join("\n");
    if (value === this.#value) return;
    this.#value = value;
    this.dispatchEvent(new Event("change", { bubbles: true }));
  }
}

if (globalThis.customElements && !customElements.get("presignd-upload")) {
  customElements.define("presignd-upload", PresigndUpload);
}
