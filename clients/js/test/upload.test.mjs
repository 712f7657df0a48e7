// Uploads in Node against `presignd dev`, behind a proxy that breaks requests. What arrived is compared byte by byte
// in the store's folder.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { UploadError, createClient } from "../index.js";
import { MiB, PARTS, client, digest, eventually, fileOf, folder, large, largeArrived, makeFile, proxy, server, setup, smallFile, startProxy, startServer, untilParts } from "./helpers.mjs";

/** An answer without the URLs that come with an upload, so that each is asked for. */
const withoutUrls = (answer) => JSON.stringify({ ...JSON.parse(answer), presignedUrls: undefined });

setup();

test("a small file goes in one request, and is verified", async () => {
  const file = smallFile("안녕 1 + 100%.txt");
  const states = [];
  const progress = [];
  const uploaded = await client.upload(file, {
    onState: (state) => states.push(state),
    onProgress: ({ loaded, total }) => progress.push([loaded, total]),
  });
  await arrived(file, uploaded);
  assert.match(uploaded.key, /^uploads\/[0-9a-f-]{36}\/안녕 1 \+ 100%\.txt$/);
  assert.deepEqual([uploaded.size, uploaded.contentType], [1000, "text/plain"]);
  assert.ok(uploaded.etag);
  assert.deepEqual(states, ["waiting", "uploading", "verifying"]);
  assert.deepEqual(progress.at(-1), [1000, 1000]);
  assert.deepEqual([proxy.count(/^service/), proxy.count(/^store/)], [2, 1]);
});

test("an empty file is a file", async () => {
  const file = smallFile("empty.txt", 0);
  await arrived(file, await client.upload(file));
});

test("without verifying, the store's answer is the result", async () => {
  const file = smallFile("unverified.txt");
  const uploaded = await client.upload(file, { verify: false });
  await arrived(file, uploaded);
  assert.ok(uploaded.etag);
  assert.equal(proxy.count(/verify/), 0);
});

test("a large file goes in parts, eight at once, each bound to its size", { timeout: 120_000 }, async () => {
  const file = await makeFile(join(folder.path, "larger.bin"), 77 * MiB);
  const isPart = ({ to, method }) => to === "store" && method === "PUT";
  let go;
  const held = new Promise((resolve) => (go = resolve));
  proxy.fault = (seen) => (isPart(seen) ? held : undefined);
  const upload = client.upload(await fileOf(file));
  await eventually("eight parts are on their way", () => proxy.requests.filter(isPart).length === 8, 60_000);
  await sleep(300);
  assert.equal(proxy.requests.filter(isPart).length, 8);
  go();
  const { key, size } = await upload;
  assert.deepEqual([size, await digest(server.object(key))], [file.size, file.digest]);
  assert.equal(proxy.requests.filter(isPart).length, 10);
  assert.equal(proxy.count(/^store PUT .*X-Amz-SignedHeaders=content-length%3Bhost&/), 10);
  // Their URLs came with the upload.
  assert.equal(proxy.count(/^service GET/), 0);
  // The completion has verified it.
  assert.equal(proxy.count(/verify/), 0);
});

test("at least one part is sent at a time, and numbers that are none count as not given", { timeout: 60_000 }, async () => {
  for (const concurrency of [0, -1, 0.5, NaN, Infinity]) {
    await largeArrived(await client.upload(await fileOf(large), { ...PARTS, concurrency }));
  }
  await largeArrived(await client.upload(await fileOf(large), { ...PARTS, partSize: NaN }));
});

test("a part whose URL did not come with the upload is asked for, with its size", { timeout: 120_000 }, async () => {
  const file = await makeFile(join(folder.path, "many.bin"), 106 * MiB);
  const upload = async () => {
    const { key } = await client.upload(await fileOf(file), PARTS);
    assert.equal(await digest(server.object(key)), file.digest);
    return [proxy.count(/^service GET .*size=5242880/), proxy.count(/^service GET .*size=1048576/)];
  };
  assert.deepEqual(await upload(), [1, 1]);
  proxy.reset();
  proxy.rewrite = withoutUrls;
  assert.deepEqual(await upload(), [21, 1]);
});

