// Small files in Chromium go as forms, before which a browser sends no preflight.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { beforeEach, test } from "node:test";

import { expected, openPage, page, pages, proxy, server, setup } from "./helpers.mjs";

const SCRIPT = `
  import { createClient } from "../index.js";
  const client = createClient({ url: new URLSearchParams(location.search).get("service") });
  window.send = async (sizes, options) => {
    const files = sizes.map((size, index) => new File(["x".repeat(size)], index + ".txt", { type: "text/plain" }));
    const results = await client.uploadAll(files, options);
    return results.map(({ value, reason }) => value ?? { code: reason.code, message: reason.message, errors: reason.errors });
  };`;

const POLICIES = `
  [policies.default]
  [policies.once]
  overwrite = false
  [policies.summed]
  require_checksum = true
  [policies.images]
  content_types = ["image/*"]`;

setup({ policies: POLICIES, servesPages: () => ({ forms: { script: SCRIPT } }) });
beforeEach(async () => {
  await openPage();
  await page.goto(`${pages.origin}/forms?service=${encodeURIComponent(proxy.service)}`);
  await page.waitForFunction(() => window.send);
});

const send = (sizes, options) => page.evaluate(([sizes, options]) => window.send(sizes, options), [sizes, options]);
const preflights = () => proxy.preflights.filter(({ to }) => to === "store").length;

test("small files need no preflight, and one call grants them all", async () => {
  const sizes = [1_000, 0, 20_000, 256 * 1024];
  for (const [index, { key, size, etag }] of (await send(sizes)).entries()) {
    assert.equal(size, sizes[index]);
    assert.ok(etag);
    assert.equal(await readFile(server.object(key), "utf8"), "x".repeat(size));
  }
  assert.deepEqual([proxy.count(/^store POST/), proxy.count(/^store PUT/), preflights()], [4, 0, 0]);
  assert.equal(proxy.count(/presigned-url/), 1);
});

test("larger files, and those of a policy that forbids overwriting, go by PUT", async () => {
  await send([256 * 1024 + 1]);
  await send([1_000], { policy: "once" });
  assert.deepEqual([proxy.count(/^store POST/), proxy.count(/^store PUT/)], [0, 2]);
});

test("where a form fails, the file goes by PUT, and so do those that follow", async () => {
  expected.push(/501/);
  proxy.fault = ({ to, method }) => (to === "store" && method === "POST" ? { status: 501 } : undefined);
  const [{ key }] = await send([1_000]);
  assert.equal(await readFile(server.object(key), "utf8"), "x".repeat(1_000));
  await send([1_000, 2_000]);
  assert.deepEqual([proxy.count(/^store POST/), proxy.count(/^store PUT/)], [1, 3]);
});

test("where the store hides its answers to forms, the file goes by PUT", { timeout: 60_000 }, async () => {
  expected.push(/CORS|ERR_FAILED/);
  proxy.fault = ({ to, method }) => (to === "store" && method === "POST" ? { without: "access-control-allow-origin" } : undefined);
  const [{ size }] = await send([1_000]);
  assert.equal(size, 1_000);
  assert.deepEqual([proxy.count(/^store POST/), proxy.count(/^store PUT/)], [2, 1]);
});

test("a file with a checksum goes by PUT, as some stores do not compare that of a form", async () => {
  expected.push(/422/);
  for (const checksum of ["sha256", "crc64nvme"]) {
    proxy.requests.length = 0;
    const [{ size }] = await send([1_000], { checksum });
    assert.equal(size, 1_000);
    assert.deepEqual([proxy.count(/^store POST/), proxy.count(/^store PUT/)], [0, 1], checksum);
  }
  proxy.requests.length = 0;
  await send([1_000], { policy: "summed" });
  assert.deepEqual([proxy.count(/^store POST/), proxy.count(/^store PUT/)], [0, 1]);
});

test("where the store has not kept all that a form says, the file goes by PUT, and so do those that follow", async () => {
  expected.push(/409/);
  const body = JSON.stringify({ code: "mismatch", detail: "cacheControl must be no-store", status: 409 });
  proxy.once(/^service POST .upload.verify/, { status: 409, body });
  const [{ key }] = await send([1_000]);
  assert.equal(await readFile(server.object(key), "utf8"), "x".repeat(1_000));
  assert.deepEqual([proxy.count(/^store POST/), proxy.count(/^store PUT/)], [1, 1]);
  await send([1_000, 2_000]);
  assert.deepEqual([proxy.count(/^store POST/), proxy.count(/^store PUT/)], [1, 3]);
  // What is no other as a PUT stays an error.
  proxy.fault = ({ path }) => (path.endsWith("/upload/verify") ? { status: 409, body } : undefined);
  const [{ code }] = await send([1_000]);
  assert.deepEqual([code, proxy.count(/^store POST/), proxy.count(/^store PUT/)], ["mismatch", 1, 4]);
});

test("a form whose connection is lost is sent again, under the same key", { timeout: 60_000 }, async () => {
  expected.push(/ERR_/);
  proxy.once(/^store POST/, { loseAnswer: true });
  const before = (await server.keys()).length;
  const [{ size }] = await send([1_000]);
  assert.equal(size, 1_000);
  assert.equal(proxy.count(/^store POST/), 2);
  assert.equal((await server.keys()).length, before + 1);
});

test("a file that is refused says why", async () => {
  expected.push(/422/);
  const [alone] = await send([1_000], { policy: "images" });
  assert.match(alone.message, /^The content type must be one of image\/\*/);
  assert.deepEqual(alone.errors.map(({ pointer }) => pointer), ["/contentType"]);
  const [unknown] = await send([1_000], { policy: "unknown" });
  assert.match(unknown.message, /policy/);
});

test("a store may take its time after the last byte", { timeout: 60_000 }, async () => {
  // A minute takes 2 s here.
  await page.evaluate(() => {
    const { setTimeout } = window;
    window.setTimeout = (action, ms) => setTimeout(action, ms >= 60_000 ? ms / 30 : ms);
  });
  proxy.once(/^store PUT/, { delay: 3_500 });
  const [{ size }] = await send([300_000]);
  assert.deepEqual([size, proxy.count(/^store PUT/)], [300_000, 1]);
});

test("an error that onProgress throws while the browser sends a file fails the upload", { timeout: 30_000 }, async () => {
  expected.push(/net::ERR_ABORTED/);
  // The store does not answer before that.
  proxy.fault = ({ to, method }) => (to === "store" && method === "PUT" ? { delay: 60_000 } : undefined);
  const message = await page.evaluate(async () => {
    const onProgress = ({ loaded }) => {
      if (loaded) throw new Error("This page has a fault.");
    };
    const [{ message }] = await window.send([300_000], { onProgress });
    return message;
  });
  assert.equal(message, "This page has a fault.");
});
