// Uppy's own Dashboard, as an application would have it: on a page of another origin, its S3 plugin pointed at presignd.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";

import { build } from "esbuild";

import { MiB, digest, eventually, makeFile, screenshot, startBrowser, startServer, temporaryFolder, throttle, watch } from "./helpers.mjs";

/** Requests in progress when an upload is paused or cancelled. */
const BROKEN = [/^failed: .* net::ERR_ABORTED$/];

/** What a server needs to accept tickets that [`ticket`] mints. */
const TICKETS = {
  AUTH_MODE: "jwt",
  JWT_SECRET: "0123456789abcdef0123456789abcdef",
  JWT_ISSUER: "https://issuer.example",
  JWT_AUDIENCE: "presignd",
};

let server, strict, ticketed, browser, folder, pages, context, page, troubles;

before(async () => {
  folder = await temporaryFolder();
  const policies = join(folder.path, "policies.toml");
  await writeFile(policies, '[policies.default]\ncontent_types = ["image/*"]\n');
  [server, strict, ticketed, browser, pages] = await Promise.all([
    startServer(),
    startServer({ UPLOAD_POLICIES_FILE: policies }),
    startServer(TICKETS),
    startBrowser(),
    servePages(["uppy-5", "uppy-6"]),
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

  test(`Uppy ${version} uploads a file with a Unicode name by a form`, { timeout: 60_000 }, async () => {
    const file = await makeFile(join(folder.path, `사진 ${version} + 100%.jpg`), MiB);
    await open(folderName, server);
    await add(file);
    await upload();
    await complete();
    await page.screenshot({ path: screenshot(`${folderName}-complete.png`) });
    await arrived(file, `사진 ${version} + 100%.jpg`);
  });

  test(`Uppy ${version} uploads in parts`, { timeout: 60_000 }, async () => {
    const name = `제주도 ${version}.mp4`;
    const file = await makeFile(join(folder.path, name), 32 * MiB + 1);
    await open(folderName, server, { shouldUseMultipart: true });
    await add(file);
    await upload();
    await complete();
    await arrived(file, name);
    assert.deepEqual(await server.parts(), []);
  });

  test(`Uppy ${version} pauses and resumes`, { timeout: 60_000 }, async () => {
    const name = `paused ${version}.mp4`;
    const file = await makeFile(join(folder.path, name), 32 * MiB);
    await open(folderName, server, { shouldUseMultipart: true }, BROKEN);
    const limit = await throttle(page, 8 * MiB);
    await add(file);
    await upload();
    await eventually("a part has arrived", () => partsArrived());
    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.getByRole("button", { name: "Resume", exact: true }).waitFor();
    await sleep(500);
    const there = await server.parts();
    await page.screenshot({ path: screenshot(`${folderName}-paused.png`) });
    await sleep(1500);
    assert.deepEqual(await server.parts(), there, "a part arrived during the pause");
    await limit.lift();
    await page.getByRole("button", { name: "Resume", exact: true }).click();
    await complete();
    await arrived(file, name);
    assert.deepEqual(await server.parts(), []);
  });

  test(`Uppy ${version} cancels, and nothing is left of the parts`, { timeout: 60_000 }, async () => {
    const name = `unwanted ${version}.mp4`;
    const file = await makeFile(join(folder.path, name), 32 * MiB);
    await open(folderName, server, { shouldUseMultipart: true }, BROKEN);
    await throttle(page, 8 * MiB);
    await add(file);
    await upload();
    await eventually("a part has arrived", () => partsArrived());
    await page.locator(".uppy-StatusBar-actions").getByRole("button", { name: "Cancel" }).click();
    await eventually("the parts are gone", async () => (await server.parts()).length === 0);
    // Nor does one come late.
    await sleep(500);
    assert.deepEqual(await server.parts(), []);
    assert.equal((await server.keys()).filter((key) => key.endsWith(name)).length, 0);
  });

  test(`Uppy ${version} shows that a file is refused`, { timeout: 60_000 }, async () => {
    const file = await makeFile(join(folder.path, `refused ${version}.mp4`), 1000);
    await open(folderName, strict, {}, [/^422: /, /^console: .* 422 /, /^console: .*\[Uppy\]/]);
    await add(file);
    await upload();
    await page.getByText("Upload failed").waitFor();
    await page.screenshot({ path: screenshot(`${folderName}-refused.png`) });
    const [error] = await page.evaluate(() => window.uppy.getFiles().map((file) => file.error));
    // 6 shows the status text alone, in which the reason is.
    assert.match(error, /must be one of image\/\*/);
    assert.deepEqual(await strict.keys(), []);
  });

  for (const [way, options, size] of [["by a form", {}, MiB], ["in parts", { shouldUseMultipart: true }, 12 * MiB]]) {
    test(`Uppy ${version} uploads ${way} with a ticket in the path`, { timeout: 60_000 }, async () => {
      const name = `${way} with a ticket ${version}.mp4`;
      const file = await makeFile(join(folder.path, name), size);
      await open(folderName, below(ticket({ max_size: size })), options);
      await add(file);
      await upload();
      await complete();
      await arrived(file, name, ticketed);
    });
  }

  test(`Uppy ${version} uploads nothing that the ticket does not allow`, { timeout: 60_000 }, async () => {
    const file = await makeFile(join(folder.path, `unwanted ${version}.mp4`), 1000);
    const expected = [/^422: /, /^console: .* 422 /, /^console: .*\[Uppy\]/];
    await open(folderName, below(ticket({ content_types: ["image/*"] })), {}, expected);
    await add(file);
    await upload();
    await page.getByText("Upload failed").waitFor();
    assert.ok((await ticketed.keys()).every((key) => !key.endsWith(`unwanted ${version}.mp4`)));
  });
}

for (const [way, options, at] of [
  ["with a JWT", () => ({ sign: true, token: token({}) }), () => ticketed],
  ["with a ticket in the path", () => ({ sign: true }), () => below(ticket({ max_size: 64 * MiB }))],
]) {
  test(`Uppy 6.3 signs its requests ${way}`, { timeout: 120_000 }, async () => {
    await open("uppy-6", at(), options());
    const files = [["small", MiB], ["empty", 0]];
    for (const [what, size] of files) {
      const name = `${what}, signed ${way} + 사진.jpg`;
      const file = await makeFile(join(folder.path, name), size);
      await add(file);
      await upload();
      await complete();
      await arrived(file, name, ticketed);
      await page.evaluate(() => window.uppy.clear());
    }
  });

  test(`Uppy 6.3 signs, pauses, loses the connection and resumes ${way}`, { timeout: 120_000 }, async () => {
    const name = `large, signed ${way}.mp4`;
    const file = await makeFile(join(folder.path, name), 32 * MiB + 1);
    const expected = [...BROKEN, /ERR_INTERNET_DISCONNECTED/];
    await open("uppy-6", at(), { ...options(), shouldUseMultipart: true }, expected);
    const limit = await throttle(page, 8 * MiB);
    await add(file);
    await upload();
    await eventually("a part has arrived", () => partsArrived(ticketed));
    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.getByRole("button", { name: "Resume", exact: true }).waitFor();
    await limit.lift();
    // The next call has to wait until the connection is back.
    await context.setOffline(true);
    await page.getByRole("button", { name: "Resume", exact: true }).click();
    await sleep(500);
    await context.setOffline(false);
    await complete();
    await arrived(file, name, ticketed);
    assert.deepEqual(await ticketed.parts(), []);
  });
}

test("Uppy 6.3 cancels what it signed, and nothing is left of the parts", { timeout: 60_000 }, async () => {
  const file = await makeFile(join(folder.path, "unwanted, signed.mp4"), 32 * MiB);
  await open("uppy-6", ticketed, { sign: true, token: token({}), shouldUseMultipart: true }, BROKEN);
  await throttle(page, 8 * MiB);
  await add(file);
  await upload();
  await eventually("a part has arrived", () => partsArrived(ticketed));
  await page.locator(".uppy-StatusBar-actions").getByRole("button", { name: "Cancel" }).click();
  await eventually("the parts are gone", async () => (await ticketed.parts()).length === 0);
});

for (const [what, claims, status, says, multipart] of [
  ["a refusal", { upload: { content_types: ["image/*"] } }, 422, /contentType must be one of image\/\*/, false],
  ["a refusal in parts", { upload: { content_types: ["image/*"] } }, 422, /S3 returned 422 – TypeNotAllowed/, true],
  ["an expired token", { exp: Math.floor(Date.now() / 1000) - 600 }, 401, /must carry valid credentials/, false],
]) {
  test(`Uppy 6.3 shows ${what} to those who sign`, { timeout: 60_000 }, async () => {
    const name = `${what}.mp4`;
    const file = await makeFile(join(folder.path, name), 1000);
    // Uppy also reads a header of the answer that no page of another origin may read.
    const expected = [new RegExp(`^${status}: `), new RegExp(`^console: .* ${status} `), /^console: .*\[Uppy\]/, /x-amz-error-code/];
    await open("uppy-6", ticketed, { sign: true, token: token(claims), shouldUseMultipart: multipart }, expected);
    await add(file);
    await upload();
    await page.getByText("Upload failed").waitFor();
    const [error] = await page.evaluate(() => window.uppy.getFiles().map((file) => file.error));
    assert.match(error, says);
    assert.ok((await ticketed.keys()).every((key) => !key.endsWith(name)));
  });
}

/** A token that narrows what may be uploaded, as an application mints it. */
function ticket(claim) {
  return token({ upload: claim });
}

/** A token of a user, with these claims besides. */
function token(more) {
  const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: TICKETS.JWT_ISSUER, aud: TICKETS.JWT_AUDIENCE, sub: "user-17", iat: now, exp: now + 600, ...more };
  const signed = `${base64({ alg: "HS256", typ: "JWT" })}.${base64(claims)}`;
  return `${signed}.${createHmac("sha256", TICKETS.JWT_SECRET).update(signed).digest("base64url")}`;
}

/** The server that accepts tickets, with one in the path of its routes. */
function below(ticket) {
  return { ...ticketed, service: `${ticketed.service}/t/${ticket}` };
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
}

/** Serves a page for each folder, with its `page.js` and all that this imports in one script. */
async function servePages(folders) {
  const outdir = join(folder.path, "pages");
  await build({
    absWorkingDir: fileURLToPath(new URL(".", import.meta.url)),
    entryPoints: folders.map((name) => `${name}/page.js`),
    outdir,
    bundle: true,
    format: "esm",
    logLevel: "error",
  });
  const files = new Map();
  for (const name of folders) {
    const html = `<!doctype html><meta charset="utf-8"><title>${name}</title><link rel="icon" href="data:,">
      <link rel="stylesheet" href="page.css">
      <body><div id="dashboard"></div><script type="module" src="page.js"></script>`;
    files.set(`/${name}/`, ["text/html", html]);
    files.set(`/${name}/page.js`, ["text/javascript", await readFile(join(outdir, name, "page.js"))]);
    files.set(`/${name}/page.css`, ["text/css", await readFile(join(outdir, name, "page.css"))]);
  }
  const web = createServer((request, response) => {
    const [type, body] = files.get(request.url) ?? ["text/plain", undefined];
    response.writeHead(body ? 200 : 404, { "content-type": type }).end(body);
  });
  await new Promise((resolve, reject) => web.once("error", reject).listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${web.address().port}`,
    stop() {
      web.closeAllConnections();
      return new Promise((resolve) => web.close(resolve));
    },
  };
}
