// Verifies webhooks with the reference library of the Standard Webhooks scheme for JavaScript (npm: standardwebhooks).
//
// Standard input has one JSON line for each: {"secret", "headers": {"webhook-id", …}, "body"}. It is the second opinion on our signatures.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { Webhook } = createRequire(process.argv[2])("standardwebhooks");
let verified = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  new Webhook(secret).verify(body, headers); // throws when it does not verify
  verified += 1;
}
console.log(`${verified} verified`);
