// What is kept of an upload in parts, so that another program, or the page after a reload, can go on with it.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { createClient } from "../index.js";
import { UploadList } from "../list.js";
import { MiB, PARTS, eventually, fileOf, large, largeArrived, proxy, server, setup, smallFile } from "./helpers.mjs";

const POLICIES = `
  [policies.default]
  [policies.fixed]
  key = "fixed/{filename}"
  overwrite = true`;

setup({ policies: POLICIES });

test("a store of the application's keeps what is needed to resume", async () => {
  const sessions = memory();
  await interrupted(sessions);
  const [session] = await sessions.list();
  assert.deepEqual([session.name, session.size, session.url], ["large.bin", large.size, proxy.service]);
  assert.ok(session.kept >= 5 * MiB && session.kept < large.size, session.kept);

  const progress = [];
  const onProgress = ({ loaded }) => progress.push(loaded);
  await largeArrived(await createClient({ url: proxy.service, sessions }).upload(await fileOf(large), { ...PARTS, onProgress }));
  assert.equal(proxy.count(/^service POST \/s3\/multipart$/), 0);
  assert.equal(proxy.count(/^store PUT .*partNumber=2&/), 1);
  assert.equal(proxy.count(/^store PUT/), 1);
  assert.ok(progress[0] >= 6 * MiB, "it starts at what the store has");
  assert.deepEqual(await sessions.list(), []);
});

test("a list of parts that cannot be read is asked for again", async () => {
  const sessions = memory();
  await interrupted(sessions);
  proxy.once(/^service GET .*multipart/, { status: 200, body: "{}", headers: { "content-type": "application/json" } });
  await largeArrived(await createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS));
  assert.equal(proxy.count(/^store PUT/), 1);
});

test("parts that the store has in another size are sent again", async () => {
  const sessions = memory();
  await interrupted(sessions);
  const [session] = await sessions.list();
  // As if the last part had been cut.
  const { url } = await fetch(`${server.service}/s3/multipart/${session.uploadId}/3?key=${encodeURIComponent(session.key)}`).then((r) => r.json());
  assert.ok((await fetch(url, { method: "PUT", body: "short" })).ok);
  await largeArrived(await createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS));
  assert.equal(proxy.count(/^store PUT .*partNumber=3&/), 1);
});

test("an upload that was joined before its answer was lost has arrived", async () => {
  const sessions = memory();
  // The store joins the parts; then the program ends.
  let joined = false;
  proxy.fault = ({ path }) => {
    if (joined) return { status: 401 };
    joined = path.includes("/complete");
    return joined ? { loseAnswer: true } : undefined;
  };
  await assert.rejects(createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS), { status: 401 });
  const [{ key, completing }] = await sessions.list();
  assert.equal(completing, true);
  proxy.reset();
  // A service that cannot say so at once is asked again.
  proxy.once(/verify/, { status: 503 });
  const uploaded = await createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS);
  assert.equal(uploaded.key, key);
  await largeArrived(uploaded);
  assert.equal(proxy.count(/^store/), 0);
  assert.deepEqual(await sessions.list(), []);
});

test("an upload that the store has forgotten, or whose id has expired, begins again", async () => {
  for (const why of ["forgotten", "expired"]) {
    const sessions = memory();
    await interrupted(sessions);
    const [session] = await sessions.list();
    // An id that the service does not know is refused as one that has expired.
    if (why === "expired") sessions.set(session.id, { ...session, uploadId: "expired" });
    else await fetch(`${server.service}/s3/multipart/${session.uploadId}?key=${encodeURIComponent(session.key)}`, { method: "DELETE" });
    const uploaded = await createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS);
    await largeArrived(uploaded);
    assert.notEqual(uploaded.key, session.key);
    assert.deepEqual(await sessions.list(), []);
  }
});

