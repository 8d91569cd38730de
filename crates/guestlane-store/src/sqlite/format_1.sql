-- The store in a file, format 1. Times are microseconds since the Unix epoch, in UTC.
--
-- No CHECK and no index condition uses IN with a list of values: SQLite would build a table of the list
-- for each row that is written.

CREATE TABLE session (
    id                         BLOB    PRIMARY KEY,        -- UUID version 7
    owner                      TEXT    NOT NULL,           -- 'local', or the owner of the API key; scopes the idempotency key
    idempotency_key            TEXT    NOT NULL,
    fingerprint                BLOB    NOT NULL,           -- SHA-256 of the canonical request
    guest_id                   TEXT    NOT NULL,
    queue_id                   BLOB    NOT NULL,
    attributes                 TEXT    NOT NULL,           -- JSON object
    contact_details            TEXT,                       -- JSON object: names, e-mail, telephone
    state                      TEXT    NOT NULL CHECK (
        state = 'admitted' OR state = 'contact_ready' OR state = 'message_sent' OR state = 'conversation_found'
        OR state = 'open' OR state = 'failed' OR state = 'parked' OR state = 'needs_attention'
    ),
    token_kid                  TEXT    NOT NULL,
    token_jti                  BLOB    NOT NULL,
    token_iat                  INTEGER NOT NULL,           -- seconds
    contact_id                 TEXT,
    contact_without_identifier INTEGER NOT NULL,           -- no identifier named the contact at admission
    contact_id_lost            INTEGER NOT NULL DEFAULT 0, -- a contact may exist whose ID was lost
    conversation_id            TEXT,
    message_id                 TEXT,                       -- the first message, once the platform has accepted it
    attempts                   INTEGER NOT NULL,
    epoch                      INTEGER NOT NULL,           -- fencing number: a process with an older one writes nothing
    admitted_at                INTEGER NOT NULL,
    step_started_at            INTEGER NOT NULL,
    outcome_unknown            INTEGER NOT NULL,           -- the present step may have taken effect
    lease_expires_at           INTEGER,                    -- while a process runs the saga
    next_attempt_at            INTEGER,                    -- end of a backoff or of a Retry-After wait
    ended_at                   INTEGER,                    -- opened, failed, or needs attention
    latency_us                 INTEGER,
    failure_code               TEXT,
    failure_message            TEXT,
    surface                    TEXT    NOT NULL,
    surface_target_id          BLOB,                       -- the web deployment or the integration
    guest_session              BLOB,                       -- guest session token, sealed under the master key
    guest_session_expires_at   INTEGER,
    traceparent                TEXT,                       -- W3C Trace Context of the first request
    calls                      TEXT    NOT NULL DEFAULT '',-- JSON lines: the outcome of each platform call
    recorded_at                INTEGER NOT NULL,           -- trusted time of the last transition: retention counts from it
    UNIQUE (idempotency_key, owner)
) STRICT, WITHOUT ROWID;
CREATE INDEX session_unfinished ON session (coalesce(next_attempt_at, lease_expires_at)) WHERE state != 'open' AND state != 'failed' AND state != 'needs_attention';
CREATE INDEX session_guest ON session (guest_id);
CREATE INDEX session_ended ON session (state, id) WHERE state = 'failed' OR state = 'needs_attention';

CREATE TABLE audit_log (
    log       INTEGER PRIMARY KEY,                 -- from 1; one process appends to it at a time
    size      INTEGER NOT NULL,                    -- records so far
    frontier  BLOB    NOT NULL,                    -- the right edge of its Merkle tree (RFC 6962)
    closed_at INTEGER                              -- set when the log is full; no record is appended after that
) STRICT;

CREATE TABLE audit_record (
    log        INTEGER NOT NULL,
    idx        INTEGER NOT NULL,                   -- from 0, without gaps
    session_id BLOB,
    line       TEXT    NOT NULL,                   -- as in the file
    PRIMARY KEY (log, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_record_session ON audit_record (session_id);

CREATE TABLE outbox (
    seq         INTEGER PRIMARY KEY,               -- events of one guest are delivered in this order
    id          TEXT    NOT NULL,                  -- the webhook-id of every attempt
    endpoint    INTEGER NOT NULL,                  -- endpoint, from 1, in the order of the URLs
    session_id  BLOB    NOT NULL,
    guest_id    TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state = 'pending' OR state = 'delivered' OR state = 'dead' OR state = 'erased'),
    attempts       INTEGER NOT NULL,
    epoch       INTEGER NOT NULL DEFAULT 1,        -- fencing number: a delivery with an older one records nothing
    created_at  INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,                  -- the next attempt, or the end of the lease of the present one
    ended_at    INTEGER,
    last_error  TEXT,
    UNIQUE (id, endpoint)
) STRICT;
CREATE INDEX outbox_due ON outbox (endpoint, due_at) WHERE state = 'pending';
-- Only pending events are looked up by guest. Over all events, each session would change one more page of a large index.
CREATE INDEX outbox_guest ON outbox (guest_id, endpoint, seq) WHERE state = 'pending';
CREATE INDEX outbox_ended ON outbox (state, seq) WHERE state = 'dead' OR state = 'erased';

CREATE TABLE signing_key (
    kid         TEXT    PRIMARY KEY,
    sealed      BLOB    NOT NULL,                  -- PKCS#8 under the master key
    created_at  INTEGER NOT NULL,                  -- published from this time on
    active_from INTEGER NOT NULL,                  -- signs from this time on
    revoked_at  INTEGER                            -- not trusted from this time on
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
    id           TEXT    PRIMARY KEY,              -- part of the key, and not secret
    owner        TEXT    NOT NULL,                 -- of the sessions it creates; a key that replaces another has the same owner
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL,                 -- HMAC-SHA-256 of the whole key under a secret of this store
    scopes       TEXT    NOT NULL,                 -- separated by spaces
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER                           -- to the minute
) STRICT, WITHOUT ROWID;

CREATE TABLE secret (
    name   TEXT PRIMARY KEY,
    sealed BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- The platform to which this store is bound.
CREATE TABLE platform (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    base_url     TEXT    NOT NULL,
    client_id    TEXT,                             -- the OAuth client with which the organization was looked up
    organization TEXT                              -- the platform's ID of the organization
) STRICT;

-- The key of a guest's pseudonym in the audit log. Without it, a record cannot be linked to the guest.
CREATE TABLE pseudonym_key (
    guest_id TEXT PRIMARY KEY,
    key      BLOB NOT NULL                         -- 32 bytes
) STRICT, WITHOUT ROWID;

-- Work that one process started and another one must complete.
CREATE TABLE maintenance_task (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE counter (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Latencies of deleted sessions, rounded. Their number by state is in `counter`.
CREATE TABLE pruned_latency (
    latency_us INTEGER PRIMARY KEY,
    sessions   INTEGER NOT NULL
) STRICT;

-- Facts about the store: `store_id` identifies it while it is migrated; `retention_mark` is the time that retention trusts.
CREATE TABLE property (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO property (name, value) VALUES ('store_id', lower(hex(randomblob(16))));
