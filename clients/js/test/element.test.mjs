// `<presignd-upload>` in a form of a page of another origin, in Chromium.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import axe from "axe-core";

import { MiB, context, digest, eventually, expected, focused, folder, makeFile, openPage, page, pages, proxy, screenshot, server, setup } from "./helpers.mjs";

const FORM = `
  <h1>Profile</h1>
  <form id="form" action="/sent">
    <fieldset id="fields" style="min-width: 0; border: 0; padding: 0; margin: 0">
      <legend>You</legend>
      <label id="label" for="photo">Your photo</label>
      <presignd-upload id="photo" name="photo"></presignd-upload>
    </fieldset>
    <p><button id="save">Save</button> <button type="reset">Reset</button></p>
  </form>`;
/** The attributes are the page's query, as the element reads some of them when it is connected. */
const ATTRIBUTES = `
  const photo = document.getElementById("photo");
  for (const [name, value] of new URLSearchParams(location.search)) photo.setAttribute(name, value);`;
const STYLE = "<style>:root { color-scheme: light dark } body { font: 1rem system-ui, sans-serif; margin: 1rem; background: Canvas }</style>";

const POLICIES = `
  [policies.default]
  allowed_metadata = ["early"]
  [policies.text]
  key = "text/{uuid}.{ext}"
  content_types = ["text/*"]`;

setup({
  policies: POLICIES,
  servesPages: (proxy) => ({
    form: { body: STYLE + FORM, script: `${ATTRIBUTES} import("../element.js").then(() => (window.isReady = true));` },
    // The module finds the element in the page, and the script sets the client after that.
    imported: {
      body: FORM.replace("<presignd-upload", '<presignd-upload url="http://127.0.0.1:1"'),
      script: `
        import "../element.js";
        import { createClient } from "../index.js";
        ${ATTRIBUTES}
        photo.client = createClient({ url: ${JSON.stringify(proxy.service)} });
        window.isReady = true;`,
    },
    // React sets a property where the element has one, and the attribute otherwise.
    react: {
      body: '<form id="outside"></form><div id="root"></div>',
      script: `
        import "../element.js";
        import { createRoot } from "react-dom/client";
        const root = createRoot(document.getElementById("root"));
        const url = new URLSearchParams(location.search).get("url");
        window.show = (props) => root.render(<presignd-upload id="photo" url={url} {...props} />);
        window.isReady = true;`,
    },
    // The properties are set before the module is loaded.
    late: {
      body: FORM,
      script: `
        import { createClient } from "../index.js";
        ${ATTRIBUTES}
        photo.headers = () => ({ authorization: "Bearer early" });
        photo.metadata = { early: "yes" };
        photo.checksum = "sha256";
        photo.name = "early";
        photo.multiple = true;
        const url = photo.getAttribute("client");
        if (url) photo.client = createClient({ url });
        import("../element.js").then(() => (window.isReady = true));`,
    },
  }),
});

test("the form has the key of the file, and is sent with it", { timeout: 120_000 }, async () => {
  await open();
  await listen("change");
  assert.deepEqual(await data(), []);
  await choose("a.txt");
  await state("a.txt", "done");
  const key = await property("value");
  assert.match(key, /^uploads\/.*\/a\.txt$/);
  assert.equal(await readFile(server.object(key), "utf8"), "a.txt");
  assert.deepEqual(await data(), [["photo", key]]);
  assert.deepEqual(await property("values"), [key]);
  assert.equal(await page.evaluate(() => window.heard), 1);
  await page.locator("#save").click();
  await page.waitForURL(`${pages.origin}/sent?photo=${encodeURIComponent(key).replaceAll("%20", "+")}`);
});

