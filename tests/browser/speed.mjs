// How fast our client, Uppy 6 and boto3 upload the same files to the same store, with and without 50 ms of latency.
//
//   node tests/browser/speed.mjs --quick    tries the script: small files and one round, with the debug build
//   PRESIGND_BIN=target/release/presignd TMPDIR=/dev/shm node tests/browser/speed.mjs [--rounds 5] [--load small]
//
// The second command measures; it wants idle cores, and 3 GiB in TMPDIR, which should be in memory so that no disk
// limits anyone. PYTHON names a Python with boto3, and `--load large` or `--load small` measures one of the two loads.
//
// A round measures each client once, with a fresh server and browser. Which one is first changes from round to round.
// The result is a table of the median times, our time divided by that of `bare` and by the best of Uppy and boto3, the
// largest JavaScript heap of the page, and how much more memory its process had at most. Ours verifies each upload, as it
// does by default; `unverified` does not, and neither do the others. `bare` is no client, but six calls of `fetch` at a
// time, all of which were granted before the time began.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { loadavg } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { Worker, isMainThread, workerData } from "node:worker_threads";

import { build } from "esbuild";

import { CHROMIUM, MiB, makeFile, serveFiles, startServer, temporaryFolder } from "./helpers.mjs";

const LATENCY = 50;
const SETTLED_AFTER = 3_000;
/** The proxy holds at most this much in each direction of a connection: 1 GiB/s need 25 MiB on the way. */
const HELD_MAX = 32 * MiB;
const run = promisify(execFile);

const PAGE = `
  import AwsS3 from "@uppy/aws-s3";
  import Uppy from "@uppy/core";
  import { createClient } from "../../../clients/js/index.js";

  // As large as those of our client for 1 GiB.
  const PART_SIZE = 43 * 1024 * 1024;

  window.ours = async (url, files, options) => {
    const client = createClient({ url });
    const results = await client.uploadAll(files, options);
    for (const { reason } of results) if (reason) throw reason;
  };
  window.unverified = (url, files) => window.ours(url, files, { verify: false });
  const send = async (url, method, body, headers) => {
    const response = await fetch(url, { method, body, headers });
    if (!response.ok) throw new Error(response.status + ": " + await response.text());
    return response;
  };
  const ask = async (url, body) => {
    const json = { "content-type": "application/json" };
    return (body ? await send(url, "POST", JSON.stringify(body), json) : await send(url, "GET")).json();
  };
  const sixAtOnce = async (requests) => {
    // What is granted before is not counted.
    window.begin = performance.now();
    const some = async () => { for (let request; (request = requests.shift()); ) await request(); };
    await Promise.all(Array.from({ length: 6 }, some));
  };
  window.bare = (url, files) => (files.length === 1 ? bareParts(url, files[0]) : bareForms(url, files));
  const bareParts = async (url, file) => {
    const { name, type, size } = file;
    const { key, uploadId } = await ask(url + "/s3/multipart", { filename: name, type, size });
    const path = (rest) => url + "/s3/multipart/" + encodeURIComponent(uploadId) + rest + "?key=" + encodeURIComponent(key);
    const parts = Array.from({ length: Math.ceil(size / PART_SIZE) }, (_, index) => ({ PartNumber: index + 1 }));
    const grants = await Promise.all(parts.map(({ PartNumber }) => ask(path("/" + PartNumber))));
    await sixAtOnce(parts.map((part, index) => async () => {
      const bytes = file.slice(index * PART_SIZE, (index + 1) * PART_SIZE);
      part.ETag = (await send(grants[index].url, "PUT", bytes)).headers.get("etag");
    }));
    await ask(path("/complete"), { parts });
  };
  const bareForms = async (url, files) => {
    const requests = [];
    for (let at = 0; at < files.length; at += 250) {
      const some = files.slice(at, at + 250);
      const wanted = some.map(({ name, type, size }) => ({ filename: name, contentType: type, size }));
      const { uploads } = await ask(url + "/upload/presigned-urls", { files: wanted, forms: true });
      uploads.forEach(({ url, fields }, index) => {
        const form = new FormData();
        for (const [name, value] of Object.entries({ ...fields, file: some[index] })) form.append(name, value);
        requests.push(() => send(url, "POST", form));
      });
    }
    await sixAtOnce(requests);
  };
  window.uppy6 = async (url, files) => {
    if (!AwsS3.VERSION.startsWith("6.")) throw new Error("this is Uppy " + AwsS3.VERSION + "; run npm ci --prefix tests/browser");
    const uppy = new Uppy().use(AwsS3, { companionEndpoint: url });
    uppy.addFiles(files.map((file) => ({ name: file.name, type: file.type, data: file })));
    const { failed } = await uppy.upload();
    if (failed.length) throw new Error(failed[0].error);
  };
`;

