// Every failure is an `UploadError` that says what happened, for people and for programs.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { promisify } from "node:util";

import { UploadError, createClient } from "../index.js";
import { MiB, PARTS, client, fileOf, large, proxy, server, setup, smallFile } from "./helpers.mjs";

const run = promisify(execFile);

const POLICIES = `
  [policies.default]
  [policies.text]
  content_types = ["text/*"]
  max_size = "5 KiB"
  [policies.once]
  overwrite = false
  [policies.fixed]
  overwrite = false
  key = "fixed/{filename}"`;

setup({ policies: POLICIES });

test("a refused file of many is refused alone, with all its reasons and a sentence of them", async () => {
  const files = [smallFile("a.txt"), smallFile("b.exe", 6_000, "application/x-msdownload"), smallFile("c.txt")];
  const [a, b, c] = await client.uploadAll(files, { policy: "text" });
  for (const [file, { value }] of [[files[0], a], [files[2], c]]) {
    assert.ok(value.key.endsWith(`/${file.name}`), `${file.name} has the key ${value.key}`);
    assert.deepEqual(await readFile(server.object(value.key)), Buffer.from(await file.arrayBuffer()));
  }
  const error = b.reason;
  assert.deepEqual([error.name, error.status, error.code, error.refused, error.retry], ["UploadError", 422, error.errors[0].code, true, false]);
  assert.deepEqual(error.errors.map(({ pointer }) => pointer).sort(), ["/contentType", "/size"]);
  assert.match(error.message, /^The content type must be one of text\/\*\. The size .* 5120 bytes; it is 6000\.$/);
  assert.ok(error.requestId);
  assert.ok(error.has(error.errors[1].code));
});

test("a refusal has the code of its problem document, whatever the size of the file", async () => {
  const refusal = async (file, options) => {
    const { status, code } = await failure(client.upload(file, { multipartThreshold: 1_000, ...options }));
    return [status, code];
  };
  for (const [name, type, options, status, code] of [
    ["a/b.txt", "text/plain", {}, 400, "invalid-request"],
    ["a.exe", "application/x-msdownload", { policy: "text" }, 422, "type-not-allowed"],
  ]) {
    for (const size of [1_000, 1_001]) {
      assert.deepEqual(await refusal(smallFile(name, size, type), options), [status, code], `${size} bytes`);
    }
  }
});

test("names of metadata stay as they are in messages", async () => {
  const error = await failure(client.upload(smallFile("a.txt"), { metadata: { orderId: "1" } }));
  assert.match(error.message, /^The metadata "orderId" must have a name of 1 to 128 lower-case letters/);
});

test("an unknown checksum is refused, and none is not", async () => {
  for (const checksum of ["SHA-256", "sha1", "md5", 1]) {
    const error = await failure(client.upload(smallFile("a.txt"), { checksum }));
    assert.equal(error.message, "The checksum must be sha256 or crc64nvme.");
  }
  assert.equal(proxy.requests.length, 0);
  for (const checksum of [undefined, null]) await client.upload(smallFile("a.txt"), { checksum });
});

test("what is no File, or has no name, is refused", async () => {
  const none = [undefined, null, "a.txt", {}, new Blob(["x"]), new File(["x"], "")];
  for (const file of none) {
    const upload = client.upload(file);
    upload.pause();
    upload.resume();
    const error = await failure(upload);
    assert.equal(error.message, "A File with a name is needed.");
  }
  const totals = new Set();
  const results = await client.uploadAll([undefined, smallFile("a.txt")], { onProgress: ({ total }) => totals.add(total) });
  assert.deepEqual(results.map(({ status }) => status), ["rejected", "fulfilled"]);
  assert.deepEqual([...totals], [1_000]);
});

test("an unknown policy is named by the service's own words", async () => {
  const error = await failure(client.upload(smallFile("a.txt"), { policy: "unknown" }));
  assert.equal(error.refused, true);
  assert.match(error.message, /^[A-Z].*policy.*\.$/);
});

