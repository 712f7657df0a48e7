// `useUploads` under React 18 and 19, in Chromium and on a server.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { build } from "esbuild";

import { MiB, digest, eventually, expected, folder, large, openPage, page, pages, proxy, server, setup, untilParts } from "./helpers.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const modules = (path) => ({ react: join(here, path, "react"), "react-dom": join(here, path, "react-dom") });
const VERSIONS = { 18: modules("react-18/node_modules"), 19: modules("../node_modules") };

const APP = `
  import { StrictMode, startTransition, useEffect, useState, version } from "react";
  import { createRoot } from "react-dom/client";
  import { createClient } from "../index.js";
  import { useUploads } from "../react.js";

  const url = new URLSearchParams(location.search).get("service");
  const clients = [createClient({ url }), createClient({ url, policy: "text" })];
  window.version = version;
  window.snapshots = new Set();

  /** A component inside that adds a file when it has been rendered. */
  function AddsWhatIsSet({ add, name }) {
    useEffect(() => {
      if (name) add([new File([name], name, { type: "text/plain" })]);
    }, [add, name]);
    return null;
  }

  function Uploads({ client, policy, ticket, name }) {
    const { files, add, pause, resume, remove } = useUploads(client, { policy, ticket, multipartThreshold: 1024 * 1024, partSize: 5 * 1024 * 1024 });
    window.snapshots.add(files);
    return (
      <>
        <input type="file" multiple onChange={(event) => add([...event.target.files])} />
        <AddsWhatIsSet add={add} name={name} />
        <p id="sum">{files.reduce((sum, { loaded }) => sum + loaded, 0)}</p>
        <ul>
          {files.map((file) => (
            <Row key={file.id} file={file} pause={pause} resume={resume} remove={remove} />
          ))}
        </ul>
      </>
    );
  }

  function Row({ file: { id, name, state, loaded, total, key, error }, pause, resume, remove }) {
    // Rendering takes long enough for React to interrupt it.
    for (const end = performance.now() + 5; performance.now() < end; );
    return (
      <li data-name={name} data-state={state} data-loaded={loaded} data-total={total} data-key={key}>
        {error?.message}
        <button onClick={() => pause(id)}>Pause</button>
        <button onClick={() => resume(id)}>Resume</button>
        <button onClick={() => remove(id)}>Remove</button>
      </li>
    );
  }

  function App() {
    const [{ client, policy, ticket, name, isShown }, set] = useState({ client: 0, isShown: true });
    window.set = (change) => startTransition(() => set((now) => ({ ...now, ...change })));
    return isShown && <Uploads client={clients[client]} policy={policy} ticket={ticket} name={name} />;
  }

  createRoot(document.querySelector("main")).render(<StrictMode><App /></StrictMode>);`;

setup({
  policies: '[policies.default]\n[policies.text]\nkey = "text/{uuid}.{ext}"\ncontent_types = ["text/*"]\n',
  servesPages: () => Object.fromEntries(Object.entries(VERSIONS).map(([version, alias]) => [`react-${version}`, { script: APP, alias }])),
});

