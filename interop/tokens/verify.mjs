// node verify.mjs JWKS_URL TOKEN
// Verifies a guest token and prints the guest ID, or the reason for the refusal. Needs jose.
import { createRemoteJWKSet, jwtVerify } from "jose";

const [url, token] = process.argv.slice(2);
// The key set is cached for at most GUESTLANE_SIGNING_KEY_PUBLISH_LEAD, and fetched again for an
// unknown kid.
const keys = createRemoteJWKSet(new URL(url), { cacheMaxAge: 12 * 3600_000, timeoutDuration: 3000 });
try {
  const { payload } = await jwtVerify(token, keys, {
    algorithms: ["RS256"], // never the algorithm that the token names
    requiredClaims: ["guestId", "iat", "exp"],
    maxTokenAge: 300,
    clockTolerance: 60, // allowed clock difference: one minute
  });
  if (typeof payload.guestId !== "string") throw new Error("guestId is not a text");
  console.log(payload.guestId);
} catch (refused) {
  console.error(`refused: ${refused.code ?? refused.message}`);
  process.exit(1);
}
