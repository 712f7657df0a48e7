// An upload with the functions that openapi-generator writes as `typescript-fetch`.

import assert from "node:assert/strict";

import { Configuration, ProblemFromJSON, ResponseError, UploadApi } from "../out/openapi-generator/typescript-fetch/index.js";

const api = new UploadApi(new Configuration({ basePath: process.argv[2] ?? "" }));

const grant = await api.presignUpload({ fileRequest: { filename: "노트.txt", contentType: "text/plain" } });
const { ok } = await fetch(grant.url, { method: grant.method, headers: grant.headers, body: "hello" });
assert(ok);

const found = await api.verifyUpload({ verifyRequest: { key: grant.key, size: 5 } });
assert("etag" in found && found.size === 5);

// A problem has a type, too.
const refusal = await api.presignUpload({ fileRequest: { filename: "a/b", contentType: "text/plain" } }).catch((error) => error);
assert(refusal instanceof ResponseError);
const problem = ProblemFromJSON(await refusal.response.json());
assert.equal(problem.errors?.[0]?.pointer, "/filename");
