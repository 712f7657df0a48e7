// What is published: its files, its size, and that it can be imported and type-checked where it is installed.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";

import { temporaryFolder } from "./helpers.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);

/** Each module, which has its types beside it in `types`. */
const MODULES = [
  "batch",
  "checksum",
  "element",
  "element/attributes",
  "element/row",
  "element/style",
  "element/text",
  "index",
  "list",
  "react",
  "requests",
  "sessions",
  "upload",
];

let folder, packed;

before(async () => {
  folder = await temporaryFolder();
  await run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "--project", "tsconfig.types.json"], { cwd: root });
  const { stdout } = await run("npm", ["pack", "--json", "--pack-destination", folder.path], { cwd: root });
  [packed] = JSON.parse(stdout);
  const project = join(folder.path, "project");
  // npm would do the same more slowly, as the package has no dependency.
  const installed = join(project, "node_modules/presignd-client");
  await mkdir(installed, { recursive: true });
  await run("tar", ["-xzf", join(folder.path, packed.filename), "--strip-components=1", "-C", installed]);
  await writeFile(join(project, "package.json"), '{ "private": true, "type": "module" }');
  folder.project = project;
});

after(() => folder?.remove());

test("the package has these files and no others", () => {
  const expected = [
    ...MODULES.flatMap((name) => [`${name}.js`, `types/${name}.d.ts`]),
    "element/index.d.ts",
    ...["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json"],
  ];
  assert.deepEqual(packed.files.map(({ path }) => path).sort(), expected.sort());
});

test("each entry can be imported where there is no browser", async () => {
  const script = `
    import { createClient, UploadError } from "presignd-client";
    import { UploadList } from "presignd-client/list";
    import { PresigndUpload } from "presignd-client/element";
    const client = createClient({ url: "http://127.0.0.1:1" });
    new UploadList(client);
    console.log(typeof client.upload, typeof UploadError, typeof PresigndUpload);`;
  const { stdout } = await run(process.execPath, ["--input-type=module", "--eval", script], { cwd: folder.project });
  assert.equal(stdout, "function function function\n");
});

test("what is published has types that hold under tsc --strict", { timeout: 300_000 }, async () => {
  const { project } = folder;
  const program = `
    import { createClient, UploadError, type UploadState } from "presignd-client";
    import { useUploads } from "presignd-client/react";
    import { PresigndUpload } from "presignd-client/element";

    const client = createClient({ url: "/", headers: async () => ({ authorization: "Bearer …" }), sessions: null });
    const states: UploadState[] = [];
    export async function send(file: File) {
      const upload = client.upload(file, { checksum: "sha256", onState: (state) => states.push(state) });
      upload.pause();
      upload.resume();
      const { key, receipt }: { key: string; receipt?: string } = await upload;
      for (const result of await client.uploadAll([file])) {
        if (result.status === "rejected" && result.reason instanceof UploadError) console.log(result.reason.errors[0]?.pointer);
      }
      const { url }: { url: string } = await client.download(key, { disposition: "inline" });
      await client.remove(key);
      return [receipt, url];
    }
    export function names() {
      return useUploads(client, { policy: "photos" }).files.map(({ name }) => name.length);
    }
    export const element = new PresigndUpload();
    element.headers = () => ({});
    export const isSame: boolean = document.querySelector("presignd-upload") === element;
    export const multiple: boolean = document.createElement("presignd-upload").multiple;
    // @ts-expect-error There is no such option.
    client.upload(new File([], "a"), { polcy: "photos" });
    // @ts-expect-error There is no such checksum.
    client.upload(new File([], "a"), { checksum: "md5" });`;
  await writeFile(join(project, "program.ts"), program);
  // The README's programs for React, of which one needs what another one declares.
  const readme = await readFile(join(root, "README.md"), "utf8");
  const snippets = [...readme.matchAll(/^```(?:jsx|tsx?)\n(.*?)^```$/gms)].map(([, code], index) => [`snippet-${index}.tsx`, code]);
  assert.equal(snippets.length, 3);
  for (const [name, code] of snippets) await writeFile(join(project, name), code);
  for (const name of ["@types", "react"]) await symlink(join(root, "node_modules", name), join(project, "node_modules", name));
  const options = ["--strict", "--noEmit", "--skipDefaultLibCheck", "--target", "es2022", "--module", "nodenext", "--types", "react", "--jsx", "react-jsx"];
  const files = ["program.ts", ...snippets.map(([name]) => name)];
  const tsc = run(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), ...options, ...files], { cwd: project });
  const { stdout } = await tsc.catch((error) => error);
  assert.equal(stdout, "");
});

test("the core is at most 8 kB, with all that an upload can load", async (t) => {
  const size = async (entry) => {
    const { outputFiles } = await build({
      stdin: { contents: entry, resolveDir: root },
      bundle: true,
      minify: true,
      format: "esm",
      target: "es2022",
      external: ["react"],
      write: false,
    });
    return gzipSync(outputFiles[0].contents, { level: 9 }).length;
  };
  const core = await size('export { createClient } from "./index.js"');
  t.diagnostic(`core: ${core} bytes`);
  t.diagnostic(`react, without the core: ${await size('export * from "./react.js"')} bytes`);
  t.diagnostic(`element, with the core: ${await size('export * from "./element.js"')} bytes`);
  assert.ok(core <= 8_000, `${core} bytes`);
});