test("a 403 of the store is explained by its XML", async () => {
  const xml = (code, message) =>
    `<?xml version="1.0"?><Error><Code>${code}</Code><Message>${message}</Message><RequestId>4442587FB7D0A2F9</RequestId></Error>`;
  const explained = async (code, message) => {
    proxy.fault = ({ to }) => (to === "store" ? { status: 403, body: xml(code, message) } : undefined);
    const error = await failure(client.upload(smallFile("a.txt")));
    assert.deepEqual([error.code, error.status, error.requestId], [code, 403, "4442587FB7D0A2F9"]);
    return error.message;
  };
  assert.equal(await explained("AccessDenied", "Access Denied"), "The store answered 403: Access Denied");
  assert.equal(
    await explained("SignatureDoesNotMatch", "The request signature we calculated does not match"),
    "The store answered 403: The request differs from the granted one.",
  );
});

test("where nothing may be overwritten, a file whose first answer was lost has arrived", async () => {
  const answers = [];
  proxy.fault = ({ to }) => (to === "store" && answers.push(to) === 1 ? { loseAnswer: true } : undefined);
  const { size } = await client.upload(smallFile("once.txt"), { policy: "once" });
  assert.deepEqual([size, answers.length], [1_000, 2]);

  // Nor does a fault of the store between the two make it another file.
  answers.length = 0;
  proxy.fault = ({ to }) => to === "store" && [undefined, { loseAnswer: true }, { status: 503 }][answers.push(to)];
  const { size: same } = await client.upload(smallFile("twice.txt"), { policy: "fixed" });
  assert.deepEqual([same, answers.length], [1_000, 3]);

  // Nor does a pause.
  answers.length = 0;
  proxy.fault = ({ to }) => (to === "store" && answers.push(to) === 1 ? { loseAnswer: true } : undefined);
  const paused = client.upload(smallFile("paused.txt"), {
    policy: "fixed",
    onState: (state) => {
      if (state !== "reconnecting") return;
      paused.pause();
      paused.resume();
    },
  });
  assert.deepEqual([(await paused).size, answers.length], [1_000, 2]);

  // A browser sends a request again by itself, so that the first answer that the page sees is a refusal.
  for (const policy of ["once", "fixed"]) {
    for (const verify of [true, false]) {
      const file = smallFile(`resent-${verify}.txt`);
      proxy.once(/^store PUT/, { resend: true });
      const { key } = await client.upload(file, { policy, verify });
      assert.deepEqual(await readFile(server.object(key)), Buffer.from(await file.arrayBuffer()));
    }
  }

  // A store that refuses what it does not have is not believed.
  proxy.fault = ({ to }) => (to === "store" ? { status: 412, body: "<Error><Code>PreconditionFailed</Code></Error>" } : undefined);
  for (const options of [{}, { verify: false }]) {
    const error = await failure(client.upload(smallFile("never.txt"), { policy: "once", ...options }));
    assert.equal(error.message, "The store answered 412: An object has this name, perhaps this file.");
    assert.deepEqual([error.status, error.refused, error.retry], [412, false, false]);
  }
});

/** As where the store keeps no checksums. */
const withoutChecksums = (answer) => answer.replace(/"checksum\w+":"[^"]*",/g, "");

test("where nothing may be overwritten, another file of the same name and size is not taken for this one", async () => {
  for (const rewrite of [(answer) => answer, withoutChecksums]) {
    for (const fault of [undefined, { drop: true }, { cutRequest: true }]) {
      for (const options of [{}, { checksum: "sha256" }, { checksum: "crc64nvme" }, { verify: false }]) {
        proxy.reset();
        const name = `taken-${Math.random()}.txt`;
        const other = new File([Buffer.alloc(1_000, "other")], name, { type: "text/plain" });
        const { key } = await client.upload(other, { policy: "fixed" });
        proxy.rewrite = rewrite;
        if (fault) proxy.once(/^store PUT/, fault);
        const error = await failure(client.upload(smallFile(name), { policy: "fixed", ...options }));
        assert.deepEqual([error.code, error.status, error.refused], ["PreconditionFailed", 412, false]);
        assert.deepEqual(await readFile(server.object(key)), Buffer.alloc(1_000, "other"));
      }
    }
    // Nor where both come at the same time.
    const name = `both-${Math.random()}.txt`;
    const both = ["one", "two"].map((text) => new File([Buffer.alloc(1_000, text)], name));
    const results = await client.uploadAll(both, { policy: "fixed" });
    assert.deepEqual(results.map(({ status }) => status).sort(), ["fulfilled", "rejected"]);
    assert.equal(results.find(({ reason }) => reason).reason.status, 412);
  }
});