test("what the completion does not verify is verified by a call of its own", async () => {
  proxy.fault = ({ path }) => {
    if (!path.includes("/complete")) return undefined;
    const key = new URLSearchParams(path.split("?")[1]).get("key");
    return { status: 200, body: JSON.stringify({ key }), headers: { "content-type": "application/json" } };
  };
  const error = await failure(client.upload(await fileOf(large), PARTS));
  assert.deepEqual([error.code, proxy.count(/^service POST \/upload\/verify/)], ["not-uploaded", 1]);
  proxy.reset();
  const unverified = await client.upload(await fileOf(large), { ...PARTS, verify: false });
  assert.deepEqual([await digest(server.object(unverified.key)), proxy.count(/verify/)], [large.digest, 0]);
});

test("where a checksum is compared, one call verifies the upload, and the completion does not", async () => {
  let completed;
  proxy.rewrite = (answer) => {
    if (answer.includes('"location"')) completed = JSON.parse(answer);
    return answer;
  };
  for (const [checksum, byCompletion] of [[undefined, 1], ["crc64nvme", 0]]) {
    proxy.requests.length = 0;
    const { size } = await client.upload(await fileOf(large), { ...PARTS, checksum });
    assert.equal(size, 11 * MiB);
    assert.deepEqual([completed.upload?.size, proxy.count(/verify/)], [byCompletion ? size : undefined, 1 - byCompletion]);
  }
});

test("all uploads of a client together have eight requests to the store in progress", async () => {
  const isToStore = ({ to }) => to === "store";
  let go;
  const held = new Promise((resolve) => (go = resolve));
  proxy.fault = (seen) => (isToStore(seen) ? held : undefined);
  const files = Array.from({ length: 20 }, (_, n) => smallFile(`${n}.txt`));
  const uploads = [client.uploadAll(files.slice(10)), ...files.slice(0, 10).map((file) => client.upload(file))];
  await eventually("eight requests are on their way", () => proxy.requests.filter(isToStore).length === 8);
  await sleep(300);
  assert.equal(proxy.requests.filter(isToStore).length, 8);
  go();
  const [list, ...uploaded] = await Promise.all(uploads);
  uploaded.push(...list.map(({ value }) => value));
  for (const [n, result] of uploaded.entries()) await arrived(files[n], result);
});

test("parts are large enough that 10,000 of them suffice, and small enough to be accepted", async () => {
  const idIn = (path) => path.split("/")[3];
  const aborted = new Set();
  // The service refuses the creation, so that nothing has to be sent.
  const sizeOf = async (size, options) => {
    /** Only the size counts. */
    const file = Object.defineProperty(smallFile("huge.bin"), "size", { value: size });
    const stop = new AbortController();
    let path = "";
    proxy.rewrite = withoutUrls;
    proxy.fault = ({ to, method, path: asked }) => {
      // A request of an upload that was aborted may arrive late.
      if (to === "service" && method === "GET" && !path && !aborted.has(idIn(asked))) path = asked;
      return to === "service" && method !== "GET" ? undefined : { delay: 50, status: 503 };
    };
    const upload = client.upload(file, { ...options, signal: stop.signal });
    await eventually("a part's URL was asked for", () => path);
    aborted.add(idIn(path));
    stop.abort();
    await assert.rejects(upload, { code: "aborted" });
    return Number(new URLSearchParams(path.split("?")[1]).get("size"));
  };
  assert.equal(await sizeOf(5_000 * 1024 * MiB), 512 * MiB);
  assert.equal(await sizeOf(600_000_000_000), 58 * MiB);
  assert.equal(await sizeOf(100_000_000_000), 48 * MiB);
  assert.equal(await sizeOf(480 * MiB), 20 * MiB);
  assert.equal(await sizeOf(480 * MiB + 1), 21 * MiB);
  assert.equal(await sizeOf(100 * MiB), 8 * MiB);
  assert.equal(await sizeOf(100_000_000_000, { partSize: 8 * MiB }), 10 * MiB);
  assert.equal(await sizeOf(100 * MiB, { partSize: 1 }), 5 * MiB);
  assert.equal(await sizeOf(100 * MiB, { partSize: 20 * MiB }), 20 * MiB);
});

