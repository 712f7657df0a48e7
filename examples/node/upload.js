// Uploads a file: node upload.js FILE [TYPE]

import { openAsBlob } from "node:fs";
import { basename } from "node:path";

import { createClient } from "presignd-client";

const [path, type = "application/octet-stream"] = process.argv.slice(2);
if (!path) throw new Error("node upload.js FILE [TYPE]");

const client = createClient({ url: process.env.PRESIGND ?? "http://localhost:3000" });
// Node reads the file in slices, so memory stays small whatever its size.
const file = new File([await openAsBlob(path)], basename(path), { type });
const { key, size } = await client.upload(file);
console.log(key, size);
