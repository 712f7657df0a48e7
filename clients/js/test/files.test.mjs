// What happens to a file besides its upload: its checksum is compared, it is downloaded, and it is deleted.

import assert from "node:assert/strict";
import { test } from "node:test";

import { crc64nvme } from "../checksum.js";
import { KEY, MiB, PARTS, WITH_KEY, client, digest, fileOf, large, proxy, server, setup, smallFile } from "./helpers.mjs";

setup({
  ...WITH_KEY,
  policies: "[policies.default]\n[policies.shared]\ndownload = true\ndelete = true\n",
  options: { headers: () => ({ authorization: `Bearer ${KEY}` }), policy: "shared" },
});

test("an upload can be downloaded again, under the client's policy or another one", async () => {
  const file = smallFile("안녕.txt");
  const { key } = await client.upload(file);
  const download = await client.download(key, { filename: "other.txt" });
  assert.deepEqual([download.key, download.method], [key, "GET"]);
  assert.ok(Date.parse(download.expiresAt) > Date.now());
  const response = await fetch(download.url, { headers: download.headers });
  assert.deepEqual(new Uint8Array(await response.arrayBuffer()), new Uint8Array(await file.arrayBuffer()));
  assert.match(response.headers.get("content-disposition"), /^attachment;.*other\.txt/);
  const inline = await fetch((await client.download(key, { disposition: "inline", policy: undefined })).url);
  assert.match(inline.headers.get("content-disposition"), /^inline/);
  await inline.body.cancel();
  await assert.rejects(client.download(key, { policy: "default" }), { name: "UploadError", status: 422 });
  await assert.rejects(client.download("uploads/unknown"), { name: "UploadError", status: 404 });
});

test("an upload can be deleted, under a policy that allows it, and twice", async () => {
  const { key } = await client.upload(smallFile("unwanted.txt"));
  await assert.rejects(client.remove(key, { policy: "default" }), { name: "UploadError", status: 422 });
  assert.ok((await server.keys()).includes(key));
  assert.equal(await client.remove(key), undefined);
  assert.ok(!(await server.keys()).includes(key));
  await client.remove(key);
});

test("a CRC-64/NVME is bound to one request, and compared after parts", { timeout: 120_000 }, async () => {
  const file = smallFile("sum.txt");
  await client.upload(file, { checksum: "crc64nvme" });
  const { signal } = new AbortController();
  const [put] = proxy.requests.filter(({ to }) => to === "store");
  assert.equal(put.headers["x-amz-checksum-crc64nvme"], await crc64nvme(file, signal));

  const { key } = await client.upload(await fileOf(large), { ...PARTS, checksum: "crc64nvme" });
  assert.equal(await digest(server.object(key)), large.digest);

  // The checksum is read from other bytes than those that are sent.
  const other = new Blob([new Uint8Array(large.size)]);
  const changed = await fileOf(large);
  const slice = changed.slice.bind(changed);
  changed.slice = (start, end) => (end - start === 4 * MiB ? other.slice(start, end) : slice(start, end));
  const error = await client.upload(changed, { ...PARTS, checksum: "crc64nvme" }).then(() => assert.fail("it was accepted"), (error) => error);
  assert.equal(error.refused, true, error.message);
  assert.ok(error.errors.some(({ pointer }) => pointer === "/checksumCrc64nvme"), JSON.stringify(error));
});
