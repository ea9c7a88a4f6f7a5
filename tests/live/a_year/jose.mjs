// Verifiers of npm `jose` at its default settings: one line shows them tokens,
// one line answers with what each of them says of each. They have the clock of
// the agent: the machine's, shifted by what stands in the same file.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto; // Node 18 has it under this name only.

const asked = JSON.parse(process.env.VERIFIERS);
const Machine = Date;
const now = () => Machine.now() + Number(readFileSync(asked.clock, "utf8").split(" ")[0]);
globalThis.Date = class extends Machine {
  constructor(...args) {
    super(...(args.length ? args : [now()]));
  }
  static now() {
    return now();
  }
};
let fetches = 0;
const fetch = globalThis.fetch;
globalThis.fetch = (...args) => (fetches++, fetch(...args));

// Not before: it may look at the clock when it is loaded.
const { createRemoteJWKSet, jwtVerify } = await import("jose");
const verifiers = Array.from({ length: asked.verifiers }, () =>
  createRemoteJWKSet(new URL(asked.url)),
);

async function verdict(set, token) {
  try {
    await jwtVerify(token, set, { algorithms: ["ES256"], issuer: asked.issuer });
    return "ok";
  } catch (error) {
    return `${error.code ?? error.name}: ${error.message}`;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { tokens, open } = JSON.parse(line);
  const said = [];
  for (const token of tokens) {
    const each = verifiers.slice(0, open).map((set) => verdict(set, token));
    said.push(await Promise.all(each));
  }
  process.stdout.write(`${JSON.stringify({ said, fetches })}\n`);
}
