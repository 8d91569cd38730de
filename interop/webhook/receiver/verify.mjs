// node verify.mjs SECRET ID TIMESTAMP SIGNATURE < BODY
// Verifies a webhook. Needs standardwebhooks.
import { Webhook } from "standardwebhooks";
import { readFileSync } from "node:fs";

const [secret, id, timestamp, signature] = process.argv.slice(2);
const body = readFileSync(0); // the unmodified bytes of the body: in Express, express.raw({ type: "application/json" })
try {
  // Tries each signature, and refuses a timestamp that differs from now by over five minutes.
  new Webhook(secret).verify(body, { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature });
  console.log("verified");
} catch (refused) {
  console.error(`refused: ${refused.message}`);
  process.exit(1);
}
