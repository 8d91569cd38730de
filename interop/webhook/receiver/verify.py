"""python verify.py SECRET ID TIMESTAMP SIGNATURE < BODY

Verifies a webhook. Needs standardwebhooks.
"""
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

secret, id_, timestamp, signature = sys.argv[1:]
body = sys.stdin.buffer.read()  # the unmodified bytes of the body: in Flask, request.get_data()
headers = {"webhook-id": id_, "webhook-timestamp": timestamp, "webhook-signature": signature}
try:
    # Tries each signature, and refuses a timestamp that differs from now by over five minutes.
    Webhook(secret).verify(body, headers)
    print("verified")
except WebhookVerificationError as refused:
    sys.exit(f"refused: {refused}")
