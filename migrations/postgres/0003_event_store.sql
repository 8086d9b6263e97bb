-- Events that came from outside say where from; the engine's own leave these empty. The event id is unique within the
-- stream. Its index is partial, so that no other lookup by stream is tempted into it and the engine's events cost nothing.
ALTER TABLE events
    ADD COLUMN event_id text,
    ADD COLUMN correlation_id text,
    ADD COLUMN causation_id text;

CREATE UNIQUE INDEX events_by_event_id ON events (stream, event_id) WHERE event_id IS NOT NULL;

-- Streams that are no sagas: `category-anything`, and the id under which the log knows each. Rewritten by every append,
-- so the page keeps room, and no index holds what an append changes.
CREATE TABLE streams (
    name          text COLLATE "C" PRIMARY KEY,
    id            uuid NOT NULL,
    shard         integer NOT NULL,
    category      text COLLATE "C" NOT NULL,
    version       bigint NOT NULL,
    created_at_us bigint NOT NULL,
    updated_at_us bigint NOT NULL
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX streams_by_id ON streams (id);

-- Consumer groups. What they do is in storage/groups/.
CREATE TABLE consumer_groups (
    name             text COLLATE "C" PRIMARY KEY,
    -- JSON text.
    filter           text NOT NULL,
    retry_initial_ms bigint NOT NULL,
    retry_max_ms     bigint NOT NULL,
    retry_attempts   integer NOT NULL,
    created_at_us    bigint NOT NULL
);

-- Who polled lately, to share the shards by.
CREATE TABLE consumer_members (
    group_name    text COLLATE "C" NOT NULL,
    consumer      text COLLATE "C" NOT NULL,
    seen_until_us bigint NOT NULL,
    PRIMARY KEY (group_name, consumer)
) WITH (fillfactor = 25);

-- How far a group has come in a shard, and what of it is in a consumer's hands. Rewritten by every delivery.
CREATE TABLE consumer_cursors (
    group_name     text COLLATE "C" NOT NULL,
    shard          integer NOT NULL,
    -- Every event up to here was not wanted, is settled, in hand, owed, or held.
    looked_to      bigint NOT NULL,
    -- Positions handed out under the lease and not settled, as ranges: `17-19,23`.
    in_hand        text NOT NULL DEFAULT '',
    -- Positions handed out under a lease that ended, to be handed out again before anything new.
    owed           text NOT NULL DEFAULT '',
    -- The lease on what is in hand.
    consumer       text COLLATE "C",
    token          bigint NOT NULL,
    lease_ms       bigint NOT NULL DEFAULT 0,
    lease_until_us bigint NOT NULL DEFAULT 0,
    -- Leases that ended since something was last settled.
    losses         integer NOT NULL DEFAULT 0,
    moved_at_us    bigint NOT NULL,
    -- Raised by every change of this row and of the group's held events in the shard: whoever read another one lost.
    revision       bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (group_name, shard)
) WITH (fillfactor = 25);

-- Events that a group could not handle (`retry`, `parked`), and those behind them in their streams (`waiting`).
CREATE TABLE consumer_held (
    group_name text COLLATE "C" NOT NULL,
    shard      integer NOT NULL,
    position   bigint NOT NULL,
    stream     uuid NOT NULL,
    status     text COLLATE "C" NOT NULL,
    tries      integer NOT NULL,
    next_at_us bigint NOT NULL,
    error      text,
    held_at_us bigint NOT NULL,
    PRIMARY KEY (group_name, shard, position)
);

-- Partial, also where the condition always holds: a lookup by position must not find this one as good.
CREATE INDEX consumer_held_by_stream ON consumer_held (group_name, shard, stream, position) WHERE stream IS NOT NULL;
CREATE INDEX consumer_held_due ON consumer_held (group_name, next_at_us) WHERE status = 'retry';
CREATE INDEX consumer_held_parked ON consumer_held (group_name, shard, position) WHERE status = 'parked';

-- How far the relay to a bus has published each shard.
CREATE TABLE relay_cursors (
    bus      text COLLATE "C" NOT NULL,
    shard    integer NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (bus, shard)
) WITH (fillfactor = 25);

-- How many events there ever were of each type and category, up to a position of each shard: moved on when somebody asks.
CREATE TABLE event_counts (
    category text COLLATE "C" NOT NULL,
    type     text COLLATE "C" NOT NULL,
    events   bigint NOT NULL,
    PRIMARY KEY (category, type)
) WITH (fillfactor = 50);

CREATE TABLE event_count_cursors (
    shard    integer PRIMARY KEY,
    position bigint NOT NULL
) WITH (fillfactor = 25);
