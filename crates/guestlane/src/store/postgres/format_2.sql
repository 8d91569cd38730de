-- Idempotency keys are scoped to an owner; facts about the store itself have a table.

-- `owner`: 'local' for the command line and the library, the API key's owner for the service, '' for sessions
-- admitted before owners existed, whose keys every owner finds.
ALTER TABLE session ADD COLUMN owner text NOT NULL DEFAULT '';
ALTER TABLE session DROP CONSTRAINT session_idempotency_key_key;
ALTER TABLE session ADD UNIQUE (idempotency_key, owner);
ALTER TABLE session ADD COLUMN recorded_at bigint NOT NULL DEFAULT 0; -- time of the last transition: retention counts from it
UPDATE session SET recorded_at = greatest(opened_at, due_at, admitted_at);

-- The owner of the sessions that a key creates. A key that replaces another one has the same owner.
ALTER TABLE api_key ADD COLUMN owner text NOT NULL DEFAULT '';
UPDATE api_key SET owner = id;

-- Facts about the store: `store_id` identifies it while it moves; `retention_mark` is the time that retention trusts.
CREATE TABLE property (
    name  text PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO property (name, value) VALUES ('store_id', replace(gen_random_uuid()::text, '-', ''));

-- A node of an older version stops writing once a newer one has changed the format.
CREATE FUNCTION expect_format(known integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found integer;
BEGIN
    SELECT number INTO found FROM format;
    IF found <> known THEN
        RAISE EXCEPTION '% %', found, known USING ERRCODE = 'GL002';
    END IF;
END
$$;

-- Retention keeps a session while a row of a batch may still ask for its idempotency key.
CREATE INDEX batch_row_key ON batch_row (idempotency_key) WHERE state = 'waiting' OR state = 'running';

-- A row that has ended needs its personal data no more.
UPDATE batch_row SET attributes = '{}', person = '{}' WHERE state IN ('open', 'failed', 'cancelled');
