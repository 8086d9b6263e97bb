-- Who shares the shards: a row per running process, good until its heartbeat runs out. Rewritten every few seconds, so
-- the page keeps room for the versions that HOT pruning has yet to reclaim.
CREATE TABLE replicas (
    id            text PRIMARY KEY,
    -- Where other replicas reach it.
    url           text,
    version       text NOT NULL,
    started_at_us bigint NOT NULL,
    seen_until_us bigint NOT NULL
) WITH (fillfactor = 25);
