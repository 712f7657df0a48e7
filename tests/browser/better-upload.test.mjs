// better-upload's client and its React hook, on a page of another origin, with presignd as their server.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { MiB, digest, eventually, makeFile, startBrowser, startServer, temporaryFolder, throttle, watch } from "./helpers.mjs";
import { EXPIRED, TICKETS, below, servePages, ticket, token } from "./pages.mjs";

let server, ticketed, strict, browser, folder, pages, context, page, troubles;

before(async () => {
  folder = await temporaryFolder();
  [server, ticketed, strict, browser, pages] = await Promise.all([
    startServer(),
    startServer(TICKETS),
    startServer({ policies: '[policies.default]\ncontent_types = ["image/*"]\n[policies.once]\nkey = "once/{filename}"\noverwrite = false\n' }),
    startBrowser(),
    servePages(["better-upload"], folder.path),
  ]);
});

after(async () => {
  await browser?.close();
  await Promise.all([server?.stop(), ticketed?.stop(), strict?.stop(), pages?.stop(), folder?.remove()]);
});

afterEach(async () => {
  await context?.close();
  assert.deepEqual(troubles, []);
});

test("better-upload really is version 3", async () => {
  const text = await readFile(fileURLToPath(new URL("node_modules/@better-upload/client/package.json", import.meta.url)), "utf8");
  assert.equal(JSON.parse(text).version, "3.0.19");
  troubles = [];
});

/** Each way to use it: what it is, the server with these claims, and the options of the page. */
const WAYS = [
  ["better-upload's function", () => ({ at: server, options: {} })],
  ["better-upload's hook with a JWT", (claims) => ({ at: ticketed, options: { hook: true, token: token(claims) } })],
  ["better-upload's function with a ticket in the path", (claims) => ({ at: below(ticketed, ticket({}, claims)), options: {} })],
];

for (const [what, way] of WAYS) {
  test(`${what} uploads small, empty and large files`, { timeout: 60_000 }, async () => {
    const { at, options } = way();
    await open(at, options);
    const small = await file(`${what} + 사진 100%.jpg`, MiB);
    const empty = await file(`${what}, empty.txt`, 0);
    await choose(small, empty);
    await settled(small, empty);
    await arrived(at, small, empty);
    // In parts: one of three, one of an empty file, and one of a file without a type.
    const large = await file(`${what}, large.mp4`, 32 * MiB + 1);
    const nothing = await file(`${what}, empty in parts.txt`, 0);
    const unknown = await file(`${what}, without a type`, 1000);
    await choose(large, nothing, unknown);
    await settled(large, nothing, unknown);
    await arrived(at, large, nothing, unknown);
    assert.deepEqual(await at.parts(), []);
  });

  test(`${what} survives a lost connection`, { timeout: 60_000 }, async () => {
    const { at, options } = way();
    await open(at, { ...options, retry: 5, retryDelay: 300 }, [/ERR_CONNECTION_RESET/]);
    let lost = 0;
    const lose = (route) => {
      lost += 1;
      return route.abort("connectionreset");
    };
    await page.route(/[?&]partNumber=2&/, lose, { times: 2 });
    const large = await file(`${what}, interrupted.mp4`, 32 * MiB + 1);
    await choose(large);
    await settled(large);
    await arrived(at, large);
    assert.equal(lost, 2);
    assert.deepEqual(await at.parts(), []);
  });
}

for (const [what, way] of WAYS.slice(1)) {
  test(`${what} shows that the token has expired`, { timeout: 60_000 }, async () => {
    const { at, options } = way(EXPIRED);
    await refused(at, options, 401, /^the request must carry valid credentials/);
  });
}

for (const [what, at, options] of [
  ["better-upload's function", () => strict, {}],
  ["better-upload's function with a ticket in the path", () => below(ticketed, ticket({ content_types: ["image/*"] })), {}],
  ["better-upload's hook", () => strict, { hook: true }],
  ["better-upload's hook with a ticket in the path", () => below(ticketed, ticket({ content_types: ["image/*"] })), { hook: true }],
]) {
  test(`${what} shows why a file is refused`, { timeout: 60_000 }, async () => {
    await refused(at(), options, 422, /^files\/0\/type must be one of image\/\*$/);
  });
}

test("better-upload aborts what its user cancels, and nothing is left of the parts", { timeout: 60_000 }, async () => {
  await open(server, { hook: true }, [/net::ERR_ABORTED/]);
  await throttle(page, 8 * MiB);
  const large = await file("unwanted, better-upload.mp4", 32 * MiB + 1);
  await choose(large);
  await eventually("a part has arrived", async () => (await server.parts()).some((name) => name.includes(".part-")));
  await page.evaluate(() => window.cancel());
  await page.getByText(`${large.name}: failed`).waitFor();
  await eventually("the parts are gone", async () => (await server.parts()).length === 0);
  assert.ok((await server.keys()).every((key) => !key.endsWith(large.name)));
});

test("better-upload sends the metadata that was signed, its own and that of a ticket", { timeout: 60_000 }, async () => {
  await open(below(ticketed, ticket({ metadata: { order: "42" } })), { metadata: { album: "앨범", nested: { a: 1 } } });
  const small = await file("with metadata.txt", 10);
  await choose(small);
  await settled(small);
  await arrived(ticketed, small);
});

test("better-upload's hook shows a file as complete that is uploaded already, and sends the others", { timeout: 60_000 }, async () => {
  const old = await file("uploaded already.txt", 10);
  const large = await file("uploaded already.mp4", 32 * MiB + 1);
  const another = await file("not yet.txt", 10);
  for (const [files, sent] of [[[old, large], 4], [[old], 0], [[old, large], 0], [[another, old], 1]]) {
    await open(strict, { hook: true, route: "once" });
    let requests = 0;
    page.on("request", (request) => (requests += request.method() === "PUT" ? 1 : 0));
    await choose(...files);
    await settled(...files);
    assert.equal(requests, sent);
    await context.close();
  }
  await arrived(strict, old, large, another);
});

async function open(server, options, expected = []) {
  context = await browser.newContext();
  page = await context.newPage();
  page.setDefaultTimeout(20_000);
  troubles = watch(page, new Set([pages.origin, new URL(server.service).origin, server.store]), expected);
  await page.goto(`${pages.origin}/better-upload/`);
  await page.evaluate(([service, options]) => window.start(service, options), [server.service, options]);
}

async function file(name, size) {
  return { name, ...(await makeFile(join(folder.path, name), size)) };
}

function choose(...files) {
  return page.locator("input").setInputFiles(files.map((file) => file.path));
}

async function settled(...files) {
  for (const file of files) await page.getByText(`${file.name}: complete`, { exact: true }).waitFor();
  await page.getByText("settled", { exact: true }).waitFor();
}

async function arrived(server, ...files) {
  for (const file of files) {
    const keys = (await server.keys()).filter((key) => key.endsWith(`/${file.name}`));
    assert.equal(keys.length, 1, keys.join());
    assert.equal(await digest(server.object(keys[0])), file.digest, "the stored bytes are not the ones sent");
  }
}

/** A small file is refused with this status, and the user sees this text. */
async function refused(at, options, status, says) {
  await open(at, options, [new RegExp(`^${status}: `), new RegExp(`^console: .* ${status} `)]);
  const unwanted = await file(`refused ${status}.txt`, 10);
  await choose(unwanted);
  await page.getByText(says).waitFor();
  assert.match(await page.getByRole("alert").textContent(), says);
  assert.ok((await at.keys()).every((key) => !key.endsWith(unwanted.name)));
}
