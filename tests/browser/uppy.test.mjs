// Uppy's own Dashboard, as an application would have it: on a page of another origin, its S3 plugin pointed at presignd.

import assert from "node:assert/strict";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { MiB, digest, eventually, makeFile, screenshot, startBrowser, startServer, temporaryFolder, throttle, watch } from "./helpers.mjs";
import { EXPIRED, TICKETS, below, servePages, ticket, token } from "./pages.mjs";

/** Requests in progress when an upload is paused or cancelled. */
const BROKEN = [/^failed: .* net::ERR_ABORTED$/];

let server, strict, ticketed, browser, folder, pages, context, page, troubles;

before(async () => {
  folder = await temporaryFolder();
  [server, strict, ticketed, browser, pages] = await Promise.all([
    startServer(),
    startServer({ policies: '[policies.default]\ncontent_types = ["image/*"]\n' }),
    startServer(TICKETS),
    startBrowser(),
    servePages(["uppy-5", "uppy-6"], folder.path),
  ]);
});

after(async () => {
  await browser?.close();
  await Promise.all([server?.stop(), strict?.stop(), ticketed?.stop(), pages?.stop(), folder?.remove()]);
});

afterEach(async () => {
  await context?.close();
  assert.deepEqual(troubles, []);
});

for (const [version, folderName] of [["5.1", "uppy-5"], ["6.3", "uppy-6"]]) {
  test(`Uppy ${version} really is that version`, async () => {
    await open(folderName, server);
    const actual = await page.evaluate(() => window.uppy.getPlugin("AwsS3Multipart")?.constructor.VERSION ?? window.uppy.getPlugin("AwsS3").constructor.VERSION);
    assert.ok(actual.startsWith(`${version}.`), actual);
  });
}

/** Each way to reach presignd: the folder of the page, the server with these claims, and the plugin's options. */
const WAYS = [
  ["Uppy 5.1", "uppy-5", () => [server, {}]],
  ["Uppy 5.1 with a JWT", "uppy-5", (claims) => [ticketed, { headers: { authorization: `Bearer ${token(claims)}` } }]],
  ["Uppy 5.1 with a ticket in the path", "uppy-5", (claims) => [below(ticketed, ticket({}, claims)), {}]],
  ["Uppy 6.3", "uppy-6", () => [server, {}]],
  ["Uppy 6.3 with a ticket in the path", "uppy-6", (claims) => [below(ticketed, ticket({}, claims)), {}]],
  ["Uppy 6.3 that signs with a JWT", "uppy-6", (claims) => [ticketed, { sign: true, token: token(claims) }]],
  ["Uppy 6.3 that signs with a ticket in the path", "uppy-6", (claims) => [below(ticketed, ticket({}, claims)), { sign: true }]],
];

for (const [what, folderName, way] of WAYS) {
  test(`${what} uploads a small file and an empty one`, { timeout: 60_000 }, async () => {
    const [at, options] = way();
    await open(folderName, at, options);
    for (const [name, size] of [[`사진 ${what} + 100%.jpg`, MiB], [`empty, ${what}.txt`, 0]]) {
      const file = await makeFile(join(folder.path, name), size);
      await add(file);
      await upload();
      await complete();
      await page.screenshot({ path: screenshot(`${folderName}-complete.png`) });
      await arrived(file, name, at);
      await page.evaluate(() => window.uppy.clear());
    }
  });

  test(`${what} sends parts, pauses, loses the connection and resumes`, { timeout: 120_000 }, async () => {
    const [at, options] = way();
    const name = `large, ${what}.mp4`;
    const file = await makeFile(join(folder.path, name), 32 * MiB + 1);
    const expected = [...BROKEN, /ERR_INTERNET_DISCONNECTED/, /^console: .*\[Uppy\]/];
    await open(folderName, at, { ...options, shouldUseMultipart: true }, expected);
    const limit = await throttle(page, 8 * MiB);
    await add(file);
    await upload();
    await eventually("a part has arrived", () => partsArrived(at));
    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.getByRole("button", { name: "Resume", exact: true }).waitFor();
    await limit.lift();
    // What is not paused is now sent at once. It is the same for each way, and takes time.
    if (at === server) {
      await sleep(300);
      const there = await at.parts();
      await page.screenshot({ path: screenshot(`${folderName}-paused.png`) });
      await sleep(300);
      assert.deepEqual(await at.parts(), there, "a part arrived during the pause");
      assert.notDeepEqual(there, []);
    }
    await context.setOffline(true);
    await page.getByRole("button", { name: "Resume", exact: true }).click();
    await sleep(500);
    await context.setOffline(false);
    // Those who sign wait for the connection. For others the upload may have failed, and its user sends what is missing.
    if (!options.sign) {
      const retry = page.locator(".uppy-StatusBar-actionBtn--retry");
      await retry.or(page.locator(".uppy-StatusBar.is-complete")).first().waitFor();
      if (await retry.isVisible()) await retry.click();
    }
    await complete();
    await arrived(file, name, at);
    assert.deepEqual(await at.parts(), []);
  });
}

for (const [what, folderName, way] of [WAYS[0], WAYS[3], WAYS[5]]) {
  test(`${what} cancels, and nothing is left of the parts`, { timeout: 60_000 }, async () => {
    const [at, options] = way();
    const name = `unwanted, ${what}.mp4`;
    const file = await makeFile(join(folder.path, name), 32 * MiB);
    await open(folderName, at, { ...options, shouldUseMultipart: true }, BROKEN);
    await throttle(page, 8 * MiB);
    await add(file);
    await upload();
    await eventually("a part has arrived", () => partsArrived(at));
    await page.locator(".uppy-StatusBar-actions").getByRole("button", { name: "Cancel" }).click();
    await eventually("the parts are gone", async () => (await at.parts()).length === 0);
    // Nor does one come late.
    await sleep(500);
    assert.deepEqual(await at.parts(), []);
    assert.ok((await at.keys()).every((key) => !key.endsWith(name)));
  });
}

