-- Audit logs that prove themselves, events by receiver and in order, guests that can be erased.

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
    state       TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'dead', 'erased')),
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
CREATE INDEX outbox_guest ON outbox (guest_id, receiver, seq) WHERE state = 'pending';

-- What a guest's pseudonym in the audit log is made with. Without it, nobody can tell whose records they were.
CREATE TABLE guest_key (
    guest_id TEXT PRIMARY KEY,
    key      BLOB NOT NULL                         -- 32 bytes
) STRICT, WITHOUT ROWID;

-- What a process began and another one must end.
CREATE TABLE chore (
    name TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
