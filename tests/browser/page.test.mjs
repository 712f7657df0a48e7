// The upload page of `presignd dev`, in Chromium. What arrived is compared byte by byte in the store's folder.

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { MiB, digest, eventually, makeFile, screenshot, startBrowser, startServer, temporaryFolder, throttle, watch } from "./helpers.mjs";

/** What a test brings about when it breaks a connection or a request on its way. */
const BROKEN = [/^failed: (PUT|GET) .*[?&](partNumber|key)=.* net::ERR_ABORTED$/];
const OFFLINE = [/net::ERR_INTERNET_DISCONNECTED/, /net::ERR_NETWORK_CHANGED/];

let server, strict, browser, folder, context, page, troubles, expected;

before(async () => {
  folder = await temporaryFolder();
  const policies = join(folder.path, "policies.toml");
  await writeFile(
    policies,
    `[policies.default]
     content_types = ["text/*", "video/*"]
     max_size = "20 MiB"
     [policies.large]
     key = "large/{uuid}.{ext}"`,
  );
  [server, strict, browser] = await Promise.all([
    startServer(),
    startServer({ UPLOAD_POLICIES_FILE: policies }),
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
  await page.getByRole("button", { name: "Clear finished" }).click();
  assert.equal(await page.locator(".row").count(), 0);
});

test("what is called uploaded is in the store", { timeout: 60_000 }, async () => {
  expected = [/^404: .*\/upload\/verify$/, /^console: .* 404 .*\/upload\/verify$/];
  await open(server);
  const answers = [];
  page.on("response", async (response) => {
    if (response.url().endsWith("/upload/verify")) answers.push([response.status(), await response.json()]);
  });
  await drop([{ name: "there.txt", type: "text/plain", bytes: [1, 2, 3] }]);
  const key = await done("there.txt");
  assert.equal(await row("there.txt").locator(".status").innerText(), "3 B · uploaded and verified");
  const mark = await row("there.txt").locator(".status").evaluate((status) => getComputedStyle(status, "::before").content);
  assert.match(mark, /✓/);
  assert.deepEqual(answers.map(([status, { key, size }]) => [status, key, size]), [[200, key, 3]]);

  // A store that says yes and keeps nothing.
  const headers = { "access-control-allow-origin": "*" };
  await page.route(`${server.store}/**`, (route) => route.fulfill({ status: 200, headers }));
  await drop([{ name: "lost.txt", type: "text/plain", bytes: [1, 2, 3] }]);
  await row("lost.txt").locator(".status", { hasText: "there is no such upload" }).waitFor();
  assert.equal(answers.at(-1)[0], 404);
  assert.equal(await row("lost.txt").locator(".key").isVisible(), false);
});

test("100 MB go in parts, several at once, and nothing is left of the parts", { timeout: 60_000 }, async () => {
  await open(server);
  const file = await makeFile(join(folder.path, "video.mp4"), 100_000_000);
  const puts = countPuts();
  await choose(file);
  await arrived(file, await done("video.mp4", 45_000));
  assert.equal(puts.finished.length, 12);
  assert.ok(puts.most >= 2 && puts.most <= 4, `${puts.most} at once`);
  assert.equal(await remembered(), 0);
});

test("a refused file says why", { timeout: 60_000 }, async () => {
  expected = [/^422: /, /^console: .* 422 /];
  await open(strict);
  await drop([{ name: "program.exe", type: "application/x-msdownload", bytes: [1, 2, 3] }]);
  const small = row("program.exe");
  await small.locator(".status", { hasText: "Refused" }).waitFor();
  const response = await fetch(`${strict.service}/upload/presigned-url`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ filename: "program.exe", contentType: "application/x-msdownload", size: 3 }),
  });
  assert.equal(await small.locator(".status").innerText(), `Refused: ${(await response.json()).detail}`);

  // A large one is refused before any part of it is sent.
  await choose(await makeFile(join(folder.path, "too large.mp4"), 24 * MiB));
  await row("too large.mp4").locator(".status", { hasText: "Refused" }).waitFor();
  await page.screenshot({ path: screenshot("page-refused.png") });
  assert.match(await row("too large.mp4").locator(".status").innerText(), /20971520 bytes/);
  assert.deepEqual([await strict.parts(), await strict.keys()], [[], []]);

  await button("Remove", "program.exe").click();
  await button("Remove", "too large.mp4").click();
  assert.equal(await page.locator(".row").count(), 0);
  assert.equal(await remembered(), 0);

  // The address may name another policy.
  await page.goto(`${strict.service}/?policy=large`);
  await choose(await makeFile(join(folder.path, "large.mp4"), 24 * MiB));
  assert.match(await done("large.mp4"), /^large\/[0-9a-f-]{36}\.mp4$/);
  await drop([{ name: "program.exe", type: "application/x-msdownload", bytes: [1, 2, 3] }]);
  assert.match(await done("program.exe"), /^large\/[0-9a-f-]{36}\.exe$/);
});

