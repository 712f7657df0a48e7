// An upload with the types of openapi-typescript and its client, openapi-fetch.

import assert from "node:assert/strict";

import createClient from "openapi-fetch";

import type { paths } from "./out/openapi-typescript.js";

const client = createClient<paths>({ baseUrl: process.argv[2] ?? "" });
const file = { filename: "note.txt", contentType: "text/plain" };

const { data: grant, error } = await client.POST("/upload/presigned-url", { body: file });
assert(grant, error?.detail);
const { ok } = await fetch(grant.url, { method: grant.method, headers: grant.headers, body: "hello" });
assert(ok);

const { data: found } = await client.POST("/upload/verify", { body: { key: grant.key, size: 5 } });
assert(found && "etag" in found && found.size === 5);

// A problem has a type, too.
const { error: refusal } = await client.POST("/upload/presigned-url", { body: { ...file, filename: "a/b" } });
assert.equal(refusal?.errors?.[0]?.pointer, "/filename");