// One transfer manager sends all files, as many requests at once as boto3 does by default.
const BOTO3 = `
import os, sys, time
import boto3
from boto3.s3.transfer import TransferConfig, create_transfer_manager

endpoint, secret, *paths = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="presignd-dev", aws_secret_access_key=secret)
begin = time.monotonic()
with create_transfer_manager(s3, TransferConfig()) as manager:
    uploads = [manager.upload(path, "uploads", "boto3/" + os.path.basename(path)) for path in paths]
for upload in uploads:
    upload.result()
print(time.monotonic() - begin)
`;

const NAMES = ["ours", "unverified", "bare", "uppy6", "boto3"];

if (isMainThread) await main();
else if (workerData.target) delay(workerData);
else swallow();

async function main() {
  const { values } = parseArgs({
    options: { quick: { type: "boolean" }, rounds: { type: "string" }, load: { type: "string" } },
  });
  const { quick, load } = values;
  const rounds = Number(values.rounds ?? (quick ? 1 : 3));
  const sizes = {
    large: quick ? [128 * MiB] : [1024 * MiB],
    small: Array.from({ length: quick ? 50 : 500 }, () => 20_000),
  };
  console.log(`The proxy that adds the latency passes ${await proxyThroughput()} MiB/s on.`);
  const folder = await temporaryFolder();
  const rows = [];
  try {
    for (const [kind, list] of Object.entries(sizes)) {
      if (load && load !== kind) continue;
      const paths = [];
      for (const [n, size] of list.entries()) paths.push((await makeFile(join(folder.path, `${n}.jpg`), size)).path);
      for (const latency of [0, LATENCY]) {
        const what = `${list.length === 1 ? `${list[0] / MiB} MiB` : `${list.length} files of 20 KB`}, ${latency} ms`;
        const results = Object.fromEntries(NAMES.map((name) => [name, []]));
        for (let round = 0; round < rounds; round++) {
          const first = round % NAMES.length;
          for (const name of [...NAMES.slice(first), ...NAMES.slice(0, first)]) {
            const before = loadavg()[0];
            const result = await measure(name, paths, latency);
            results[name].push(result);
            console.log(`${what}, round ${round + 1}: ${name} ${result.seconds.toFixed(2)} s (load ${before.toFixed(1)})`);
          }
        }
        rows.push(row(what, results));
      }
    }
  } finally {
    await folder.remove();
  }
  const title = ["median of the times in s", ...NAMES, "ours / bare", "ours / best of the others", "page heap of ours, Uppy", "process of ours, Uppy"];
  console.log(["", title, title.map(() => "---"), ...rows].map((cells) => (cells ? `| ${cells.join(" | ")} |` : "")).join("\n"));
}

function row(what, results) {
  const median = (list) => {
    const sorted = list.toSorted((a, b) => a - b);
    return (sorted[(list.length - 1) >> 1] + sorted[list.length >> 1]) / 2;
  };
  const seconds = NAMES.map((name) => median(results[name].map((it) => it.seconds)));
  const [ours, , bare, ...others] = seconds;
  const most = (of) => ["ours", "uppy6"].map((name) => Math.max(...results[name].map(of))).join(", ");
  return [
    what,
    ...seconds.map((it) => it.toFixed(2)),
    (ours / bare).toFixed(2),
    (ours / Math.min(...others)).toFixed(2),
    `${most((it) => it.heap)} MiB`,
    `+${most((it) => it.growth)} MiB`,
  ];
}

