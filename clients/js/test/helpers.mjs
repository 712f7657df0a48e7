// A proxy in front of `presignd dev` that breaks requests, and what the tests of the client share.

import assert from "node:assert/strict";
import { openAsBlob } from "node:fs";
import { Agent, createServer, request } from "node:http";
import { basename, join } from "node:path";
import { after, afterEach, before, beforeEach } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";

import { createClient } from "../index.js";
import { MiB, digest, eventually, makeFile, serveFiles, startBrowser as launch, startServer, temporaryFolder, watch } from "../../../tests/browser/helpers.mjs";

export { KEY, MiB, WITH_KEY, digest, eventually, focused, makeFile, screenshot, startServer, temporaryFolder, throttle, watch } from "../../../tests/browser/helpers.mjs";

export function startBrowser() {
  return launch(import("playwright-core"));
}

/** Options with which `large` has three parts. */
export const PARTS = { multipartThreshold: MiB, partSize: 5 * MiB };

/** What `setup` starts, a client for it, and a file of 11 MiB. */
export let server, proxy, client, folder, large, browser, pages;

/** The page that `openPage` has opened, and the troubles that a test expects of it, as `watch` takes them. */
export let context, page;
export const expected = [];
let troubles;

/**
 * Starts `presignd dev` with these settings for the tests of a file, behind a proxy that forgets its requests before
 * each test. `options` are those of the client; with `servesPages`, a function of the proxy, there is Chromium, too.
 */
export function setup({ options, servesPages, ...settings } = {}) {
  before(async () => {
    [server, folder, browser] = await Promise.all([startServer(settings), temporaryFolder(), servesPages && startBrowser()]);
    proxy = await startProxy(server);
    client = createClient({ url: proxy.service, ...options });
    large = await makeFile(join(folder.path, "large.bin"), 11 * MiB);
    pages = servesPages && (await servePages(servesPages(proxy)));
  });
  after(async () => {
    await browser?.close();
    await Promise.all([proxy?.stop(), pages?.stop()]);
    await Promise.all([server?.stop(), folder?.remove()]);
  });
  beforeEach(() => {
    proxy.reset();
    expected.length = 0;
    troubles = [];
  });
  afterEach(async () => {
    await context?.close();
    assert.deepEqual(troubles, []);
  });
}

/** Opens a page of Chromium. The script runs in it before those of the page. */
export async function openPage(options, script = () => {}) {
  context = await browser.newContext(options);
  await context.addInitScript(script);
  page = await context.newPage();
  page.setDefaultTimeout(15_000);
  troubles = watch(page, new Set([pages.origin, proxy.service, proxy.store]), expected);
}

/** `large` is in the store. */
export async function largeArrived({ key, size }) {
  assert.equal(size, large.size);
  assert.equal(await digest(server.object(key)), large.digest);
}

/** A file on the disk, of which only what is sent is read. */
export async function fileOf({ path }, { type = "", lastModified = 1_700_000_000_000 } = {}) {
  return new File([await openAsBlob(path)], basename(path), { type, lastModified });
}

/** A file in memory whose bytes follow from its name. */
export function smallFile(name, size = 1_000, type = "text/plain") {
  return new File([Buffer.alloc(size, name)], name, { type, lastModified: 1 });
}

/** Waits until the store has these parts of uploads in progress and no others. */
export async function untilParts(server, expected) {
  let parts;
  const isSo = async () => isDeepStrictEqual((parts = await server.parts()), expected);
  await eventually("only these parts are left", isSo).catch(() => assert.deepEqual(parts, expected));
}

/**
 * A proxy for the service and one for its store, whose address it puts into the service's answers. With `isOne`, both
 * have the same address.
 *
 * `proxy.fault` gets each request as `{ to: "service" | "store", method, path }` and may return
 * - `{ delay }`: milliseconds to wait before the request is forwarded
 * - `{ drop: true }`: the connection is closed at once
 * - `{ cutRequest: true }`: only the first half of the body is forwarded
 * - `{ loseAnswer: true }`: the request is forwarded, and the connection closed instead of the answer
 * - `{ resend: true }`: the request is forwarded twice, as by a browser whose connection was closed, and has the second answer
 * - `{ cutAnswer: true }`: only the first half of the answer is forwarded
 * - `{ status, body, headers }`: an answer of the proxy's own
 * - `{ without }`: the name of a header that the answer loses
 *
 * `proxy.rewrite` changes each answer in JSON.
 */