/** Each step of an upload, as the proxy sees it. */
const STEPS = {
  "the grant": [/^service POST \/upload\/presigned-url/, "small"],
  "the PUT": [/^store PUT/, "small"],
  "the verification": [/^service POST \/upload\/verify/, "small"],
  "the creation": [/^service POST \/s3\/multipart$/, "large"],
  "a part's URL": [/^service GET .*multipart.*\/2\?/, "large"],
  "a part": [/^store PUT .*partNumber=2/, "large"],
  "the completion": [/^service POST .*\/complete/, "large"],
};
/** The last three are tried with small files only, because large ones take longer. */
const FAULTS = {
  "is dropped": { drop: true },
  "is cut": { cutRequest: true },
  "loses its answer": { loseAnswer: true },
  "is answered 503": { status: 503, body: "<html>" },
  "has half an answer": { cutAnswer: true },
  "is answered 429": { status: 429, headers: { "retry-after": "1", "access-control-expose-headers": "retry-after" } },
  "is late": { delay: 500 },
};

for (const [step, [pattern, size]] of Object.entries(STEPS)) {
  test(`nothing is lost when ${step} fails once, in any way`, { timeout: 90_000 }, async (t) => {
    for (const [what, fault] of Object.entries(FAULTS).slice(0, size === "small" ? 7 : 4)) {
      await t.test(`${step} ${what}`, async () => {
        proxy.reset();
        if (step === "a part's URL") proxy.rewrite = withoutUrls;
        proxy.once(pattern, fault);
        if (size === "small") {
          const file = smallFile("small.txt", 200_000);
          await arrived(file, await client.upload(file));
        } else {
          await largeArrived(await client.upload(await fileOf(large), PARTS));
        }
        assert.equal(proxy.requests.filter(({ fault }) => Object.keys(fault).length).length, 1, "the fault has happened");
      });
    }
  });
}

test("5 % of all requests fail, and none of 100 files is lost", { timeout: 120_000 }, async () => {
  let random = 42;
  const kinds = [{ drop: true }, { cutRequest: true }, { loseAnswer: true }, { cutAnswer: true }, { status: 500 }, { delay: 300 }];
  let faults = 0;
  proxy.fault = () => {
    random = (random * 1_103_515_245 + 12_345) % 2 ** 31;
    if (random / 2 ** 31 >= 0.05) return undefined;
    faults += 1;
    return kinds[faults % kinds.length];
  };
  const files = Array.from({ length: 99 }, (_, index) => smallFile(`file ${index}.txt`, 1_000 * index));
  files.push(await fileOf(large));
  const results = await client.uploadAll(files, PARTS);
  assert.deepEqual(results.filter(({ status }) => status === "rejected"), []);
  for (const [index, { value }] of results.entries()) {
    if (index < 99) await arrived(files[index], value);
    else assert.equal(await digest(server.object(value.key)), large.digest);
  }
  assert.equal(new Set(results.map(({ value }) => value.key)).size, 100);
  assert.ok(faults >= 5, `${faults} faults`);
});

test("what is asked to come back later does", { timeout: 120_000 }, async () => {
  const at = [];
  const headers = { "retry-after": "2", "access-control-expose-headers": "retry-after" };
  proxy.fault = ({ path }) => {
    if (!path.includes("/upload/presigned-url")) return undefined;
    return at.push(performance.now()) === 1 ? { status: 429, headers } : undefined;
  };
  const file = smallFile("later.txt");
  await arrived(file, await client.upload(file));
  assert.ok(at[1] - at[0] >= 1_990, `after ${at[1] - at[0]} ms`);
});

test("an object that was replaced again and again is verified again", async () => {
  proxy.once(/^service POST .upload.verify/, { status: 409, body: JSON.stringify({ status: 409, code: "replaced" }) });
  const file = smallFile("replaced.txt");
  await arrived(file, await client.upload(file));
  assert.equal(proxy.count(/verify/), 2);
});

