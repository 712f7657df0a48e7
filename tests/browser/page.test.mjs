// The upload page of `presignd dev`, in Chromium. What arrived is compared byte by byte in the store's folder.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import axe from "axe-core";

import { KEY, MiB, WITH_KEY, digest, eventually, focused, makeFile, screenshot, startBrowser, startServer, temporaryFolder, throttle, watch } from "./helpers.mjs";

/** What a test causes when it breaks a connection or a request. */
const BROKEN = [/^failed: (PUT|GET) .*[?&](partNumber|key)=.* net::ERR_ABORTED$/];
const OFFLINE = [/net::ERR_INTERNET_DISCONNECTED/, /net::ERR_NETWORK_CHANGED/];
/** The size of 13 parts, of which 8 are sent at once: some are left when the first ones have arrived. */
const MANY_PARTS = 100 * MiB;

const POLICIES = `
  [policies.default]
  content_types = ["text/*", "video/*"]
  max_size = "20 MiB"
  [policies.large]
  key = "large/{uuid}.{ext}"
  [policies.checked]
  key = "checked/{uuid}.{ext}"
  require_checksum = true`;

let server, strict, browser, folder, context, page, troubles, expected;

before(async () => {
  folder = await temporaryFolder();
  [server, strict, browser] = await Promise.all([
    startServer(),
    startServer({ policies: POLICIES }),
    startBrowser(),
  ]);
});

after(async () => {
  await browser?.close();
  await Promise.all([server?.stop(), strict?.stop(), folder?.remove()]);
});

beforeEach(() => {
  expected = [];
});

afterEach(async () => {
  await context?.close();
  assert.deepEqual(troubles, []);
});

test("small files are dropped, previewed, uploaded, and their keys copied", { timeout: 60_000 }, async () => {
  await open(server, { permissions: ["clipboard-read", "clipboard-write"] });
  await page.screenshot({ path: screenshot("page-empty.png") });
  const picture = await page.screenshot({ clip: { x: 300, y: 150, width: 400, height: 300 } });
  const text = "안녕하세요, S3!";
  await drop([
    { name: "화면 1 + 100%.png", type: "image/png", bytes: [...picture] },
    { name: "notes.txt", type: "text/plain", bytes: [...Buffer.from(text)] },
    { name: "empty.bin", type: "", bytes: [] },
  ]);
  const key = await done("화면 1 + 100%.png");
  assert.match(key, /^uploads\/[0-9a-f-]{36}\/화면 1 \+ 100%\.png$/);
  assert.ok((await readFile(server.object(key))).equals(picture));
  assert.equal(await readFile(server.object(await done("notes.txt")), "utf8"), text);
  assert.equal((await readFile(server.object(await done("empty.bin")))).length, 0);
  await row("화면 1 + 100%.png").locator("img").waitFor();
  assert.ok(await row("화면 1 + 100%.png").locator("img").evaluate((image) => image.naturalWidth > 0));

  await button("Copy key", "화면 1 + 100%.png").click();
  await button("Copied", "화면 1 + 100%.png").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), key);
  await page.screenshot({ path: screenshot("page-done.png") });

  assert.equal(await page.locator("#summary").innerText(), "3 files · 3 uploaded");
  await page.getByRole("button", { name: "Hide finished" }).click();
  assert.equal(await page.locator(".row").count(), 0);
});

