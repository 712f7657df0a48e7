// The checksums against known answers and Node's own.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";

import { Crc64Nvme, Sha256, crc64nvme, sha256 } from "../checksum.js";
import { MiB } from "./helpers.mjs";

const { signal } = new AbortController();

test("CRC-64/NVME has the answers that its specification and S3 give", async () => {
  const hex = async (bytes) => Buffer.from(await crc64nvme(new Blob([bytes]), signal), "base64").toString("hex");
  assert.equal(await hex("123456789"), "ae8b14860a799888");
  assert.equal(await hex(""), "0000000000000000");
  assert.equal(await hex(new Uint8Array(4096)), "6482d367eb22b64e");
});

test("however the bytes are sliced, the checksums are the same", () => {
  for (const length of [0, 1, 7, 8, 9, 55, 56, 57, 63, 64, 65, 1_000, 4_099]) {
    const bytes = randomBytes(length);
    const expected = createHash("sha256").update(bytes).digest("base64");
    const whole = new Crc64Nvme();
    whole.update(bytes);
    const crc = whole.digest();
    for (const step of [1, 3, 64, 100, 5_000]) {
      const [sha, sliced] = [new Sha256(), new Crc64Nvme()];
      for (let at = 0; at < length; at += step) {
        sha.update(bytes.subarray(at, at + step));
        sliced.update(bytes.subarray(at, at + step));
      }
      assert.deepEqual([sha.digest(), sliced.digest()], [expected, crc], `${length} bytes by ${step}`);
    }
  }
});

test("small files and large ones have the SHA-256 that Node computes", { timeout: 60_000 }, async () => {
  for (const length of [10, 33 * MiB + 1]) {
    const bytes = randomBytes(length);
    const digest = createHash("sha256").update(bytes).digest("base64");
    assert.equal(await sha256(new Blob([bytes]), signal), digest);
  }
});