test("a pause stops the requests, and the upload goes on where it was", { timeout: 120_000 }, async () => {
  const sessions = Object.assign(new Map(), { list: () => [] });
  const states = [];
  proxy.fault = ({ to, path }) => (to === "store" && !path.includes("partNumber=1&") ? { delay: 60_000 } : undefined);
  const client = createClient({ url: proxy.service, sessions });
  const upload = client.upload(await fileOf(large), { ...PARTS, onState: (state) => states.push(state) });
  await eventually("one part is there", () => [...sessions.values()].some(({ kept }) => kept === 5 * MiB), 60_000);
  await eventually("the others are on their way", () => proxy.count(/^store PUT/) === 3, 60_000);
  upload.pause();
  const before = proxy.requests.length;
  await sleep(1_000);
  assert.equal(proxy.requests.length, before, "a paused upload sends nothing");
  assert.equal(states.at(-1), "paused");
  proxy.fault = () => undefined;
  upload.resume();
  upload.resume();
  await largeArrived(await upload);
  assert.equal(proxy.count(/^store PUT .*partNumber=1&/), 1, "the first part was sent twice");
  assert.equal(proxy.count(/^store PUT .*partNumber=2&/), 2, "the second part was not stopped");
  assert.equal(proxy.count(/^service POST \/s3\/multipart$/), 1);
});

test("an aborted upload leaves nothing in the store", { timeout: 120_000 }, async () => {
  // A creation whose answer was lost leaves an upload that nobody knows.
  const others = await server.parts();
  for (const how of ["abort", "signal", "paused", "failed"]) {
    proxy.reset();
    const stop = new AbortController();
    const othersArrived = proxy.hold(2, how === "failed" && { status: 403 });
    const upload = client.upload(await fileOf(large), { ...PARTS, signal: stop.signal });
    upload.catch(() => {});
    await othersArrived();
    assert.ok((await server.parts()).length > others.length);
    if (how === "failed") await assert.rejects(upload, { status: 403 });
    if (how === "paused") upload.pause();
    if (how === "signal") stop.abort();
    else await upload.abort();
    if (how !== "failed") await assert.rejects(upload, { code: "aborted", status: 0 });
    await untilParts(server, others);
  }
});

test("while presignd does not answer, an upload pauses and aborts at once, and holds up no other", { timeout: 60_000 }, async () => {
  for (const call of ["presigned-urls", "verify"]) {
    proxy.reset();
    const client = createClient({ url: proxy.service });
    const isHeld = ({ path }) => path.endsWith(`/upload/${call}`);
    proxy.fault = (seen) => (isHeld(seen) ? new Promise(() => {}) : undefined);
    // As many as the client sends at once.
    const files = Array.from({ length: 8 }, (_, n) => smallFile(`held-${n}.txt`));
    const uploads = files.map((file) => client.upload(file));
    const results = Promise.allSettled(uploads);
    await eventually("presignd is asked", () => proxy.requests.some(isHeld));
    const [paused, ...others] = uploads;
    paused.pause();
    await Promise.all(others.map((upload) => upload.abort()));
    proxy.fault = () => undefined;
    const next = smallFile("next.txt");
    await arrived(next, await client.upload(next));
    paused.resume();
    await arrived(files[0], await paused);
    assert.deepEqual((await results).map(({ reason }) => reason?.code), [undefined, ...Array(7).fill("aborted")], call);
  }
});

