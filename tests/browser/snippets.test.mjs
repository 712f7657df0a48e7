// The TypeScript of docs/uppy.md and docs/better-upload.md compiles under `tsc --strict` against the versions that it is
// for.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile, rm, writeFile } from "node:fs/promises";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

test("the snippets of the pages about clients compile", { timeout: 120_000 }, async () => {
  const snippets = [];
  for (const [name, folder, count] of [["uppy", "uppy-6", 5], ["better-upload", "better-upload", 1]]) {
    const page = await readFile(here(`../../docs/${name}.md`), "utf8");
    // ```ts is for the latest version, ```ts uppy-5 for an older one.
    const found = [...page.matchAll(/^```(tsx?) *(\S*)\n(.*?)^```$/gms)];
    assert.equal(found.length, count, name);
    snippets.push(...found.map(([, ending, version, code]) => ({ folder: version || folder, ending, code })));
  }
  const files = [];
  try {
    for (const [index, { folder, ending, code }] of snippets.entries()) {
      // Beside the package whose dependencies it imports.
      const file = here(`${folder}/snippet-${index}.${ending}`);
      files.push(file);
      await writeFile(file, code);
    }
    const options = ["--strict", "--noEmit", "--skipLibCheck", "--jsx", "react-jsx", "--target", "es2022", "--module", "nodenext"];
    const tsc = promisify(execFile)(process.execPath, [here("node_modules/typescript/bin/tsc"), ...options, ...files]);
    const { stdout } = await tsc.catch((error) => error);
    assert.equal(stdout, "");
  } finally {
    await Promise.all(files.map((file) => rm(file, { force: true })));
  }
});
