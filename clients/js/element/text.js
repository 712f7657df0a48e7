// Texts for people.

/** @param {string} name */
export function extension(name) {
  const match = name.match(/\.([^.]{1,4})$/);
  return match ? match[1].toUpperCase() : "";
}

/** @param {number} number */
export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 999.5 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number.toFixed(unit > 0 && number < 99.5 ? 1 : 0)} ${units[unit]}`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * What went wrong. A page cannot tell a server that refuses it from one that does not answer.
 *
 * @param {import("../requests.js").UploadError} [error]
 */
export function reason(error) {
  const text = error?.message ?? "";
  const mayBeRefused = error?.code === "network" && navigator.onLine;
  return mayBeRefused ? text.replace(/\.$/, ", or it does not allow this page (CORS).") : text;
}

/**
 * Does nothing if the text is the same, so that selections and screen readers are not disturbed.
 *
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Has screen readers say what happened, but not each percent. */
export class Announcer {
  /** @type {string[]} */
  #texts = [];

  /** @param {Element} element A live region. */
  constructor(element) {
    this.element = element;
  }

  /**
   * Together with what else happens within half a second.
   *
   * @param {string} text
   */
  say(text) {
    this.#texts.push(text);
    if (this.#texts.length > 1) return;
    this.element.textContent = "";
    setTimeout(() => {
      const rest = this.#texts.length - 3;
      this.element.textContent = this.#texts.slice(0, 3).join(" ") + (rest > 0 ? ` And ${rest} more.` : "");
      this.#texts = [];
    }, 500);
  }
}

/**
 * Makes an element; attributes that are `undefined` are left out.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | undefined>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
