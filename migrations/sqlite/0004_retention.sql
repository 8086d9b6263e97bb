-- What retention has taken out of the database, and where it is: a row for each file of the archive. `written`: the file
-- is there and verified, the database still holds all of it. `removing`: some of it may be gone from here. `removed`: all
-- of it is.
CREATE TABLE archive_parts (
    -- Such as `2026-01.0003`: the month in which its streams began, and a number.
    name           TEXT PRIMARY KEY NOT NULL,
    state          TEXT NOT NULL,
    -- Of its streams, by id.
    first_id       BLOB NOT NULL,
    last_id        BLOB NOT NULL,
    sagas          INTEGER NOT NULL,
    streams        INTEGER NOT NULL,
    events         INTEGER NOT NULL,
    -- Of the file.
    sha256         BLOB NOT NULL,
    archived_at_us INTEGER NOT NULL,
    removed_at_us  INTEGER,
    -- The stream that is being removed step by step: its row is gone, some of its events are not.
    removing       BLOB
) WITHOUT ROWID;

-- Positions of the log at which there is nothing any more: ranges that neither touch nor overlap.
CREATE TABLE log_holes (
    shard INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last  INTEGER NOT NULL,
    PRIMARY KEY (shard, first)
) WITHOUT ROWID;

-- Who may archive and remove: one at a time.
CREATE TABLE retention_lease (
    one      INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    holder   TEXT NOT NULL,
    until_us INTEGER NOT NULL
);
