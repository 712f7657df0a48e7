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

/** @param {Int32Array} words Each is four bytes, the highest one first. */
function bytesOf(words) {
  return [...words].flatMap((word) => [24, 16, 8, 0].map((shift) => (word >>> shift) & 255));
}

/** Slicing by eight: table `k` of eight has the CRCs of a byte that `k` zero bytes follow; low and high halves. */
function tables() {
  const low = new Int32Array(2048);
  const high = new Int32Array(2048);
  for (let byte = 0; byte < 256; byte += 1) {
    let l = byte;
    let h = 0;
    for (let bit = 0; bit < 8; bit += 1) {
      const carry = l & 1;
      l = (l >>> 1) | (h << 31);
      h >>>= 1;
      if (carry) {
        // The polynomial 0xad93d23594c93659, reflected.
        l ^= 0xac4bc9b5;
        h ^= 0x9a6c9329;
      }
    }
    low[byte] = l;
    high[byte] = h;
  }
  for (let index = 256; index < 2048; index += 1) {
    const l = low[index - 256];
    const h = high[index - 256];
    low[index] = ((l >>> 8) | (h << 24)) ^ low[l & 255];
    high[index] = (h >>> 8) ^ high[l & 255];
  }
  return { low, high };
}

/**
 * The CRC-64/NVME of a file in base64, as S3 reports it for whole objects.
 *
 * @param {Blob} file
 * @param {AbortSignal} signal
 */
export async function crc64nvme(file, signal) {
  const { low, high } = tables();
  const crc = Int32Array.of(-1, -1);
  await readSlices(file, signal, (bytes) => {
    const { length } = bytes;
    let [l, h] = crc;
    let at = 0;
    // Browsers run on little-endian machines alone.
    const words = new Int32Array(bytes.buffer, 0, length >> 2);
    for (; at + 8 <= length; at += 8) {
      l ^= words[at >> 2];
      h ^= words[(at >> 2) + 1];
      const a = 1792 + (l & 255);
      const b = 1536 + ((l >>> 8) & 255);
      const c = 1280 + ((l >>> 16) & 255);
      const d = 1024 + (l >>> 24);
      const e = 768 + (h & 255);
      const f = 512 + ((h >>> 8) & 255);
      const g = 256 + ((h >>> 16) & 255);
      const i = h >>> 24;
      l = low[a] ^ low[b] ^ low[c] ^ low[d] ^ low[e] ^ low[f] ^ low[g] ^ low[i];
      h = high[a] ^ high[b] ^ high[c] ^ high[d] ^ high[e] ^ high[f] ^ high[g] ^ high[i];
    }
    for (; at < length; at += 1) {
      const index = (l ^ bytes[at]) & 255;
      l = ((l >>> 8) | (h << 24)) ^ low[index];
      h = (h >>> 8) ^ high[index];
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
    rest = bytes.slice(bytes.length - (bytes.length % 64));
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
    if (primes.some((prime) => n % prime === 0)) continue;
    const power = n ** (1 / root);
    words[primes.length] = (power - Math.floor(power)) * 2 ** 32;
    primes.push(n);
  }
  return words;
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
  for (let at = 0; at + 64 <= bytes.length; ) {
    for (let t = 0; t < 16; t += 1, at += 4) {
      words[t] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let t = 16; t < 64; t += 1) {
      const x = words[t - 15];
      const y = words[t - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      words[t] = (((words[t - 16] + s0) | 0) + ((words[t - 7] + s1) | 0)) | 0;
    }
    let a = state[0];
    let b = state[1];
    let c = state[2];
    let d = state[3];
    let e = state[4];
    let f = state[5];
    let g = state[6];
    let h = state[7];
    for (let t = 0; t < 64; t += 1) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (((h + s1) | 0) + ((((e & f) ^ (~e & g)) + constants[t]) | 0) + words[t]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
  }
}