const IMAGES = { content_types: ["image/*"] };
const NO_IMAGE = /contentType must be one of image\/\*/;
const NO_CREDENTIALS = /must carry valid credentials/;
/** The words of Uppy 5 for any 401. */
const OF_UPPY_5 = /^Authorization required$/;
const headers = (claims) => ({ headers: { authorization: `Bearer ${token(claims)}` } });
const signing = (claims) => ({ sign: true, token: token(claims) });

for (const [what, folderName, where, options, status, says] of [
  ["Uppy 5.1 shows a refusal", "uppy-5", () => strict, {}, 422, /must be one of image\/\*/],
  // 6 shows the status text alone, in which the reason is.
  ["Uppy 6.3 shows a refusal", "uppy-6", () => strict, {}, 422, /must be one of image\/\*/],
  ["Uppy 5.1 shows a refusal to the bearer of a JWT", "uppy-5", () => ticketed, headers({ upload: IMAGES }), 422, /type must be one of image\/\*/],
  ["Uppy 5.1 shows a refusal to the bearer of a ticket in the path", "uppy-5", () => below(ticketed, ticket(IMAGES)), {}, 422, /type must be one of image\/\*/],
  ["Uppy 6.3 shows a refusal to the bearer of a ticket in the path", "uppy-6", () => below(ticketed, ticket(IMAGES)), {}, 422, /type must be one of image\/\*/],
  ["Uppy 6.3 shows a refusal to those who sign with a JWT", "uppy-6", () => ticketed, signing({ upload: IMAGES }), 422, NO_IMAGE],
  ["Uppy 6.3 shows a refusal in parts to those who sign", "uppy-6", () => ticketed, { ...signing({ upload: IMAGES }), shouldUseMultipart: true }, 422, /S3 returned 422 – TypeNotAllowed/],
  ["Uppy 6.3 shows a refusal to those who sign with a ticket in the path", "uppy-6", () => below(ticketed, ticket(IMAGES)), { sign: true }, 422, NO_IMAGE],
  ["Uppy 5.1 shows that a JWT has expired", "uppy-5", () => ticketed, headers(EXPIRED), 401, OF_UPPY_5],
  ["Uppy 5.1 shows that a ticket in the path has expired", "uppy-5", () => below(ticketed, ticket({}, EXPIRED)), {}, 401, OF_UPPY_5],
  ["Uppy 6.3 shows that a ticket in the path has expired", "uppy-6", () => below(ticketed, ticket({}, EXPIRED)), {}, 401, NO_CREDENTIALS],
  ["Uppy 6.3 shows that a JWT has expired to those who sign", "uppy-6", () => ticketed, signing(EXPIRED), 401, NO_CREDENTIALS],
  ["Uppy 6.3 shows that a ticket in the path has expired to those who sign", "uppy-6", () => below(ticketed, ticket({}, EXPIRED)), { sign: true }, 401, NO_CREDENTIALS],
]) {
  test(what, { timeout: 60_000 }, async () => {
    const name = `${what}.mp4`;
    const file = await makeFile(join(folder.path, name), 1000);
    // Uppy also reads a header of the answer that no page of another origin may read.
    const expected = [new RegExp(`^${status}: `), new RegExp(`^console: .* ${status} `), /^console: .*\[Uppy\]/, /x-amz-error-code/];
    const at = where();
    await open(folderName, at, options, expected);
    await add(file);
    await upload();
    await page.getByText("Upload failed").waitFor();
    if (at === strict) await page.screenshot({ path: screenshot(`${folderName}-refused.png`) });
    const [error] = await page.evaluate(() => window.uppy.getFiles().map((file) => file.error));
    assert.match(error, says);
    assert.ok((await at.keys()).every((key) => !key.endsWith(name)));
  });
}

async function open(folderName, server, options = {}, expected = []) {
  context = await browser.newContext({ viewport: { width: 900, height: 700 } });
  page = await context.newPage();
  page.setDefaultTimeout(20_000);
  troubles = watch(page, new Set([pages.origin, new URL(server.service).origin, server.store]), expected);
  await page.goto(`${pages.origin}/${folderName}/`);
  await page.evaluate(([service, options]) => window.start(service, options), [server.service, options]);
}

function add(file) {
  return page.locator("input.uppy-Dashboard-input").first().setInputFiles(file.path);
}

function upload() {
  return page.locator(".uppy-StatusBar-actionBtn--upload").click();
}

function complete() {
  return page.locator(".uppy-StatusBar.is-complete").waitFor();
}

async function partsArrived(at = server) {
  return (await at.parts()).some((name) => name.includes(".part-"));
}

async function arrived(file, name, at = server) {
  const keys = (await at.keys()).filter((key) => key.endsWith(`/${name}`));
  assert.equal(keys.length, 1, keys.join());
  assert.equal(await digest(at.object(keys[0])), file.digest, "the stored bytes are not the ones sent");
  // What docs/uppy.md says of the event `upload-success`, whose response Uppy keeps.
  const reported = await page.evaluate(() => window.uppy.getFiles().map((file) => file.response.body.key));
  assert.deepEqual(reported, keys);
}
