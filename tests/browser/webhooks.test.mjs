// The Node code of docs/events.md accepts the webhooks of `presignd dev`, and no others.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { startServer } from "./helpers.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const secret = `whsec_${Buffer.alloc(32, "secret").toString("base64")}`;

/** The function that verifies, of each block of Node code. */
async function verifiers() {
  const page = await readFile(here("../../docs/events.md"), "utf8");
  const blocks = [...page.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code]) => code);
  assert.equal(blocks.length, 2);
  const functions = [];
  for (const [index, code] of blocks.entries()) {
    const [imports, rest] = code.split(/\n\n(.*)/s);
    const body = rest.startsWith("function verify")
      ? `${rest}\nreturn verify(rawBody, headers, process.env.WEBHOOK_SECRET);`
      : `${rest}\nreturn message;`;
    // Beside the packages that it imports.
    const file = here(`webhook-snippet-${index}.mjs`);
    await writeFile(file, `${imports}\nexport default (rawBody, headers) => {\n${body}\n};\n`);
    try {
      functions.push((await import(file)).default);
    } finally {
      await rm(file, { force: true });
    }
  }
  return functions;
}

test("the Node code of docs/events.md verifies webhooks", { timeout: 120_000 }, async () => {
  process.env.WEBHOOK_SECRET = secret;
  const application = createServer().listen(0, "127.0.0.1");
  await once(application, "listening");
  const server = await startServer({
    WEBHOOK_URL: `http://127.0.0.1:${application.address().port}/hook`,
    WEBHOOK_SECRET: secret,
    EVENTS_TOKEN: "a-token-of-the-store",
  });
  try {
    const received = once(application, "request");
    const file = { filename: "사진+%.txt", contentType: "text/plain" };
    const headers = { "content-type": "application/json" };
    const asked = await fetch(`${server.service}/upload/presigned-url`, { method: "POST", headers, body: JSON.stringify(file) });
    const grant = await asked.json();
    const sent = await fetch(grant.url, { method: grant.method, headers: grant.headers, body: "hello" });
    assert.equal(sent.status, 200);

    const [request, response] = await received;
    const rawBody = await text(request);
    response.writeHead(204).end();
    for (const verify of await verifiers()) {
      const message = verify(rawBody, request.headers);
      assert.equal(message.type, "upload.arrived");
      assert.equal(message.data.key, grant.key);
      const old = String(Number(request.headers["webhook-timestamp"]) - 3600);
      for (const [body, changed] of [
        [rawBody.replace("arrived", "refused"), {}],
        [rawBody, { "webhook-id": "msg_other" }],
        [rawBody, { "webhook-timestamp": old }],
        [rawBody, { "webhook-signature": "v1,AAAA" }],
      ]) {
        assert.throws(() => verify(body, { ...request.headers, ...changed }));
      }
    }
  } finally {
    await server.stop();
    application.close();
    application.closeAllConnections();
  }
});