test("pause and resume, by keyboard", { timeout: 60_000 }, async () => {
  expected = BROKEN;
  await open(server);
  const limit = await throttle(page, 20 * MiB);
  const file = await makeFile(join(folder.path, "paused.mp4"), 60 * MiB);
  const puts = countPuts();
  await choose(file);
  await eventually("a part has arrived", () => puts.finished.length > 0);
  await row("paused.mp4").getByRole("progressbar", { name: "Progress of paused.mp4" }).waitFor();
  await page.screenshot({ path: screenshot("page-uploading.png") });
  await button("Pause", "paused.mp4").focus();
  await page.keyboard.press("Enter");
  await button("Resume", "paused.mp4").waitFor();
  await page.screenshot({ path: screenshot("page-paused.png") });
  await sleep(300);
  const there = puts.finished.length;
  await sleep(1500);
  assert.equal(puts.finished.length, there, "a part went out during the pause");
  assert.ok(there < 8);

  await limit.lift();
  // The focus is still on the button, which is now the other.
  await page.keyboard.press("Enter");
  await arrived(file, await done("paused.mp4"));
  assert.deepEqual(puts.finished, [...new Set(puts.finished)], "a part was sent twice");
});

test("offline and back", { timeout: 60_000 }, async () => {
  expected = [...BROKEN, ...OFFLINE];
  await open(server);
  // Slow, but not by the throttle, which would lift Playwright's `setOffline`.
  await page.route(`${server.store}/**`, (route) => sleep(300).then(() => route.continue()));
  const file = await makeFile(join(folder.path, "train.mp4"), 100 * MiB);
  const puts = countPuts();
  await choose(file);
  await eventually("a part has arrived", () => puts.finished.length > 0);
  await context.setOffline(true);
  await row("train.mp4").locator(".status", { hasText: "Trying again" }).waitFor();
  await page.screenshot({ path: screenshot("page-reconnecting.png") });
  await sleep(1000);
  const there = puts.finished.length;
  assert.ok(there < 13);
  await context.setOffline(false);
  await arrived(file, await done("train.mp4", 25_000));
});

test("reload and resume", { timeout: 60_000 }, async () => {
  expected = BROKEN;
  await open(server);
  const limit = await throttle(page, 20 * MiB);
  const file = await makeFile(join(folder.path, "제주도.mp4"), 60 * MiB);
  const puts = countPuts();
  await choose(file);
  await eventually("two parts have arrived", () => puts.finished.length > 1);
  await page.reload();
  const hint = row("제주도.mp4").locator(".status", { hasText: "Choose or drop this file again" });
  await hint.waitFor();
  assert.match(await hint.innerText(), /^[1-9]\d?%/);
  await page.screenshot({ path: screenshot("page-interrupted.png") });
  assert.equal(await remembered(), 1);

  // Another file of the same name is another file.
  await drop([{ name: "제주도.mp4", type: "video/mp4", bytes: [1] }]);
  await page.locator('.row[data-state="done"]').waitFor();
  await page.locator('.row[data-state="done"]').getByRole("button", { name: "Remove" }).click();

  await limit.lift();
  const chooser = page.waitForEvent("filechooser");
  await button("Choose file", "제주도.mp4").click();
  await (await chooser).setFiles(file.path);
  await arrived(file, await done("제주도.mp4"));
  const parts = puts.finished.filter(Boolean);
  assert.deepEqual(parts, [...new Set(parts)], "a part was sent twice");
  assert.equal(await remembered(), 0);
});

