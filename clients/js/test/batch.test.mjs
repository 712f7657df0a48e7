// Which files share a call to the service.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Grants, Verifications } from "../batch.js";
import { Slots, UploadError } from "../requests.js";
import { MiB } from "./helpers.mjs";

/** Of an upload that nobody aborts. */
const { signal } = new AbortController();

/** Announces a file of this size that needs a grant. */
function announce(all, size, form = false, rest = {}) {
  const wanted = { body: { size, ...rest }, form };
  all.waiting.add(wanted);
  return wanted;
}

/** Grants whose calls are only noted, as the sizes of their files. */
function grants(onask = () => {}) {
  const calls = [];
  const ask = async (_method, _path, { body }) => {
    const { files, forms } = body;
    onask(body);
    calls.push({ sizes: files.map(({ size }) => size), forms });
    return { uploads: files.map(({ size }) => ({ key: String(size), url: "?X-Amz-Expires=120" })) };
  };
  return { calls, grants: new Grants(ask) };
}

test("a call grants 1,000 files at most, or 250 forms, and each file gets its own grant", async () => {
  for (const [form, most] of [[false, 1_000], [true, 250]]) {
    const { calls, grants: all } = grants();
    const wanted = Array.from({ length: 2_500 }, (_, size) => announce(all, size, form));
    for (const [size, one] of wanted.entries()) assert.equal((await all.get(one, signal)).key, String(size));
    assert.deepEqual(calls.map(({ forms }) => forms), calls.map(() => form));
    const counts = Array.from({ length: Math.ceil(2_500 / most) }, (_, call) => Math.min(most, 2_500 - call * most));
    assert.deepEqual(calls.map(({ sizes }) => sizes.length), counts);
  }
});

test("what is granted together is no longer than the service accepts, however much metadata the files have", async () => {
  const named = { filename: "€".repeat(255), contentType: "x".repeat(100), policy: "x".repeat(100) };
  const metadata = { note: "x".repeat(2_000) };
  for (const hasMetadata of [() => true, (size) => size % 2 === 1, (size) => size >= 100]) {
    const lengths = [];
    const { calls, grants: all } = grants((body) => lengths.push(Buffer.byteLength(JSON.stringify(body))));
    const wanted = Array.from({ length: 2_500 }, (_, size) => {
      return announce(all, size, false, { ...named, metadata: hasMetadata(size) ? metadata : undefined });
    });
    for (const one of wanted) await all.get(one, signal);
    assert.ok(Math.max(...lengths) <= 2 * MiB, `${Math.max(...lengths)} bytes`);
    assert.ok(calls.length <= 10, `${calls.length} calls`);
    assert.deepEqual(calls.flatMap(({ sizes }) => sizes), wanted.map(({ body }) => body.size));
  }
});

test("files that go as forms and others are granted apart", async () => {
  const { calls, grants: all } = grants();
  const wanted = [1, 2, 3, 4].map((size) => announce(all, size, size % 2 === 0));
  for (const one of wanted) await all.get(one, signal);
  assert.deepEqual(calls, [{ sizes: [1, 3], forms: false }, { sizes: [2, 4], forms: true }]);
});

test("no more is granted ahead than can soon be sent", async () => {
  const { calls, grants: all } = grants();
  const wanted = [30, 30, 30, 100, 1].map((size) => announce(all, size * MiB));
  for (const one of wanted) await all.get(one, signal);
  assert.deepEqual(calls.map(({ sizes }) => sizes.map((size) => size / MiB)), [[30, 30], [30], [100], [1]]);
});

test("a file whose grant takes more than a minute gets one grant", async (t) => {
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const calls = [];
  const answers = [];
  const all = new Grants((_method, _path, { body: { files } }) => {
    const call = calls.push(files.map(({ size }) => size));
    return new Promise((resolve) => {
      answers.push(() => resolve({ uploads: files.map(({ size }) => ({ key: `${size} of call ${call}`, url: "" })) }));
    });
  });
  const slow = announce(all, 1);
  const first = all.get(slow, signal);
  await null;
  now = 100_000;
  const second = all.get(announce(all, 2), signal);
  await null;
  for (const answer of answers) answer();
  await Promise.all([first, second]);
  assert.deepEqual(calls, [[1], [2]]);
  assert.equal(await all.get(slow, signal), await first, "the second attempt has the same key");
});

test("a grant that may soon expire is asked for again", async (t) => {
  const { calls, grants: all } = grants();
  let now = 0;
  t.mock.method(performance, "now", () => now);
  const [first, second, third] = [1, 2, 3].map((size) => announce(all, size));
  await all.get(first, signal);
  now = 60_000;
  await all.get(second, signal);
  assert.equal(calls.length, 1);
  now = 60_001;
  await all.get(third, signal);
  assert.deepEqual(calls.map(({ sizes }) => sizes), [[1, 2, 3], [3]]);
});

