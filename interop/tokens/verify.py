"""python verify.py JWKS_URL TOKEN: says whose guest token it is, or why it is refused. Needs PyJWT[crypto]."""
import sys

import jwt

url, token = sys.argv[1:]
# Cached for as long as GUESTLANE_SIGNING_KEY_PUBLISH_LEAD at most; fetched again for a kid that is not known.
keys = jwt.PyJWKClient(url, lifespan=12 * 3600, timeout=3)
try:
    claims = jwt.decode(
        token,
        keys.get_signing_key_from_jwt(token).key,
        algorithms=["RS256"],  # whatever the token says
        leeway=60,  # two clocks may be a minute apart
        options={"require": ["guestId", "iat", "exp"]},
    )
    if not isinstance(claims["guestId"], str):
        raise jwt.InvalidTokenError("guestId is not a text")
    print(claims["guestId"])
except jwt.PyJWTError as refused:
    sys.exit(f"refused: {type(refused).__name__}: {refused}")