test("what is called uploaded is in the store", { timeout: 60_000 }, async () => {
  expected = [/^404: .*\/upload\/verify$/, /^console: .* 404 .*\/upload\/verify$/];
  await open(server);
  const verified = async () => {
    const response = await page.waitForResponse((response) => response.url().endsWith("/upload/verify"));
    return [response.status(), await response.json()];
  };
  let answer = verified();
  await drop([{ name: "there.txt", type: "text/plain", bytes: [1, 2, 3] }]);
  const key = await done("there.txt");
  assert.equal(await row("there.txt").locator(".status").innerText(), "3 B · uploaded and verified");
  const mark = await row("there.txt").locator(".status").evaluate((status) => getComputedStyle(status, "::before").content);
  assert.match(mark, /✓/);
  const [status, verification] = await answer;
  assert.deepEqual([status, verification.key, verification.size], [200, key, 3]);

  // This store accepts everything and keeps nothing.
  const headers = { "access-control-allow-origin": "*" };
  await page.route(`${server.store}/**`, (route) => route.fulfill({ status: 200, headers }));
  answer = verified();
  await drop([{ name: "lost.txt", type: "text/plain", bytes: [1, 2, 3] }]);
  await row("lost.txt").locator(".status", { hasText: "There is no such upload" }).waitFor();
  assert.equal((await answer)[0], 404);
  assert.equal(await row("lost.txt").locator(".key").isVisible(), false);
});