test("an older object of the same key and size is not taken for an upload that was never joined", { timeout: 60_000 }, async () => {
  // As where the store keeps no checksums.
  const withoutChecksums = (answer) => answer.replace(/"checksum\w+":"[^"]*",/g, "");
  for (const rewrite of [(answer) => answer, withoutChecksums]) {
    const sessions = memory();
    const client = createClient({ url: proxy.service, policy: "fixed", sessions });
    const version = (byte) => new File([Buffer.alloc(11 * MiB, byte)], "report.bin", { lastModified: byte });
    await client.upload(version(1), PARTS);
    proxy.fault = ({ path }) => (path.includes("/complete") ? { status: 401 } : undefined);
    await assert.rejects(client.upload(version(2), PARTS), { status: 401 });
    const [{ uploadId, key, completing }] = await sessions.list();
    assert.equal(completing, true);
    await fetch(`${server.service}/s3/multipart/${uploadId}?key=${encodeURIComponent(key)}`, { method: "DELETE" });
    proxy.reset();
    proxy.rewrite = rewrite;
    await client.upload(version(2), PARTS);
    assert.equal((await readFile(server.object(key)))[0], 2);
    proxy.reset();
  }
});

/** Answers of something between the client and presignd, such as a proxy while presignd restarts. */
const OF_PROXIES = [
  { status: 404, body: "404 page not found" },
  { status: 403, body: "<html>Forbidden</html>" },
  { status: 403, body: '{"message":"Forbidden","code":7}' },
];
/** A refusal that another credential may not get. To the credential of another user, presignd answers 404. */
const NOT_ALLOWED = { status: 403, body: '{"code":"policy-not-allowed","detail":"not yours"}' };

test("an upload that presignd has not called unknown is kept, whoever else refuses a request", { timeout: 120_000 }, async () => {
  const calls = {
    "the list of its parts": /^service GET [^?]*multipart\/[^/?]*\?/,
    "a part's URL": /^service GET .*multipart.*\/2\?/,
    "the completion": /^service POST .*\/complete/,
    "a part": /^store PUT .*partNumber=2&/,
  };
  for (const [what, pattern] of Object.entries(calls)) {
    for (const answer of [...OF_PROXIES, NOT_ALLOWED]) {
      const sessions = memory();
      await interrupted(sessions);
      const [{ key }] = await sessions.list();
      const client = createClient({ url: proxy.service, sessions });
      proxy.once(pattern, answer);
      await assert.rejects(client.upload(await fileOf(large), PARTS), { status: answer.status, refused: false });
      assert.equal((await sessions.list()).length, 1, `${what} is answered ${answer.body}`);
      proxy.reset();
      const uploaded = await client.upload(await fileOf(large), PARTS);
      assert.equal(uploaded.key, key, `${what} is answered ${answer.body}`);
      await largeArrived(uploaded);
      assert.ok(proxy.count(/^store PUT/) <= 1, "no part is sent twice");
    }
  }
});

test("an upload that the store calls unknown in the middle is forgotten", { timeout: 60_000 }, async () => {
  const sessions = memory();
  proxy.once(/^store PUT .*partNumber=2&/, { status: 404, body: "<Error><Code>NoSuchUpload</Code></Error>" });
  const upload = createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS);
  await assert.rejects(upload, { code: "NoSuchUpload", refused: false });
  assert.deepEqual(await sessions.list(), []);
});

test("an abort that did not reach presignd says so, and can be repeated", { timeout: 60_000 }, async () => {
  for (const answer of [...OF_PROXIES, NOT_ALLOWED]) {
    const sessions = memory();
    const othersArrived = proxy.hold(2);
    const upload = createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS);
    upload.catch(() => {});
    await othersArrived();
    const [{ uploadId }] = await sessions.list();
    proxy.once(/^service DELETE/, answer);
    await assert.rejects(upload.abort(), { message: /^The store has parts left\. /, status: answer.status, refused: false });
    assert.equal((await sessions.list()).length, 1);
    await upload.abort();
    assert.deepEqual(await sessions.list(), []);
    await eventually("its parts are gone", async () => !(await server.parts()).some((name) => name.includes(uploadId)));
    proxy.reset();
  }
});

