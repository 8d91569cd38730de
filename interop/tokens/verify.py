"""python verify.py JWKS_URL TOKEN

Verifies a guest token and prints the guest ID, or the reason for the refusal. Needs PyJWT[crypto].
"""
import sys

import jwt

url, token = sys.argv[1:]
# The key set is cached for at most GUESTLANE_SIGNING_KEY_PUBLISH_LEAD, and fetched again for an
# unknown kid.
keys = jwt.PyJWKClient(url, lifespan=12 * 3600, timeout=3)
try:
    claims = jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token).key,
        algorithms=["RS256"],  # never the algorithm that the token names
        leeway=60,  # allowed clock difference: one minute
        options={"require": ["guestId", "iat", "exp"]},
    )
    if not isinstance(claims["guestId"], str):
        raise jwt.InvalidTokenError("guestId is not a text")
    print(claims["guestId"])
except jwt.PyJWTError as refused:
    sys.exit(f"refused: {type(refused).__name__}: {refused}")
