// Requests as an application in Node makes them, with its own fetch. What came of each is printed as a line of JSON.
//
//     node uploads.mjs refused URL KEY BYTES TRIES     uploads with a key that is refused, from memory and as a stream
//     node uploads.mjs reused URL WRONG GOOD BYTES     a small upload that is refused, then a request that is served
//     node uploads.mjs once URL KEY whole|stream       uploads what comes on standard input

import diagnostics from "node:diagnostics_channel";
import { readFileSync } from "node:fs";

let connections = 0;
diagnostics.subscribe("undici:client:connected", () => { connections += 1; });

const PIECE = 65536;

function stream(body) {
  let sent = 0;
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(body.slice(sent, sent + PIECE));
      sent += PIECE;
      if (sent >= body.length) controller.close();
    },
  });
}

async function ask(url, key, options) {
  try {
    const reply = await fetch(url, { headers: { "x-api-key": key }, ...options });
    const text = await reply.text();
    return { status: reply.status, text, headers: Object.fromEntries(reply.headers) };
  } catch (error) {
    return { error: String(error.cause ?? error) };
  }
}

function print(found) {
  console.log(JSON.stringify({ ...found, connections }));
}

const [what, url, ...rest] = process.argv.slice(2);
if (what === "refused") {
  const [key, bytes, tries] = [rest[0], Number(rest[1]), Number(rest[2])];
  for (let number = 0; number < tries; number += 1) {
    print(await ask(url, key, { method: "POST", body: new Uint8Array(bytes) }));
    print(await ask(url, key, { method: "POST", body: stream(new Uint8Array(bytes)), duplex: "half" }));
  }
} else if (what === "once") {
  const [key, how] = rest;
  const body = new Uint8Array(readFileSync(0));
  print(await ask(url, key, { method: "POST", ...(how === "stream" ? { body: stream(body), duplex: "half" } : { body }) }));
} else {
  const [wrong, good, bytes] = [rest[0], rest[1], Number(rest[2])];
  for (let number = 0; number < 3; number += 1) {
    print(await ask(url, wrong, { method: "POST", body: new Uint8Array(bytes) }));
    print(await ask(url, good, {}));
  }
}
