// node verify.mjs JWKS_URL TOKEN: says whose guest token it is, or why it is refused. Needs jose.
import { createRemoteJWKSet, jwtVerify } from "jose";

const [url, token] = process.argv.slice(2);
// Cached for as long as GUESTLANE_SIGNING_KEY_PUBLISH_LEAD at most; fetched again for a kid that is not known.
const keys = createRemoteJWKSet(new URL(url), { cacheMaxAge: 12 * 3600_000, timeoutDuration: 3000 });
try {
  const { payload } = await jwtVerify(token, keys, {
    algorithms: ["RS256"], // whatever the token says
    requiredClaims: ["guestId", "iat", "exp"],
    maxTokenAge: 300,
    clockTolerance: 60, // two clocks may be a minute apart
  });
  if (typeof payload.guestId !== "string") throw new Error("guestId is not a text");
  console.log(payload.guestId);
} catch (refused) {
  console.error(`refused: ${refused.code ?? refused.message}`);
  process.exit(1);
}
