"""python verify.py SECRET ID TIMESTAMP SIGNATURE < BODY: verifies a webhook. Needs standardwebhooks."""
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

secret, id_, timestamp, signature = sys.argv[1:]
body = sys.stdin.buffer.read()  # the bytes as they came: in Flask, request.get_data()
headers = {"webhook-id": id_, "webhook-timestamp": timestamp, "webhook-signature": signature}
try:
    # Tries each signature, and refuses a timestamp that is five minutes from now.
    Webhook(secret).verify(body, headers)
    print("verified")
except WebhookVerificationError as refused:
    sys.exit(f"refused: {refused}")
