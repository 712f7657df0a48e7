// An upload with the functions that @hey-api/openapi-ts writes.

import assert from "node:assert/strict";

import { client } from "./out/openapi-ts/client.gen.js";
import { presignUpload, verifyUpload } from "./out/openapi-ts/index.js";

client.setConfig({ baseUrl: process.argv[2] ?? "" });
const file = { filename: "note.txt", contentType: "text/plain" };

const { data: grant } = await presignUpload({ body: file, throwOnError: true });
const { ok } = await fetch(grant.url, { method: grant.method, headers: grant.headers, body: "hello" });
assert(ok);

const { data: found } = await verifyUpload({ body: { key: grant.key, size: 5 }, throwOnError: true });
assert("etag" in found && found.size === 5);

// A problem has a type, too.
const { error: refusal } = await presignUpload({ body: { ...file, filename: "a/b" } });
assert.equal(refusal?.errors?.[0]?.pointer, "/filename");