test("a refused file says why", { timeout: 60_000 }, async () => {
  expected = [/^422: /, /^console: .* 422 /];
  await open(strict);
  await drop([{ name: "program.exe", type: "application/x-msdownload", bytes: [1, 2, 3] }]);
  const small = row("program.exe");
  await small.locator(".status", { hasText: "Refused" }).waitFor();
  const why = "Refused: The content type must be one of text/*, video/*.";
  assert.equal(await small.locator(".status").innerText(), why);

  // A large one is refused before any part of it is sent.
  await choose(await makeFile(join(folder.path, "too large.mp4"), 24 * MiB));
  await row("too large.mp4").locator(".status", { hasText: "Refused" }).waitFor();
  await page.screenshot({ path: screenshot("page-refused.png") });
  assert.match(await row("too large.mp4").locator(".status").innerText(), /20971520 bytes/);
  assert.deepEqual([await strict.parts(), await strict.keys()], [[], []]);

  await button("Hide", "program.exe").click();
  await button("Hide", "too large.mp4").click();
  assert.equal(await page.locator(".row").count(), 0);
  assert.deepEqual(await sessions(), []);

  // The address may name another policy, and so may the chooser.
  await visit(`${strict.service}/?policy=large`);
  assert.equal(await page.getByLabel("Policy", { exact: true }).inputValue(), "large");
  await choose(await makeFile(join(folder.path, "large.mp4"), 24 * MiB));
  assert.match(await done("large.mp4"), /^large\/[0-9a-f-]{36}\.mp4$/);
  await drop([{ name: "program.exe", type: "application/x-msdownload", bytes: [1, 2, 3] }]);
  assert.match(await done("program.exe"), /^large\/[0-9a-f-]{36}\.exe$/);
  await page.getByLabel("Policy", { exact: true }).selectOption("default");
  assert.equal(page.url(), `${strict.service}/?policy=default`);
  await drop([{ name: "notes.txt", type: "text/plain", bytes: [1, 2, 3] }]);
  assert.match(await done("notes.txt"), /^uploads\//);
  // The page has the code for the checksum that a policy requires.
  await page.getByLabel("Policy", { exact: true }).selectOption("checked");
  await drop([{ name: "checked.txt", type: "text/plain", bytes: [1, 2, 3] }]);
  assert.match(await done("checked.txt"), /^checked\//);
  await page.goto(`${strict.service}/?policy=lagre`);
  await page.getByText("There is no policy lagre.").waitFor();
});

test("the only policy is used, whatever its name", { timeout: 60_000 }, async () => {
  const single = await startServer({ policies: '[policies.avatar]\nkey = "avatars/{uuid}.{ext}"' });
  try {
    await open(single);
    assert.ok(await page.getByLabel("Policy", { exact: true }).isHidden());
    await drop([{ name: "me.png", type: "image/png", bytes: [1, 2, 3] }]);
    assert.match(await done("me.png"), /^avatars\/[0-9a-f-]{36}\.png$/);
  } finally {
    await single.stop();
  }
});

test("offline and back", { timeout: 60_000 }, async () => {
  expected = [...BROKEN, ...OFFLINE];
  await open(server);
  // Slow, but not by the throttle, which would lift Playwright's `setOffline`.
  await page.route(`${server.store}/**`, (route) => sleep(300).then(() => route.continue()));
  const file = await makeFile(join(folder.path, "train.mp4"), MANY_PARTS);
  await choose(file);
  await partRemembered();
  await context.setOffline(true);
  await row("train.mp4").locator(".status", { hasText: "Trying again" }).waitFor();
  await page.screenshot({ path: screenshot("page-reconnecting.png") });
  await sleep(1000);
  await context.setOffline(false);
  await arrived(file, await done("train.mp4", 25_000));
});

test("a reload does not lose what was sent, and another file is not mistaken for it", { timeout: 60_000 }, async () => {
  expected = BROKEN;
  await open(server);
  const limit = await throttle(page, 20 * MiB);
  const file = await makeFile(join(folder.path, "제주도.mp4"), MANY_PARTS);
  await choose(file);
  await partRemembered();
  await page.reload();
  const hint = row("제주도.mp4").locator(".status", { hasText: "Choose or drop this file again" });
  await hint.waitFor();
  assert.match(await hint.innerText(), /^[1-9]\d?%/);
  await page.screenshot({ path: screenshot("page-interrupted.png") });

  await limit.lift();
  const chooseAgain = async (files) => {
    const chooser = page.waitForEvent("filechooser");
    await button("Choose file", "제주도.mp4").click();
    await (await chooser).setFiles(files);
  };
  // Another file of the same name is another file, and the page says so.
  await chooseAgain({ name: "제주도.mp4", mimeType: "video/mp4", buffer: Buffer.from("other") });
  await button("Hide", "제주도.mp4").click();
  const notice = page.getByRole("alert");
  assert.match(await notice.innerText(), /^제주도\.mp4 was not resumed/);
  await chooseAgain(file.path);
  await arrived(file, await done("제주도.mp4"));
  assert.equal(await notice.isVisible(), false);
  assert.deepEqual(await sessions(), []);
});

test("an upload belongs to one tab, until that is closed", { timeout: 60_000 }, async () => {
  expected = BROKEN;
  await open(server);
  await throttle(page, 20 * MiB);
  const file = await makeFile(join(folder.path, "shared.mp4"), MANY_PARTS);
  await choose(file);
  await partRemembered();
  // Paused, it cannot end before the other tabs are open.
  await button("Pause", "shared.mp4").click();
  await button("Resume", "shared.mp4").waitFor();

  const second = await context.newPage();
  await visit(server.service, second);
  await sleep(500);
  assert.equal(await second.locator(".row").count(), 0, "the second tab shows what the first one uploads");

  // Once the first tab is gone, the second one offers to resume, and so does a third.
  const third = await context.newPage();
  await visit(server.service, third);
  await page.close({ runBeforeUnload: false });
  await button("Discard", "shared.mp4", second).waitFor();
  await button("Discard", "shared.mp4", third).waitFor();
  // What one of them resumes, the other neither shows nor discards.
  await second.route(`${server.store}/**`, (route) => sleep(500).then(() => route.continue()));
  await choose(file, second);
  await row("shared.mp4", third).waitFor({ state: "detached" });
  await third.reload();
  await sleep(500);
  assert.equal(await third.locator(".row").count(), 0, "the third tab shows what the second one uploads");
  await arrived(file, await done("shared.mp4", 30_000, second));
});

test("an upload that is resumed keeps its policy", { timeout: 60_000 }, async () => {
  expected = BROKEN;
  await open(strict);
  await visit(`${strict.service}/?policy=large`);
  const limit = await throttle(page, 20 * MiB);
  const file = await makeFile(join(folder.path, "policy.mp4"), MANY_PARTS);
  await choose(file);
  await partRemembered();
  await visit(strict.service);
  assert.equal(await page.getByLabel("Policy", { exact: true }).inputValue(), "default");
  await row("policy.mp4").getByText("Policy: large").waitFor();
  await limit.lift();
  await choose(file);
  const key = await done("policy.mp4", 30_000);
  assert.match(key, /^large\//);
  assert.equal(await digest(strict.object(key)), file.digest);
});

test("with the keyboard alone, the focus is never lost and all that happens is announced", { timeout: 90_000 }, async () => {
  expected = [...BROKEN, /^404: .*\/upload\/verify$/, /^console: .* 404 /];
  await open(server);
  const { stop, said } = await listen();
  // From now on Chromium shows no dialog of its own.
  page.on("filechooser", () => {});
  await press("Tab", /^API/);
  await press("Tab", /^Choose files/);

  const limit = await throttle(page, 8 * MiB);
  const file = await makeFile(join(folder.path, "keys.mp4"), 40 * MiB);
  const chooser = page.waitForEvent("filechooser");
  await page.keyboard.press("Enter");
  await (await chooser).setFiles(file.path);
  await said("keys.mp4: added.");
  await press("Tab", /^Pause: keys/);
  await page.keyboard.press("Space");
  await said("keys.mp4: paused.");
  await focused(page, /^Resume: keys/);
  await page.keyboard.press("Enter");
  await said("keys.mp4: resumed.");
  // The focus stays with the file while its buttons come and go.
  await limit.lift();
  await said("keys.mp4: uploaded and verified.");
  await eventually("focus on the row", () => page.evaluate(() => document.activeElement.shadowRoot?.activeElement.closest(".row")));
  await page.locator(".row").focus();
  await press("Tab", /^Copy key: keys/);
  await press("Tab", /^Hide: keys/);
  await page.keyboard.press("Enter");
  await focused(page, /^Choose files/);

  // Cancelling moves the focus to a neighbour.
  await drop([{ name: "stays.txt", type: "text/plain", bytes: [1] }]);
  await done("stays.txt");
  await throttle(page, 2 * MiB);
  await choose(file);
  await said("keys.mp4: added.");
  await button("Cancel", "keys.mp4").focus();
  await page.keyboard.press("Enter");
  await said("keys.mp4: cancelled.");
  await focused(page, /: stays\.txt/);

  // Several at once are hidden together.
  await drop([{ name: "more.txt", type: "text/plain", bytes: [1] }, { name: "last.txt", type: "text/plain", bytes: [1] }]);
  await said("2 files added.");
  await done("last.txt");
  await done("more.txt");
  await page.getByRole("button", { name: "Hide finished" }).focus();
  await page.keyboard.press("Enter");
  await focused(page, /^Choose files/);
  assert.equal(await page.locator(".row").count(), 0);
  assert.equal(await stop(), 0, "the focus fell to the body");
});

test("with AUTH_MODE set, the page has a field for a credential", { timeout: 60_000 }, async () => {
  expected = [/^401: /, /^console: .* 401 /];
  const guarded = await startServer(WITH_KEY);
  try {
    await open(guarded);
    await drop([{ name: "secret.txt", type: "text/plain", bytes: [1, 2, 3] }]);
    await row("secret.txt").locator(".status", { hasText: "Failed: The request must carry valid credentials" }).waitFor();
    await page.getByLabel("API key or token").fill(KEY);
    await page.screenshot({ path: screenshot("page-credential.png") });
    await button("Try again", "secret.txt").click();
    await done("secret.txt");
    // It survives a reload, so that uploads can be resumed; but not the tab.
    await page.reload();
    assert.equal(await page.getByLabel("API key or token").inputValue(), KEY);
    assert.deepEqual(await page.evaluate(() => [...Object.values(localStorage), document.cookie]), [""]);
  } finally {
    await guarded.stop();
  }
});

test("where site data is blocked, the page works, and a reload forgets the credential", { timeout: 60_000 }, async () => {
  const guarded = await startServer(WITH_KEY);
  try {
    await open(guarded, {}, () => {
      const deny = () => {
        throw new DOMException("Access is denied for this document.", "SecurityError");
      };
      for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { get: deny });
      IDBFactory.prototype.open = deny;
    });
    await page.getByLabel("API key or token").fill(KEY);
    await drop([{ name: "blocked.txt", type: "text/plain", bytes: [1, 2, 3] }]);
    await done("blocked.txt");
    await page.reload();
    assert.equal(await page.getByLabel("API key or token").inputValue(), "");
  } finally {
    await guarded.stop();
  }
});

for (const [name, options] of Object.entries({
  light: {},
  dark: { colorScheme: "dark" },
  phone: { viewport: { width: 320, height: 640 }, hasTouch: true },
})) {
  test(`axe finds nothing, and nothing overflows: ${name}`, { timeout: 60_000 }, async () => {
    expected = [...BROKEN, /^422: /, /^console: .* 422 /, /^403: /, /^console: .* 403 /];
    await open(strict, { bypassCSP: true, reducedMotion: "reduce", ...options });
    await page.evaluate(axe.source);
    await check(`page-${name}-empty.png`);
    // A row in each state that lasts.
    await visit(`${strict.service}/?policy=large`);
    await throttle(page, 2 * MiB);
    const [paused, sending] = await Promise.all(
      [`${"paused-".repeat(20)}.mp4`, "sending.mp4"].map((file) => makeFile(join(folder.path, file), 20 * MiB)),
    );
    await page.route(/failed/, (route) =>
      route.fulfill({ status: 403, headers: { "access-control-allow-origin": "*" }, body: "<Error><Message>Access Denied</Message></Error>" }));
    await page.getByLabel("Policy", { exact: true }).selectOption("default");
    await drop([
      { name: "done and kept under a long name.txt", type: "text/plain", bytes: [1] },
      { name: "refused.exe", type: "application/x-msdownload", bytes: [1] },
      // It is too large for a form, whose URL would not have its name.
      { name: "failed.txt", type: "text/plain", bytes: Array(300_000).fill(1) },
    ]);
    await done("done and kept under a long name.txt");
    await row("refused.exe").locator(".status", { hasText: "Refused" }).waitFor();
    await row("failed.txt").locator(".status", { hasText: "Failed: The store answered 403: Access Denied" }).waitFor();
    await page.getByLabel("Policy", { exact: true }).selectOption("large");
    await choose(paused);
    await page.locator('.row[data-state="uploading"]').waitFor();
    await page.getByRole("button", { name: /^Pause/ }).click();
    await page.locator('.row[data-state="paused"]').waitFor();
    await choose(sending);
    await page.locator('.row[data-state="uploading"]').getByRole("progressbar", { name: "Progress of sending.mp4" }).waitFor();
    await page.evaluate(axe.source);
    await check(`page-${name}.png`);
    await button("Cancel", "sending.mp4").click();
    await row("sending.mp4").waitFor({ state: "detached" });
    await page.getByRole("button", { name: /^Cancel: paused/ }).click();
    await page.locator('.row[data-state="paused"]').waitFor({ state: "detached" });
    await eventually("the parts are gone", async () => (await strict.parts()).length === 0);
  });
}

test("the policy of the page lets no other script run", { timeout: 30_000 }, async () => {
  expected = [/^console: .*(Content Security Policy|TrustedScript)/];
  await open(server);
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    try {
      script.textContent = "window.ran = true";
    } catch {
      // Trusted Types refuse it.
    }
    document.head.append(script);
    return Boolean(window.ran);
  });
  assert.equal(ran, false);
});