test("without `multiple` a second file replaces the first one, and with it both count", { timeout: 120_000 }, async () => {
  await open();
  await choose("a.txt");
  await state("a.txt", "done");
  await choose("b.txt");
  await state("b.txt", "done");
  assert.deepEqual((await property("values")).map((key) => key.slice(-5)), ["b.txt"]);
  await set({ multiple: "" });
  assert.equal(await page.getByRole("button", { name: "Choose files" }).count(), 1);
  await choose("c.txt", "d.txt");
  await state("c.txt", "done");
  await state("d.txt", "done");
  // What a form would lose cannot be hidden by mistake.
  assert.equal(await page.getByRole("button", { name: "Hide finished" }).count(), 0);
  assert.deepEqual((await data()).map(([name, key]) => [name, key.slice(-5)]), [["photo", "b.txt"], ["photo", "c.txt"], ["photo", "d.txt"]]);
  await page.getByRole("button", { name: "Remove: c.txt" }).click();
  await row("c.txt").waitFor({ state: "detached" });
  assert.equal((await data()).length, 2);
});

test("without `multiple`, a notice says that of several files one is uploaded", { timeout: 60_000 }, async () => {
  await open();
  const notice = page.getByRole("alert");
  await page.evaluate(() => {
    const dataTransfer = new DataTransfer();
    for (const name of ["a.txt", "b.txt"]) dataTransfer.items.add(new File([name], name, { type: "text/plain" }));
    window.photo.shadowRoot.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer }));
  });
  await state("a.txt", "done");
  assert.equal(await notice.innerText(), "Only one file can be uploaded here.");
  assert.deepEqual((await property("files")).map(({ name }) => name), ["a.txt"]);
  await choose("c.txt");
  await state("c.txt", "done");
  assert.equal(await notice.isVisible(), false);
});

test("`required` holds the form until a file is there, and so does an upload in progress", { timeout: 120_000 }, async () => {
  await open({ required: "" });
  const validity = () => page.evaluate(() => [document.forms[0].checkValidity(), window.photo.validationMessage]);
  assert.deepEqual(await validity(), [false, "Please choose a file."]);
  await page.locator("#save").click();
  await focused(page, /^Choose a file$/);
  assert.ok(page.url().startsWith(`${pages.origin}/form`), "the form was sent without its file");
  proxy.fault = ({ to }) => (to === "store" ? { delay: 1_000 } : undefined);
  await choose("a.txt");
  await state("a.txt", "uploading");
  assert.deepEqual(await validity(), [false, "Please wait until the files are uploaded."]);
  await state("a.txt", "done");
  assert.deepEqual(await validity(), [true, ""]);
  // Without the file, it is missing again.
  await page.getByRole("button", { name: "Remove: a.txt" }).click();
  await eventually("the file is gone", async () => (await property("files")).length === 0);
  assert.deepEqual(await validity(), [false, "Please choose a file."]);
});

test("a reset empties it, and aborts what is on its way", { timeout: 120_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  await open({ multiple: "" });
  await choose("a.txt");
  await state("a.txt", "done");
  await begin("large.bin");
  assert.notDeepEqual(await server.parts(), []);
  await page.getByRole("button", { name: "Reset" }).click();
  await eventually("the list is empty", async () => (await property("files")).length === 0);
  assert.deepEqual(await data(), []);
  await eventually("the parts are gone", async () => (await server.parts()).length === 0);
});

test("a reset leaves what a reload interrupted", { timeout: 60_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  await open({ multiple: "" });
  const large = await begin("kept.bin");
  await leave({ multiple: "" });
  await state("kept.bin", "interrupted");
  await choose("a.txt");
  await state("a.txt", "done");
  await page.getByRole("button", { name: "Reset" }).click();
  await row("a.txt").waitFor({ state: "detached" });
  assert.deepEqual((await property("files")).map(({ name, state }) => [name, state]), [["kept.bin", "interrupted"]]);
  await page.locator("input[type=file]").setInputFiles(large.path);
  await state("kept.bin", "done");
  assert.equal(proxy.count(/DELETE/), 0);
});

test("while presignd does not verify a file, it can be cancelled, and no longer stops the form", { timeout: 60_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  await open();
  proxy.fault = ({ path }) => (path.endsWith("/upload/verify") ? new Promise(() => {}) : undefined);
  await choose("a.txt");
  await state("a.txt", "verifying");
  const isValid = () => page.evaluate(() => document.forms[0].checkValidity());
  assert.equal(await isValid(), false);
  await page.getByRole("button", { name: "Cancel: a.txt" }).click();
  await row("a.txt").waitFor({ state: "detached" });
  assert.deepEqual([await isValid(), await data()], [true, []]);
});