async function measure(name, paths, latency) {
  const secret = "a-secret-key-of-the-speed-test";
  const server = await startServer({ RUST_LOG: "error" }, ["--secret-key", secret]);
  const proxies = latency ? await Promise.all([server.service, server.store].map((url) => startProxy(url, latency / 2))) : [];
  try {
    const [service, store] = latency ? proxies.map(({ url }) => url) : [server.service, server.store];
    if (name === "boto3") {
      const { stdout } = await run(process.env.PYTHON ?? "python3", ["-c", BOTO3, store, secret, ...paths]);
      return { seconds: Number(stdout) };
    }
    // The store's address is part of each signature, so the browser itself has to go to the proxy.
    const rules = latency ? `MAP ${new URL(server.store).host} ${new URL(store).host}` : "";
    return await inBrowser(name, service, paths, rules);
  } finally {
    await Promise.all(proxies.map(({ worker }) => worker.terminate()));
    await server.stop();
  }
}

async function inBrowser(name, service, paths, rules) {
  const pages = await startPages();
  const browser = await startPlainBrowser(rules ? [`--host-resolver-rules=${rules}`] : []);
  try {
    const page = await browser.open(pages.origin);
    await page.choose("input", paths);
    // A browser that has just started is busy with itself.
    await sleep(SETTLED_AFTER);
    await page.send("Performance.enable");
    const { processInfo } = await browser.send("SystemInfo.getProcessInfo");
    const renderers = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
    const residents = async () => {
      const pagesOf = await Promise.all(renderers.map(async (id) => Number((await readFile(`/proc/${id}/statm`, "utf8")).split(" ")[1])));
      return pagesOf.reduce((a, b) => a + b) / 256;
    };
    const before = await residents();
    let heap = 0;
    let most = 0;
    let isDone = false;
    const sampling = (async () => {
      while (!isDone) {
        const { metrics } = await page.send("Performance.getMetrics");
        heap = Math.max(heap, metrics.find((it) => it.name === "JSHeapUsedSize").value / MiB);
        most = Math.max(most, await residents());
        await sleep(250);
      }
    })();
    // A closed page ends the sampling of an upload that has failed.
    sampling.catch(() => {});
    const milliseconds = await page.evaluate(`(async () => {
      window.begin = performance.now();
      await window[${JSON.stringify(name)}](${JSON.stringify(service)}, [...document.querySelector("input").files]);
      return performance.now() - window.begin;
    })()`);
    isDone = true;
    await sampling;
    return { seconds: milliseconds / 1000, heap: Math.round(heap), growth: Math.round(most - before) };
  } finally {
    await browser.close();
    await pages.stop();
  }
}

/**
 * Chromium, driven by the DevTools protocol itself (https://chromedevtools.github.io/devtools-protocol/): Playwright has
 * the browser report each request, which takes as much time as 500 small uploads do.
 */
