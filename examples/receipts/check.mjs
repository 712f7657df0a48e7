// Checks a receipt: node check.mjs KEYS RECEIPT. KEYS is a copy of /.well-known/jwks.json, in a file.
import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

/** The claims of a receipt that one of the keys signed. */
export function claimsOf(receipt, keys) {
  const [header, claims, signature, more] = receipt.split(".");
  if (signature === undefined || more !== undefined) throw new Error("not a receipt");
  const decoded = (part) => JSON.parse(Buffer.from(part, "base64url").toString());
  const { alg, typ, kid } = decoded(header);
  const key = keys.find((key) => key.kid === kid);
  if (alg !== "EdDSA" || typ !== "upload-receipt+jwt" || key === undefined) throw new Error("not a receipt of these keys");
  const signed = Buffer.from(`${header}.${claims}`);
  const isValid = verify(null, signed, createPublicKey({ key, format: "jwk" }), Buffer.from(signature, "base64url"));
  if (!isValid) throw new Error("the signature is not valid");
  return decoded(claims);
}

const [file, receipt] = process.argv.slice(2);
console.log(JSON.stringify(claimsOf(receipt, JSON.parse(readFileSync(file, "utf8")).keys)));
