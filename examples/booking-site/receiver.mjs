// Receives the webhooks of the payments service: Standard Webhooks, checked by Node's own modules.
// WEBHOOK_SECRET=whsec_... PORT=8081 node receiver.mjs
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const SECRET = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const TOLERANCE_SECONDS = 300;
const LARGEST_BODY = 64 * 1024;
const seen = new Set(); // in a real system: a unique column of the database

function isSigned(headers, body) {
  const id = headers["webhook-id"] ?? "";
  const sentAt = headers["webhook-timestamp"] ?? "";
  if (!/^\d+$/.test(sentAt) || Math.abs(Date.now() / 1000 - Number(sentAt)) > TOLERANCE_SECONDS) return false;
  const expected = createHmac("sha256", SECRET).update(`${id}.${sentAt}.`).update(body).digest();
  // Several signatures while the secret rotates: one of them has to be ours.
  return (headers["webhook-signature"] ?? "").split(" ").some((signature) => {
    const [version, value] = signature.split(",");
    const given = Buffer.from(value ?? "", "base64");
    return version === "v1" && given.length === expected.length && timingSafeEqual(given, expected);
  });
}

async function hear(request, response) {
  const answer = (status) => response.writeHead(status).end();
  const parts = [];
  let size = 0;
  for await (const part of request) {
    parts.push(part);
    size += part.length;
    if (size > LARGEST_BODY) return answer(413);
  }
  const body = Buffer.concat(parts); // the bytes as they came: other spacing has another signature
  if (request.method !== "POST" || !isSigned(request.headers, body)) return answer(400);
  const event = JSON.parse(body);
  if (!seen.has(request.headers["webhook-id"])) {
    seen.add(request.headers["webhook-id"]); // a repetition is answered as the first time
    console.log(JSON.stringify({ position: event.position, type: event.type, ...event.data }));
  }
  answer(204);
}

const server = createServer((request, response) => {
  hear(request, response).catch(() => response.destroy()); // the sender went away in the middle: it comes again
});
server.listen(Number(process.env.PORT ?? 8081), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