test("cancel leaves no parts behind", { timeout: 60_000 }, async () => {
  expected = BROKEN;
  await open(server);
  const before = (await server.keys()).length;
  await throttle(page, 20 * MiB);
  const file = await makeFile(join(folder.path, "unwanted.mp4"), 60 * MiB);
  const puts = countPuts();
  // Under way, paused, and left over by a reload.
  for (const how of ["Cancel", "Pause", "reload"]) {
    puts.finished.length = 0;
    await choose(file);
    await eventually("a part has arrived", () => puts.finished.length > 0);
    assert.notDeepEqual(await server.parts(), []);
    if (how === "Pause") await button("Pause", "unwanted.mp4").click();
    if (how === "reload") await page.reload();
    await button(how === "reload" ? "Discard" : "Cancel", "unwanted.mp4").click();
    await row("unwanted.mp4").waitFor({ state: "detached" });
    await eventually("the parts are gone", async () => (await server.parts()).length === 0);
    assert.equal(await remembered(), 0);
  }
  assert.equal((await server.keys()).length, before);
});

test("what fails for a moment is tried again, and what fails for good on request", { timeout: 60_000 }, async () => {
  expected = [/^503: /, /^console: .* 503 /, /^403: /, /^console: .* 403 /, ...BROKEN, /net::ERR_FAILED/];
  await open(server);
  const seen = new Map();
  let forbidden = true;
  await page.route(`${server.store}/**`, (route) => {
    const part = new URL(route.request().url()).searchParams.get("partNumber");
    const times = (seen.get(part) ?? 0) + 1;
    if (route.request().method() === "PUT") seen.set(part, times);
    const headers = { "access-control-allow-origin": "*" };
    if (part === "1" && times === 1) return route.fulfill({ status: 503, headers });
    if (part === "2" && times === 1) return route.abort();
    if (part === "3" && forbidden) {
      return route.fulfill({ status: 403, headers, body: "<Error><Message>Access Denied</Message></Error>" });
    }
    return route.continue();
  });
  const file = await makeFile(join(folder.path, "unlucky.mp4"), 30 * MiB);
  await choose(file);
  await row("unlucky.mp4").locator(".status", { hasText: "The store answered 403: Access Denied" }).waitFor();
  forbidden = false;
  await button("Try again", "unlucky.mp4").click();
  await arrived(file, await done("unlucky.mp4", 30_000));
});

test("it fits on a phone, in the dark, and the policy lets no other script run", { timeout: 30_000 }, async () => {
  expected = [/^console: .*(Content Security Policy|TrustedScript)/];
  await open(server, { colorScheme: "dark", viewport: { width: 360, height: 740 } });
  await drop([{ name: `${"long".repeat(40)}.txt`, type: "text/plain", bytes: [1] }]);
  await page.locator('.row[data-state="done"]').waitFor();
  await page.screenshot({ path: screenshot("page-phone-dark.png"), fullPage: true });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);

  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    try {
      script.textContent = "window.ran = true";
    } catch {
      // Trusted Types.
    }
    document.head.append(script);
    return Boolean(window.ran);
  });
  assert.equal(ran, false);
});

async function open(server, options = {}) {
  context = await browser.newContext({ viewport: { width: 1000, height: 800 }, ...options });
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  troubles = watch(page, new Set([server.service, server.store]), expected);
  await page.goto(server.service);
}

function choose(file) {
  return page.locator("#input").setInputFiles(file.path);
}

async function drop(files) {
  const dataTransfer = await page.evaluateHandle((files) => {
    const transfer = new DataTransfer();
    for (const { name, type, bytes } of files) transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
    return transfer;
  }, files);
  await page.dispatchEvent("body", "drop", { dataTransfer });
}

function row(name) {
  return page.locator(".row", { has: page.getByText(name, { exact: true }) });
}

function button(label, name) {
  return page.getByRole("button", { name: `${label}: ${name}`, exact: true });
}

/** Waits until a file is uploaded; its key. */
async function done(name, timeout = 15_000) {
  const key = row(name).locator(".key code");
  await key.waitFor({ timeout });
  return key.innerText();
}

async function arrived(file, key) {
  assert.equal(await digest(server.object(key)), file.digest, "the stored bytes are not the ones sent");
  assert.deepEqual(await server.parts(), []);
}

/** How many uploads could go on after a reload. */
function remembered() {
  return page.evaluate(() => localStorage.length);
}

/** The parts that the store has taken, and how many were on their way at once at most. */
function countPuts() {
  const puts = { finished: [], most: 0 };
  const underWay = new Set();
  page.on("request", (request) => {
    if (request.method() !== "PUT") return;
    underWay.add(request);
    puts.most = Math.max(puts.most, underWay.size);
  });
  page.on("requestfailed", (request) => underWay.delete(request));
  page.on("response", (response) => {
    if (!underWay.delete(response.request()) || !response.ok()) return;
    puts.finished.push(new URL(response.url()).searchParams.get("partNumber"));
  });
  return puts;
}
