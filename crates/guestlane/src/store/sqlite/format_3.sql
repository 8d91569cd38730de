-- Sessions on the public platform's surfaces.

ALTER TABLE platform ADD COLUMN client_id TEXT;                         -- the OAuth client that was asked whose it is
ALTER TABLE platform ADD COLUMN organization TEXT;                      -- the platform's id of it

ALTER TABLE session ADD COLUMN surface TEXT NOT NULL DEFAULT 'rest';
ALTER TABLE session ADD COLUMN door BLOB;                               -- the web deployment or the integration
ALTER TABLE session ADD COLUMN guest_session BLOB;                      -- its token on the guest API, under the master key
ALTER TABLE session ADD COLUMN guest_session_ends INTEGER;
ALTER TABLE session ADD COLUMN message_id TEXT;                         -- the first message, once the platform has it
ALTER TABLE session ADD COLUMN plain_contact INTEGER NOT NULL DEFAULT 0; -- nothing identified the contact at admission
ALTER TABLE session ADD COLUMN contact_unknown INTEGER NOT NULL DEFAULT 0; -- a contact may exist whose id nobody knows
ALTER TABLE session ADD COLUMN person TEXT;                             -- JSON object: names, e-mail, telephone