test("a file that is cancelled before presignd answers is not asked for again, and holds up no other", async () => {
  const calls = [];
  const answers = [];
  const ask = (_method, _path, { body: { files } }) => {
    calls.push(files.map(({ size }) => size));
    return new Promise((resolve, reject) => answers.push({ resolve, reject }));
  };
  const all = new Grants(ask);
  const [cancelled, kept] = [1, 2, 3].map((size) => announce(all, size));
  const stop = new AbortController();
  const gone = all.get(cancelled, stop.signal);
  const first = all.get(kept, signal);
  await null;
  stop.abort(new Error("cancelled"));
  await assert.rejects(gone, /cancelled/);
  all.waiting.delete(cancelled);
  await assert.rejects(all.get(announce(all, 4, true), stop.signal), /cancelled/);
  // What was asked for together with it fails later, and is asked for again.
  answers[0].reject(new UploadError("The service answered 503.", { retry: true }));
  await assert.rejects(first, /503/);
  const second = all.get(kept, signal);
  await null;
  assert.deepEqual(calls, [[1, 2, 3], [4], [2, 3]]);
  answers[2].resolve({ uploads: [{ key: "2", url: "" }, { key: "3", url: "" }] });
  assert.equal((await second).key, "2");
});

/** Grants of a service whose answers may be about `most` files. `fails` is the error of a call, if it has one. */
function shortAnswers(most, fails = () => undefined) {
  const calls = [];
  const ask = async (_method, _path, { body: { files } }) => {
    const sizes = files.map(({ size }) => size);
    calls.push(sizes);
    const tooLarge = sizes.length > most && new UploadError("The answer is too long.", { code: "answer-too-large", status: 413 });
    const error = tooLarge || fails(sizes);
    if (error) throw error;
    return { uploads: sizes.map((size) => ({ key: String(size), url: "?X-Amz-Expires=120" })) };
  };
  return { calls, grants: new Grants(ask) };
}

test("files about which the answer would be too long are asked for in halves, and each gets its own grant", async () => {
  const { calls, grants: all } = shortAnswers(300);
  const wanted = Array.from({ length: 999 }, (_, size) => announce(all, size));
  const got = await Promise.all(wanted.map((one) => all.get(one, signal)));
  assert.deepEqual(got.map(({ key }) => key), wanted.map(({ body }) => String(body.size)));
  assert.deepEqual(calls.map(({ length }) => length).sort((a, b) => a - b), [249, 250, 250, 250, 499, 500, 999]);
  assert.equal(all.waiting.size, 0);
});

test("where one half fails, the other one is granted, and a refused file is refused alone", async () => {
  const errors = [{ pointer: "/files/1/size", code: "file-too-large", detail: "is too large" }];
  const { grants: all } = shortAnswers(2, (sizes) => {
    if (sizes.includes(4)) return new UploadError("The service answered 503.", { status: 503, retry: true });
    return sizes.includes(1) && new UploadError("Refused.", { status: 422, code: "file-too-large", errors });
  });
  const wanted = [0, 1, 2, 3, 4, 5, 6, 7].map((size) => announce(all, size));
  const results = await Promise.allSettled(wanted.map((one) => all.get(one, signal)));
  assert.deepEqual(results.map(({ value, reason }) => value?.key ?? reason.status), ["0", 422, "2", "3", 503, 503, "6", "7"]);
});

test("a single file about which the answer would be too long has this error", async () => {
  const { calls, grants: all } = shortAnswers(0);
  await assert.rejects(all.get(announce(all, 1), signal), { code: "answer-too-large", status: 413 });
  assert.deepEqual(calls, [[1]]);
});

/** Verifications whose calls are noted; `answer` is what each key gets. */
function verifications(answer = (key) => ({ upload: { key } })) {
  const calls = [];
  const ask = async (_method, _path, { body: { key, keys, policy } }) => {
    calls.push(keys ?? [key]);
    assert.equal(policy, "photos");
    return key ? { key } : { results: keys.map(answer) };
  };
  const slots = new Slots(6);
  return { calls, slots, verifications: new Verifications(ask, "photos", slots) };
}

test("the keys of small files gather while others are sent, and the last one has all verified", { timeout: 30_000 }, async () => {
  const { calls, slots, verifications: all } = verifications();
  slots.busy = 1;
  const first = ["a", "b", "c"].map((key) => all.verify(key, signal));
  assert.deepEqual(calls, []);
  slots.busy = 0;
  const last = all.verify("d", signal);
  assert.deepEqual(calls, [["a", "b", "c", "d"]]);
  assert.deepEqual(await Promise.all([...first, last]), ["a", "b", "c", "d"].map((key) => ({ key })));
  slots.busy = 1;
  const hundred = Array.from({ length: 100 }, (_, index) => all.verify(String(index), signal));
  assert.equal(calls[1].length, 100);
  await Promise.all(hundred);
  // However long the others take, it does not wait for them.
  assert.deepEqual(await all.verify("e", signal), { key: "e" });
});

test("of keys that are verified together, one that fails fails alone; a call that fails fails for all", async () => {
  const { slots, verifications: all } = verifications((key) => {
    if (key === "b") return { problem: { code: "not-uploaded" }, status: 404 };
    return { upload: { key } };
  });
  slots.busy = 1;
  const some = ["a", "b"].map((key) => all.verify(key, signal));
  slots.busy = 0;
  const results = await Promise.allSettled([...some, all.verify("c", signal)]);
  assert.deepEqual(results.map(({ value }) => value), [{ key: "a" }, undefined, { key: "c" }]);
  assert.deepEqual([results[1].reason.code, results[1].reason.status], ["not-uploaded", 404]);

  const down = new Error("down");
  const failing = new Verifications(() => Promise.reject(down), undefined, slots);
  slots.busy = 1;
  const first = failing.verify("a", signal);
  slots.busy = 0;
  const both = await Promise.allSettled([first, failing.verify("b", signal)]);
  assert.deepEqual(both.map(({ reason }) => reason), [down, down]);
});
