"""Holds a conversation over the guest WebSocket with an independent client (PyPI: websockets).

It checks the simulator's WebSocket, history and message details.

    python chat.py

Settings: BASE_URL (the simulator, which serves REST, WebSocket and /_sim on one origin), CLIENT_ID,
CLIENT_SECRET, DEPLOYMENT_ID, QUEUE_ID. ORIGIN, if the deployment allows only certain domains.
TOKEN, to continue a session that guestlane opened (guestSession.token of its result).
SSL_CERT_FILE, for a private certificate authority.

Prints one line of JSON. On a mismatch, prints the reason on standard error and exits with code 1.
"""

import base64
import json
import os
import sys
import time
import uuid
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect


def setting(name):
    return os.environ.get(name) or sys.exit(f"{name} is not set")


def agree(have, want, what):
    if have != want:
        sys.exit(f"{what}: {have!r} is not {want!r}")


BASE = setting("BASE_URL").rstrip("/")
ORIGIN = os.environ.get("ORIGIN") or None
SOCKET = BASE.replace("http", "ws", 1) + f"/v1?deploymentId={setting('DEPLOYMENT_ID')}"
TAKEN = bool(os.environ.get("TOKEN"))
TOKEN = os.environ.get("TOKEN") or str(uuid.uuid4())
open_url = build_opener(ProxyHandler({})).open


class Guest:
    """One connection of the guest session."""

    def __init__(self, socket):
        self.socket = socket
        self.frames = []  # received frames that no call has consumed yet

    def send(self, action, **fields):
        tracing_id = str(uuid.uuid4())
        self.socket.send(json.dumps({"action": action, "token": TOKEN, "tracingId": tracing_id, **fields}))
        return tracing_id

    def next(self, what, wanted):
        """Returns the body of the first frame for which `wanted` holds, within ten seconds."""
        end = time.monotonic() + 10
        while True:
            for frame in self.frames:
                if frame["code"] != 200:
                    sys.exit(f"{what}: the platform refused: {frame}")
                if wanted(frame):
                    self.frames.remove(frame)
                    return frame["body"]
            try:
                self.frames.append(json.loads(self.socket.recv(timeout=max(0, end - time.monotonic()))))
            except TimeoutError:
                sys.exit(f"{what} did not come; what came: {self.frames}")

    def configure(self):
        self.send("configureSession", deploymentId=setting("DEPLOYMENT_ID"), startNew=False)
        session = self.next("the session", lambda frame: frame["class"] == "SessionResponse")
        agree(session["connected"], True, "whether the session is connected")
        return session

    def say(self, text, **custom_attributes):
        """Sends a message and waits for its echo, which is the platform's acknowledgement."""
        message = {"type": "Text", "text": text}
        if custom_attributes:
            message["channel"] = {"metadata": {"customAttributes": custom_attributes}}
        time.sleep(0.6)  # the platform accepts two messages per second
        tracing_id = self.send("onMessage", message=message)
        echo = self.next(
            f"the echo of «{text}»",
            lambda frame: frame["class"] == "StructuredMessage" and frame.get("tracingId") == tracing_id,
        )
        agree((echo["direction"], echo["text"]), ("Inbound", text), "the echo")
        return echo

    def history(self):
        self.send("getJwt")
        jwt = self.next("the JWT", lambda frame: frame["class"] == "JwtResponse")["jwt"]
        headers = {"authorization": f"bearer {jwt}"} | ({"origin": ORIGIN} if ORIGIN else {})
        page = call("/api/v2/webmessaging/messages?pageNumber=1&pageSize=25", headers=headers)
        return [entity for entity in page["entities"] if entity["type"] == "Text"]


def call(path, body=None, **options):
    with open_url(Request(BASE + path, data=body and body.encode(), **options), timeout=16) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def conversation_of(message_id):
    """Returns the conversation of a message from the message's details.

    The WebSocket does not report it. The details can be 404 at first.
    """
    basic = base64.b64encode(f"{setting('CLIENT_ID')}:{setting('CLIENT_SECRET')}".encode()).decode()
    form = {"authorization": f"Basic {basic}", "content-type": "application/x-www-form-urlencoded"}
    bearer = call("/oauth/token", "grant_type=client_credentials", headers=form)["access_token"]
    for tries in range(20):
        if tries:
            time.sleep(0.25)
        try:
            details = call(f"/api/v2/conversations/messages/{message_id}/details", headers={"authorization": f"Bearer {bearer}"})
        except HTTPError as refused:
            if refused.code != 404:
                raise
            continue
        if details.get("conversationId"):
            return details["conversationId"]
    sys.exit("the message has no conversation")


def chat():
    with connect(SOCKET, origin=ORIGIN, proxy=None) as socket:
        guest = Guest(socket)
        agree(guest.configure()["newSession"], not TAKEN, "whether the session is new")
        before = len(guest.history()) if TAKEN else 0

        first = guest.say("Hello, I need help with order 1001", routingTarget=setting("QUEUE_ID"), source="interop")
        agree(len(guest.history()), before + 1, "messages in the history")
        conversation_id = conversation_of(first["id"])

        second = guest.say("Are you there?")
        agree(conversation_of(second["id"]), conversation_id, "the conversation of the second message")
        answer = json.dumps({"conversationId": conversation_id, "say": "I am. What is wrong with it?"})
        call("/_sim/agent", answer, headers={"content-type": "application/json"})
        agent = guest.next(
            "the agent's answer",
            lambda frame: frame["class"] == "StructuredMessage"
            and (frame["body"].get("direction"), frame["body"].get("type")) == ("Outbound", "Text"),
        )
        agree((agent["text"], agent.get("originatingEntity")), ("I am. What is wrong with it?", "Human"), "the agent's answer")

    # The connection is lost. The same token continues the same session.
    with connect(SOCKET, origin=ORIGIN, proxy=None) as socket:
        back = Guest(socket)
        agree(back.configure()["newSession"], False, "whether the same token is a new session")
        agree(len(back.history()), before + 3, "messages in the history")
        back.send("closeSession", closeAllConnections=True)
        closed = back.next("the end", lambda frame: frame["class"] == "SessionResponse")
        agree(closed["connected"], False, "whether the session is connected")
    return {"client": "websockets", "conversationId": conversation_id, "messageId": first["id"], "agent": agent["text"]}


try:
    print(json.dumps(chat()))
except HTTPError as refused:
    sys.exit(f"{refused.url}: {refused.code} {refused.read().decode(errors='replace')}")
except (URLError, OSError, WebSocketException) as refused:
    sys.exit(f"{BASE}: {refused}")
