-- Times are microseconds since the Unix epoch, in UTC.

CREATE TABLE session (
    id              BLOB    PRIMARY KEY,           -- UUID version 7
    idempotency_key TEXT    NOT NULL UNIQUE,
    fingerprint     BLOB    NOT NULL,              -- SHA-256 of the canonical request
    guest_id        TEXT    NOT NULL,
    queue_id        BLOB    NOT NULL,
    attributes      TEXT    NOT NULL,              -- JSON object
    state           TEXT    NOT NULL CHECK (state IN ('admitted', 'contact_created', 'open', 'failed', 'parked', 'needs_attention')),
    token_kid       TEXT    NOT NULL,
    token_jti       BLOB    NOT NULL,
    token_iat       INTEGER NOT NULL,              -- seconds
    contact_id      TEXT,
    conversation_id TEXT,
    attempts        INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,              -- fences off drivers that come late
    admitted_at     INTEGER NOT NULL,
    step_since      INTEGER NOT NULL,
    uncertain       INTEGER NOT NULL,              -- whether the present step may have been done
    due_at          INTEGER NOT NULL,              -- nobody else takes it up before
    opened_at       INTEGER,
    latency_us      INTEGER,
    failure_code    TEXT,
    failure_message TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX session_unfinished ON session (due_at) WHERE state IN ('admitted', 'contact_created', 'parked');
CREATE INDEX session_guest ON session (guest_id);

CREATE TABLE audit_entry (
    idx        INTEGER PRIMARY KEY,                -- from 0, without gaps
    session_id BLOB,
    line       TEXT    NOT NULL                    -- as it stands in the file
) STRICT;

CREATE TABLE outbox (
    id          TEXT    PRIMARY KEY,               -- the webhook-id of every try
    session_id  BLOB    NOT NULL,
    body        TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    tries       INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,                  -- the next try, or the end of the lease of the present one
    settled_at  INTEGER,
    last_error  TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX outbox_due ON outbox (due_at) WHERE state = 'pending';

CREATE TABLE signing_key (
    kid        TEXT    PRIMARY KEY,
    sealed     BLOB    NOT NULL,                   -- PKCS#8 under the master key
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE secret (
    name   TEXT PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The platform this store belongs to.
CREATE TABLE platform (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    base_url TEXT    NOT NULL
) STRICT;

CREATE TABLE counter (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
