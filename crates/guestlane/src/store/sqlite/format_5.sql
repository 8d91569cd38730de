-- Keys that rotate, keys of callers, and what each call of a session came to.

ALTER TABLE signing_key ADD COLUMN active_from INTEGER NOT NULL DEFAULT 0; -- it is published from created_at on, and signs from then on
ALTER TABLE signing_key ADD COLUMN revoked_at INTEGER;                     -- nobody believes it since
UPDATE signing_key SET active_from = created_at;

-- Who may ask the service, and for what.
CREATE TABLE api_key (
    id           TEXT    PRIMARY KEY,              -- stands in the key, and is no secret
    name         TEXT    NOT NULL,
    hash         BLOB    NOT NULL,                 -- HMAC-SHA-256 of the whole key under a secret of this store
    scopes       TEXT    NOT NULL,                 -- with spaces between
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER                           -- to the minute
) STRICT, WITHOUT ROWID;

ALTER TABLE session ADD COLUMN traceparent TEXT;   -- of whoever asked for it (W3C Trace Context)
ALTER TABLE session ADD COLUMN calls TEXT NOT NULL DEFAULT ''; -- JSON lines: what each call to the platform came to
