-- Skald's schema on PostgreSQL. Times are microseconds since the Unix epoch, columns named `*_us`.

-- The database's clock: leases and wake-up times are by it, never by a replica's.
CREATE FUNCTION skald_now_us() RETURNS bigint LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint $$;

-- What a database was created with: the secret.
CREATE TABLE settings (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

-- One row is the lease, the fence and the sequencer of one shard of the log. It is rewritten by every commit, so the
-- page keeps room for the versions that HOT pruning has yet to reclaim.
CREATE TABLE shards (
    shard          integer PRIMARY KEY,
    epoch          bigint NOT NULL DEFAULT 0,
    owner          text,
    owner_url      text,
    lease_until_us bigint NOT NULL DEFAULT 0,
    -- The last position given out; the first event of a shard has position 1.
    head           bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- One row per saga, rewritten in place. Partitioned by the id, a UUIDv7, so that a saga leaves whole with its month.
CREATE TABLE sagas (
    id                 uuid NOT NULL,
    shard              integer NOT NULL,
    definition         text NOT NULL,
    definition_version bigint NOT NULL,
    mode               text NOT NULL,
    status             text NOT NULL,
    state              text NOT NULL,
    version            bigint NOT NULL,
    correlation_id     text NOT NULL,
    -- JSON text.
    failure            text,
    created_at_us      bigint NOT NULL,
    updated_at_us      bigint NOT NULL,
    ended_at_us        bigint,
    deadline_at_us     bigint,
    wake_at_us         bigint,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);

-- No index holds `state`, `version`, `updated_at_us` or `wake_at_us`: a step's transition is a HOT update, and only a
-- change of status or the end touches an index. `completed` is what most sagas are, so the newest of those are found
-- along the primary key; the index by status holds the others.
--
-- All of them are partial, also where the condition always holds: the commit's UPDATE looks a saga up by its id, and for
-- an empty partition the planner would as gladly find the id inside one of these, which is a scan of the whole index
-- once the partition has filled and the plan is still in use. A condition that the UPDATE does not imply rules them out.
CREATE INDEX sagas_unfinished ON sagas (shard, id) WHERE ended_at_us IS NULL;
CREATE INDEX sagas_by_status ON sagas (status, id) WHERE status <> 'completed';
CREATE INDEX sagas_by_definition ON sagas (definition, id) WHERE definition IS NOT NULL;
CREATE INDEX sagas_by_correlation ON sagas (correlation_id, id) WHERE correlation_id IS NOT NULL;
CREATE INDEX sagas_choreographed ON sagas (id) WHERE mode = 'choreographed';

-- The log: append-only, partitioned like the sagas.
CREATE TABLE events (
    shard          integer NOT NULL,
    -- Gapless within the shard, in commit order.
    position       bigint NOT NULL,
    stream         uuid NOT NULL,
    version        bigint NOT NULL,
    epoch          bigint NOT NULL,
    kind           text NOT NULL,
    -- The domain name; NULL when it is the kind.
    type           text,
    occurred_at_us bigint NOT NULL,
    actor          text,
    schema_version smallint NOT NULL DEFAULT 1,
    -- JSON text, kept byte by byte; `jsonb` would rewrite numbers and refuse some strings.
    data           text NOT NULL,
    PRIMARY KEY (stream, version)
) PARTITION BY RANGE (stream);

CREATE INDEX events_by_position ON events (shard, position);

-- Unpartitioned, so that the database itself makes one key one saga.
CREATE TABLE start_keys (
    definition  text NOT NULL,
    key         text NOT NULL,
    shard       integer NOT NULL,
    saga        uuid NOT NULL,
    fingerprint bytea NOT NULL,
    PRIMARY KEY (definition, key)
);

-- Retention removes a saga's key with it.
CREATE INDEX start_keys_by_saga ON start_keys (saga);

CREATE TABLE definitions (
    name             text NOT NULL,
    version          bigint NOT NULL,
    hash             text NOT NULL,
    document         text NOT NULL,
    registered_at_us bigint NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE pauses (
    kind     text NOT NULL,
    name     text NOT NULL,
    actor    text NOT NULL,
    reason   text NOT NULL,
    since_us bigint NOT NULL,
    PRIMARY KEY (kind, name)
);

-- Events are facts. Retention may delete them when it says so: SET LOCAL skald.retention = 'on'.
CREATE FUNCTION skald_events_are_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('skald.retention', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'events are append-only: % is refused', TG_OP USING ERRCODE = 'SK003';
END $$;

CREATE TRIGGER events_are_facts BEFORE UPDATE OR DELETE ON events
    FOR EACH ROW EXECUTE FUNCTION skald_events_are_facts();
CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION skald_events_are_facts();

-- The smallest UUIDv7 of a moment.
CREATE FUNCTION skald_uuid_floor(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE AS
$$ SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;

-- Creates the partitions of one month, named sagas_YYYYMM and events_YYYYMM; says whether it did. When rows of that
-- month lie in the default partition already, they stay there and so does the rest of the month.
CREATE FUNCTION skald_create_month(month timestamp) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    suffix text := to_char(month, 'YYYYMM');
    low    uuid := skald_uuid_floor(month AT TIME ZONE 'UTC');
    high   uuid := skald_uuid_floor((month + interval '1 month') AT TIME ZONE 'UTC');
BEGIN
    IF to_regclass('sagas_' || suffix) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE sagas_%s PARTITION OF sagas FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = 70)',
                   suffix, low, high);
    EXECUTE format('CREATE TABLE events_%s PARTITION OF events FOR VALUES FROM (%L) TO (%L)', suffix, low, high);
    EXECUTE format('CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events_%s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION skald_events_are_facts()', suffix);
    RETURN true;
EXCEPTION
    WHEN check_violation THEN
        RETURN false;
END $$;

-- Creates what is missing of this month's partitions and the next two months'. Waits for whoever does the same.
CREATE FUNCTION skald_create_months() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('skald_create_months'));
    FOR ahead IN 0..2 LOOP
        PERFORM skald_create_month(this_month + ahead * interval '1 month');
    END LOOP;
END $$;

CREATE TABLE sagas_default PARTITION OF sagas DEFAULT WITH (fillfactor = 70);
CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE TRIGGER events_are_not_truncated BEFORE TRUNCATE ON events_default
    FOR EACH STATEMENT EXECUTE FUNCTION skald_events_are_facts();
SELECT skald_create_months();

-- The last word of the commit statement: raises, and so undoes all of it, unless every fence held and every saga was
-- where it should be.
CREATE FUNCTION skald_check_commit(fences integer[], held integer[], expected bigint, written bigint)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(fences) IS DISTINCT FROM cardinality(held) THEN
        RAISE EXCEPTION 'the fence did not hold' USING ERRCODE = 'SK001', DETAIL =
            array_to_string(ARRAY(SELECT unnest(fences) EXCEPT SELECT unnest(held) ORDER BY 1), ',');
    END IF;
    IF expected IS DISTINCT FROM written THEN
        RAISE EXCEPTION '% of % sagas were at the expected version', written, expected USING ERRCODE = 'SK002';
    END IF;
END $$;

-- The step log, for people: one row per thing that happened to a step.
CREATE VIEW saga_step_log AS
SELECT e.stream AS saga,
       s.definition,
       s.definition_version,
       e.version,
       e.data::json ->> 'step' AS step,
       coalesce(e.data::json ->> 'operation',
                CASE WHEN e.kind IN ('StepCompensated', 'CompensationSkipped') THEN 'compensation' ELSE 'action' END)
           AS operation,
       e.kind,
       coalesce(e.type, e.kind) AS type,
       (e.data::json ->> 'attempt')::integer AS attempt,
       (e.data::json ->> 'http_status')::integer AS http_status,
       coalesce(e.data::json ->> 'error', e.data::json ->> 'reason') AS error,
       (e.data::json ->> 'duration_ms')::bigint AS duration_ms,
       e.actor,
       timestamptz 'epoch' + e.occurred_at_us * interval '1 microsecond' AS occurred_at
FROM events e
JOIN sagas s ON s.id = e.stream
WHERE e.kind LIKE 'Step%' OR e.kind IN ('AttemptFailed', 'CompensationSkipped');
