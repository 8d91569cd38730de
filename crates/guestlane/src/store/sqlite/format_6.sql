-- Who comes late settles nothing.

ALTER TABLE outbox ADD COLUMN epoch INTEGER NOT NULL DEFAULT 1; -- counts who had it leased: one with an older number settles nothing
