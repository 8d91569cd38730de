"""Creates a session with a client that is generated from the service's OpenAPI document.

The arguments are ADDRESS and KEY. Prints one line of JSON.
"""

import json
import sys
import uuid

from guestlane_client import AuthenticatedClient, Client
from guestlane_client.api.sessions import create_session, get_session, list_sessions
from guestlane_client.models import CreateSessionRequest, CreateSessionRequestAttributes, Problem, Session, Sessions, SessionState


def must(kind, answer):
    if isinstance(answer.parsed, kind):
        return answer.parsed
    sys.exit(f"{answer.status_code}: {answer.parsed}")


def agree(have, want, what):
    if have != want:
        sys.exit(f"{what}: {have!r} is not {want!r}")


def check(address, key):
    guestlane = AuthenticatedClient(base_url=address, token=key)
    wish = str(uuid.uuid4())
    guest = f"guest-{wish}"
    attributes = CreateSessionRequestAttributes.from_dict({"source": "web-portal"})

    def create():
        body = CreateSessionRequest(guest_id=guest, attributes=attributes)
        return must(Session, create_session.sync_detailed(client=guestlane, body=body, idempotency_key=wish))

    first, again = create(), create()
    agree(again.session_id, first.session_id, "the session of the same key")
    read = must(Session, get_session.sync_detailed(first.session_id, client=guestlane))
    agree(read.conversation_id, first.conversation_id, "its conversation")
    page = must(Sessions, list_sessions.sync_detailed(client=guestlane, guest_id=guest, state=SessionState.OPEN, limit=10))
    agree([session.session_id for session in page.sessions], [first.session_id], "the guest's sessions")

    nowhere = CreateSessionRequest(guest_id=guest, queue_id=uuid.UUID("5e0c0000-0000-4000-8000-0000000000ff"))
    refused = create_session.sync_detailed(client=guestlane, body=nowhere)
    problem = must(Problem, refused)
    agree(problem.status, refused.status_code, "the problem's status")
    stranger = must(Problem, list_sessions.sync_detailed(client=Client(base_url=address)))
    agree(stranger.code, "unauthorized", "without a key")

    return {
        "created": str(first.session_id),
        "state": first.state,
        "token": first.guest_token.count(".") == 2,
        "replayed": again.replayed is True,
        "read": read.state,
        "listed": len(page.sessions),
        "problem": problem.code,
        "field": problem.field,
        "fix": problem.fix,
    }


print(json.dumps(check(*sys.argv[1:])))
