// Each recipe uploads a file, and the store has the bytes that were chosen.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { MiB, digest, eventually, makeFile, startBrowser, startServer, temporaryFolder, watch } from "../../tests/browser/helpers.mjs";

const run = promisify(execFile);
const examples = fileURLToPath(new URL("..", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };

let server, browser, folder, file, pages, backEnd;

before(async () => {
  [server, browser, folder] = await Promise.all([startServer(), startBrowser(), temporaryFolder()]);
  // Large enough for parts.
  file = await makeFile(join(folder.path, "film.mp4"), 17 * MiB + 1);
  pages = createServer(serve).listen(0, "127.0.0.1");
  await once(pages, "listening");
});

after(async () => {
  backEnd?.kill();
  pages?.close();
  await Promise.all([browser?.close(), server?.stop(), folder?.remove()]);
});

/** The files of the examples, with the address of this test's service in place of the usual one. */
async function serve(request, response) {
  if (request.method === "POST") {
    const body = await new Response(request).arrayBuffer();
    const answer = await fetch(backEnd.origin + request.url, { method: "POST", body });
    return response.setHeader("content-type", "text/html").end(await answer.text());
  }
  const path = new URL(request.url, "http://pages").pathname;
  const name = join(examples, normalize(path.endsWith("/") ? `${path}index.html` : path));
  try {
    const text = (await readFile(name, "utf8")).replaceAll("http://localhost:3000", server.service);
    response.setHeader("content-type", TYPES[extname(name)] ?? "application/octet-stream").end(text);
  } catch {
    response.writeHead(404).end();
  }
}

/** Opens a recipe, chooses the file, and waits until the store has it and until what `shown` waits for. */
async function uploads(path, input, shown, start = async () => {}) {
  const before_ = new Set(await server.keys());
  const context = await browser.newContext({ baseURL: `http://127.0.0.1:${pages.address().port}` });
  const page = await context.newPage();
  try {
    const origin = `http://127.0.0.1:${pages.address().port}`;
    const troubles = watch(page, new Set([origin, server.service, server.store]), [/favicon/]);
    await page.goto(path);
    await page.locator(input).first().setInputFiles(file.path);
    await start(page);
    const isNew = (key) => !before_.has(key);
    const key = await eventually("the object", async () => (await server.keys()).find(isNew), 60_000);
    await shown(page, key);
    assert.equal(await digest(server.object(key)), file.digest);
    assert.deepEqual((await server.keys()).filter(isNew), [key]);
    assert.deepEqual(troubles, []);
  } finally {
    await context.close();
  }
}

const showsKey = (page, key) => page.getByText(key).waitFor();

for (const name of ["react", "vue", "svelte"]) {
  test(`${name} uploads what was chosen`, () => uploads(`/${name}/dist/`, "input[type=file]", showsKey));
}

test("the element uploads what was chosen in a plain page", () =>
  uploads("/html/", "presignd-upload input[type=file]", showsKey));

test("a form of htmx saves what its back end has verified", async () => {
  await startBackEnd(server.service);
  await uploads("/htmx/dist/", "presignd-upload input[type=file]", async (page, key) => {
    const value = () => page.evaluate(() => new FormData(document.querySelector("form")).get("photo"));
    await eventually("the value of the form", async () => (await value()) === key, 30_000);
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText(`Saved ${file.size} bytes.`).waitFor();
  });
});

test("the back end of htmx survives a service that is down", async () => {
  await startBackEnd("http://127.0.0.1:1");
  for (const attempt of [1, 2]) {
    const { status } = await fetch(backEnd.origin, { method: "POST", body: "photo=a" });
    assert.equal(status, 502, `attempt ${attempt}`);
  }
});

async function startBackEnd(service) {
  backEnd?.kill();
  backEnd = spawn("node", [join(examples, "htmx/server.js")], {
    env: { ...process.env, PORT: "0", PRESIGND: service },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [printed] = await Promise.race([once(backEnd.stdout, "data"), once(backEnd, "exit")]);
  [backEnd.origin] = String(printed).match(/http:\S+/) ?? [];
  assert.ok(backEnd.origin, `the back end: ${printed}`);
}

test("FilePond uploads what was chosen", () =>
  uploads("/filepond/dist/", "input[type=file]", async (page, key) => {
    const value = () => page.evaluate(() => document.querySelector("input[type=hidden][name=files]")?.value);
    await eventually("the value of the form", async () => (await value()) === key, 30_000);
  }));

test("FilePond shows why a file was refused", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  try {
    await page.route(`${server.service}/**`, (route) => {
      const errors = [{ pointer: "/filename", code: "path-separator", detail: "must not contain `/`" }];
      return route.fulfill({ status: 400, headers: { "access-control-allow-origin": "*" }, json: { code: "invalid-request", errors } });
    });
    await page.goto(`http://127.0.0.1:${pages.address().port}/filepond/dist/`);
    await page.locator("input[type=file]").first().setInputFiles(file.path);
    await page.getByText("The filename must not contain `/`.").first().waitFor({ timeout: 15_000 });
  } finally {
    await context.close();
  }
});

test("Dropzone uploads what was chosen", () =>
  uploads("/dropzone/dist/", "input.dz-hidden-input", (page) => page.locator(".dz-success.dz-complete").waitFor()));

test("Uppy uploads what was chosen", () =>
  uploads(
    "/uppy/dist/",
    ".uppy-Dashboard-input",
    (page) => page.getByText("Complete", { exact: true }).waitFor(),
    (page) => page.locator(".uppy-StatusBar-actionBtn--upload").click(),
  ));

/** Runs a script with the file, which the store then has. */
async function sends([program, script], chosen) {
  const env = { ...process.env, PRESIGND: server.service, NO_PROXY: "127.0.0.1" };
  const { stdout } = await run(program, [join(examples, script), chosen.path, "video/mp4"], { env });
  const [key, size] = stdout.trim().split(" ");
  assert.equal(Number(size), chosen.size);
  assert.equal(await digest(server.object(key)), chosen.digest);
}

for (const [name, command] of [
  ["Node", ["node", "node/upload.js"]],
  ["Python", [process.env.PYTHON ?? "python3", "python/upload.py"]],
  ["Python, in parts,", [process.env.PYTHON ?? "python3", "python/parts.py"]],
]) {
  test(`a script for ${name} uploads its file`, () => sends(command, file));

  // Some clients send an empty file in chunks, which stores refuse.
  test(`a script for ${name} uploads an empty file`, async () =>
    sends(command, await makeFile(join(folder.path, "empty.mp4"), 0)));
}