test("while the app makes no headers, an upload in parts pauses and aborts all the same", { timeout: 60_000 }, async (t) => {
  const { timeout } = AbortSignal;
  t.mock.method(AbortSignal, "timeout", (ms) => timeout(ms / 100));
  const sessions = Object.assign(new Map(), { list: () => [] });
  let calls, answered;
  const headers = () => (++calls > answered ? new Promise(() => {}) : {});
  const client = createClient({ url: proxy.service, headers, sessions });
  proxy.rewrite = (answer) => (answer.startsWith("[") ? answer : withoutUrls(answer));
  // The call that gets no headers is that of the first part's URL, and the completion.
  for (const most of [1, 4]) {
    [calls, answered] = [0, most];
    const states = [];
    const upload = client.upload(await fileOf(large), { ...PARTS, onState: (state) => states.push(state) });
    upload.catch(() => {});
    await eventually("it waits for headers", () => calls > most);
    upload.pause();
    answered = Infinity;
    upload.resume();
    await largeArrived(await upload);

    [calls, answered] = [0, most];
    const aborted = client.upload(await fileOf(large), PARTS);
    aborted.catch(() => {});
    await eventually("it waits for headers", () => calls > most);
    await assert.rejects(aborted.abort(), /^UploadError: The store has parts left\./);
    await assert.rejects(aborted, /^UploadError: The store has parts left\./);
    assert.equal(sessions.size, 1, "what is left can be removed later");
    answered = Infinity;
    await aborted.abort();
    assert.equal(sessions.size, 0);
  }
});

test("while presignd does not answer a creation, an upload pauses and aborts, and leaves nothing", { timeout: 60_000 }, async () => {
  const creation = /^service POST \/s3\/multipart$/;
  let answer;
  const hold = () => proxy.once(creation, new Promise((resolve) => (answer = () => resolve(undefined))));
  const begin = async () => {
    proxy.reset();
    hold();
    const upload = client.upload(await fileOf(large), PARTS);
    upload.catch(() => {});
    await eventually("presignd is asked", () => proxy.count(creation));
    return { upload };
  };
  const untilRemoved = async () => {
    let created;
    proxy.rewrite = (answer) => ((created ??= JSON.parse(answer)), answer);
    answer();
    const isRemoved = () => created && proxy.answered(new RegExp(`^service DELETE .*${created.uploadId}`));
    await eventually("what was created too late is removed", isRemoved);
  };
  const { upload: paused } = await begin();
  paused.pause();
  paused.resume();
  await largeArrived(await paused);
  await untilRemoved();

  const { upload: aborted } = await begin();
  await aborted.abort();
  await assert.rejects(aborted, { code: "aborted" });
  await untilRemoved();
});

test("a pause or an abort when something has just failed does not wait for the next attempt", { timeout: 15_000 }, async () => {
  for (const how of ["pause", "abort"]) {
    proxy.once(/^service POST/, { status: 503, headers: { "retry-after": "20" } });
    const file = smallFile(`${how}.txt`);
    const upload = client.upload(file, { onState: (state) => state === "reconnecting" && upload[how]() });
    upload.catch(() => {});
    await eventually("presignd has answered", () => proxy.count(/^service POST/));
    await sleep(300);
    if (how === "abort") {
      await assert.rejects(upload, { code: "aborted" });
    } else {
      upload.resume();
      await arrived(file, await upload);
    }
    proxy.reset();
  }
});

test("a part that arrives after the abort is removed, too", { timeout: 120_000 }, async () => {
  const others = await server.parts();
  // As if the store had removed the parts before the last one arrived.
  // Uploads of the test before may be aborted a second time now.
  const aborted = new Set();
  proxy.fault = ({ method, path }) => {
    if (method === "DELETE") return aborted.has(path) ? undefined : (aborted.add(path), { status: 200, body: "{}" });
    return path.includes("partNumber=2&") ? { delay: 60_000 } : undefined;
  };
  const upload = client.upload(await fileOf(large), PARTS);
  upload.catch(() => {});
  await eventually("the others are there", () => proxy.answered(/^store PUT .*partNumber=[13]&/) === 2, 60_000);
  await upload.abort();
  assert.notDeepEqual(await server.parts(), others);
  await untilParts(server, others);
});