test("an upload that is too old is not offered, but forgotten", async (t) => {
  const sessions = memory();
  await interrupted(sessions);
  const [session] = await sessions.list();
  sessions.set(session.id, { ...session, created: session.created - 8 * 24 * 3600 * 1000 });
  const list = new UploadList(createClient({ url: proxy.service, sessions }));
  const stop = list.subscribe(() => {});
  t.after(() => stop());
  await eventually("it is forgotten", async () => (await sessions.list()).length === 0);
  assert.deepEqual(list.getSnapshot(), []);
});

test("another file, another policy or another server has a session of its own", async () => {
  const sessions = memory();
  await interrupted(sessions);
  const [{ id, key }] = await sessions.list();
  const client = createClient({ url: proxy.service, sessions });
  const others = await Promise.all([
    client.upload(await fileOf(large, { lastModified: 5 }), PARTS),
    client.upload(await fileOf(large), { ...PARTS, policy: "default" }),
    createClient({ url: server.service, sessions }).upload(await fileOf(large), PARTS),
  ]);
  for (const uploaded of others) {
    await largeArrived(uploaded);
    assert.notEqual(uploaded.key, key);
  }
  assert.deepEqual((await sessions.list()).map((session) => session.id), [id]);
});

test("two uploads of one file at the same time do not share a session", async () => {
  const sessions = memory();
  const client = createClient({ url: proxy.service, sessions });
  proxy.fault = ({ to }) => (to === "store" ? { delay: 200 } : undefined);
  const first = client.upload(await fileOf(large), PARTS);
  await eventually("the first one has a session", () => sessions.list().length);
  const both = await Promise.all([first, client.upload(await fileOf(large), PARTS)]);
  for (const uploaded of both) await largeArrived(uploaded);
  assert.notEqual(both[0].key, both[1].key);
  assert.deepEqual(await sessions.list(), []);
});

test("an upload that has no turn at the session of its file removes its own parts", { timeout: 120_000 }, async () => {
  const sessions = memory();
  const client = createClient({ url: proxy.service, sessions });
  const others = await server.parts();
  let othersArrived = proxy.hold(2);
  const first = client.upload(await fileOf(large), PARTS);
  first.catch(() => {});
  await othersArrived();
  const before = await server.parts();
  for (const how of ["in progress", "failed"]) {
    proxy.reset();
    othersArrived = proxy.hold(2, how === "failed" && { status: 403 });
    const second = client.upload(await fileOf(large), PARTS);
    second.catch(() => {});
    await othersArrived();
    assert.ok((await server.parts()).length > before.length, "it has an upload of its own");
    if (how === "failed") await assert.rejects(second, { status: 403 });
    await second.abort();
    assert.deepEqual(await server.parts(), before);
  }
  assert.equal((await sessions.list()).length, 1, "the session of the first one is kept");
  await first.abort();
  assert.deepEqual(await server.parts(), others);
});

test("without a place for sessions, or with one that fails, uploads work and pause", async () => {
  const broken = async () => {
    throw new Error("quota");
  };
  for (const sessions of [null, { get: broken, set: broken, delete: broken, list: broken }]) {
    proxy.reset();
    const upload = createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS);
    proxy.fault = ({ path }) => (path.includes("partNumber=3&") ? { delay: 500 } : undefined);
    await eventually("parts are under way", () => proxy.count(/^store PUT/));
    upload.pause();
    proxy.fault = () => undefined;
    upload.resume();
    await largeArrived(await upload);
    assert.equal(proxy.count(/^service POST \/s3\/multipart$/), 1);
  }
});

