-- Sessions can be forgotten; and a store of millions of them answers at once.

-- What `metrics` says of sessions that are forgotten: latencies, rounded. Their number by state is in `counter`.
CREATE TABLE pruned_latency (
    latency_us INTEGER PRIMARY KEY,
    sessions   INTEGER NOT NULL
) STRICT;

-- Only an event that waits is asked for by its guest. Over all of them, each session would change one more page somewhere in a large index.
DROP INDEX outbox_guest;
CREATE INDEX outbox_guest ON outbox (guest_id, receiver, seq) WHERE state = 'pending';

-- What is rare is found without looking at the rest, and costs the rest nothing.
CREATE INDEX outbox_ended ON outbox (state, seq) WHERE state = 'dead' OR state = 'erased';
CREATE INDEX session_ended ON session (state, id) WHERE state = 'failed' OR state = 'needs_attention';
