// The checksums against known answers and Node's own.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";

import { crc64nvme, sha256 } from "../checksum.js";
import { MiB } from "./helpers.mjs";

const { signal } = new AbortController();

test("CRC-64/NVME has the answers that its specification and S3 give", async () => {
  const hex = async (bytes) => Buffer.from(await crc64nvme(new Blob([bytes]), signal), "base64").toString("hex");
  assert.equal(await hex("123456789"), "ae8b14860a799888");
  assert.equal(await hex(""), "0000000000000000");
  assert.equal(await hex(new Uint8Array(4096)), "6482d367eb22b64e");
});

test("files of any length have their checksums, in one slice or several", { timeout: 60_000 }, async () => {
  const slice = 4 * MiB;
  for (const length of [0, 1, 7, 8, 9, 55, 56, 57, 63, 64, 65, 1_000, 4_099, slice, slice + 57]) {
    const bytes = randomBytes(length);
    const file = new Blob([bytes]);
    const digest = createHash("sha256").update(bytes).digest("base64");
    assert.equal(await sha256(file, signal), digest, `${length} bytes`);
    // As on a page without HTTPS.
    const { crypto } = globalThis;
    Object.defineProperty(globalThis, "crypto", { value: undefined, configurable: true });
    try {
      assert.equal(await sha256(file, signal), digest, `${length} bytes, without the browser's help`);
    } finally {
      Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true });
    }
    assert.equal(await crc64nvme(file, signal), crcByByte(bytes), `${length} bytes`);
  }
});

test("large files have the SHA-256 that Node computes", { timeout: 60_000 }, async () => {
  const bytes = randomBytes(33 * MiB + 1);
  assert.equal(await sha256(new Blob([bytes]), signal), createHash("sha256").update(bytes).digest("base64"));
});

/** The CRC-64/NVME by the book. */
function crcByByte(bytes) {
  const table = Array.from({ length: 256 }, (_, byte) => {
    let crc = BigInt(byte);
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1n ? (crc >> 1n) ^ 0x9a6c9329ac4bc9b5n : crc >> 1n;
    return crc;
  });
  let crc = 0xffffffffffffffffn;
  for (const byte of bytes) crc = table[Number(crc & 255n) ^ byte] ^ (crc >> 8n);
  const result = Buffer.alloc(8);
  result.writeBigUInt64BE(crc ^ 0xffffffffffffffffn);
  return result.toString("base64");
}
