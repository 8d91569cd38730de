"""Extends Schemathesis by JSON Lines and by the responses to requests without an API key."""

import json

import schemathesis
from hypothesis import strategies as some

BATCH = "POST /v1/sessions:batch"


@schemathesis.serializer("application/jsonl")
def lines(_context, value):
    """Serializes a batch, which is a string. Any other value becomes one line."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")


values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=40),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=20), inner, max_size=3),
    max_leaves=6,
)
wishes = some.fixed_dictionaries(
    {"guestId": some.text("abcdefgh-", min_size=1, max_size=9) | values},
    optional={"idempotencyKey": some.sampled_from(["a", "b", ""]), "attributes": values, "queueId": values},
)
rows = (wishes | values).map(json.dumps) | some.text(max_size=40)
batches = some.lists(rows, max_size=8).map("\n".join)


@schemathesis.hook
def before_generate_body(context, strategy):
    """Generates lines of a batch, because the schema is a string and most strings are no batch."""
    if context.operation.label != BATCH:
        return strategy
    return strategy.flatmap(lambda body: batches if isinstance(body, str) else some.just(body))


@schemathesis.hook
def filter_body(_context, body):
    """Skips `null` and `[]` as attributes.

    The service accepts them as an empty map, which PHP and others write so, but the document omits
    them.
    """
    return not (isinstance(body, dict) and "attributes" in body and body["attributes"] in ([], None))


@schemathesis.check
def a_batch_says_what_became_of_each_row(_context, response, case):
    if case.operation.label != BATCH or response.status_code != 200:
        return
    *rows, last = [json.loads(line) for line in response.content.splitlines()]
    summary = last["summary"]
    assert summary["rows"] == len(rows) == summary["opened"] + summary["replayed"] + summary["failed"], last
    assert len({row["row"] for row in rows}) == len(rows), "a row has two lines"
    assert all(("error" in row) != ("sessionId" in row) for row in rows), "a row has neither a session nor an error"


@schemathesis.check
def nothing_without_a_key(_context, response, case):
    """A request without an API key gets 401 `unauthorized`, whatever the operation."""
    assert response.status_code == 401, f"{case.operation.label} answers {response.status_code} to somebody without a key"
    assert response.json()["code"] == "unauthorized"