test("a disabled form control does nothing", { timeout: 120_000 }, async () => {
  await open();
  for (const how of ["fieldset", "attribute"]) {
    await page.evaluate((how) => ((how === "fieldset" ? window.fields : window.photo).toggleAttribute("disabled", true)), how);
    assert.equal(await page.getByRole("button", { name: "Choose a file" }).isDisabled(), true);
    await page.evaluate(() => window.photo.add([new File(["a"], "a.txt")]));
    assert.deepEqual(await property("files"), []);
    await page.evaluate((how) => ((how === "fieldset" ? window.fields : window.photo).toggleAttribute("disabled", false)), how);
    assert.equal(await page.getByRole("button", { name: "Choose a file" }).isDisabled(), false);
  }
});

test("each attribute is a property, which frameworks set", { timeout: 60_000 }, async () => {
  await open();
  const set = (name, values) => page.evaluate(([name, values]) => {
    const attribute = name.replace(/[A-Z]/, (letter) => `-${letter.toLowerCase()}`);
    return values.map((value) => {
      window.photo[name] = value === "undefined" ? undefined : value;
      return [window.photo[name], window.photo.getAttribute(attribute)];
    });
  }, [name, values]);
  for (const name of ["accept", "name", "policy", "ticket", "url"]) {
    assert.deepEqual(await set(name, ["a", "undefined", "b", null]), [["a", "a"], ["", null], ["b", "b"], ["", null]], name);
  }
  for (const name of ["anyPolicy", "disabled", "keys", "multiple", "pageDrop", "receipts", "required"]) {
    const both = [[true, ""], [false, null], [true, ""], [false, null]];
    assert.deepEqual(await set(name, [true, false, "", "undefined"]), both, name);
  }
});