export async function startProxy(server, { isOne = false } = {}) {
  const agent = new Agent({ keepAlive: true });
  const proxy = { requests: [], preflights: [], fault: () => undefined, rewrite: (answer) => answer };
  const listen = (name) =>
    new Promise((resolve, reject) => {
      const listener = createServer((incoming, outgoing) => {
        const to = isOne && /^\/uploads\b/.test(incoming.url) ? "store" : name;
        const seen = { to, method: incoming.method, path: incoming.url, headers: incoming.headers };
        if (seen.method === "OPTIONS") {
          proxy.preflights.push(seen);
        } else {
          proxy.requests.push(seen);
        }
        forward(seen, incoming, outgoing, new URL(server[to])).catch(() => outgoing.destroy());
      });
      listener.once("error", reject).listen(0, "127.0.0.1", () => resolve(listener));
    });

  async function forward(seen, incoming, outgoing, target) {
    const fault = (seen.method === "OPTIONS" ? undefined : await proxy.fault(seen)) ?? {};
    seen.fault = fault;
    if (fault.delay) await sleep(fault.delay, undefined, { ref: false });
    // The client did not wait.
    if (outgoing.destroyed) return undefined;
    if (fault.drop) return outgoing.destroy();
    if (fault.status) {
      for await (const chunk of incoming) void chunk;
      const headers = { "access-control-allow-origin": "*", ...fault.headers };
      return outgoing.writeHead(fault.status, headers).end(fault.body);
    }
    // The signature covers the host.
    const headers = { ...incoming.headers, host: target.host };
    const { hostname, port } = target;
    const forwarded = request({ agent, hostname, port, method: seen.method, path: seen.path, headers });
    const answered = new Promise((resolve, reject) => forwarded.once("response", resolve).once("error", reject));
    answered.catch(() => {});
    forwarded.setMaxListeners(0);
    incoming.once("close", () => incoming.complete || forwarded.destroy());
    const half = Math.floor(Number(incoming.headers["content-length"] ?? 0) / 2);
    if (fault.cutRequest && half === 0) return outgoing.destroy();
    let received = 0;
    const sent = [];
    for await (const chunk of incoming) {
      received += chunk.length;
      if (fault.resend) sent.push(chunk);
      if (fault.cutRequest && received >= half) {
        forwarded.destroy();
        return outgoing.destroy();
      }
      if (!forwarded.write(chunk)) await Promise.race([new Promise((drained) => forwarded.once("drain", drained)), answered]);
    }
    forwarded.end();
    let answer = await answered;
    if (fault.resend) {
      for await (const chunk of answer) void chunk;
      answer = await new Promise((resolve, reject) => {
        const again = request({ agent, hostname, port, method: seen.method, path: seen.path, headers });
        again.once("response", resolve).once("error", reject).end(Buffer.concat(sent));
      });
    }
    const chunks = [];
    for await (const chunk of answer) chunks.push(chunk);
    let body = Buffer.concat(chunks);
    if (fault.loseAnswer) return outgoing.destroy();
    if (answer.headers["content-type"]?.includes("json")) body = Buffer.from(proxy.rewrite(body.toString().replaceAll(server.store, proxy.store)));
    const kept = { ...answer.headers, "content-length": body.length };
    if (answer.statusCode === 204) delete kept["content-length"];
    delete kept["transfer-encoding"];
    if (fault.without) delete kept[fault.without];
    outgoing.writeHead(answer.statusCode, kept);
    seen.isAnswered = true;
    if (!fault.cutAnswer) return outgoing.end(body);
    outgoing.write(body.subarray(0, Math.floor(body.length / 2)), () => outgoing.destroy());
  }
  const listeners = await Promise.all(isOne ? [listen("service")] : [listen("service"), listen("store")]);
  [proxy.service, proxy.store = proxy.service] = listeners.map((listener) => `http://127.0.0.1:${listener.address().port}`);

  /** Breaks the first request whose method and path match, once. */
  proxy.once = (pattern, fault) => {
    let isDue = true;
    proxy.fault = ({ to, method, path }) => {
      if (!isDue || !pattern.test(`${to} ${method} ${path}`)) return undefined;
      isDue = false;
      return fault;
    };
  };
  /**
   * Keeps a part of three on its way. The returned function waits until the store has the others, after which the part
   * is answered with `fault`, if there is one.
   */
  proxy.hold = (number, fault) => {
    const answered = () => proxy.answered(/^store PUT .*partNumber=/);
    const before = answered();
    const others = () => eventually("the other parts are there", () => answered() - before === 2, 60_000);
    const isHeld = ({ path }) => path.includes(`partNumber=${number}&`);
    proxy.fault = (seen) => isHeld(seen) && (fault ? others().then(() => fault) : { delay: 60_000 });
    return others;
  };
  /** How many requests match, such as `/^store PUT/`. */
  proxy.count = (pattern) => proxy.requests.filter(({ to, method, path }) => pattern.test(`${to} ${method} ${path}`)).length;
  /** How many of them are answered. An upload that is aborted before leaves those parts that arrive after that. */
  proxy.answered = (pattern) =>
    proxy.requests.filter(({ isAnswered, to, method, path }) => isAnswered && pattern.test(`${to} ${method} ${path}`)).length;
  proxy.reset = () => {
    proxy.requests.length = 0;
    proxy.preflights.length = 0;
    proxy.fault = () => undefined;
    proxy.rewrite = (answer) => answer;
  };
  proxy.stop = async () => {
    agent.destroy();
    for (const listener of listeners) listener.closeAllConnections();
    await Promise.all(listeners.map((listener) => new Promise((resolve) => listener.close(resolve))));
  };
  return proxy;
}

/**
 * Serves pages of another origin than presignd's. Each is `{ body, script }`, whose script is bundled as an
 * application would bundle it; `alias` replaces packages. A form can be sent to `/sent`.
 */
export async function servePages(pages) {
  const { build } = await import("esbuild");
  const files = new Map([["/sent", ["text/html", '<link rel="icon" href="data:,">sent']]]);
  for (const [name, { body = "", script, alias }] of Object.entries(pages)) {
    const html = `<!doctype html><html lang="en"><meta charset="utf-8"><title>${name}</title><link rel="icon" href="data:,">
      <meta name="viewport" content="width=device-width, initial-scale=1"><main>${body}</main>
      <script type="module" src="/${name}.js"></script></html>`;
    const { outputFiles } = await build({
      stdin: { contents: script, resolveDir: fileURLToPath(new URL(".", import.meta.url)), loader: "jsx" },
      bundle: true,
      format: "esm",
      jsx: "automatic",
      alias,
      write: false,
    });
    files.set(`/${name}`, ["text/html", html]);
    files.set(`/${name}.js`, ["text/javascript", outputFiles[0].contents]);
  }
  return serveFiles(files);
}
