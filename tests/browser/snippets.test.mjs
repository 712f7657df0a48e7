// The TypeScript of docs/uppy.md compiles under `tsc --strict` against the versions of Uppy that it is for.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, rm, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

test("the snippets of docs/uppy.md compile", { timeout: 120_000 }, async () => {
  const page = await readFile(here("../../docs/uppy.md"), "utf8");
  // ```ts is for the latest version, ```ts uppy-5 for an older one.
  const snippets = [...page.matchAll(/^```ts *(\S*)\n(.*?)^```$/gms)];
  assert.equal(snippets.length, 4);
  const files = [];
  try {
    for (const [index, [, version, code]] of snippets.entries()) {
      // Beside the package whose dependencies it imports.
      const file = here(`${version || "uppy-6"}/snippet-${index}.ts`);
      files.push(file);
      await writeFile(file, code);
    }
    const options = ["--strict", "--noEmit", "--skipLibCheck", "--target", "es2022", "--module", "nodenext"];
    const tsc = promisify(execFile)(process.execPath, [here("node_modules/typescript/bin/tsc"), ...options, ...files]);
    const { stdout } = await tsc.catch((error) => error);
    assert.equal(stdout, "");
  } finally {
    await Promise.all(files.map((file) => rm(file, { force: true })));
  }
});
