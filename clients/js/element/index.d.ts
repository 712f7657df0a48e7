// The types of `presignd-client/element`. TypeScript writes no declaration of a global type from JavaScript.

import type { PresigndUpload } from "../types/element.js";

export * from "../types/element.js";

declare global {
  interface HTMLElementTagNameMap {
    "presignd-upload": PresigndUpload;
  }
}
