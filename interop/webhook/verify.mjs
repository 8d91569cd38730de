// Verifies webhooks with the reference library of Standard Webhooks for JavaScript (npm:
// standardwebhooks), which is an independent check of guestlane's signatures.
//
// Standard input has one line of JSON for each webhook: {"secret", "headers": {"webhook-id", …},
// "body"}.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { Webhook } = createRequire(process.argv[2])("standardwebhooks");
let verified = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  new Webhook(secret).verify(body, headers); // throws if the signature is invalid
  verified += 1;
}
console.log(`${verified} verified`);
