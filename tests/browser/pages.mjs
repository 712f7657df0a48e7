// Pages of applications on another origin than presignd, and the tokens that these applications mint.

import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

import { serveFiles } from "./helpers.mjs";

/** What a server needs to accept tokens that [`token`] mints. */
export const TICKETS = {
  AUTH_MODE: "jwt",
  JWT_SECRET: "0123456789abcdef0123456789abcdef",
  JWT_ISSUER: "https://issuer.example",
  JWT_AUDIENCE: "presignd",
};

/** A token of a user, with these claims besides. */
export function token(more = {}) {
  const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: TICKETS.JWT_ISSUER, aud: TICKETS.JWT_AUDIENCE, sub: "user-17", iat: now, exp: now + 600, ...more };
  const signed = `${base64({ alg: "HS256", typ: "JWT" })}.${base64(claims)}`;
  return `${signed}.${createHmac("sha256", TICKETS.JWT_SECRET).update(signed).digest("base64url")}`;
}

/** A token that narrows what may be uploaded. */
export function ticket(claim = {}, more = {}) {
  return token({ upload: claim, ...more });
}

/** The claims of a token that has expired. */
export const EXPIRED = { exp: Math.floor(Date.now() / 1000) - 600 };

/** A server with a ticket in the path of its routes. */
export function below(server, ticket) {
  return { ...server, service: `${server.service}/t/${ticket}` };
}

/** Serves a page for each folder, with its `page.js` and all that this imports in one script. */
export async function servePages(names, folder) {
  const outdir = join(folder, "pages");
  await build({
    absWorkingDir: fileURLToPath(new URL(".", import.meta.url)),
    entryPoints: names.map((name) => `${name}/page.js`),
    // With one name, esbuild would leave its folder out.
    outbase: ".",
    outdir,
    bundle: true,
    format: "esm",
    logLevel: "error",
  });
  const files = new Map();
  for (const name of names) {
    const css = await readFile(join(outdir, name, "page.css")).catch(() => "");
    const html = `<!doctype html><meta charset="utf-8"><title>${name}</title><link rel="icon" href="data:,">
      <link rel="stylesheet" href="page.css">
      <body><div id="dashboard"></div><script type="module" src="page.js"></script>`;
    files.set(`/${name}/`, ["text/html", html]);
    files.set(`/${name}/page.js`, ["text/javascript", await readFile(join(outdir, name, "page.js"))]);
    files.set(`/${name}/page.css`, ["text/css", css]);
  }
  return serveFiles(files);
}
