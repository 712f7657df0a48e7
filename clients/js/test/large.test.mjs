// A large file in Chromium: it resumes after a reload, the page's memory stays flat, and others have their turn.
//
//   LARGE_MIB=2048 npm test -- test/large.test.mjs

import assert from "node:assert/strict";
import { open, stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { MiB, browser, digest, eventually, folder, makeFile, pages, server, setup, startProxy, throttle, watch } from "./helpers.mjs";

const SIZE = Number(process.env.LARGE_MIB ?? 96) * MiB;
const PARTS = Math.ceil(SIZE / (8 * MiB));
/** Of the page: JavaScript's heap, the browser's own objects, and array buffers. */
const MEMORY_MAX = 32 * MiB;

const SCRIPT = `
  import { createClient } from "../index.js";
  const client = createClient({ url: new URLSearchParams(location.search).get("service") });
  window.send = (name) => client.upload(new File([name], name, { type: "text/plain" }));
  document.querySelector("input").onchange = ({ target }) => {
    const onProgress = ({ loaded }) => (window.loaded = loaded);
    client.upload(target.files[0], { onProgress, checksum: "crc64nvme" }).then(
      ({ key }) => (window.result = { key }),
      ({ message }) => (window.result = { message }),
    );
  };`;

setup({ servesPages: () => ({ large: { body: '<input type="file">', script: SCRIPT } }) });

test("a large file resumes after a reload, in flat memory", { timeout: 600_000 }, async (t) => {
  const path = join(folder.path, "large.bin");
  const file = await open(path, "w");
  // It is sparse, but not the same everywhere.
  await file.truncate(SIZE);
  for (let at = 0; at < SIZE; at += 64 * MiB) await file.write(`at ${at}`, at + 12_345);
  await file.close();

  const context = await browser.newContext();
  const page = await context.newPage();
  const troubles = watch(page, new Set([pages.origin, server.service, server.store]), [/net::ERR_ABORTED/]);
  const sent = [];
  page.on("response", (response) => {
    const number = new URL(response.url()).searchParams.get("partNumber");
    if (number && response.ok()) sent.push(number);
  });
  const limit = await throttle(page, 50 * MiB);
  await page.goto(`${pages.origin}/large?service=${encodeURIComponent(server.service)}`);
  const session = await context.newCDPSession(page);
  let most = 0;
  const measure = async () => {
    const { usedSize, embedderHeapUsedSize = 0, backingStorageSize = 0 } = await session.send("Runtime.getHeapUsage");
    most = Math.max(most, usedSize + embedderHeapUsedSize + backingStorageSize);
  };

  await page.locator("input").setInputFiles(path);
  await eventually("a third is there", async () => (await measure(), sent.length >= PARTS / 3), 300_000);
  await page.reload();
  const before = new Set(sent);
  await limit.lift();
  const began = performance.now();
  await page.locator("input").setInputFiles(path);
  await eventually("it goes on where it was", () => page.evaluate(() => window.loaded >= 8 * 1024 * 1024), 60_000);
  const result = await eventually("it has arrived", async () => (await measure(), page.evaluate(() => window.result)), 500_000);
  t.diagnostic(`${SIZE / MiB} MiB, ${before.size} of ${PARTS} parts before the reload, the rest in ${Math.round(performance.now() - began)} ms`);
  t.diagnostic(`at most ${(most / MiB).toFixed(1)} MiB`);
  assert.ok(result.key, result.message);
  assert.equal((await stat(server.object(result.key))).size, SIZE);
  assert.equal(await digest(server.object(result.key)), await digest(path));
  // What was on its way when the page was reloaded may have arrived unseen, and is not sent again either.
  assert.equal(new Set(sent).size, sent.length, "a part was sent twice");
  assert.ok(before.size >= PARTS / 3 && before.size < PARTS, `${before.size} parts`);
  assert.ok(most <= MEMORY_MAX, `${most / MiB} MiB`);
  assert.deepEqual(troubles, []);
  await context.close();
});

test("where presignd and its store have one address, a call waits for the parts that came before it", { timeout: 120_000 }, async () => {
  const proxy = await startProxy(server, { isOne: true });
  const context = await browser.newContext();
  try {
    const page = await context.newPage();
    await page.goto(`${pages.origin}/large?service=${encodeURIComponent(proxy.service)}`);
    let answerSmall;
    const answerPart = [];
    proxy.fault = ({ to, path }) => {
      if (to !== "store") return undefined;
      return new Promise((resolve) => (path.includes("partNumber=") ? answerPart.push(resolve) : (answerSmall = resolve)));
    };
    const small = page.evaluate(() => window.send("small.txt"));
    await eventually("the small file is on its way", () => answerSmall, 30_000);
    await page.locator("input").setInputFiles((await makeFile(join(folder.path, "parts.bin"), 64 * MiB)).path);
    await eventually("five parts are, too", () => answerPart.length === 5, 30_000);
    answerSmall();
    await eventually("a sixth part took its place", () => answerPart.length === 6, 30_000);
    // The verification is asked for after 300 ms.
    await sleep(600);
    assert.equal(proxy.count(/verify/), 0, "a connection was left for the verification");
    // Before it came two parts that have no connection yet.
    for (let n = 0; n < 3; n++) {
      answerPart[n]();
      await sleep(200);
    }
    assert.equal((await small).size, 9);
    assert.equal(proxy.answered(/^store PUT .*partNumber/), 3, "it waited for more than three parts");

    proxy.fault = () => undefined;
    answerPart.forEach((answer) => answer());
    const { key } = await eventually("the large one has arrived", () => page.evaluate(() => window.result), 60_000);
    assert.equal((await stat(server.object(key))).size, 64 * MiB);
    assert.equal(proxy.count(/^store PUT/), 8, "a part was sent twice");
  } finally {
    await context.close();
    await proxy.stop();
  }
});

test("a file that another tab is uploading does not wait for that tab", { timeout: 120_000 }, async () => {
  const proxy = await startProxy(server);
  const context = await browser.newContext();
  try {
    const { path } = await makeFile(join(folder.path, "both.bin"), 17 * MiB);
    const tabs = [];
    const held = [];
    for (const tab of ["first", "second"]) {
      // The parts of the first tab are held until the second one has uploaded the file.
      proxy.fault = ({ to }) => (to === "store" && tab === "first" ? new Promise((go) => held.push(go)) : undefined);
      const page = await context.newPage();
      tabs.push(page);
      await page.goto(`${pages.origin}/large?service=${encodeURIComponent(proxy.service)}`);
      await page.locator("input").setInputFiles(path);
      if (tab === "first") await eventually("its parts are on their way", () => held.length === 3, 30_000);
    }
    const result = (page) => eventually("it has arrived", () => page.evaluate(() => window.result), 30_000);
    const second = await result(tabs[1]);
    held.forEach((go) => go());
    const first = await result(tabs[0]);
    for (const { key } of [first, second]) assert.equal(await digest(server.object(key)), await digest(path));
    assert.notEqual(first.key, second.key);
  } finally {
    await context.close();
    await proxy.stop();
  }
});