test("two aborts at the same time are one, and give the session back", { timeout: 60_000 }, async () => {
  const others = await server.parts();
  const sessions = Object.assign(new Map(), { list: () => [] });
  const client = createClient({ url: proxy.service, sessions });
  for (const round of ["first", "second"]) {
    proxy.reset();
    const othersArrived = proxy.hold(2);
    const upload = client.upload(await fileOf(large), PARTS);
    upload.catch(() => {});
    await othersArrived();
    // An upload whose session another one still had would remember nothing.
    assert.equal(sessions.size, 1, `in the ${round} round`);
    await Promise.all([upload.abort(), upload.abort()]);
    assert.deepEqual([sessions.size, proxy.count(/DELETE/)], [0, 1], `in the ${round} round`);
    await untilParts(server, others);
    // The second one is for parts that arrive late.
    await eventually("the upload is aborted again", () => proxy.count(/DELETE/) === 2);
  }
});

test("a pause just before the completion has the last word", { timeout: 60_000 }, async () => {
  const states = [];
  const sessions = Object.assign(new Map(), { list: () => [] });
  sessions.set = (id, session) => {
    if (session.completing) upload.pause();
    return Map.prototype.set.call(sessions, id, session);
  };
  const client = createClient({ url: proxy.service, sessions });
  const upload = client.upload(await fileOf(large), { ...PARTS, onState: (state) => states.push(state) });
  await eventually("it is paused", () => states.at(-1) === "paused");
  await sleep(300);
  assert.deepEqual([states.at(-1), proxy.count(/complete/)], ["paused", 0]);
  delete sessions.set;
  upload.resume();
  await largeArrived(await upload);
});

test("where a page may not use locks, a file in parts is uploaded all the same", { timeout: 60_000 }, async (t) => {
  const before = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  const request = async () => {
    throw new DOMException("not in a sandbox", "SecurityError");
  };
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { onLine: true, locks: { request } } });
  t.after(() => (before ? Object.defineProperty(globalThis, "navigator", before) : delete globalThis.navigator));
  await largeArrived(await client.upload(await fileOf(large), PARTS));
});

test("an upload that is aborted before it starts asks for nothing", async () => {
  const upload = client.upload(smallFile("never.txt"), { signal: AbortSignal.abort() });
  await assert.rejects(upload, { code: "aborted" });
  await sleep(100);
  assert.equal(proxy.requests.length, 0);
});

test("each call carries a fresh token, and none goes to the store", async () => {
  let calls = 0;
  const fresh = createClient({
    url: `${proxy.service}/`,
    headers: async () => {
      calls += 1;
      return { authorization: `Bearer token-${calls}` };
    },
  });
  await largeArrived(await fresh.upload(await fileOf(large), PARTS));
  const tokens = proxy.requests.filter(({ to }) => to === "service").map(({ headers }) => headers.authorization);
  assert.equal(new Set(tokens).size, tokens.length);
  assert.equal(calls, tokens.length);
  assert.ok(tokens.every((token) => /^Bearer token-\d+$/.test(token)));
  assert.deepEqual(proxy.requests.filter(({ to, headers }) => to === "store" && headers.authorization), []);

  proxy.reset();
  const given = ["a-ticket", ""];
  await fresh.upload(smallFile("ticket.txt"), { ticket: async () => given.shift() });
  const tickets = proxy.requests.filter(({ to }) => to === "service").map(({ headers }) => headers.authorization);
  assert.equal(tickets[0], "Bearer a-ticket");
  assert.match(tickets[1], /^Bearer token-/, "without a ticket, the token counts");
});

test("what gets no token because the network is down is retried, and what is signed out fails", { timeout: 30_000 }, async () => {
  let calls = 0;
  const flaky = createClient({
    url: proxy.service,
    headers: async () => {
      calls += 1;
      if (calls === 1) await fetch("http://127.0.0.1:1/token");
      return {};
    },
  });
  const file = smallFile("token.txt");
  await arrived(file, await flaky.upload(file));

  const signedOut = createClient({
    url: proxy.service,
    headers: () => {
      throw new Error("You are signed out.");
    },
  });
  const error = await failure(signedOut.upload(file));
  assert.deepEqual([error.message, error.cause.message], ["You are signed out.", "You are signed out."]);
});

