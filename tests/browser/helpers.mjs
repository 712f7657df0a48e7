// `presignd dev` and Chromium for the tests, and what the tests look at.

import { spawn } from "node:child_process";
import { createHash, randomFillSync } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdtemp, open, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";

const target = fileURLToPath(new URL("../../target/", import.meta.url));
const binary = process.env.PRESIGND_BIN ?? join(target, "debug/presignd");

export const MiB = 1024 * 1024;

export function screenshot(name) {
  return join(target, "screenshots", name);
}

/** A folder that `remove()` removes. */
export async function temporaryFolder() {
  const path = await mkdtemp(join(tmpdir(), "presignd-browser-"));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/**
 * `presignd dev` on ports that the system chooses, and a data folder of its own. The settings are environment variables,
 * and `policies` and `keys`: the text of these files.
 */
export async function startServer({ policies, keys, ...variables } = {}, options = []) {
  const data = await temporaryFolder();
  for (const [name, text] of Object.entries({ UPLOAD_POLICIES_FILE: policies, API_KEYS_FILE: keys })) {
    if (!text) continue;
    variables[name] = join(data.path, `${name}.toml`);
    await writeFile(variables[name], text);
  }
  const anyPort = ["--addr", "127.0.0.1:0", "--s3-addr", "127.0.0.1:0"];
  const process_ = spawn(binary, ["dev", ...anyPort, "--data-dir", data.path, ...options], {
    // From the data folder, so that no .env of a developer is read.
    cwd: data.path,
    env: { ...process.env, RUST_LOG: "warn", ...variables },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((resolve, reject) => process_.once("exit", resolve).once("error", reject));
  ended.catch(() => {});
  const server = {
    dataDir: data.path,
    pid: process_.pid,

    /** As Ctrl-C does; the exit code. */
    interrupt() {
      process_.kill("SIGINT");
      return ended;
    },

    async stop() {
      if (process_.exitCode === null) {
        const late = setTimeout(() => process_.kill("SIGKILL"), 10_000);
        await this.interrupt().catch(() => {});
        clearTimeout(late);
      }
      await data.remove();
    },

    /** Where the store keeps the object. */
    object(key) {
      return join(data.path, "uploads", key);
    },

    /** What the store keeps of multipart uploads in progress. */
    async parts() {
      return (await readdir(data.path)).filter((name) => name.includes(".upload")).sort();
    },

    /** The keys of all objects. */
    async keys() {
      const entries = await readdir(join(data.path, "uploads"), { recursive: true, withFileTypes: true });
      const files = entries.filter((entry) => entry.isFile());
      return files.map((file) => join(file.parentPath ?? file.path, file.name).slice(join(data.path, "uploads/").length));
    },
  };
  try {
    Object.assign(server, await addresses(process_.stdout, ended));
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

/** A key, and the settings with which a server accepts no other one. */
export const KEY = "presignd_for-the-test";
export const WITH_KEY = {
  AUTH_MODE: "api-key",
  keys: `[[keys]]\nname = "tester"\nsha256 = "${createHash("sha256").update(KEY).digest("hex")}"\n`,
};

/** Serves files on an origin of its own: a map from their paths to `[type, body]`. */
export async function serveFiles(files) {
  const web = createServer((request, response) => {
    const [type, body] = files.get(request.url.split("?")[0]) ?? ["text/plain", undefined];
    response.writeHead(body === undefined ? 404 : 200, { "content-type": type }).end(body);
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

export const CHROMIUM = {
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
};

/** The tests of `clients/js` have a Playwright of their own. */
export async function startBrowser(playwright = import("playwright-core")) {
  const { chromium } = await playwright;
  return chromium.launch(CHROMIUM);
}

/**
 * Everything that the page should not do: log errors, fail requests, call hosts that are not `allowed`.
 * `expected` are those that the test itself causes.
 */
export function watch(page, allowed, expected = []) {
  const troubles = [];
  const add = (trouble) => {
    if (!expected.some((pattern) => pattern.test(trouble))) troubles.push(trouble);
  };
  page.on("console", (message) => {
    if (message.type() === "error") add(`console: ${message.text()} ${message.location().url}`);
  });
  page.on("pageerror", (error) => add(`exception: ${error}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (/^https?:|^wss?:/.test(url.protocol) && !allowed.has(url.origin)) add(`other host: ${url}`);
  });
  const answered = new Set();
  page.on("requestfailed", (request) => {
    // A request whose answer the page does not read counts as failed, too.
    if (!answered.has(request)) add(`failed: ${request.method()} ${request.url()} ${request.failure()?.errorText}`);
  });
  page.on("response", (response) => {
    answered.add(response.request());
    if (response.status() >= 400) add(`${response.status()}: ${response.url()}`);
  });
  return troubles;
}

/** Limits how many bytes go out in a second, until `lift()`. */
export async function throttle(page, bytesPerSecond) {
  const session = await page.context().newCDPSession(page);
  const limit = (uploadThroughput) =>
    session.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput });
  await session.send("Network.enable");
  await limit(bytesPerSecond);
  return { lift: () => limit(-1) };
}

/** Waits until the focus is on a control of this name, in the page or in the element on it. */
export async function focused(page, name) {
  const nameOf = () => page.evaluate(() => {
    const element = document.activeElement.shadowRoot?.activeElement ?? document.activeElement;
    return element.getAttribute("aria-label") ?? element.textContent.trim();
  });
  await eventually(`the focus is on ${name}`, async () => name.test(await nameOf()), 5_000).catch(async (error) => {
    throw new Error(`${error.message}; it is on ${await nameOf()}`);
  });
}

/** A file of random bytes; its path and digest. */
export async function makeFile(path, size) {
  const chunk = Buffer.alloc(4 * MiB);
  const file = await open(path, "w");
  try {
    for (let written = 0; written < size; ) {
      randomFillSync(chunk);
      written += (await file.write(chunk, 0, Math.min(chunk.length, size - written))).bytesWritten;
    }
  } finally {
    await file.close();
  }
  return { path, size, digest: await digest(path) };
}

export async function digest(path) {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: 4 * MiB })) hash.update(chunk);
  return hash.digest("hex");
}

/** Waits for a condition that no event announces. */
export async function eventually(what, condition, milliseconds = 10_000) {
  for (const deadline = Date.now() + milliseconds; ; await sleep(50)) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not after ${milliseconds} ms: ${what}`);
  }
}

/** The addresses of the service and its store, which `presignd dev` prints as soon as it listens. */
async function addresses(output, ended) {
  let text = "";
  output.setEncoding("utf8").on("data", (chunk) => (text += chunk));
  const printed = () => text.match(/service +(http:.*)\/upload\/[^]*S3 store +(http:.*), bucket/);
  const end = ended.then((code) => Promise.reject(new Error(`${binary} dev: exit code ${code}`)));
  const [, service, store] = await Promise.race([end, eventually("the addresses of `presignd dev`", printed, 15_000)]);
  return { service, store };
}