test("without a checksum, only a key that is never granted twice shows that a file has arrived", async () => {
  proxy.rewrite = withoutChecksums;
  proxy.once(/^store PUT/, { loseAnswer: true });
  const file = smallFile("lost.txt");
  const { key } = await client.upload(file, { policy: "once" });
  assert.deepEqual(await readFile(server.object(key)), Buffer.from(await file.arrayBuffer()));
  proxy.once(/^store PUT/, { loseAnswer: true });
  const error = await failure(client.upload(file, { policy: "fixed" }));
  assert.equal(error.message, "The store answered 412: An object has this name, perhaps this file.");
});

test("what conflicts with another request for the same object is sent again", async () => {
  proxy.once(/^store PUT/, { status: 409, body: "<Error><Code>ConditionalRequestConflict</Code></Error>" });
  const { size } = await client.upload(smallFile("conflict.txt"), { policy: "fixed" });
  assert.deepEqual([size, proxy.count(/^store PUT/)], [1_000, 2]);
});

test("what a proxy answers instead of the service or the store is no riddle", async () => {
  proxy.fault = () => ({ status: 403, body: "<html>Forbidden</html>" });
  const ours = await failure(client.upload(smallFile("a.txt")));
  assert.deepEqual([ours.message, ours.code], ["The service answered 403.", "failed"]);
  proxy.fault = ({ to }) => (to === "store" ? { status: 413, body: "<html>" } : undefined);
  const theirs = await failure(client.upload(smallFile("a.txt")));
  assert.deepEqual([theirs.message, theirs.status], ["The store answered 413.", 413]);
});

test("an answer in JSON that is none of presignd's is asked for again, and then named", async (t) => {
  withoutPauses(t);
  const headers = { "content-type": "application/json" };
  for (const body of ["{}", "null", "[]", '"text"', '{"uploads":[]}']) {
    proxy.once(/presigned-urls/, { status: 200, body, headers });
    assert.equal((await client.upload(smallFile("a.txt"))).size, 1_000, body);
  }
  proxy.fault = ({ path }) => path.includes("presigned-urls") && { status: 200, body: "{}", headers };
  const error = await failure(client.upload(smallFile("a.txt")));
  assert.deepEqual([error.code, error.message], ["unreadable-answer", "The answer cannot be read."]);
});

test("a store that hides ETag is named with the fix", async () => {
  proxy.fault = ({ to }) => (to === "store" ? { without: "etag" } : undefined);
  const error = await failure(client.upload(await fileOf(large), { multipartThreshold: MiB }));
  assert.deepEqual([error.code, error.message], ["hidden-etag", "The store's CORS rule must expose ETag."]);
});

test("a store that has another size is not believed", async () => {
  proxy.fault = ({ path }) => (path.endsWith("/upload/verify") ? { status: 200, body: '{"key":"a","size":1}' } : undefined);
  const error = await failure(client.upload(smallFile("a.txt")));
  assert.deepEqual([error.code, error.message], ["mismatch", "The store has 1 bytes instead of 1000."]);
});

test("a service that nobody reaches is tried for a while, with growing pauses, and then named", async (t) => {
  const pauses = withoutPauses(t);
  const tries = [];
  const onState = (state, error) => error && tries.push(error.message);
  const error = await failure(createClient({ url: "http://127.0.0.1:1" }).upload(smallFile("a.txt"), { onState }));
  assert.deepEqual([error.code, error.status, error.message], ["network", 0, "The service cannot be reached."]);
  assert.deepEqual(tries, Array(7).fill("The service cannot be reached."));
  assert.ok(error.cause);
  const longest = [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000];
  const shares = pauses.map((ms, index) => ms / longest[index]);
  assert.equal(shares.length, 7);
  assert.ok(shares.every((share) => share >= 0.5 && share < 1), pauses.join());
  assert.equal(new Set(shares).size, 7, "the pauses are not random");
});

