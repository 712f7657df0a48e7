// The back end of the form. It trusts no browser: it verifies the key that the form brings before it keeps it.

import { createServer } from "node:http";

const SERVICE = process.env.PRESIGND ?? "http://localhost:3000";

const server = createServer(async (request, response) => {
  response.setHeader("content-type", "text/html");
  try {
    let body = "";
    for await (const chunk of request) body += chunk;
    const verified = await fetch(`${SERVICE}/upload/verify`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ key: new URLSearchParams(body).get("photo") }),
    });
    const upload = await verified.json();
    // Save `upload.key` here.
    response.end(verified.ok ? `<p>Saved ${upload.size} bytes.</p>` : "<p>There is no such upload.</p>");
  } catch {
    response.writeHead(502).end("<p>The service cannot be reached.</p>");
  }
});

server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  console.log(`Listening on http://127.0.0.1:${port}`);
});
