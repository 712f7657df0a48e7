// The page around the element: the policy, the credential and the title.

import "../element.js";
import { styles } from "../element/style.js";

const [shared] = styles();
document.adoptedStyleSheets = [shared];
const $ = (id) => document.getElementById(id);
const uploads = $("uploads");

uploads.headers = () => {
  const credential = $("credential").value.trim();
  return credential ? { authorization: `Bearer ${credential}` } : {};
};

/** Where the browser blocks site data, reading `sessionStorage` throws an error. */
function inSession(action) {
  try {
    return action(sessionStorage);
  } catch {
    return null;
  }
}

// It survives a reload in this tab, so that uploads can be resumed.
$("credential").value = inSession((storage) => storage.getItem("presignd:credential")) ?? "";
$("credential").onchange = ({ target }) => {
  inSession((storage) => storage.setItem("presignd:credential", target.value.trim()));
};

$("policy").onchange = ({ target }) => {
  uploads.setAttribute("policy", target.value);
  history.replaceState(null, "", `?policy=${encodeURIComponent(target.value)}`);
};

/** Offers the policies of the service, of which `/?policy=avatar` chooses one. */
function offer(policies) {
  const named = new URLSearchParams(location.search).get("policy");
  if (named && !policies.includes(named)) uploads.showNotice(`There is no policy ${named}.`);
  if (policies.join() === "default") return;
  $("policy").append(...policies.map((name) => new Option(name, name)));
  $("policy").value = policies.find((name) => name === named) ?? policies.find((name) => name === "default") ?? policies[0];
  $("policy-field").hidden = policies.length < 2;
  uploads.setAttribute("policy", $("policy").value);
}

const title = document.title;
uploads.addEventListener("progress", () => {
  const active = uploads.files.filter(({ state }) => ["uploading", "finishing", "verifying"].includes(state));
  const sum = (name) => active.reduce((sum, file) => sum + file[name], 0);
  document.title = active.length ? `${Math.floor((sum("loaded") / (sum("total") || 1)) * 100)}% · ${title}` : title;
});

try {
  const { policies, needsCredential } = await (await fetch("/page/settings.json")).json();
  offer(policies);
  $("credential-field").hidden = !needsCredential;
} catch {
  uploads.showNotice("The service cannot be reached. Start it, then reload this page.");
}
// Scripts and tests can tell from it that the page is ready.
document.documentElement.dataset.ready = "";
