-- Events that came from outside say where from; the engine's own leave these empty. The event id is unique within the
-- stream. Its index is partial, so that no other lookup by stream is tempted into it and the engine's events cost nothing.
ALTER TABLE events ADD COLUMN event_id TEXT;
ALTER TABLE events ADD COLUMN correlation_id TEXT;
ALTER TABLE events ADD COLUMN causation_id TEXT;

CREATE UNIQUE INDEX events_by_event_id ON events (stream, event_id) WHERE event_id IS NOT NULL;

-- Streams that are no sagas: `category-anything`, and the id under which the log knows each. No index holds what an append
-- changes.
CREATE TABLE streams (
    name          TEXT PRIMARY KEY NOT NULL,
    id            BLOB NOT NULL,
    shard         INTEGER NOT NULL,
    category      TEXT NOT NULL,
    version       INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL
) WITHOUT ROWID;

CREATE UNIQUE INDEX streams_by_id ON streams (id);

-- Consumer groups. What they do is in storage/groups/.
CREATE TABLE consumer_groups (
    name             TEXT PRIMARY KEY NOT NULL,
    -- JSON text.
    filter           TEXT NOT NULL,
    retry_initial_ms INTEGER NOT NULL,
    retry_max_ms     INTEGER NOT NULL,
    retry_attempts   INTEGER NOT NULL,
    created_at_us    INTEGER NOT NULL
) WITHOUT ROWID;

-- Who polled lately, to share the shards by.
CREATE TABLE consumer_members (
    group_name    TEXT NOT NULL,
    consumer      TEXT NOT NULL,
    seen_until_us INTEGER NOT NULL,
    PRIMARY KEY (group_name, consumer)
) WITHOUT ROWID;

-- How far a group has come in a shard, and what of it is in a consumer's hands. Rewritten by every delivery.
CREATE TABLE consumer_cursors (
    group_name     TEXT NOT NULL,
    shard          INTEGER NOT NULL,
    -- Every event up to here was not wanted, is settled, in hand, owed, or held.
    looked_to      INTEGER NOT NULL,
    -- Positions handed out under the lease and not settled, as ranges: `17-19,23`.
    in_hand        TEXT NOT NULL DEFAULT '',
    -- Positions handed out under a lease that ended, to be handed out again before anything new.
    owed           TEXT NOT NULL DEFAULT '',
    -- The lease on what is in hand.
    consumer       TEXT,
    token          INTEGER NOT NULL,
    lease_ms       INTEGER NOT NULL DEFAULT 0,
    lease_until_us INTEGER NOT NULL DEFAULT 0,
    -- Leases that ended since something was last settled.
    losses         INTEGER NOT NULL DEFAULT 0,
    moved_at_us    INTEGER NOT NULL,
    -- Raised by every change of this row and of the group's held events in the shard: whoever read another one lost.
    revision       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (group_name, shard)
) WITHOUT ROWID;

-- Events that a group could not handle (`retry`, `parked`), and those behind them in their streams (`waiting`).
CREATE TABLE consumer_held (
    group_name TEXT NOT NULL,
    shard      INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    stream     BLOB NOT NULL,
    status     TEXT NOT NULL,
    tries      INTEGER NOT NULL,
    next_at_us INTEGER NOT NULL,
    error      TEXT,
    held_at_us INTEGER NOT NULL,
    PRIMARY KEY (group_name, shard, position)
) WITHOUT ROWID;

CREATE INDEX consumer_held_by_stream ON consumer_held (group_name, shard, stream, position);
CREATE INDEX consumer_held_due ON consumer_held (group_name, next_at_us) WHERE status = 'retry';
CREATE INDEX consumer_held_parked ON consumer_held (group_name, shard, position) WHERE status = 'parked';

-- How far the relay to a bus has published each shard.
CREATE TABLE relay_cursors (
    bus      TEXT NOT NULL,
    shard    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (bus, shard)
) WITHOUT ROWID;

-- How many events there ever were of each type and category, up to a position of each shard: moved on when somebody asks.
CREATE TABLE event_counts (
    category TEXT NOT NULL,
    type     TEXT NOT NULL,
    events   INTEGER NOT NULL,
    PRIMARY KEY (category, type)
) WITHOUT ROWID;

CREATE TABLE event_count_cursors (
    shard    INTEGER PRIMARY KEY,
    position INTEGER NOT NULL
);
