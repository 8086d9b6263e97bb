-- Who shares the shard: a row per running process, good until its heartbeat runs out.
CREATE TABLE replicas (
    id            TEXT PRIMARY KEY NOT NULL,
    -- Where other replicas reach it.
    url           TEXT,
    version       TEXT NOT NULL,
    started_at_us INTEGER NOT NULL,
    seen_until_us INTEGER NOT NULL
);
