// Verifiers of npm `jose`: one line asks for a verdict on a token, one line
// answers for each of them, and for one that has just started. They keep a set
// for as long as they are told, and do not fetch again at an unknown `kid`.
import { webcrypto } from "node:crypto";
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";

globalThis.crypto ??= webcrypto; // Node 18 has it under this name only.

const asked = JSON.parse(process.env.VERIFIERS);
const verifier = (url) =>
  createRemoteJWKSet(new URL(url), {
    cacheMaxAge: asked.cache_ms,
    cooldownDuration: Infinity,
    timeoutDuration: asked.patience_ms,
  });
const verifiers = asked.urls.map(verifier);
// A token that was refused, and not an origin that was slow.
const of_the_token = /^ERR_(JWT|JWS|JWKS_NO_MATCHING_KEY|JWKS_MULTIPLE_MATCHING_KEYS)/;

async function verdict(set, token) {
  try {
    await jwtVerify(token, set, {
      algorithms: ["ES256"],
      issuer: asked.issuer,
      clockTolerance: asked.leeway_s,
    });
    return "ok";
  } catch (error) {
    const why = `${error.code ?? error.name}: ${error.message}`;
    return of_the_token.test(error.code) ? why : `no set: ${why}`;
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, token, open } = JSON.parse(line);
  const all = [...verifiers.slice(0, open), verifier(asked.newcomer)];
  const asking = all.map((set) => verdict(set, token));
  Promise.all(asking).then((said) =>
    process.stdout.write(`${JSON.stringify({ id, at: Date.now(), said })}\n`),
  );
}
