// Creates a ticket: node ticket.mjs. The secret and the names are those of presignd's variables.
import { createHmac } from "node:crypto";

const [iss, aud, secret] = ["JWT_ISSUER", "JWT_AUDIENCE", "JWT_SECRET"].map((name) => process.env[name] || missing(name));
const now = Math.floor(Date.now() / 1000);
const claims = { iss, aud, sub: "user-17", iat: now, exp: now + 3600, upload: { max_size: 5242880, content_types: ["image/*"] } };
// Sign:
const part = (value) => Buffer.from(value).toString("base64url");
const text = `${part('{"alg":"HS256","typ":"JWT"}')}.${part(JSON.stringify(claims))}`;
const ticket = `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;

console.log(ticket);

function missing(name) {
  console.error(`${name} is not set; a ticket needs the value that presignd has`);
  process.exit(1);
}
