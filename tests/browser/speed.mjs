// How fast our client, Uppy 6 and boto3 upload the same files to the same store, with and without 50 ms of latency.
//
//   PRESIGND_BIN=target/release/presignd PYTHON=python-with-boto3 node tests/browser/speed.mjs [ROUNDS]
//
// It prints the median time of each, our time divided by the best of the others, the largest JavaScript heap of the
// page, and how much more memory its process had at most. Ours verifies each upload, as it does by default;
// `unverified` does not, and neither do the others.

import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer as createPages } from "node:http";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Worker, isMainThread, workerData } from "node:worker_threads";

import { build } from "esbuild";

import { MiB, makeFile, startBrowser, startServer, temporaryFolder } from "./helpers.mjs";

const LATENCY = 50;
const run = promisify(execFile);

const PAGE = `
  import AwsS3 from "@uppy/aws-s3";
  import Uppy from "@uppy/core";
  import { createClient } from "../../../clients/js/index.js";

  window.ours = async (url, files, options) => {
    const client = createClient({ url });
    const results = await client.uploadAll(files, options);
    if (results.some(({ status }) => status !== "fulfilled")) throw new Error("an upload failed");
  };
  window.unverified = (url, files) => window.ours(url, files, { verify: false });
  window.uppy = async (url, files) => {
    const uppy = new Uppy().use(AwsS3, { companionEndpoint: url });
    uppy.addFiles(files.map((file) => ({ name: file.name, type: file.type, data: file })));
    const { successful } = await uppy.upload();
    if (successful.length !== files.length) throw new Error("an upload failed");
  };
`;

const BOTO3 = `
import concurrent.futures, os, sys, time
import boto3

endpoint, secret, *paths = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="presignd-dev", aws_secret_access_key=secret)
begin = time.monotonic()
with concurrent.futures.ThreadPoolExecutor(10) as pool:
    list(pool.map(lambda path: s3.upload_file(path, "uploads", "boto3/" + os.path.basename(path)), paths))
print(time.monotonic() - begin)
`;

if (isMainThread) await main();
else delay(workerData);

async function main() {
  const rounds = Number(process.argv[2] ?? 1);
  const folder = await temporaryFolder();
  try {
    const film = [await makeFile(join(folder.path, "film.mp4"), 1024 * MiB)];
    const photos = [];
    for (let n = 0; n < 500; n++) photos.push(await makeFile(join(folder.path, `${n}.jpg`), 20_000));
    for (const latency of [0, LATENCY]) {
      for (const [what, files] of [["one file of 1 GiB", film], ["500 files of 20 KB", photos]]) {
        const paths = files.map(({ path }) => path);
        const results = { ours: [], unverified: [], uppy: [], boto3: [] };
        for (let round = 0; round < rounds; round++) {
          for (const [name, list] of Object.entries(results)) list.push(await measure(name, paths, latency));
        }
        report(`${what}, ${latency} ms`, results);
      }
    }
  } finally {
    await folder.remove();
  }
}

function report(what, results) {
  const median = (list, of) => list.map(of).sort((a, b) => a - b)[Math.floor(list.length / 2)];
  const seconds = Object.fromEntries(Object.entries(results).map(([name, list]) => [name, median(list, (it) => it.seconds)]));
  console.log(`\n${what}: ours / best of the others ${(seconds.ours / Math.min(seconds.uppy, seconds.boto3)).toFixed(2)}`);
  for (const [name, list] of Object.entries(results)) {
    const memory = list[0].heap ? `, heap ${Math.max(...list.map((it) => it.heap))} MiB, process +${Math.max(...list.map((it) => it.growth))} MiB` : "";
    console.log(`  ${name.padEnd(10)} ${seconds[name].toFixed(2)} s (${list.map((it) => it.seconds.toFixed(2)).join(", ")})${memory}`);
  }
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
  const browser = await startBrowser(undefined, rules ? [`--host-resolver-rules=${rules}`] : []);
  const pages = await startPages();
  try {
    const page = await browser.newPage();
    await page.goto(pages.url);
    await page.setInputFiles("input", paths);
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable");
    const processes = await (await browser.newBrowserCDPSession()).send("SystemInfo.getProcessInfo");
    const renderers = processes.processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
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
        const { metrics } = await session.send("Performance.getMetrics");
        heap = Math.max(heap, metrics.find((it) => it.name === "JSHeapUsedSize").value / MiB);
        most = Math.max(most, await residents());
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    })();
    const milliseconds = await page.evaluate(
      async ([name, service]) => {
        const begin = performance.now();
        await window[name](service, [...document.querySelector("input").files]);
        return performance.now() - begin;
      },
      [name, service],
    );
    isDone = true;
    await sampling;
    return { seconds: milliseconds / 1000, heap: Math.round(heap), growth: Math.round(most - before) };
  } finally {
    await browser.close();
    pages.server.close();
  }
}

async function startPages() {
  const resolveDir = fileURLToPath(new URL("uppy-6", import.meta.url));
  const { outputFiles } = await build({ stdin: { contents: PAGE, resolveDir }, bundle: true, write: false, format: "esm", logLevel: "error" });
  const server = createPages((request, response) => {
    const isScript = request.url === "/page.js";
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? outputFiles[0].contents : '<input type="file" multiple><script type="module" src="/page.js"></script>');
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://127.0.0.1:${server.address().port}/` };
}

async function startProxy(target, wait) {
  const worker = new Worker(new URL(import.meta.url), { workerData: { target, wait } });
  const [port] = await once(worker, "message");
  return { worker, url: `http://127.0.0.1:${port}` };
}

/** A proxy that passes everything on `wait` milliseconds late, in both directions. */
async function delay({ target, wait }) {
  const { parentPort } = await import("node:worker_threads");
  const { hostname, port } = new URL(target);
  const pass = (from, to) => {
    let held = 0;
    from.on("data", (chunk) => {
      held += chunk.length;
      if (held > 32 * MiB) from.pause();
      setTimeout(() => {
        held -= chunk.length;
        if (held < 16 * MiB) from.resume();
        if (!to.destroyed) to.write(chunk);
      }, wait);
    });
    from.on("end", () => setTimeout(() => to.end(), wait));
    from.on("error", () => to.destroy());
    from.on("close", () => setTimeout(() => to.destroy(), wait));
  };
  const server = createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
    const upstream = connect({ host: hostname, port: Number(port), noDelay: true, allowHalfOpen: true });
    pass(client, upstream);
    pass(upstream, client);
  });
  server.listen(0, "127.0.0.1", () => parentPort.postMessage(server.address().port));
}