for (const version of Object.keys(VERSIONS)) {
  test(`React ${version}: files are uploaded, and refused, under the latest options`, { timeout: 120_000 }, async () => {
    expected.push(/^422: /, /^console: .* 422 /);
    await open(version);
    assert.ok((await page.evaluate(() => window.version)).startsWith(`${version}.`));
    await choose("a.txt");
    await state("a.txt", "done");
    assert.equal(await readFile(server.object(await row("a.txt").getAttribute("data-key")), "utf8"), "a.txt");
    await page.evaluate(() => window.set({ policy: "text" }));
    await choose("b.txt", "c.png");
    await state("b.txt", "done");
    assert.match(await row("b.txt").getAttribute("data-key"), /^text\//);
    await state("c.png", "refused");
    assert.match(await row("c.png").innerText(), /^The content type must be one of text\/\*\./);
    await button("Remove", "c.png").click();
    await row("c.png").waitFor({ state: "detached" });
  });

  test(`React ${version}: pause, resume and remove; no row is of another moment than its sum`, { timeout: 120_000 }, async () => {
    expected.push(/net::ERR_ABORTED/);
    await open(version);
    proxy.hold(2);
    // Each rendering of the page that the browser could show.
    await page.evaluate(() => {
      window.torn = 0;
      new MutationObserver(() => {
        const sum = [...document.querySelectorAll("li")].reduce((sum, row) => sum + Number(row.dataset.loaded), 0);
        if (sum !== Number(document.getElementById("sum").textContent)) window.torn += 1;
      }).observe(document.querySelector("main"), { subtree: true, childList: true, attributes: true, characterData: true });
    });
    await page.locator("input").setInputFiles([large.path, await text("a.txt"), await text("b.txt")]);
    await state("a.txt", "done");
    await eventually("a part is there", async () => Number(await row("large.bin").getAttribute("data-loaded")) >= 5 * MiB);
    await button("Pause", "large.bin").click();
    await state("large.bin", "paused");
    await page.evaluate(() => window.set({ policy: "text" }));
    proxy.fault = () => undefined;
    await button("Resume", "large.bin").click();
    await state("large.bin", "done");
    assert.equal(await digest(server.object(await row("large.bin").getAttribute("data-key"))), large.digest);
    assert.equal(await page.evaluate(() => window.torn), 0);

    // One that is removed leaves nothing.
    proxy.reset();
    const othersArrived = proxy.hold(2);
    await page.locator("input").setInputFiles(await sameAs(large, "unwanted.txt"));
    await othersArrived();
    assert.notDeepEqual(await server.parts(), []);
    await button("Remove", "unwanted.txt").click();
    await row("unwanted.txt").waitFor({ state: "detached" });
    await untilParts(server, []);
  });

  test(`React ${version}: uploads go on when the component is unmounted, and each client has its own`, { timeout: 120_000 }, async () => {
    await open(version);
    proxy.fault = ({ to }) => (to === "store" ? { delay: 500 } : undefined);
    await choose("unmounted.txt");
    await row("unmounted.txt").waitFor();
    await page.evaluate(() => window.set({ isShown: false }));
    await page.locator("input").waitFor({ state: "detached" });
    await eventually("it has arrived", async () => (await server.keys()).some((key) => key.endsWith("/unmounted.txt")));
    await eventually("it is verified", () => proxy.count(/verify/));
    await page.evaluate(() => window.set({ isShown: true }));
    await choose("first.txt");
    await state("first.txt", "done");
    await page.evaluate(() => window.set({ client: 1 }));
    await row("first.txt").waitFor({ state: "detached" });
    await choose("second.txt");
    await state("second.txt", "done");
    assert.match(await row("second.txt").getAttribute("data-key"), /^text\//);
  });

  test(`React ${version}: what a reload interrupted is offered under its policy, and resumed`, { timeout: 120_000 }, async () => {
    expected.push(/net::ERR_ABORTED/);
    // A busy machine is slow to say who has a lock, which must not look as if another tab had it.
    await open(version, () => {
      const { request } = LockManager.prototype;
      let isFirst = true;
      LockManager.prototype.request = async function (name, options, callback) {
        await new Promise((resolve) => setTimeout(resolve, 300));
        const ask = () => request.call(this, name, options, callback);
        if (!options.ifAvailable || !isFirst) return ask();
        isFirst = false;
        // Another tab has it for a moment, to see whether it is free.
        return request.call(this, name, { mode: "shared" }, ask);
      };
    });
    const othersArrived = proxy.hold(3);
    await page.locator("input").setInputFiles(large.path);
    await othersArrived();
    proxy.reset();
    await page.reload();
    await state("large.bin", "interrupted");
    await page.locator("input").setInputFiles(large.path);
    await state("large.bin", "done");
    // What was interrupted is resumed under the options of now, so that it goes in parts again.
    assert.deepEqual([proxy.count(/^store PUT/), proxy.count(/^store PUT .*partNumber=3&/)], [1, 1]);
    await untilParts(server, []);
    assert.equal(await page.locator("li").count(), 1);
  });

  test(`React ${version}: what a reload interrupted is discarded with the current ticket`, { timeout: 120_000 }, async () => {
    expected.push(/net::ERR_ABORTED/);
    await open(version);
    const othersArrived = proxy.hold(3);
    await page.locator("input").setInputFiles(large.path);
    await othersArrived();
    proxy.reset();
    await page.reload();
    await state("large.bin", "interrupted");
    await page.evaluate(() => window.set({ ticket: "a-ticket" }));
    await button("Remove", "large.bin").click();
    await row("large.bin").waitFor({ state: "detached" });
    const [{ headers }] = proxy.requests.filter(({ method }) => method === "DELETE");
    assert.equal(headers.authorization, "Bearer a-ticket");
    await untilParts(server, []);
  });

  test(`React ${version}: another attempt has the current ticket`, { timeout: 120_000 }, async () => {
    expected.push(/^401: /, /^console: .* 401 /);
    await open(version);
    proxy.fault = ({ to, headers }) => (to === "service" && headers.authorization !== "Bearer new" ? { status: 401 } : undefined);
    await page.evaluate(() => window.set({ ticket: "old" }));
    await choose("ticket.txt");
    await state("ticket.txt", "failed");
    await page.evaluate(() => window.set({ ticket: "new" }));
    await button("Resume", "ticket.txt").click();
    await state("ticket.txt", "done");
  });

  test(`React ${version}: what an effect inside adds has the options of the same rendering`, { timeout: 60_000 }, async () => {
    await open(version);
    await page.evaluate(() => window.set({ policy: "text", name: "effect.txt" }));
    await state("effect.txt", "done");
    assert.match(await row("effect.txt").getAttribute("data-key"), /^text\//);
  });

  test(`React ${version} renders it on a server`, async () => {
    const script = `
      import { renderToString } from "react-dom/server";
      import { createClient } from "../index.js";
      import { useUploads } from "../react.js";
      const client = createClient();
      const Uploads = () => JSON.stringify(useUploads(client).files);
      console.log(renderToString(<p><Uploads /></p>));`;
    const outfile = join(folder.path, `server-${version}.cjs`);
    await build({
      stdin: { contents: script, resolveDir: here, loader: "jsx" },
      bundle: true,
      platform: "node",
      jsx: "automatic",
      alias: VERSIONS[version],
      outfile,
      logLevel: "error",
    });
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [outfile]);
    assert.deepEqual([stdout, stderr], ["<p>[]</p>\n", ""]);
  });
}

async function open(version, prepare) {
  await openPage({}, prepare);
  await page.goto(`${pages.origin}/react-${version}?service=${encodeURIComponent(proxy.service)}`);
  await page.locator("input").waitFor();
}

/** A file whose text is its name. */
async function text(name) {
  const path = join(folder.path, name);
  await writeFile(path, name);
  return path;
}

async function sameAs({ path }, name) {
  const copy = join(folder.path, name);
  await writeFile(copy, await readFile(path));
  return copy;
}

async function choose(...names) {
  await page.locator("input").setInputFiles(await Promise.all(names.map(text)));
}

function row(name) {
  return page.locator(`li[data-name="${name}"]`);
}

function state(name, state) {
  return page.locator(`li[data-name="${name}"][data-state="${state}"]`).waitFor();
}

function button(label, name) {
  return row(name).getByRole("button", { name: label });
}
