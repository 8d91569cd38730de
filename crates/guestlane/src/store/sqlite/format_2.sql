-- Audit logs that prove themselves, events by receiver and in order, guests that can be erased.
--
-- No list of values behind IN stands in a CHECK or in an index's condition: SQLite would build a table of it for each row that is written.

ALTER TABLE session RENAME TO session_1;
DROP INDEX session_unfinished;
DROP INDEX session_guest;
CREATE TABLE session (
    id              BLOB    PRIMARY KEY,           -- UUID version 7
    idempotency_key TEXT    NOT NULL UNIQUE,
    fingerprint     BLOB    NOT NULL,              -- SHA-256 of the canonical request
    guest_id        TEXT    NOT NULL,
    queue_id        BLOB    NOT NULL,
    attributes      TEXT    NOT NULL,              -- JSON object
    state           TEXT    NOT NULL CHECK (
        state = 'admitted' OR state = 'contact_created' OR state = 'open' OR state = 'failed' OR state = 'parked' OR state = 'needs_attention'
    ),
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
INSERT INTO session
    (id, idempotency_key, fingerprint, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, contact_id, conversation_id,
     attempts, epoch, admitted_at, step_since, uncertain, due_at, opened_at, latency_us, failure_code, failure_message)
    SELECT id, idempotency_key, fingerprint, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, contact_id, conversation_id,
     attempts, epoch, admitted_at, step_since, uncertain, due_at, opened_at, latency_us, failure_code, failure_message FROM session_1;
DROP TABLE session_1;
CREATE INDEX session_unfinished ON session (due_at) WHERE state != 'open' AND state != 'failed' AND state != 'needs_attention';
CREATE INDEX session_guest ON session (guest_id);

CREATE TABLE audit_log (
    log       INTEGER PRIMARY KEY,                 -- from 1; each belongs to one process at a time
    size      INTEGER NOT NULL,                    -- records so far
    frontier  BLOB    NOT NULL,                    -- the right edge of its Merkle tree (RFC 6962)
    closed_at INTEGER                              -- full: nothing is added any more
) STRICT;

ALTER TABLE audit_entry RENAME TO audit_entry_1;
CREATE TABLE audit_entry (
    log        INTEGER NOT NULL,
    idx        INTEGER NOT NULL,                   -- from 0, without gaps
    session_id BLOB,
    line       TEXT    NOT NULL,                   -- as it stands in the file
    PRIMARY KEY (log, idx)
) STRICT, WITHOUT ROWID;
INSERT INTO audit_entry SELECT 1, idx, session_id, line FROM audit_entry_1;
DROP TABLE audit_entry_1;
CREATE INDEX audit_session ON audit_entry (session_id);

ALTER TABLE outbox RENAME TO outbox_1;
CREATE TABLE outbox (
    seq         INTEGER PRIMARY KEY,               -- the order in which events of one guest are told
    id          TEXT    NOT NULL,                  -- the webhook-id of every try
    receiver    INTEGER NOT NULL,                  -- from 1, in the order of CRM_WEBHOOK_URL
    session_id  BLOB    NOT NULL,
    guest_id    TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state = 'pending' OR state = 'delivered' OR state = 'dead' OR state = 'erased'),
    tries       INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    due_at      INTEGER NOT NULL,                  -- the next try, or the end of the lease of the present one
    settled_at  INTEGER,
    last_error  TEXT,
    UNIQUE (id, receiver)
) STRICT;
INSERT INTO outbox (id, receiver, session_id, guest_id, body, state, tries, created_at, due_at, settled_at, last_error)
    SELECT o.id, 1, o.session_id, coalesce(s.guest_id, ''), o.body, o.state, o.tries, o.created_at, o.due_at, o.settled_at, o.last_error
    FROM outbox_1 o LEFT JOIN session s ON s.id = o.session_id ORDER BY o.created_at, o.id;
DROP TABLE outbox_1;
CREATE INDEX outbox_due ON outbox (receiver, due_at) WHERE state = 'pending';
CREATE INDEX outbox_guest ON outbox (guest_id, receiver, seq);

-- What a guest's pseudonym in the audit log is made with. Without it, nobody can tell whose records they were.
CREATE TABLE guest_key (
    guest_id TEXT PRIMARY KEY,
    key      BLOB NOT NULL                         -- 32 bytes
) STRICT, WITHOUT ROWID;

-- What a process began and another one must end.
CREATE TABLE chore (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
