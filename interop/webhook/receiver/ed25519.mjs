// node ed25519.mjs PUBLIC_KEY ID TIMESTAMP SIGNATURE < BODY
// Verifies the v1a signature of a webhook.
import { createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const [publicKey, id, timestamp, signatures] = process.argv.slice(2);
const body = readFileSync(0); // the unmodified bytes of the body
const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), Buffer.from(publicKey.replace(/^whpk_/, ""), "base64")]);
const key = createPublicKey({ key: spki, format: "der", type: "spki" });
const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
const isFresh = Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300;
const matches = signatures
  .split(" ")
  .filter((signature) => signature.startsWith("v1a,"))
  .some((signature) => verify(null, signed, key, Buffer.from(signature.slice(4), "base64")));
if (!isFresh || !matches) {
  console.error(`refused: ${isFresh ? "no signature matches" : "the timestamp is more than five minutes from now"}`);
  process.exit(1);
}
console.log("verified");