test("the URL of a part that has expired is replaced", { timeout: 120_000 }, async () => {
  const brief = await startServer({ UPLOAD_URL_EXPIRES_IN: "1" });
  const slow = await startProxy(brief);
  try {
    const late = new Set();
    slow.fault = ({ to, path }) => {
      const number = to === "store" && (path.match(/partNumber=\d+/)?.[0] ?? "whole");
      if (!number || late.has(number)) return undefined;
      late.add(number);
      return { delay: 2_500 };
    };
    const states = [];
    const options = { onState: (state, error) => states.push(error?.message ?? state) };
    const { key } = await createClient({ url: slow.service }).upload(await fileOf(large), { ...PARTS, ...options });
    assert.equal(await digest(brief.object(key)), large.digest);
    const file = smallFile("late.txt");
    const small = await createClient({ url: slow.service }).upload(file, options);
    assert.deepEqual(await readFile(brief.object(small.key)), Buffer.from(await file.arrayBuffer()));
    assert.equal(late.size, 4);
    assert.ok(states.includes("The store answered 403: The grant has expired."), states.join());
  } finally {
    await slow.stop();
    await brief.stop();
  }
});

test("what fails after its URL has expired is sent to another one, whatever the store says", { timeout: 120_000 }, async () => {
  const brief = await startServer({ UPLOAD_URL_EXPIRES_IN: "2" });
  const slow = await startProxy(brief);
  const words = "<Error><Code>InvalidRequest</Code><Message>Bad request: Date is too old</Message></Error>";
  try {
    // Some stores hide their answer from pages, which looks as if the connection was lost.
    for (const fault of [{ drop: true }, { status: 400, body: words }]) {
      slow.reset();
      const late = new Set();
      slow.fault = async ({ to, path }) => {
        if (to !== "store") return undefined;
        const number = path.match(/partNumber=\d+/)?.[0] ?? "whole";
        if (late.has(number)) return undefined;
        late.add(number);
        await sleep(2_500);
        return fault;
      };
      const client = createClient({ url: slow.service });
      const { key } = await client.upload(await fileOf(large), PARTS);
      assert.equal(await digest(brief.object(key)), large.digest);
      const file = smallFile("late.txt");
      const small = await client.upload(file);
      assert.deepEqual(await readFile(brief.object(small.key)), Buffer.from(await file.arrayBuffer()));
      const urls = slow.requests.filter(({ to }) => to === "store").map(({ path }) => path);
      assert.deepEqual([urls.length, new Set(urls).size], [8, 8]);
    }
  } finally {
    await slow.stop();
    await brief.stop();
  }
});

test("the URL of a part is asked for ahead, and asked for again when it may soon expire", async (t) => {
  const { now } = performance;
  const { json } = Response.prototype;
  const received = [];
  t.mock.method(Response.prototype, "json", async function () {
    const answer = await json.call(this);
    received.push(this.url);
    return answer;
  });
  const came = (answer) => answer;
  for (const [rewrite, later, expected] of [
    [withoutUrls, 0, [1, 1, 1]],
    [withoutUrls, 301_000, [1, 2, 1]],
    [came, 0, [0, 0, 0]],
    [came, 301_000, [0, 1, 1]],
  ]) {
    proxy.reset();
    received.length = 0;
    proxy.rewrite = rewrite;
    let passed = 0;
    t.mock.method(performance, "now", () => now.call(performance) + passed);
    proxy.fault = async ({ to, path }) => {
      if (to !== "store" || !path.includes("partNumber=1&")) return undefined;
      // Its lifetime counts from the moment at which the client has it.
      const isThere = () => received.some((url) => /\/2\?/.test(url));
      if (rewrite === withoutUrls) await eventually("the client has the next URL", isThere);
      passed = later;
      return undefined;
    };
    await largeArrived(await client.upload(await fileOf(large), { ...PARTS, concurrency: 1 }));
    const asked = [1, 2, 3].map((number) => proxy.count(new RegExp(`^service GET .*/${number}\\?`)));
    assert.deepEqual(asked, expected);
  }
});