/** Takes a picture, and checks it with axe and for overflow. */
async function check(picture) {
  await page.screenshot({ path: screenshot(picture), fullPage: true });
  const { violations } = await page.evaluate(() => axe.run());
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
  assert.deepEqual(found, []);
  const [shown, needed] = await page.evaluate(() => [document.documentElement.clientWidth, document.documentElement.scrollWidth]);
  assert.ok(needed <= shown, `${needed} px do not fit in ${shown}`);
  // WCAG 2.2, 1.4.11: what shows where a control is has a contrast of 3:1.
  const contrasts = await page.evaluate(() => {
    const luminance = (color) => {
      const [red, green, blue] = color.match(/[\d.]+/g).map((value) => {
        const part = value / 255;
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const contrast = (one, other) => {
      const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
      return (light + 0.05) / (dark + 0.05);
    };
    const back = getComputedStyle(document.body).backgroundColor;
    const { shadowRoot } = document.querySelector("presignd-upload");
    const card = getComputedStyle(shadowRoot.querySelector("#drop")).backgroundColor;
    return [document, shadowRoot]
      .flatMap((root) => [...root.querySelectorAll("button, select, input, #drop")])
      .filter((control) => control.checkVisibility())
      .map((control) => {
        const { borderTopColor } = getComputedStyle(control);
        return [control.id || control.textContent, Math.min(contrast(borderTopColor, back), contrast(borderTopColor, card))];
      });
  });
  assert.ok(contrasts.length >= 2);
  assert.deepEqual(contrasts.filter(([, contrast]) => contrast < 3), []);
}

/** Presses a key, after which the focus is on a control of this name. */
async function press(key, name) {
  await page.keyboard.press(key);
  await focused(page, name);
}

/** Listens as a screen reader does, and watches the focus: `stop()` is how often it fell to the body. */
async function listen() {
  await page.evaluate(() => {
    window.said = "";
    window.lost = 0;
    const announcer = document.querySelector("presignd-upload").shadowRoot.getElementById("announcer");
    new MutationObserver(() => (window.said += ` ${announcer.textContent}`)).observe(announcer, { childList: true, characterData: true, subtree: true });
    let began = false;
    const watch = () => {
      const isLost = document.activeElement === document.body;
      began ||= !isLost;
      if (began && isLost) window.lost += 1;
      requestAnimationFrame(watch);
    };
    watch();
  });
  return {
    said: (text) => eventually(`announced: ${text}`, () => page.evaluate((text) => {
      const at = window.said.indexOf(text);
      if (at < 0) return false;
      window.said = window.said.slice(at + text.length);
      return true;
    }, text), 20_000).catch(async (error) => {
      throw new Error(`${error.message}; said: ${await page.evaluate(() => window.said)}`);
    }),
    stop: () => page.evaluate(() => window.lost),
  };
}

async function open(server, options = {}, script = () => {}) {
  context = await browser.newContext({ viewport: { width: 1000, height: 800 }, ...options });
  await context.addInitScript(script);
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  troubles = watch(page, new Set([server.service, server.store]), expected);
  await visit(server.service);
}

async function visit(url, tab = page) {
  await tab.goto(url);
  await tab.locator("html[data-ready]").waitFor({ state: "attached" });
}

function choose(file, tab = page) {
  return tab.locator("#input").setInputFiles(file.path);
}

async function drop(files) {
  const dataTransfer = await page.evaluateHandle((files) => {
    const transfer = new DataTransfer();
    for (const { name, type, bytes } of files) transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
    return transfer;
  }, files);
  await page.dispatchEvent("body", "drop", { dataTransfer });
}

function row(name, tab = page) {
  return tab.locator(".row", { has: tab.getByText(name, { exact: true }) });
}

function button(label, name, tab = page) {
  return tab.getByRole("button", { name: `${label}: ${name}`, exact: true });
}

/** Waits until a file is uploaded; its key. */
async function done(name, timeout = 15_000, tab = page) {
  const key = row(name, tab).locator(".key code");
  await key.waitFor({ timeout });
  return key.innerText();
}

async function arrived(file, key) {
  assert.equal(await digest(server.object(key)), file.digest, "the stored bytes are not the ones sent");
  assert.deepEqual(await server.parts(), []);
}

/** Waits until the page remembers a part that the store has. */
function partRemembered() {
  return eventually("a part is remembered", async () => (await sessions()).some(({ kept }) => kept > 0));
}

/** What the page remembers of uploads in parts. */
function sessions() {
  return page.evaluate(() => new Promise((resolve, reject) => {
    const opened = indexedDB.open("presignd", 1);
    opened.onerror = () => reject(opened.error);
    opened.onupgradeneeded = () => opened.result.createObjectStore("sessions");
    opened.onsuccess = () => {
      const all = opened.result.transaction("sessions").objectStore("sessions").getAll();
      all.onsuccess = () => {
        opened.result.close();
        resolve(all.result);
      };
    };
  }));
}
