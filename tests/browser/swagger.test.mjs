// `presignd dev` as a browser sees it: Swagger UI asks for a grant, and a page of the service uploads with it.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { chromium } from "playwright-core";

const target = fileURLToPath(new URL("../../target/", import.meta.url));
const binary = process.env.PRESIGND_BIN ?? join(target, "debug/presignd");
const screenshots = join(target, "screenshots");

let dataDir, service, store, server, browser;

before(async () => {
  dataDir = await mkdtemp(join(tmpdir(), "presignd-browser-"));
  const [addr, s3Addr] = await freeAddresses(2);
  service = `http://${addr}`;
  store = `http://${s3Addr}`;
  server = spawn(binary, ["dev", "--addr", addr, "--s3-addr", s3Addr, "--data-dir", dataDir], {
    // From the data folder, so that no .env of a developer is read.
    cwd: dataDir,
    env: { ...process.env, RUST_LOG: "warn" },
    stdio: ["ignore", "ignore", "inherit"],
  });
  server.ended = new Promise((resolve, reject) => server.once("exit", resolve).once("error", reject));
  server.ended.catch(() => {});
  await untilHealthy();
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      // CI runs as root, under which Chromium has no sandbox; the only pages it opens are ours.
      "--no-sandbox",
      "--disable-gpu",
      // Chromium's own calls home would drown ours.
      "--disable-quic",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--no-first-run",
    ],
  });
});

after(async () => {
  await browser?.close();
  if (server?.exitCode === null) {
    server.kill("SIGINT");
    const late = setTimeout(() => server.kill("SIGKILL"), 10_000);
    await server.ended.catch(() => {});
    clearTimeout(late);
  }
  if (dataDir) await rm(dataDir, { recursive: true, force: true });
});

test("Swagger UI gets a grant, and the page uploads with it", { timeout: 60_000 }, async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(15_000);
  const allowed = new Set([service]);
  const troubles = watch(page, allowed);

  await page.goto(`${service}/docs`);
  const operation = page.locator(".opblock", {
    has: page.locator('.opblock-summary-path[data-path="/upload/presigned-url"]'),
  });
  await operation.waitFor();
  await page.screenshot({ path: join(screenshots, "docs.png"), fullPage: true });

  await operation.locator(".opblock-summary-control").click();
  await operation.getByRole("button", { name: "Try it out" }).click();
  const asked = JSON.parse(await operation.locator("textarea.body-param__text").inputValue());
  await operation.getByRole("button", { name: "Execute" }).click();

  const answer = operation.locator(".live-responses-table .response");
  assert.equal((await answer.locator(".response-col_status").innerText()).trim(), "201");
  const grant = JSON.parse(await answer.locator(".response-col_description .highlight-code code").first().innerText());
  await page.screenshot({ path: join(screenshots, "docs-201.png"), fullPage: true });
  assert.match(grant.key, /^uploads\/[0-9a-f-]{36}\//);
  assert.ok(grant.key.endsWith(`/${asked.filename}`), grant.key);
  assert.equal(new URL(grant.url).origin, store);
  assert.equal(grant.method, "PUT");

  // Another origin than the page's: this works only if the store's CORS rule lets it.
  allowed.add(store);
  const bytes = Array.from({ length: 65_536 }, (_, i) => (i * 31 + (i >> 8)) % 256);
  const put = await page.evaluate(
    async ({ url, method, headers, bytes }) => {
      const response = await fetch(url, { method, headers, body: new Uint8Array(bytes) });
      return { status: response.status, etag: response.headers.get("etag"), body: await response.text() };
    },
    { ...grant, bytes },
  );
  assert.equal(put.status, 200, put.body);
  // Upload libraries read it, and without Access-Control-Expose-Headers they could not.
  assert.ok(put.etag, "the store does not expose ETag");
  const stored = await readFile(join(dataDir, "uploads", grant.key));
  assert.ok(stored.equals(Buffer.from(bytes)), "the stored bytes are not the ones sent");

  assert.deepEqual(troubles, []);
});

test("the README's upload() works in a page", { timeout: 30_000 }, async () => {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  const upload = readme.match(/^```js\n([^]*?)^```/m)[1].replace("https://uploads.example.com", service);
  const page = await browser.newPage();
  const troubles = watch(page, new Set([service, store]));
  await page.goto(`${service}/docs`);
  await page.addScriptTag({ content: upload });
  const key = await page.evaluate(() => upload(new File(["안녕"], "사진 1.txt", { type: "text/plain" })));
  assert.match(key, /\/사진 1\.txt$/);
  assert.equal(await readFile(join(dataDir, "uploads", key), "utf8"), "안녕");
  assert.deepEqual(troubles, []);
});

test("Ctrl-C ends it with exit code 0", { timeout: 15_000 }, async () => {
  server.kill("SIGINT");
  assert.equal(await server.ended, 0);
});

/** Everything the page should not do: log errors, fail requests, ask another host than `allowed` ones. */
function watch(page, allowed) {
  const troubles = [];
  page.on("console", (message) => {
    if (message.type() === "error") troubles.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => troubles.push(`exception: ${error}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (/^https?:|^wss?:/.test(url.protocol) && !allowed.has(url.origin)) troubles.push(`other host: ${url}`);
  });
  const answered = new Set();
  page.on("requestfailed", (request) => {
    // An answer whose body the page leaves unread counts as failed, too.
    if (!answered.has(request)) troubles.push(`failed: ${request.url()} ${request.failure()?.errorText}`);
  });
  page.on("response", (response) => {
    answered.add(response.request());
    if (response.status() >= 400) troubles.push(`${response.status()}: ${response.url()}`);
  });
  return troubles;
}

async function untilHealthy() {
  const deadline = Date.now() + 15_000;
  for (;;) {
    const ok = await fetch(`${service}/healthz`).then((r) => r.ok, () => false);
    if (ok) return;
    const ended = await Promise.race([server.ended.then((code) => `exit code ${code}`), sleep(100)]);
    if (ended) throw new Error(`${binary} dev: ${ended}`);
    if (Date.now() > deadline) throw new Error(`${service}/healthz does not answer`);
  }
}

/** Loopback addresses whose ports nothing listens on. */
async function freeAddresses(count) {
  const servers = await Promise.all(
    Array.from({ length: count }, () => new Promise((resolve, reject) => {
      const server = createServer().once("error", reject).listen(0, "127.0.0.1", () => resolve(server));
    })),
  );
  const addresses = servers.map((server) => `127.0.0.1:${server.address().port}`);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return addresses;
}