async function startPlainBrowser(options) {
  const profile = await temporaryFolder();
  const args = [
    "--headless",
    "--remote-debugging-pipe",
    `--user-data-dir=${profile.path}`,
    // Nobody sees the page, but it must not be slowed down as one in the background is.
    "--disable-backgrounding-occluded-windows",
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-extensions",
    ...CHROMIUM.args,
    ...options,
  ];
  const process_ = spawn(CHROMIUM.executablePath, args, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  const ended = once(process_, "exit");
  const [, , , input, output] = process_.stdio;
  const waiting = new Map();
  let last = 0;
  let rest = "";
  output.setEncoding("utf8").on("data", (chunk) => {
    const messages = (rest + chunk).split("\0");
    rest = messages.pop();
    for (const { id, result, error } of messages.map((text) => JSON.parse(text))) waiting.get(id)?.(result, error);
  });
  const send = (method, params = {}, sessionId = undefined) =>
    new Promise((resolve, reject) => {
      const id = ++last;
      waiting.set(id, (result, error) => (error ? reject(new Error(`${method}: ${error.message}`)) : resolve(result)));
      input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    });
  ended.then(() => waiting.forEach((settle) => settle(undefined, { message: "the browser has stopped" })));

  const open = async (url) => {
    const { targetInfos } = await send("Target.getTargets");
    const { targetId } = targetInfos.find(({ type }) => type === "page");
    const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
    const sendToPage = (method, params) => send(method, params, sessionId);
    const evaluate = async (expression) => {
      const answer = await sendToPage("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
      if (answer.exceptionDetails) throw new Error(answer.exceptionDetails.exception?.description);
      return answer.result.value;
    };
    await sendToPage("Page.navigate", { url });
    await evaluate(`document.readyState === "complete" || new Promise((loaded) => addEventListener("load", loaded)).then(() => true)`);
    const choose = async (selector, files) => {
      const { root } = await sendToPage("DOM.getDocument");
      const { nodeId } = await sendToPage("DOM.querySelector", { nodeId: root.nodeId, selector });
      await sendToPage("DOM.setFileInputFiles", { nodeId, files });
      await sendToPage("DOM.disable");
    };
    return { send: sendToPage, evaluate, choose };
  };
  const close = async () => {
    await send("Browser.close").catch(() => process_.kill("SIGKILL"));
    await ended;
    await profile.remove();
  };
  return { send, open, close };
}

async function startPages() {
  const resolveDir = fileURLToPath(new URL("uppy-6", import.meta.url));
  const { outputFiles } = await build({ stdin: { contents: PAGE, resolveDir }, bundle: true, write: false, format: "esm", logLevel: "error" });
  const html = '<input type="file" multiple><script type="module" src="/page.js"></script>';
  return serveFiles(new Map([["/", ["text/html", html]], ["/page.js", ["text/javascript", outputFiles[0].contents]]]));
}

async function startWorker(data) {
  const worker = new Worker(new URL(import.meta.url), { workerData: data });
  const [port] = await once(worker, "message");
  return { worker, url: `http://127.0.0.1:${port}` };
}

function startProxy(target, wait) {
  return startWorker({ target, wait });
}

/** How many MiB a second go through the proxy, over as many connections as a browser opens. */
async function proxyThroughput() {
  const sink = await startWorker({});
  const proxy = await startProxy(sink.url, LATENCY / 2);
  const chunk = Buffer.alloc(MiB);
  const each = 256;
  const connections = 6;
  const begin = performance.now();
  const pump = async () => {
    const socket = connect({ host: "127.0.0.1", port: Number(new URL(proxy.url).port) });
    const closed = once(socket.resume(), "close");
    for (let n = 0; n < each; n++) if (!socket.write(chunk)) await once(socket, "drain");
    socket.end();
    await closed;
  };
  await Promise.all(Array.from({ length: connections }, pump));
  const seconds = (performance.now() - begin) / 1000;
  await Promise.all([sink, proxy].map(({ worker }) => worker.terminate()));
  return Math.round((each * connections) / seconds);
}

async function listen(server) {
  const { parentPort } = await import("node:worker_threads");
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
}

function swallow() {
  listen(createServer((client) => client.resume()));
}

/** A proxy that passes everything on `wait` milliseconds late, in both directions. */
function delay({ target, wait }) {
  const { hostname, port } = new URL(target);
  const pass = (from, to) => {
    // What is held, or written and not yet accepted: a slow receiver slows the sender down.
    let held = 0;
    from.on("data", (chunk) => {
      held += chunk.length;
      if (held > HELD_MAX) from.pause();
      setTimeout(() => {
        if (to.destroyed) return;
        to.write(chunk, () => {
          held -= chunk.length;
          if (held < HELD_MAX / 2) from.resume();
        });
      }, wait);
    });
    from.on("end", () => setTimeout(() => to.end(), wait));
    from.on("error", () => to.destroy());
    from.on("close", () => setTimeout(() => to.destroy(), wait));
  };
  const options = { noDelay: true, allowHalfOpen: true };
  const server = createServer({ ...options, pauseOnConnect: true }, (client) => {
    // The handshake of a new connection takes a round trip, too.
    setTimeout(() => {
      const upstream = connect({ host: hostname, port: Number(port), ...options });
      pass(client, upstream);
      pass(upstream, client);
      client.resume();
    }, 2 * wait);
  });
  listen(server);
}