test("React sets its attributes and properties", { timeout: 60_000 }, async () => {
  await open({}, "react");
  const show = (props) => page.evaluate((props) => window.show(props), props);
  await show({ name: "photo", form: "outside", policy: "text", ticket: "a-ticket", multiple: true, required: true, disabled: true });
  const button = page.getByRole("button", { name: "Choose files" });
  await button.waitFor();
  assert.equal(await button.isDisabled(), true);
  await show({ name: "picture", form: "outside", policy: "text", required: true, disabled: false });
  await eventually("it is enabled", async () => !(await page.getByRole("button", { name: "Choose a file" }).isDisabled()));
  assert.equal(await page.evaluate(() => document.forms[0].checkValidity()), false);
  await choose("a.txt");
  await state("a.txt", "done");
  assert.deepEqual(await data(), [["picture", await property("value")]]);
  assert.match(await property("value"), /^text\//);
  assert.equal(proxy.requests[0].headers.authorization, undefined);
  // React sets what is removed to `undefined`.
  await page.evaluate(() => (window.photo.headers = undefined));
  await choose("b.txt");
  await state("b.txt", "done");
  await show({ name: "picture" });
  await eventually("it has left the form", async () => (await data()).length === 0);
});

test("its attributes decide what is asked of presignd", { timeout: 120_000 }, async () => {
  expected.push(/^422: /, /^console: .* 422 /);
  await open({ policy: "text", ticket: "a-ticket", accept: "text/*", multiple: "" });
  assert.equal(await page.locator("input[type=file]").getAttribute("accept"), "text/*");
  await choose("a.txt");
  await state("a.txt", "done");
  assert.match(await property("value"), /^text\//);
  assert.equal(proxy.requests.find(({ to }) => to === "service").headers.authorization, "Bearer a-ticket");
  await page.evaluate(() => window.photo.add([new File(["a"], "a.exe", { type: "application/x-msdownload" })]));
  await state("a.exe", "refused");
  await row("a.exe").getByText("Refused: The content type must be one of text/*.").waitFor();
  assert.equal((await data()).length, 1);
});

test("a picture is decoded once for its preview", { timeout: 60_000 }, async () => {
  await open({ multiple: "" }, "form", {}, () => {
    const { createObjectURL } = URL;
    window.previews = 0;
    URL.createObjectURL = (blob) => {
      window.previews += 1;
      return createObjectURL(blob);
    };
  });
  const picture = join(folder.path, "picture.png");
  await page.screenshot({ path: picture });
  await page.locator("input[type=file]").setInputFiles(picture);
  await row("picture.png").locator("img").waitFor();
  await state("picture.png", "done");
  // Each change of the list shows all rows again.
  await choose("a.txt");
  await state("a.txt", "done");
  assert.equal(await page.evaluate(() => window.previews), 1);
});

test("with `receipts`, the value is what presignd has signed", { timeout: 120_000 }, async () => {
  await open({ receipts: "" });
  await choose("a.txt");
  await state("a.txt", "done");
  const [header, claims, signature] = (await property("value")).split(".");
  assert.equal(JSON.parse(Buffer.from(header, "base64url")).alg, "EdDSA");
  const { key } = JSON.parse(Buffer.from(claims, "base64url"));
  assert.match(key, /a\.txt$/);
  assert.ok(signature);

  // Both decide what the form sends also when they change later.
  await page.evaluate(() => window.photo.removeAttribute("receipts"));
  assert.deepEqual(await data(), [["photo", key]]);
  await set({ name: "picture" });
  assert.deepEqual(await data(), [["picture", key]]);
});

test("properties that were set before the module was loaded hold", { timeout: 120_000 }, async () => {
  await open({ url: proxy.service }, "late");
  const answer = page.waitForResponse(/presigned-urls$/);
  await choose("a.txt");
  await state("a.txt", "done");
  const [grant] = proxy.requests;
  assert.equal(grant.headers.authorization, "Bearer early");
  assert.deepEqual(await page.evaluate(() => [window.photo.metadata, window.photo.checksum]), [{ early: "yes" }, "sha256"]);
  assert.deepEqual(await data(), [["early", await property("value")]]);
  assert.equal(await page.getByRole("button", { name: "Choose files" }).count(), 1);
  assert.ok((await (await answer).json()).uploads[0].headers["x-amz-checksum-sha256"]);
  await context.close();

  proxy.reset();
  await open({ url: "http://127.0.0.1:1", client: proxy.service }, "late");
  await choose("a.txt");
  await state("a.txt", "done");
});

test("after it was removed and inserted again, it shows what happened meanwhile", { timeout: 60_000 }, async () => {
  await open();
  let go;
  const held = new Promise((resolve) => (go = resolve));
  proxy.fault = ({ to }) => (to === "store" ? held : undefined);
  await choose("a.txt");
  await state("a.txt", "uploading");
  await page.evaluate(() => {
    // The name `photo` finds only what is in the page.
    window.removed = window.photo;
    window.place = window.photo.parentElement;
    window.removed.remove();
  });
  go();
  await eventually("it has arrived", () => page.evaluate(() => window.removed.files[0].state === "done"));
  await page.evaluate(() => window.place.append(window.removed));
  await state("a.txt", "done");
});

test("a client may be set in the script that loads the module", { timeout: 60_000 }, async () => {
  await open({ url: "http://127.0.0.1:1" }, "imported");
  await choose("a.txt");
  await state("a.txt", "done");
});

test("another url is used for the files that are added after it was set", { timeout: 60_000 }, async () => {
  await open({ url: "http://127.0.0.1:1" });
  await page.evaluate((url) => (window.photo.url = url), proxy.service);
  await choose("a.txt");
  await state("a.txt", "done");
  const before = await property("value");
  // What has arrived stays in the list, and in the form.
  await page.evaluate(() => (window.photo.url = "http://127.0.0.1:1"));
  await page.evaluate((url) => (window.photo.url = url), proxy.service);
  assert.equal(await property("value"), before);
  await choose("b.txt");
  await state("b.txt", "done");
});

test("an upload of another policy that a reload interrupted is not offered", { timeout: 120_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  await open();
  const large = await begin("interrupted.bin");
  await leave({ policy: "text" });
  await visit({ policy: "text", "any-policy": "" });
  await state("interrupted.bin", "interrupted");
  await visit({ policy: "text" });
  await page.waitForTimeout(300);
  assert.deepEqual(await property("files"), []);
  await visit({});
  await state("interrupted.bin", "interrupted");
  await page.locator("input[type=file]").setInputFiles(large.path);
  await state("interrupted.bin", "done");
  assert.equal(await digest(server.object(await property("value"))), large.digest);
  assert.equal(proxy.count(/partNumber=1&/), 0, "the first part was sent twice");
});

test("a file that the credential does not allow can be sent again with another one", { timeout: 60_000 }, async () => {
  expected.push(/^4(03|22): /, /^console: .* 4(03|22) /);
  await open({ policy: "text", ticket: "a-ticket", multiple: "" });
  proxy.once(/presigned-urls/, { status: 403, body: JSON.stringify({ code: "policy-not-allowed", detail: "no" }) });
  await choose("a.txt");
  await state("a.txt", "refused");
  await set({ ticket: "another-ticket" });
  await page.getByRole("button", { name: "Try again: a.txt" }).click();
  await state("a.txt", "done");
  // What the policy does not allow would be refused again.
  await page.evaluate(() => window.photo.add([new File(["a"], "a.exe", { type: "application/x-msdownload" })]));
  await state("a.exe", "refused");
  assert.equal(await page.getByRole("button", { name: "Try again: a.exe" }).count(), 0);
});

test("a file that is gone from the store can be sent again", { timeout: 60_000 }, async () => {
  expected.push(/^404: .*verify/, /^console: .* 404 .*verify/);
  await open();
  // The store says that it has the file, and has not.
  proxy.once(/^store POST/, { status: 204 });
  await choose("a.txt");
  await state("a.txt", "failed");
  await page.getByRole("button", { name: "Try again: a.txt" }).click();
  await state("a.txt", "done");
  assert.equal(await readFile(server.object(await property("value")), "utf8"), "a.txt");
});

test("a server that does not answer may be one that refuses the page", { timeout: 60_000 }, async () => {
  // Chromium connects to no such port.
  expected.push(/127\.0\.0\.1:1\//);
  await open({ url: "http://127.0.0.1:1" });
  await choose("a.txt");
  const status = "The service cannot be reached, or it does not allow this page (CORS). Trying again…";
  await row("a.txt").getByText(status).waitFor();
});

test("a policy and drops on the page count from when they are set", { timeout: 120_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  await open({ policy: "text" });
  await begin("interrupted.txt");
  await leave({});
  await page.waitForTimeout(300);
  assert.deepEqual(await property("files"), []);
  await set({ policy: "text" });
  await state("interrupted.txt", "interrupted");
  await page.evaluate(() => window.photo.removeAttribute("policy"));
  await row("interrupted.txt").waitFor({ state: "detached" });
  await page.evaluate(() => (window.photo.anyPolicy = true));
  await page.getByRole("button", { name: "Discard: interrupted.txt" }).click();
  await row("interrupted.txt").waitFor({ state: "detached" });

  const drop = (name) => page.evaluate((name) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([name], name, { type: "text/plain" }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, name);
  await set({ "page-drop": "" });
  await drop("a.txt");
  await state("a.txt", "done");
  await page.evaluate(() => (window.photo.pageDrop = false));
  await drop("b.txt");
  await page.waitForTimeout(300);
  assert.equal(await row("b.txt").count(), 0);
});

test("the buttons of a disabled element are disabled", { timeout: 60_000 }, async () => {
  await open({ multiple: "" });
  await choose("a.txt", "b.txt");
  await state("b.txt", "done");
  const remove = page.getByRole("button", { name: "Remove: a.txt" });
  const hide = page.getByRole("button", { name: "Hide finished" });
  for (const how of ["fieldset", "attribute"]) {
    await page.evaluate((how) => ((how === "fieldset" ? window.fields : window.photo).toggleAttribute("disabled", true)), how);
    assert.equal(await remove.isDisabled(), true);
    await page.evaluate((how) => ((how === "fieldset" ? window.fields : window.photo).toggleAttribute("disabled", false)), how);
    assert.equal(await remove.isDisabled(), false);
  }
  await set({ keys: "", disabled: "" });
  assert.equal(await hide.isDisabled(), true);
});

test("files that are added together share calls to presignd, with a ticket, too", { timeout: 60_000 }, async () => {
  await open({ ticket: "a-ticket", multiple: "" });
  const names = Array.from({ length: 10 }, (_, index) => `${index}.txt`);
  await choose(...names);
  for (const name of names) await state(name, "done");
  assert.equal(proxy.count(/presigned-urls/), 1);
  await choose("more.txt");
  await state("more.txt", "done");
});

test("on a page that is written from right to left, English texts keep their order", { timeout: 60_000 }, async () => {
  await open({ multiple: "", keys: "" });
  await page.evaluate(() => (document.documentElement.dir = "rtl"));
  await choose("a.txt", "b.txt");
  await state("a.txt", "done");
  await state("b.txt", "done");
  // Where each word begins, from the left.
  const order = (selector, words) => page.locator(selector).first().evaluate((element, words) => {
    const node = element.firstChild;
    return words.map((word) => {
      const range = document.createRange();
      range.setStart(node, node.data.indexOf(word));
      range.setEnd(node, node.data.indexOf(word) + 1);
      return range.getBoundingClientRect().left;
    });
  }, words);
  for (const [selector, words] of [[".summary", ["2 files", "files", "·", "uploaded"]], [".row .status", ["5", "B", "uploaded"]], ["code", ["uploads/", "/a.txt", ".txt"]]]) {
    const lefts = await order(selector, words);
    assert.deepEqual(lefts, lefts.toSorted((a, b) => a - b), `${selector}: ${words.join()}`);
  }
  await page.screenshot({ path: screenshot("element-rtl.png"), fullPage: true });
});

test("an upload that a reload interrupted is discarded with the ticket", { timeout: 60_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  await open({ ticket: "a-ticket" });
  await begin("discarded.bin");
  await leave({ ticket: "a-ticket" });
  await page.getByRole("button", { name: "Discard: discarded.bin" }).click();
  await row("discarded.bin").waitFor({ state: "detached" });
  const [{ headers }] = proxy.requests.filter(({ method }) => method === "DELETE");
  assert.equal(headers.authorization, "Bearer a-ticket");
  await eventually("the parts are gone", async () => (await server.parts()).length === 0);
});

test("the current ticket is used, also for a file that was added before", { timeout: 60_000 }, async () => {
  expected.push(/^401: /, /^console: .* 401 /);
  const authorizations = (path) => proxy.requests.filter((seen) => seen.path.endsWith(path)).map(({ headers }) => headers.authorization);
  await open();
  proxy.fault = ({ to, headers }) => (to === "service" && headers.authorization !== "Bearer new" ? { status: 401 } : undefined);
  await choose("a.txt");
  await state("a.txt", "failed");
  for (const ticket of ["old", "new"]) {
    await set({ ticket });
    const count = proxy.requests.length;
    await page.getByRole("button", { name: "Try again: a.txt" }).click();
    await eventually("it is tried again", () => proxy.requests.length > count);
    await state("a.txt", ticket === "new" ? "done" : "failed");
  }
  assert.deepEqual(authorizations("presigned-urls"), [undefined, "Bearer old", "Bearer new"]);

  // A ticket that is renewed while a file is sent is used for the calls that follow.
  proxy.reset();
  let go;
  const held = new Promise((resolve) => (go = resolve));
  proxy.fault = ({ to }) => (to === "store" ? held : undefined);
  await choose("b.txt");
  await state("b.txt", "uploading");
  await set({ ticket: "newer" });
  go();
  await state("b.txt", "done");
  assert.deepEqual(authorizations("verify"), ["Bearer newer"]);
});

test("an upload is remembered although the browser's database failed, or was removed, before", { timeout: 120_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  await open({ fails: "" }, "form", {}, () => {
    const { open } = IDBFactory.prototype;
    window.opened = 0;
    IDBFactory.prototype.open = function (name, version) {
      window.opened += 1;
      const fails = window.opened === 1 && new URLSearchParams(location.search).has("fails");
      // No version is negative.
      return open.call(this, name, fails ? -1 : version);
    };
  });
  await eventually("the list was asked for", () => page.evaluate(() => window.opened));
  const large = await begin("remembered.bin");
  await leave({});
  await state("remembered.bin", "interrupted");
  // As a page does that clears what it has stored.
  await page.evaluate(() => new Promise((resolve, reject) => {
    Object.assign(indexedDB.deleteDatabase("presignd"), { onsuccess: resolve, onblocked: reject });
  }));
  proxy.reset();
  const othersArrived = proxy.hold(2);
  await page.locator("input[type=file]").setInputFiles(large.path);
  await othersArrived();
  await leave({});
  await page.locator("input[type=file]").setInputFiles(large.path);
  await state("remembered.bin", "done");
  assert.equal(proxy.count(/^service POST \/s3\/multipart$/), 0);
});

test("the keyboard does all, and the label names it", { timeout: 120_000 }, async () => {
  await open({ multiple: "" });
  // From now on Chromium shows no dialog of its own.
  page.on("filechooser", () => {});
  // Playwright does not see the role, as it is none of an attribute.
  const session = await context.newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  const groups = nodes.filter(({ role }) => role?.value === "group").map(({ name }) => name?.value);
  assert.deepEqual(groups, ["You", "Your photo"]);
  await page.locator("#label").click();
  await focused(page, /^Choose files$/);
  const chooser = page.waitForEvent("filechooser");
  await page.keyboard.press("Enter");
  await (await chooser).setFiles([await text("a.txt"), await text("b.txt")]);
  await state("a.txt", "done");
  await state("b.txt", "done");
  await page.keyboard.press("Tab");
  await focused(page, /^Remove: a.txt$/);
  await page.keyboard.press("Space");
  await focused(page, /^Remove: b.txt$/);
  await page.keyboard.press("Tab");
  await focused(page, /^Save$/);
});

test("custom properties and parts change its look", { timeout: 120_000 }, async () => {
  await open();
  await choose("a.txt");
  await state("a.txt", "done");
  await page.addStyleTag({
    content: `presignd-upload { --presignd-accent: rgb(1, 2, 3) }
      presignd-upload::part(filename) { color: rgb(4, 5, 6) }
      presignd-upload::part(drop) { padding: 0 }
      presignd-upload::part(secondary) { color: rgb(7, 8, 9) }`,
  });
  const style = (selector, name) => page.locator(selector).evaluate((element, name) => getComputedStyle(element)[name], name);
  assert.equal(await style("#choose", "backgroundColor"), "rgb(1, 2, 3)");
  assert.equal(await style(".filename", "color"), "rgb(4, 5, 6)");
  assert.equal(await style("#drop", "padding"), "0px");
  assert.equal(await style("button.secondary", "color"), "rgb(7, 8, 9)");
});

test("with forced colours, the progress can be seen", { timeout: 60_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  await open({}, "form", { forcedColors: "active", reducedMotion: "reduce" });
  await begin("forced.bin");
  await page.getByRole("button", { name: "Pause: forced.bin" }).click();
  await state("forced.bin", "paused");
  await page.screenshot({ path: screenshot("element-forced.png"), fullPage: true });
  const [sent, rest] = await bar();
  assert.notEqual(sent, rest);
});

test("where people want less motion, the progress does not slide", { timeout: 60_000 }, async () => {
  await open({}, "form", { reducedMotion: "reduce" });
  proxy.fault = ({ to }) => (to === "store" ? new Promise(() => {}) : undefined);
  await choose("a.txt");
  await state("a.txt", "uploading");
  await page.locator("progress").evaluate((progress) => {
    progress.value = 1;
    return new Promise((painted) => requestAnimationFrame(() => requestAnimationFrame(painted)));
  });
  const [start, end] = await bar();
  assert.equal(start, end);
});

for (const [name, options] of Object.entries({
  light: {},
  dark: { colorScheme: "dark" },
  phone: { viewport: { width: 320, height: 640 }, hasTouch: true },
})) {
  test(`axe finds nothing, and nothing overflows: ${name}`, { timeout: 120_000 }, async () => {
    expected.push(/^422: /, /^console: .* 422 /, /^403: /, /^console: .* 403 /, /net::ERR_ABORTED/);
    await open({ multiple: "", policy: "text" }, "form", { reducedMotion: "reduce", ...options });
    await check(`element-${name}-empty.png`);
    proxy.fault = ({ to, path }) => {
      if (to === "store" && path.includes("partNumber")) return { delay: 5_000 };
      // The second file fails, as a form and as a PUT.
      return to === "store" && proxy.count(/^store POST/) === 2 ? { status: 403 } : undefined;
    };
    const large = await makeFile(join(folder.path, `${"long-name-".repeat(12)}.txt`), 17 * MiB);
    await choose("done.txt");
    await state("done.txt", "done");
    await choose("failed.txt");
    await state("failed.txt", "failed");
    await page.evaluate(() => window.photo.add([new File(["a"], "refused.exe", { type: "application/x-msdownload" })]));
    await state("refused.exe", "refused");
    await page.locator("input[type=file]").setInputFiles(large.path);
    await page.locator('.row[data-state="uploading"], .row[data-state="waiting"]').waitFor();
    await page.getByRole("button", { name: /^Pause/ }).click();
    await page.locator('.row[data-state="paused"]').waitFor();
    await check(`element-${name}.png`);
  });
}

/** The colours of the progress near its start and its end. */
async function bar() {
  const picture = await page.locator("progress").screenshot();
  return page.evaluate(async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const { width, height } = image;
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(image, 0, 0);
    return [0.1, 0.9].map((share) => context.getImageData(Math.round(width * share), height >> 1, 1, 1).data.join());
  }, `data:image/png;base64,${picture.toString("base64")}`);
}

async function check(picture) {
  await page.screenshot({ path: screenshot(picture), fullPage: true });
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`), []);
  // What is cut could be read with a mouse alone.
  const isCut = (names) => names.filter((name) => name.scrollWidth > name.clientWidth).map((name) => name.textContent);
  assert.deepEqual(await page.locator(".filename").evaluateAll(isCut), []);
  const [shown, needed] = await page.evaluate(() => [document.documentElement.clientWidth, document.documentElement.scrollWidth]);
  assert.ok(needed <= shown, `${needed} px do not fit in ${shown}`);
}

async function open(attributes = {}, name = "form", options = {}, script) {
  await openPage({ viewport: { width: 800, height: 700 }, ...options }, script);
  await visit(attributes, name);
}

async function visit(attributes, name = "form") {
  await page.goto(`${pages.origin}/${name}?${new URLSearchParams({ url: proxy.service, ...attributes })}`);
  await page.waitForFunction(() => window.isReady);
}

/** Reloads the page with other attributes, although an upload is in progress. */
async function leave(attributes) {
  await page.evaluate(() => addEventListener("beforeunload", (event) => event.stopImmediatePropagation(), { capture: true }));
  proxy.reset();
  await visit(attributes);
}

async function set(attributes) {
  await page.evaluate((attributes) => {
    for (const [name, value] of Object.entries(attributes)) window.photo.setAttribute(name, value);
  }, attributes);
}

/** A file whose text is its name. */
async function text(name) {
  const path = join(folder.path, name);
  await writeFile(path, name);
  return path;
}

async function choose(...names) {
  await page.locator("input[type=file]").setInputFiles(await Promise.all(names.map(text)));
}

/** Chooses a large file, and waits until the store has its three parts except for the second one. */
async function begin(name) {
  const large = await makeFile(join(folder.path, name), 20 * MiB);
  const othersArrived = proxy.hold(2);
  await page.locator("input[type=file]").setInputFiles(large.path);
  await othersArrived();
  return large;
}

function row(name) {
  return page.locator(".row", { has: page.getByText(name, { exact: true }) });
}

function state(name, state) {
  return page.locator(`.row[data-state="${state}"]`, { has: page.getByText(name, { exact: true }) }).waitFor();
}

/** A property of the element, as JSON. */
function property(name) {
  return page.evaluate((name) => JSON.parse(JSON.stringify(window.photo[name])), name);
}

/** What the form would send. */
function data() {
  return page.evaluate(() => [...new FormData(document.forms[0])]);
}

function listen(event) {
  return page.evaluate((event) => {
    window.heard = 0;
    window.photo.addEventListener(event, () => (window.heard += 1));
  }, event);
}