test("interrupted uploads are shown, and can be discarded", async (t) => {
  const sessions = memory();
  await interrupted(sessions);
  const [{ uploadId }] = await sessions.list();
  const parts = (await server.parts()).length;
  const client = createClient({ url: proxy.service, sessions });
  const list = new UploadList(client);
  const stop = list.subscribe(() => {});
  const elsewhere = new UploadList(createClient({ url: server.service, sessions }));
  const stopOther = elsewhere.subscribe(() => {});
  t.after(() => (stop(), stopOther()));
  const shown = await eventually("it is shown", () => list.getSnapshot()[0]);
  assert.equal(shown.state, "interrupted");
  await list.remove(shown.id, { ticket: "a-ticket" });
  // Earlier tests may still remove parts that arrive late.
  const [{ headers }] = proxy.requests.filter(({ method, path }) => method === "DELETE" && path.includes(uploadId));
  assert.equal(headers.authorization, "Bearer a-ticket");
  assert.deepEqual([await sessions.list(), list.getSnapshot(), elsewhere.getSnapshot()], [[], [], []]);
  assert.ok((await server.parts()).length < parts);
});

test("an interrupted upload that cannot be discarded stays in the list, however often it is removed", async (t) => {
  const sessions = memory();
  await interrupted(sessions);
  const list = new UploadList(createClient({ url: proxy.service, sessions }));
  const stop = list.subscribe(() => {});
  t.after(() => stop());
  const { id } = await eventually("it is shown", () => list.getSnapshot()[0]);
  proxy.fault = ({ method }) => (method === "DELETE" ? { delay: 300, status: 503 } : undefined);
  const first = list.remove(id);
  await Promise.all([first, list.remove(id)]);
  await eventually("it is shown again", () => list.getSnapshot()[0]?.state === "interrupted");
  assert.equal(list.getSnapshot()[0].error.status, 503);
  proxy.reset();
  await list.remove(id);
  assert.deepEqual([await sessions.list(), list.getSnapshot()], [[], []]);
});

test("files that are added with one ticket share calls to presignd", async () => {
  for (const ticket of ["a-ticket", () => "a-ticket"]) {
    proxy.reset();
    const list = new UploadList(createClient({ url: proxy.service, sessions: null }));
    list.add(Array.from({ length: 40 }, (_, index) => smallFile(`${index}.txt`)), { ticket });
    await eventually("all have arrived", () => {
      const items = list.getSnapshot();
      return items.length === 40 && items.every(({ state }) => state === "done");
    });
    assert.equal(proxy.count(/presigned-urls/), 1);
    // One verifies those that have arrived together, and a second one may follow.
    assert.ok(proxy.count(/verify/) <= 3, `${proxy.count(/verify/)} calls verify them`);
  }
});

test("an interrupted upload is shown although the same file has arrived before", async (t) => {
  const sessions = memory();
  const list = new UploadList(createClient({ url: proxy.service, sessions }));
  const states = () => list.getSnapshot().map(({ state }) => state);
  const stop = list.subscribe(() => {});
  t.after(() => stop());
  list.add([await fileOf(large)], PARTS);
  await eventually("it has arrived", () => states()[0] === "done");
  await interrupted(sessions);
  // As when the tab of the second upload is closed.
  stop();
  const stopAgain = list.subscribe(() => {});
  t.after(() => stopAgain());
  await eventually("it is shown", () => states().length === 2);
  assert.deepEqual(states(), ["done", "interrupted"]);
  await list.remove(list.getSnapshot()[1].id);
});

/** Sessions as JSON in memory. */
function memory() {
  const kept = new Map();
  return {
    get: async (id) => kept.has(id) && JSON.parse(kept.get(id)),
    set: async (id, session) => kept.set(id, JSON.stringify(session)),
    delete: async (id) => kept.delete(id),
    list: () => [...kept.values()].map((json) => JSON.parse(json)),
  };
}

/** An upload that has failed at its second part, when the others were there. */
async function interrupted(sessions) {
  proxy.hold(2, { delay: 500, status: 403 });
  const upload = createClient({ url: proxy.service, sessions }).upload(await fileOf(large), PARTS);
  await assert.rejects(upload, { status: 403 });
  proxy.reset();
}