test("a service that asks for a long pause gets a minute", async (t) => {
  const pauses = withoutPauses(t);
  const headers = { "retry-after": "2592000", "access-control-expose-headers": "retry-after" };
  proxy.fault = ({ to }) => (to === "service" ? { status: 503, headers } : undefined);
  const error = await failure(client.upload(smallFile("busy.txt")));
  assert.equal(error.status, 503);
  assert.deepEqual(pauses, Array(7).fill(60_000));
});

test("what fails while the browser is offline is tried for as long as that takes", async (t) => {
  withoutPauses(t);
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  const navigator = { onLine: false };
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: navigator });
  t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator));
  let failures = 0;
  proxy.fault = () => ((failures += 1) <= 20 ? { drop: true } : undefined);
  const { size } = await client.upload(smallFile("offline.txt"));
  assert.deepEqual([size, proxy.count(/presigned-url/)], [1_000, 21]);

  // Once it is online, failures count.
  proxy.reset();
  proxy.fault = () => {
    navigator.onLine = proxy.requests.length > 20;
    return { drop: true };
  };
  const error = await failure(client.upload(smallFile("online.txt")));
  assert.deepEqual([error.code, proxy.requests.length], ["network", 28]);
});

test("an address or a header that is not valid fails at once, and says so", { timeout: 5_000 }, async () => {
  const headers = () => ({ authorization: "Bearer abc…" });
  const failing = [
    [createClient(), /URL/],
    [createClient({ url: proxy.service, headers }), /8230/],
  ];
  for (const [client, message] of failing) {
    const errors = [client.upload(smallFile("a.txt")), client.download("a.txt"), client.remove("a.txt")].map(failure);
    for (const error of await Promise.all(errors)) {
      assert.deepEqual([error.code, error.retry, error.cause.name], ["failed", false, "TypeError"]);
      assert.match(error.message, message);
    }
  }
  assert.equal(proxy.requests.length, 0);
});

test("a ticket and the type of the body replace such headers of the app, whatever the case of their names", async () => {
  const headers = () => ({ Authorization: "Bearer app", "Content-Type": "text/plain", "X-Other": "kept" });
  await createClient({ url: proxy.service, headers }).upload(smallFile("ticket.txt"), { ticket: "a-ticket" });
  const sent = proxy.requests.find(({ to }) => to === "service").headers;
  assert.deepEqual(
    [sent.authorization, sent["content-type"], sent["x-other"]],
    ["Bearer a-ticket", "application/json", "kept"],
  );
  // There may be none, for a user who has not signed in.
  await createClient({ url: proxy.service, headers: async () => null }).upload(smallFile("none.txt"));
});

test("a file that cannot be read any more says so at once", async () => {
  const gone = Object.defineProperty(smallFile("gone.txt"), "slice", {
    value: () => ({ arrayBuffer: async () => Promise.reject(new DOMException("gone", "NotFoundError")) }),
  });
  proxy.fault = ({ to }) => (to === "store" ? { drop: true } : undefined);
  const error = await failure(client.upload(gone));
  assert.equal(error.code, "unreadable-file");
  assert.equal(error.cause.name, "NotFoundError");
});

test("an error that a callback throws fails the upload, and nothing is sent again", { timeout: 60_000 }, async () => {
  for (const file of [smallFile("callback.txt"), await fileOf(large)]) {
    for (const callback of ["onProgress", "onState"]) {
      proxy.reset();
      const fails = (what) => {
        if (what.loaded || what === "uploading") throw new Error("This page has a fault.");
      };
      const error = await failure(client.upload(file, { multipartThreshold: MiB, partSize: 12 * MiB, [callback]: fails }));
      assert.deepEqual([error.message, error.cause.message], Array(2).fill("This page has a fault."), callback);
      assert.equal(proxy.count(/^store PUT/), callback === "onProgress" ? 1 : 0, callback);
    }
  }
});