test("1,000 files are granted with one call", { timeout: 120_000 }, async () => {
  const files = Array.from({ length: 1_000 }, (_, index) => smallFile(`${index}.txt`, 10));
  let last;
  const results = await client.uploadAll(files, { verify: false, onProgress: (progress) => (last = progress) });
  assert.deepEqual(results.filter(({ status }) => status === "rejected"), []);
  assert.equal(proxy.count(/^service POST \/upload\/presigned-url/), 1);
  assert.equal(proxy.count(/^store PUT/), 1_000);
  assert.deepEqual(last, { loaded: 10_000, total: 10_000 });
  for (const index of [0, 17, 999]) await arrived(files[index], results[index].value);
});

test("when the grant of a batch fails, the batch is granted again, and not each file", { timeout: 120_000 }, async () => {
  let failures = 0;
  proxy.fault = ({ path }) => (path.endsWith("presigned-urls") && (failures += 1) <= 2 ? { status: 503 } : undefined);
  const results = await client.uploadAll(Array.from({ length: 200 }, (_, index) => smallFile(`${index}.txt`, 10)));
  assert.deepEqual(results.filter(({ status }) => status === "rejected"), []);
  assert.ok(proxy.count(/presigned-url/) <= 5, `${proxy.count(/presigned-url/)} grant calls`);
});

test("a policy that grants forms only gets forms, whatever the size", { timeout: 120_000 }, async () => {
  const forms = await startServer({ S3_FORMS_ONLY: "true" });
  const counted = await startProxy(forms);
  try {
    const client = createClient({ url: counted.service });
    const small = smallFile("form.txt");
    const results = await client.uploadAll([small, smallFile("b.txt"), await fileOf(large)], PARTS);
    assert.deepEqual(results.map(({ reason }) => reason), [undefined, undefined, undefined]);
    assert.deepEqual(await readFile(forms.object(results[0].value.key)), Buffer.from(await small.arrayBuffer()));
    assert.equal(await digest(forms.object(results[2].value.key)), large.digest);
    assert.deepEqual([counted.count(/^store POST/), counted.count(/^store PUT/)], [3, 0]);
    // What was learned is not asked again.
    counted.reset();
    await client.upload(small);
    assert.equal(counted.count(/^service/), 2);
    // Nor does a checksum, with which a PUT is better, need one.
    counted.reset();
    await createClient({ url: counted.service }).upload(small, { checksum: "sha256" });
    assert.deepEqual([counted.count(/^store POST/), counted.count(/^store PUT/)], [1, 0]);
  } finally {
    await counted.stop();
    await forms.stop();
  }
});

test("a SHA-256 is what the store has, with and without being asked for", { timeout: 120_000 }, async () => {
  const checked = await startServer({ policies: "[policies.default]\nrequire_checksum = true\n[policies.free]\n" });
  const counted = await startProxy(checked);
  try {
    const client = createClient({ url: counted.service });
    const { key } = await client.upload(await fileOf(large), PARTS);
    assert.equal(await digest(checked.object(key)), large.digest);
    const [put] = counted.requests.filter(({ to }) => to === "store");
    assert.equal(put.headers["x-amz-checksum-sha256"], Buffer.from(large.digest, "hex").toString("base64"));

    counted.reset();
    await client.upload(smallFile("sum.txt"), { policy: "free", checksum: "sha256" });
    const [asked] = counted.requests.filter(({ to }) => to === "store");
    const sum = createHash("sha256").update(Buffer.alloc(1000, "sum.txt")).digest("base64");
    assert.equal(asked.headers["x-amz-checksum-sha256"], sum);
    assert.equal(counted.count(/^service/), 2);
  } finally {
    await counted.stop();
    await checked.stop();
  }
});

async function arrived(file, { key }) {
  assert.deepEqual(await readFile(server.object(key)), Buffer.from(await file.arrayBuffer()));
}

/** The error of an upload, which is always of this class. */
async function failure(upload) {
  const error = await upload.then(() => assert.fail("it was uploaded"), (error) => error);
  assert.ok(error instanceof UploadError);
  return error;
}
