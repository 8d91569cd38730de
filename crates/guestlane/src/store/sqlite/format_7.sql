-- Idempotency keys are scoped to an owner; facts about the store itself have a table.

-- `owner`: 'local' for the command line and the library, the API key's owner for the service, '' for sessions
-- admitted before owners existed, whose keys every owner finds.
ALTER TABLE session RENAME TO session_6;
DROP INDEX session_unfinished;
DROP INDEX session_guest;
DROP INDEX session_ended;
CREATE TABLE session (
    id                 BLOB    PRIMARY KEY,        -- UUID version 7
    owner              TEXT    NOT NULL DEFAULT '',
    idempotency_key    TEXT    NOT NULL,
    fingerprint        BLOB    NOT NULL,           -- SHA-256 of the canonical request
    guest_id           TEXT    NOT NULL,
    queue_id           BLOB    NOT NULL,
    attributes         TEXT    NOT NULL,           -- JSON object
    state              TEXT    NOT NULL CHECK (
        state = 'admitted' OR state = 'contact_created' OR state = 'open' OR state = 'failed' OR state = 'parked' OR state = 'needs_attention'
    ),
    token_kid          TEXT    NOT NULL,
    token_jti          BLOB    NOT NULL,
    token_iat          INTEGER NOT NULL,           -- seconds
    contact_id         TEXT,
    conversation_id    TEXT,
    attempts           INTEGER NOT NULL,
    epoch              INTEGER NOT NULL,           -- fencing number: a process with an older one writes nothing
    admitted_at        INTEGER NOT NULL,
    step_since         INTEGER NOT NULL,
    uncertain          INTEGER NOT NULL,           -- whether the present step may have taken effect
    due_at             INTEGER NOT NULL,           -- end of the lease, of the parking, or of the pause
    opened_at          INTEGER,
    latency_us         INTEGER,
    failure_code       TEXT,
    failure_message    TEXT,
    surface            TEXT    NOT NULL DEFAULT 'rest',
    door               BLOB,                       -- the web deployment or the integration
    guest_session      BLOB,                       -- guest session token, sealed under the master key
    guest_session_ends INTEGER,
    message_id         TEXT,                       -- the first message, once the platform has it
    plain_contact      INTEGER NOT NULL DEFAULT 0, -- no identifier named the contact at admission
    contact_unknown    INTEGER NOT NULL DEFAULT 0, -- a contact may exist whose ID was lost
    person             TEXT,                       -- JSON object: names, e-mail, telephone
    traceparent        TEXT,                       -- W3C Trace Context of the first request
    calls              TEXT    NOT NULL DEFAULT '',-- JSON lines: the outcome of each platform call
    recorded_at        INTEGER NOT NULL,           -- trusted time of the last transition: retention counts from it
    UNIQUE (idempotency_key, owner)
) STRICT, WITHOUT ROWID;
INSERT INTO session
    (id, idempotency_key, fingerprint, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, contact_id,
     conversation_id, attempts, epoch, admitted_at, step_since, uncertain, due_at, opened_at, latency_us, failure_code,
     failure_message, surface, door, guest_session, guest_session_ends, message_id, plain_contact, contact_unknown, person,
     traceparent, calls, recorded_at)
    SELECT id, idempotency_key, fingerprint, guest_id, queue_id, attributes, state, token_kid, token_jti, token_iat, contact_id,
     conversation_id, attempts, epoch, admitted_at, step_since, uncertain, due_at, opened_at, latency_us, failure_code,
     failure_message, surface, door, guest_session, guest_session_ends, message_id, plain_contact, contact_unknown, person,
     traceparent, calls, max(coalesce(opened_at, 0), due_at, admitted_at) FROM session_6;
DROP TABLE session_6;
CREATE INDEX session_unfinished ON session (due_at) WHERE state != 'open' AND state != 'failed' AND state != 'needs_attention';
CREATE INDEX session_guest ON session (guest_id);
CREATE INDEX session_ended ON session (state, id) WHERE state = 'failed' OR state = 'needs_attention';

-- The owner of the sessions that a key creates. A key that replaces another one has the same owner.
ALTER TABLE api_key ADD COLUMN owner TEXT NOT NULL DEFAULT '';
UPDATE api_key SET owner = id;

-- Facts about the store: `store_id` identifies it while it moves; `retention_mark` is the time that retention trusts.
CREATE TABLE property (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO property (name, value) VALUES ('store_id', lower(hex(randomblob(16))));
