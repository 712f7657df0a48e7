// The look of `<presignd-upload>`. Pages change it by custom properties and parts. Without a
// `color-scheme` of the page it is light.

/** What the upload page around the element has, too. */
const SHARED = `
:host, :root {
  --accent: var(--presignd-accent, light-dark(#0f766e, #3db8a9));
  --accent-text: var(--presignd-accent-text, light-dark(#ffffff, #06211e));
  --accent-soft: var(--presignd-accent-soft, light-dark(#e3f1ef, #16302d));
  --card: var(--presignd-card, light-dark(#ffffff, #1a2120));
  --text: var(--presignd-text, light-dark(#1c2524, #e6ecea));
  --quiet: var(--presignd-quiet, light-dark(#5b6866, #9baaa7));
  --line: var(--presignd-line, light-dark(#dde3e2, #2c3634));
  --border: var(--presignd-border, light-dark(#76817f, #7d8b88));
  --bad: light-dark(#b42318, #ff9d92);
  --bad-soft: light-dark(#fdeeec, #3a1d1a);
  --warn: light-dark(#8a5a00, #e8b85a);
  --track: light-dark(#e6ebea, #2b3533);
}

[hidden] {
  display: none !important;
}

* {
  box-sizing: border-box;
  margin: 0;
}

button, input, select {
  padding: 0.3rem 0.85rem;
  border: 1px solid var(--border);
  border-radius: 0.5rem;
  background: var(--card);
  color: var(--text);
  font: inherit;
}

:focus-visible {
  outline: 2px solid var(--accent);
  outline-offset: 2px;
}

code {
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  font-size: 0.95em;
  overflow-wrap: anywhere;
  /* A key is read from left to right on every page. */
  direction: ltr;
  unicode-bidi: isolate;
}

@media (pointer: coarse) {
  .drop-hint {
    display: none;
  }
}
`;

const OWN = `
:host {
  display: block;
  container-type: inline-size;
  color: var(--text);
  line-height: 1.5;
}

:host([hidden]) {
  display: none !important;
}

button {
  min-height: 2.25rem;
  font-size: 0.9rem;
  white-space: nowrap;
  cursor: pointer;
}

button:hover {
  border-color: var(--accent);
}

button:disabled {
  opacity: 0.55;
  cursor: default;
}

button.main {
  min-height: 2.75rem;
  padding: 0.5rem 1.4rem;
  border-color: var(--accent);
  background: var(--accent);
  color: var(--accent-text);
  font-size: 1rem;
  font-weight: 600;
}

/* English texts keep their order on a page that is written from right to left. */
.summary,
.status,
.notice,
.policy {
  unicode-bidi: plaintext;
  text-align: -webkit-match-parent;
  text-align: match-parent;
}

.drop {
  padding: 2.25rem 1rem 2.5rem;
  display: grid;
  justify-items: center;
  gap: 0.75rem;
  border: 2px dashed var(--border);
  border-radius: 1rem;
  background: var(--card);
  text-align: center;
  transition: border-color 0.15s, background-color 0.15s;
}

.drop.over {
  border-color: var(--accent);
  background: var(--accent-soft);
}

.notice {
  margin-top: 1rem;
  padding: 0.7rem 1rem;
  border-radius: 0.6rem;
  background: var(--bad-soft);
  color: var(--bad);
}

.uploads {
  margin-top: 1.5rem;
}

.bar {
  min-height: 2.25rem;
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 0.5rem 1rem;
}

.summary {
  flex: 1 1 12rem;
  font-size: 0.95rem;
  font-weight: 600;
  color: var(--quiet);
}

ul {
  margin-top: 0.6rem;
  padding: 0;
  border: 1px solid var(--border);
  border-radius: 1rem;
  background: var(--card);
  list-style: none;
}

.row {
  padding: 0.9rem 1rem;
  display: grid;
  grid-template-columns: 3rem minmax(0, 1fr) auto;
  align-items: start;
  gap: 0.3rem 0.9rem;
}

.row + .row {
  border-top: 1px solid var(--line);
}

.thumb {
  width: 3rem;
  height: 3rem;
  display: grid;
  place-items: center;
  overflow: hidden;
  border-radius: 0.6rem;
  background: var(--accent-soft);
  color: var(--accent);
  font-size: 0.7rem;
  font-weight: 700;
  letter-spacing: 0.04em;
}

.thumb img {
  width: 3rem;
  height: 3rem;
  object-fit: cover;
}

.filename {
  font-weight: 500;
  overflow-wrap: anywhere;
}

.policy,
.status {
  color: var(--quiet);
  font-size: 0.875rem;
  font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere;
}

.key {
  grid-column: 2 / -1;
  font-size: 0.8rem;
  line-height: 1.4;
}

.actions {
  grid-area: 1 / 3;
  display: flex;
  gap: 0.5rem;
}

progress {
  width: 100%;
  height: 0.4rem;
  margin: 0.4rem 0 0.25rem;
  display: block;
  appearance: none;
  border: 0;
  border-radius: 1rem;
  overflow: hidden;
  background: var(--track);
  color: var(--accent);
}

/* Two rules: a browser drops a whole rule for one selector that it does not know. */
progress::-webkit-progress-bar {
  background: var(--track);
}

progress::-webkit-progress-value {
  border-radius: 1rem;
  background: currentcolor;
  transition: width 0.4s linear;
}

progress::-moz-progress-bar {
  border-radius: 1rem;
  background: currentcolor;
}

:is([data-state="paused"], [data-state="waiting"], [data-state="interrupted"], [data-state="cancelling"]) progress {
  color: var(--quiet);
}

[data-state="reconnecting"] progress,
:is([data-state="reconnecting"], [data-state="interrupted"]) .status {
  color: var(--warn);
}

[data-state="done"] .status {
  color: var(--accent);
}

[data-state="done"] .status::before {
  content: "✓ " / "";
}

[data-state="failed"] progress,
:is([data-state="failed"], [data-state="refused"]) .status {
  color: var(--bad);
}

[data-state="refused"] .thumb {
  background: var(--bad-soft);
  color: var(--bad);
}

.unseen {
  position: absolute;
  width: 1px;
  height: 1px;
  overflow: hidden;
  clip-path: inset(50%);
  white-space: nowrap;
}

@container (max-width: 34rem) {
  .what {
    grid-column: 2 / -1;
  }

  .actions {
    grid-area: auto / 2 / auto / -1;
    flex-wrap: wrap;
    margin-top: 0.35rem;
  }

  button {
    min-height: 2.75rem;
  }
}

@media (prefers-reduced-motion: reduce) {
  * {
    transition: none !important;
  }

  progress::-webkit-progress-value {
    transition: none;
  }
}

/* Browsers would give the bar and what is around it one colour. */
@media (forced-colors: active) {
  progress {
    forced-color-adjust: none;
    border: 1px solid CanvasText;
    background: Canvas;
    color: Highlight !important;
  }

  progress::-webkit-progress-bar {
    background: Canvas;
  }
}
`;

/** @param {string} css */
function sheetOf(css) {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  return sheet;
}

/** @type {CSSStyleSheet[] | undefined} */
let sheets;

/** The shared sheet and the element's own, for all elements of the page. They work where inline styles are forbidden. */
export function styles() {
  return (sheets ??= [sheetOf(SHARED), sheetOf(OWN)]);
}