test("whatever state a callback throws at, only the upload's promise fails", { timeout: 60_000 }, async () => {
  const throwing = (at) => (state) => {
    if (state === at) throw new Error(`This page has a fault at ${at}.`);
  };
  const kept = new Map();
  const sessions = { get: (id) => kept.get(id), set: (id, session) => kept.set(id, session), delete: (id) => kept.delete(id), list: () => [] };
  const client = createClient({ url: proxy.service, sessions });
  const results = await client.uploadAll([smallFile("a.txt"), smallFile("b.txt")], { onState: throwing("waiting") });
  assert.deepEqual(results.map(({ reason }) => reason.message), Array(2).fill("This page has a fault at waiting."));
  assert.equal(proxy.requests.length, 0);

  proxy.once(/^service POST/, { status: 503 });
  for (const state of ["reconnecting", "verifying"]) {
    const error = await failure(client.upload(smallFile("c.txt"), { onState: throwing(state) }));
    assert.equal(error.message, `This page has a fault at ${state}.`);
  }

  for (const state of ["paused", "cancelling"]) {
    const othersArrived = proxy.hold(2);
    const upload = client.upload(await fileOf(large), { ...PARTS, onState: throwing(state) });
    upload.catch(() => {});
    await othersArrived();
    if (state === "paused") upload.pause();
    else await upload.abort();
    const error = await failure(upload);
    assert.equal(error.message, `This page has a fault at ${state}.`);
    assert.equal(kept.size, state === "paused" ? 1 : 0);
    proxy.reset();
    // The session is free for another upload of the file.
    const { size } = await client.upload(await fileOf(large), PARTS);
    assert.deepEqual([size, proxy.count(/^store PUT/)], [large.size, state === "paused" ? 1 : 3]);
    assert.equal(kept.size, 0);
    proxy.reset();
  }
});

test("a failure that nobody handles is reported, as that of any promise", async () => {
  const index = new URL("../index.js", import.meta.url);
  const outcome = (handled) => {
    const script = `
      import { createClient } from ${JSON.stringify(index)};
      const headers = () => Promise.reject(new Error("You are signed out."));
      const { signal } = new AbortController();
      createClient({ url: "http://127.0.0.1:1", headers }).upload(new File(["a"], "a.txt"), { signal })${handled};`;
    return run(process.execPath, ["--input-type=module", "--eval", script]).then(() => "", ({ stderr }) => stderr);
  };
  assert.equal(await outcome(".catch(() => {})"), "");
  assert.match(await outcome(""), /You are signed out\./);
});

test("a list that is too long for the answer of the service is asked for in halves, and all files arrive", async () => {
  const headers = { "content-type": "application/problem+json" };
  const body = '{"code":"answer-too-large","detail":"the answer would be longer than 1 MB"}';
  // Three files are named by fewer bytes, and four by more.
  const isLong = (seen) => seen.path.endsWith("/upload/presigned-urls") && seen.headers["content-length"] > 350;
  proxy.fault = (seen) => (isLong(seen) ? { status: 413, body, headers } : undefined);
  const files = Array.from({ length: 8 }, (_, index) => smallFile(`half-${index}.txt`));
  for (const { value } of await client.uploadAll(files)) assert.equal(value?.size, 1_000);
  assert.ok(proxy.requests.some(({ fault }) => fault.status === 413), "no list was too long");

  proxy.fault = ({ path }) => (path.endsWith("/upload/presigned-urls") ? { status: 413, body, headers } : undefined);
  const error = await failure(client.upload(smallFile("one.txt")));
  assert.deepEqual([error.code, error.status, error.message], ["answer-too-large", 413, "The answer would be longer than 1 MB."]);
});

/** Has the client make no pauses, but note them. */
function withoutPauses(t) {
  const pauses = [];
  const { setTimeout } = globalThis;
  t.mock.method(globalThis, "setTimeout", (callback, ms, ...values) => {
    // Node has timers of its own for a connection.
    if (!new Error().stack.includes("at sleep")) return setTimeout(callback, ms, ...values);
    pauses.push(ms);
    return setTimeout(callback, 0);
  });
  return pauses;
}

/** The error of an upload, which is always of this class. */
async function failure(upload) {
  const error = await upload.then(() => assert.fail("it was uploaded"), (error) => error);
  assert.ok(error instanceof UploadError, String(error));
  return error;
}
