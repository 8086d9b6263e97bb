-- Skald's schema on SQLite. Times are microseconds since the Unix epoch, columns named `*_us`; ids are 16-byte blobs.

-- What a database was created with: the secret.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) WITHOUT ROWID;

-- One row is the lease, the fence and the sequencer of the log. There is one shard, number 0.
CREATE TABLE shards (
    shard          INTEGER PRIMARY KEY,
    epoch          INTEGER NOT NULL DEFAULT 0,
    owner          TEXT,
    owner_url      TEXT,
    lease_until_us INTEGER NOT NULL DEFAULT 0,
    -- The last position given out; the first event has position 1.
    head           INTEGER NOT NULL DEFAULT 0
);

-- One row per saga, rewritten in place.
CREATE TABLE sagas (
    id                 BLOB PRIMARY KEY NOT NULL,
    shard              INTEGER NOT NULL,
    definition         TEXT NOT NULL,
    definition_version INTEGER NOT NULL,
    mode               TEXT NOT NULL,
    status             TEXT NOT NULL,
    state              TEXT NOT NULL,
    version            INTEGER NOT NULL,
    correlation_id     TEXT NOT NULL,
    -- JSON text.
    failure            TEXT,
    created_at_us      INTEGER NOT NULL,
    updated_at_us      INTEGER NOT NULL,
    ended_at_us        INTEGER,
    deadline_at_us     INTEGER,
    wake_at_us         INTEGER
) WITHOUT ROWID;

-- No index holds `state`, `version`, `updated_at_us` or `wake_at_us`: a step's transition touches none. `completed` is
-- what most sagas are, so the newest of those are found along the primary key.
CREATE INDEX sagas_unfinished ON sagas (shard, id) WHERE ended_at_us IS NULL;
CREATE INDEX sagas_by_status ON sagas (status, id) WHERE status <> 'completed';
CREATE INDEX sagas_by_definition ON sagas (definition, id);
CREATE INDEX sagas_by_correlation ON sagas (correlation_id, id);
CREATE INDEX sagas_choreographed ON sagas (id) WHERE mode = 'choreographed';

-- The log: append-only. With one shard the position is the row's own number, so appending is all that inserting does.
CREATE TABLE events (
    position       INTEGER PRIMARY KEY NOT NULL,
    shard          INTEGER NOT NULL,
    stream         BLOB NOT NULL,
    version        INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    kind           TEXT NOT NULL,
    -- The domain name; NULL when it is the kind.
    type           TEXT,
    occurred_at_us INTEGER NOT NULL,
    actor          TEXT,
    schema_version INTEGER NOT NULL DEFAULT 1,
    -- JSON text.
    data           TEXT NOT NULL
);

CREATE UNIQUE INDEX events_by_stream ON events (stream, version);

CREATE TABLE start_keys (
    definition  TEXT NOT NULL,
    key         TEXT NOT NULL,
    shard       INTEGER NOT NULL,
    saga        BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    PRIMARY KEY (definition, key)
) WITHOUT ROWID;

-- Retention removes a saga's key with it.
CREATE INDEX start_keys_by_saga ON start_keys (saga);

CREATE TABLE definitions (
    name             TEXT NOT NULL,
    version          INTEGER NOT NULL,
    hash             TEXT NOT NULL,
    document         TEXT NOT NULL,
    registered_at_us INTEGER NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE pauses (
    kind     TEXT NOT NULL,
    name     TEXT NOT NULL,
    actor    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    since_us INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
);

-- Events are facts. Retention may delete them when it says so: it inserts a row here and deletes it again, in the
-- transaction that removes the events.
CREATE TABLE retention_under_way (since_us INTEGER NOT NULL);

CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are append-only: UPDATE is refused');
END;

CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
WHEN NOT EXISTS (SELECT 1 FROM retention_under_way)
BEGIN
    SELECT RAISE(ABORT, 'events are append-only: DELETE is refused');
END;

-- The step log, for people: one row per thing that happened to a step.
CREATE VIEW saga_step_log AS
SELECT substr(lower(hex(e.stream)), 1, 8) || '-' || substr(lower(hex(e.stream)), 9, 4) || '-'
           || substr(lower(hex(e.stream)), 13, 4) || '-' || substr(lower(hex(e.stream)), 17, 4) || '-'
           || substr(lower(hex(e.stream)), 21) AS saga,
       s.definition,
       s.definition_version,
       e.version,
       e.data ->> 'step' AS step,
       coalesce(e.data ->> 'operation',
                CASE WHEN e.kind IN ('StepCompensated', 'CompensationSkipped') THEN 'compensation' ELSE 'action' END)
           AS operation,
       e.kind,
       coalesce(e.type, e.kind) AS type,
       e.data ->> 'attempt' AS attempt,
       e.data ->> 'http_status' AS http_status,
       coalesce(e.data ->> 'error', e.data ->> 'reason') AS error,
       e.data ->> 'duration_ms' AS duration_ms,
       e.actor,
       strftime('%Y-%m-%dT%H:%M:%f', e.occurred_at_us / 1000000.0, 'unixepoch') || 'Z' AS occurred_at
FROM events e
JOIN sagas s ON s.id = e.stream
WHERE e.kind LIKE 'Step%' OR e.kind IN ('AttemptFailed', 'CompensationSkipped');
