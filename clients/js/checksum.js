// Checksums of files of any size, read in slices, so that the memory stays flat.

const MiB = 1024 * 1024;
/** A multiple of what the checksums read at a time. */
const SLICE = 4 * MiB;
/** Up to this size the browser computes the SHA-256, about ten times as fast; it needs all bytes at once. */
const WHOLE_MAX = 32 * MiB;

/**
 * Reads a file in slices. The page can do something else between two of them.
 *
 * @param {Blob} file
 * @param {AbortSignal} signal
 * @param {(bytes: Uint8Array) => void} update
 */
async function readSlices(file, signal, update) {
  for (let start = 0; start < file.size; start += SLICE) {
    signal.throwIfAborted();
    /** @type {ArrayBuffer & { transfer?: (size: number) => void }} */
    const buffer = await file.slice(start, start + SLICE).arrayBuffer();
    update(new Uint8Array(buffer));
    // This frees it at once. Browsers let tens of MiB gather before they look for garbage.
    buffer.transfer?.(0);
  }
}

/** @param {Iterable<number>} bytes */
function base64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

/** @param {Int32Array} words Each becomes four bytes, the highest one first. */
function bytesOf(words) {
  // Browsers run on little-endian machines alone, where this is the reverse order of all bytes.
  return new Uint8Array(words.reverse().buffer).reverse();
}

/**
 * The CRC-64/NVME of a file in base64, as S3 reports it for whole objects.
 *
 * @param {Blob} file
 * @param {AbortSignal} signal
 */
export async function crc64nvme(file, signal) {
  // Slicing by eight: table `k` of eight has the CRCs of a byte that `k` zero bytes follow, as its low and its high
  // half.
  const crcs = new BigUint64Array(2048);
  for (let index = 0; index < 2048; index += 1) {
    let crc = crcs[index - 256] ?? BigInt(index);
    // The polynomial is reflected.
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >> 1n) ^ (crc & 1n ? 0x9a6c9329ac4bc9b5n : 0n);
    crcs[index] = crc;
  }
  const table = new Int32Array(crcs.buffer);
  const crc = Int32Array.of(-1, -1);
  await readSlices(file, signal, (bytes) => {
    const { length } = bytes;
    let [l, h] = crc;
    let at = 0;
    const words = new Int32Array(bytes.buffer, 0, length >> 2);
    for (; at + 8 <= length; at += 8) {
      l ^= words[at >> 2];
      h ^= words[(at >> 2) + 1];
      let nextLow = 0;
      let nextHigh = 0;
      for (let byte = 0; byte < 4; byte += 1) {
        const a = 2 * (1792 - 256 * byte + ((l >>> (8 * byte)) & 255));
        const b = 2 * (768 - 256 * byte + ((h >>> (8 * byte)) & 255));
        nextLow ^= table[a] ^ table[b];
        nextHigh ^= table[a + 1] ^ table[b + 1];
      }
      l = nextLow;
      h = nextHigh;
    }
    for (; at < length; at += 1) {
      const index = 2 * ((l ^ bytes[at]) & 255);
      l = ((l >>> 8) | (h << 24)) ^ table[index];
      h = (h >>> 8) ^ table[index + 1];
    }
    crc.set([l, h]);
  });
  return base64(bytesOf(Int32Array.of(~crc[1], ~crc[0])));
}

/**
 * The SHA-256 of a file in base64.
 *
 * @param {Blob} file
 * @param {AbortSignal} signal
 */
export async function sha256(file, signal) {
  // Pages without HTTPS have no `crypto.subtle`.
  if (file.size <= WHOLE_MAX && globalThis.crypto?.subtle) {
    return base64(new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer())));
  }
  const state = fractions(8, 2);
  const constants = fractions(64, 3);
  let rest = new Uint8Array();
  await readSlices(file, signal, (bytes) => {
    compress(state, constants, bytes);
    // Only the last slice has one.
    rest = bytes.slice(bytes.length & ~63);
  });
  const end = new Uint8Array(rest.length < 56 ? 64 : 128);
  end.set(rest);
  end[rest.length] = 0x80;
  new DataView(end.buffer).setBigUint64(end.length - 8, BigInt(file.size) * 8n);
  compress(state, constants, end);
  return base64(bytesOf(state));
}

/**
 * The first 32 bits of the fractional parts of the `root`-th roots of the first primes (FIPS 180-4).
 *
 * @param {number} count
 * @param {number} root
 */
function fractions(count, root) {
  const words = new Int32Array(count);
  /** @type {number[]} */
  const primes = [];
  for (let n = 2; primes.length < count; n += 1) {
    if (primes.every((prime) => n % prime)) words[primes.push(n) - 1] = (n ** (1 / root) % 1) * 2 ** 32;
  }
  return words;
}

/**
 * @param {number} word
 * @param {number} bits How far to the right.
 */
function rotate(word, bits) {
  return (word >>> bits) | (word << -bits);
}

/**
 * Adds the whole blocks of 64 bytes to the state.
 *
 * @param {Int32Array} state
 * @param {Int32Array} constants Of the 64 rounds.
 * @param {Uint8Array} bytes
 */
function compress(state, constants, bytes) {
  const words = new Int32Array(64);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at + 64 <= bytes.length; ) {
    for (let t = 0; t < 16; t += 1, at += 4) words[t] = view.getInt32(at);
    for (let t = 16; t < 64; t += 1) {
      const x = words[t - 15];
      const y = words[t - 2];
      const s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3);
      const s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10);
      words[t] = words[t - 16] + s0 + words[t - 7] + s1;
    }
    // An array pattern would take twice as long, as it uses an iterator.
    let { 0: a, 1: b, 2: c, 3: d, 4: e, 5: f, 6: g, 7: h } = state;
    for (let t = 0; t < 64; t += 1) {
      const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const t1 = h + s1 + ((e & f) ^ (~e & g)) + constants[t] + words[t];
      const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, index) => (state[index] += word));
  }
}
