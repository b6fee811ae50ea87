// Requests as an application in Node makes them, with its own fetch. What came of each is printed as a line of JSON.
//
//     node uploads.mjs refused URL KEY BYTES TRIES     uploads with a key that is refused, from memory and as a stream
//     node uploads.mjs reused URL WRONG GOOD BYTES     a small upload that is refused, then a request that is served

import diagnostics from "node:diagnostics_channel";

let connections = 0;
diagnostics.subscribe("undici:client:connected", () => { connections += 1; });

const PIECE = 65536;

function stream(bytes) {
  let left = bytes;
  return new ReadableStream({
    pull(controller) {
      const piece = new Uint8Array(Math.min(left, PIECE));
      left -= piece.length;
      controller.enqueue(piece);
      if (left === 0) controller.close();
    },
  });
}

async function ask(url, key, options) {
  try {
    const reply = await fetch(url, { headers: { "x-api-key": key }, ...options });
    const text = await reply.text();
    return { status: reply.status, text };
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
    print(await ask(url, key, { method: "POST", body: stream(bytes), duplex: "half" }));
  }
} else {
  const [wrong, good, bytes] = [rest[0], rest[1], Number(rest[2])];
  for (let number = 0; number < 3; number += 1) {
    print(await ask(url, wrong, { method: "POST", body: new Uint8Array(bytes) }));
    print(await ask(url, good, {}));
  }
}
