// The page around the list: choosing files, the policy and the credential, and the summary.

import { ACTIVE, FINISHED, Row } from "./row.js";
import { follow } from "./saved.js";
import { announce, setText } from "./text.js";

const $ = (id) => document.getElementById(id);

/** The rows of the list, in its order. */
const rows = new Set();

const page = {
  headers() {
    const credential = $("credential").value.trim();
    return credential ? { authorization: `Bearer ${credential}` } : {};
  },

  choose() {
    $("input").click();
  },

  /** `neighbour` is the row that gets the focus of one that is gone; `null` if there is none. */
  changed(row, neighbour) {
    if (!row.element.isConnected) {
      rows.delete(row);
      if (neighbour !== undefined) ([...rows].find(({ element }) => element === neighbour) ?? $("choose")).focus();
    }
    summarise();
  },
};

function append(row) {
  rows.add(row);
  $("list").append(row.element);
}

function add(files) {
  for (const file of files) {
    const interrupted = [...rows].find((row) => row.awaits(file));
    if (interrupted) interrupted.begin(file);
    else append(Row.of(file, $("policy").value || undefined, page));
  }
  if (files.length === 1) announce(`${files[0].name}: added.`);
  if (files.length > 1) announce(`${files.length} files added.`);
  summarise();
}

function summarise() {
  const states = [...rows].map((row) => row.state);
  const count = (set) => states.filter((state) => set.has(state)).length;
  const active = count(ACTIVE);
  const parts = [
    [states.length, states.length === 1 ? "file" : "files"],
    [active, "in progress"],
    ...["paused", "interrupted", "failed", "refused"].map((state) => [count(new Set([state])), state]),
    [count(new Set(["done"])), "uploaded"],
  ];
  const said = parts.filter(([number]) => number > 0).map(([number, what]) => `${number} ${what}`);
  setText($("summary"), said.join(" · "));
  $("uploads").hidden = states.length === 0;
  $("hide").hidden = count(FINISHED) < 2;
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

$("choose").onclick = page.choose;
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
  notice(files.length === items.length ? "" : "A folder cannot be uploaded. Drop the files in it instead.");
  add(files);
});

function notice(text) {
  $("notice").hidden = !text;
  setText($("notice"), text);
}

addEventListener("beforeunload", (event) => {
  if ([...rows].some((row) => ACTIVE.has(row.state))) event.preventDefault();
});

$("hide").onclick = () => {
  $("choose").focus();
  for (const row of [...rows]) if (FINISHED.has(row.state)) row.leave();
};

// It survives a reload in this tab, so that uploads can be resumed.
$("credential").value = sessionStorage.getItem("presignd:credential") ?? "";
$("credential").onchange = ({ target }) => sessionStorage.setItem("presignd:credential", target.value.trim());

$("policy").onchange = ({ target }) => history.replaceState(null, "", `?policy=${encodeURIComponent(target.value)}`);

/** Offers the policies of the service, of which `/?policy=avatar` chooses one. */
function offer(policies) {
  const named = new URLSearchParams(location.search).get("policy");
  if (named && !policies.includes(named)) notice(`There is no policy ${named}.`);
  if (policies.length < 2) return;
  $("policy").append(...policies.map((name) => new Option(name, name)));
  $("policy").value = policies.find((name) => name === named) ?? policies.find((name) => name === "default") ?? policies[0];
  $("policy-field").hidden = false;
}

try {
  const { policies, needsCredential } = await (await fetch("/page/settings.json")).json();
  offer(policies);
  $("credential-field").hidden = !needsCredential;
} catch {
  notice("The service cannot be reached. Start it, then reload this page.");
}

follow(
  (saved) => {
    if ([...rows].some((row) => row.saved.entry === saved.entry)) return;
    append(new Row(null, saved, page));
    summarise();
  },
  (entry) => [...rows].find((row) => row.state === "interrupted" && !row.upload && row.saved.entry === entry)?.leave(),
);
// Scripts and tests can tell from it that the page is ready.
document.documentElement.dataset.ready = "";
