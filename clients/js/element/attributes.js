// The attributes of `<presignd-upload>` as properties. React, Vue and Svelte set a property where an element has one;
// otherwise some of them would write `disabled="false"`, which disables the element.

/**
 * @typedef {object} Properties
 * @property {string} accept
 * @property {string} name
 * @property {string} policy
 * @property {string} ticket
 * @property {string} url
 * @property {boolean} anyPolicy
 * @property {boolean} disabled
 * @property {boolean} keys
 * @property {boolean} multiple
 * @property {boolean} pageDrop
 * @property {boolean} receipts
 * @property {boolean} required
 */

const TEXTS = ["accept", "name", "policy", "ticket", "url"];
const FLAGS = ["anyPolicy", "disabled", "keys", "multiple", "pageDrop", "receipts", "required"];

/** Servers have no elements. @type {typeof HTMLElement} */
const Base = globalThis.HTMLElement ?? class {};

class Reflecting extends Base {}

for (const name of TEXTS) {
  Object.defineProperty(Reflecting.prototype, name, {
    /** @this {HTMLElement} */
    get() {
      return this.getAttribute(name) ?? "";
    },
    /** @this {HTMLElement} @param {unknown} value Frameworks set `undefined` or `null` to remove it. */
    set(value) {
      if (value === undefined || value === null) this.removeAttribute(name);
      else this.setAttribute(name, String(value));
    },
  });
}

for (const name of FLAGS) {
  const attribute = name.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`);
  Object.defineProperty(Reflecting.prototype, name, {
    /** @this {HTMLElement} */
    get() {
      return this.hasAttribute(attribute);
    },
    /** @this {HTMLElement} @param {unknown} value In JSX, `multiple=""` sets the empty string. */
    set(value) {
      this.toggleAttribute(attribute, value === "" || Boolean(value));
    },
  });
}

/** @typedef {HTMLElement & Properties} Reflected */

export const Attributes = /** @type {{ new (): Reflected, prototype: Reflected }} */ (Reflecting);
