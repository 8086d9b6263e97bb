-- The keys that personal data is sealed under: one per person, and a new one after an erasure. To erase a person is to
-- destroy the key; the row stays, and says so.
CREATE TABLE subject_keys (
    id             TEXT PRIMARY KEY NOT NULL,
    -- A keyed hash of the person's name.
    subject        TEXT NOT NULL,
    -- NULL: destroyed.
    key            BLOB,
    created_at_us  INTEGER NOT NULL,
    erased_at_us   INTEGER,
    erased_by      TEXT,
    erased_because TEXT
) WITHOUT ROWID;

CREATE UNIQUE INDEX subject_keys_live ON subject_keys (subject) WHERE key IS NOT NULL;
CREATE INDEX subject_keys_by_subject ON subject_keys (subject, created_at_us);

-- The key that a saga's personal data is sealed under. Written with the saga's first events.
CREATE TABLE saga_subjects (
    saga   BLOB PRIMARY KEY NOT NULL,
    key_id TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX saga_subjects_by_key ON saga_subjects (key_id, saga);
