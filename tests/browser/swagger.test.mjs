// `presignd dev` as a browser sees it: Swagger UI asks for a grant, and a page of the service uploads with it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";

import { KEY, WITH_KEY, screenshot, startBrowser, startServer, watch } from "./helpers.mjs";

let server, service, store, browser;

before(async () => {
  server = await startServer();
  ({ service, store } = server);
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  await server?.stop();
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
  await page.screenshot({ path: screenshot("docs.png"), fullPage: true });
  assert.equal(await page.title(), "API · presignd");

  await operation.locator(".opblock-summary-control").click();
  await operation.getByRole("button", { name: "Try it out" }).click();
  const asked = JSON.parse(await operation.locator("textarea.body-param__text").inputValue());
  await operation.getByRole("button", { name: "Execute" }).click();

  const answer = operation.locator(".live-responses-table .response");
  assert.equal((await answer.locator(".response-col_status").innerText()).trim(), "201");
  const grant = JSON.parse(await answer.locator(".response-col_description .highlight-code code").first().innerText());
  await page.screenshot({ path: screenshot("docs-201.png"), fullPage: true });
  assert.match(grant.key, /^uploads\/[0-9a-f-]{36}\//);
  assert.ok(grant.key.endsWith(`/${asked.filename}`), grant.key);
  assert.equal(new URL(grant.url).origin, store);
  assert.equal(grant.method, "PUT");

  // Another origin than the page's: this works only if the store's CORS rule lets it. Swagger UI itself may
  // not call it.
  allowed.add(store);
  const elsewhere = await browser.newPage({ bypassCSP: true });
  await elsewhere.goto(`${service}/docs`);
  const bytes = Array.from({ length: 65_536 }, (_, i) => (i * 31 + (i >> 8)) % 256);
  const put = await elsewhere.evaluate(
    async ({ url, method, headers, bytes }) => {
      const response = await fetch(url, { method, headers, body: new Uint8Array(bytes) });
      return { status: response.status, etag: response.headers.get("etag"), body: await response.text() };
    },
    { ...grant, bytes },
  );
  assert.equal(put.status, 200, put.body);
  // Upload libraries read it, and without Access-Control-Expose-Headers they could not.
  assert.ok(put.etag, "the store does not expose ETag");
  const stored = await readFile(server.object(grant.key));
  assert.ok(stored.equals(Buffer.from(bytes)), "the stored bytes are not the ones sent");

  assert.deepEqual(troubles, []);
});

test("Swagger UI fits on a phone", { timeout: 30_000 }, async () => {
  const page = await browser.newPage({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  await page.goto(`${service}/docs`);
  await page.locator(".opblock").first().waitFor();
  await page.screenshot({ path: screenshot("docs-phone.png") });
  // Without a viewport, phones lay the page out for 980 px.
  assert.equal(await page.evaluate(() => innerWidth), 360);
  await page.close();
});

test("the README's upload() works in a page", { timeout: 30_000 }, async () => {
  const readme = await readFile(new URL("../../README.md", import.meta.url), "utf8");
  const upload = readme.match(/^```js\n(async function upload[^]*?)^```/m)[1].replace("https://uploads.example.com", service);
  const page = await browser.newPage({ bypassCSP: true });
  const troubles = watch(page, new Set([service, store]));
  await page.goto(`${service}/docs`);
  await page.addScriptTag({ content: upload });
  const key = await page.evaluate(() => upload(new File(["안녕"], "사진 1.txt", { type: "text/plain" })));
  assert.match(key, /\/사진 1\.txt$/);
  assert.equal(await readFile(server.object(key), "utf8"), "안녕");
  assert.deepEqual(troubles, []);
});

test("Swagger UI's Authorize button lets its user in", { timeout: 60_000 }, async () => {
  const guarded = await startServer(WITH_KEY);
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    page.setDefaultTimeout(15_000);
    const refusal = /401/;
    const troubles = watch(page, new Set([guarded.service]), [refusal]);
    await page.goto(`${guarded.service}/docs`);
    const operation = page.locator(".opblock", {
      has: page.locator('.opblock-summary-path[data-path="/upload/presigned-url"]'),
    });
    await operation.locator(".opblock-summary-control").click();
    await operation.getByRole("button", { name: "Try it out" }).click();
    const status = async () => {
      await operation.getByRole("button", { name: "Execute" }).click();
      const cell = operation.locator(".live-responses-table .response .response-col_status");
      const text = (await cell.innerText()).trim();
      await operation.getByRole("button", { name: "Clear" }).click();
      return text;
    };
    assert.match(await status(), /^401/);
    await page.getByRole("button", { name: "Authorize" }).first().click();
    const dialog = page.locator(".auth-container", { hasText: "bearer" });
    await dialog.locator("input").fill(KEY);
    await page.screenshot({ path: screenshot("docs-authorize.png") });
    await dialog.locator("button.authorize").click();
    await page.locator(".close-modal").click();
    assert.match(await status(), /^201/);
    assert.deepEqual(troubles, []);
  } finally {
    await guarded.stop();
  }
});

test("Ctrl-C ends it with exit code 0", { timeout: 15_000 }, async () => {
  assert.equal(await server.interrupt(), 0);
});
