-- What retention has taken out of the database, and where it is: a row for each file of the archive. `written`: the file
-- is there and verified, the database still holds all of it. `removing`: some of it may be gone from here. `removed`: all
-- of it is.
CREATE TABLE archive_parts (
    -- Such as `2026-01.0003`: the month in which its streams began, and a number.
    name           text COLLATE "C" PRIMARY KEY,
    state          text COLLATE "C" NOT NULL,
    -- Of its streams, by id.
    first_id       uuid NOT NULL,
    last_id        uuid NOT NULL,
    sagas          bigint NOT NULL,
    streams        bigint NOT NULL,
    events         bigint NOT NULL,
    -- Of the file.
    sha256         bytea NOT NULL,
    archived_at_us bigint NOT NULL,
    removed_at_us  bigint,
    -- The stream that is being removed step by step: its row is gone, some of its events are not.
    removing       uuid
);

-- Positions of the log at which there is nothing any more: ranges that neither touch nor overlap.
CREATE TABLE log_holes (
    shard integer NOT NULL,
    first bigint NOT NULL,
    last  bigint NOT NULL,
    PRIMARY KEY (shard, first)
);

-- Who may archive and remove: one at a time.
CREATE TABLE retention_lease (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder   text NOT NULL,
    until_us bigint NOT NULL
);

CREATE FUNCTION skald_check_retention_lease(wanted text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM retention_lease WHERE holder = wanted AND until_us > skald_now_us() FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'another process archives and removes now' USING ERRCODE = 'SK004';
    END IF;
END $$;

-- Notes a range of positions at which there is nothing any more, together with those that it touches.
CREATE FUNCTION skald_add_hole(in_shard integer, new_first bigint, new_last bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    low  bigint := new_first;
    high bigint := new_last;
    near log_holes;
BEGIN
    SELECT * INTO near FROM log_holes WHERE shard = in_shard AND first < new_first ORDER BY first DESC LIMIT 1;
    IF near.last >= new_first - 1 THEN
        low := near.first;
        high := greatest(high, near.last);
    END IF;
    SELECT coalesce(max(last), high) INTO high
    FROM (SELECT last FROM log_holes WHERE shard = in_shard AND first BETWEEN low AND high + 1
          UNION ALL SELECT high) AS touching;
    DELETE FROM log_holes WHERE shard = in_shard AND first BETWEEN low AND high;
    INSERT INTO log_holes (shard, first, last) VALUES (in_shard, low, high);
END $$;

-- Notes that there is something at a position again.
CREATE FUNCTION skald_fill_hole(in_shard integer, filled bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    hole log_holes;
BEGIN
    SELECT * INTO hole FROM log_holes WHERE shard = in_shard AND first <= filled ORDER BY first DESC LIMIT 1;
    IF hole.last IS NULL OR hole.last < filled THEN
        RETURN;
    END IF;
    DELETE FROM log_holes WHERE shard = in_shard AND first = hole.first;
    IF hole.first < filled THEN
        INSERT INTO log_holes (shard, first, last) VALUES (in_shard, hole.first, filled - 1);
    END IF;
    IF hole.last > filled THEN
        INSERT INTO log_holes (shard, first, last) VALUES (in_shard, filled + 1, hole.last);
    END IF;
END $$;

-- Removes what is kept of sagas beside their rows and events: of all with ids from one up to another.
CREATE FUNCTION skald_delete_beside(low uuid, high uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM start_keys WHERE saga >= low AND saga < high;
END $$;

-- Drops a month's partitions, whole, if they hold nothing but what was archived and nobody needs any of it. The locks on
-- the tables, for which every commit and every read must wait, come last and are waited for no longer than `lock_ms`.
CREATE FUNCTION skald_drop_month(
    month timestamp, holder text, parts text[], archived_versions bigint,
    hole_shards integer[], hole_firsts bigint[], hole_lasts bigint[], lock_ms integer)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    suffix     text := to_char(month, 'YYYYMM');
    low        uuid := skald_uuid_floor(month AT TIME ZONE 'UTC');
    high       uuid := skald_uuid_floor((month + interval '1 month') AT TIME ZONE 'UTC');
    versions   bigint;
    unfinished bigint;
BEGIN
    PERFORM skald_check_retention_lease(holder);
    PERFORM FROM consumer_held WHERE stream >= low AND stream < high LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'a consumer group holds an event of the month' USING ERRCODE = 'SK005';
    END IF;
    -- Whoever appends to one of these streams waits for this to end, and then finds that it is no more.
    WITH streams_gone AS (DELETE FROM streams WHERE id >= low AND id < high RETURNING version)
    SELECT coalesce(sum(version), 0) INTO versions FROM streams_gone;
    IF versions <> archived_versions THEN
        RAISE EXCEPTION 'a stream of the month has grown' USING ERRCODE = 'SK005';
    END IF;
    PERFORM skald_add_hole(hole.shard, hole.first, hole.last)
    FROM unnest(hole_shards, hole_firsts, hole_lasts) AS hole (shard, first, last);
    UPDATE archive_parts SET state = 'removed', removed_at_us = skald_now_us() WHERE name = ANY (parts);
    PERFORM skald_delete_beside(low, high);
    PERFORM set_config('lock_timeout', lock_ms || 'ms', true);
    LOCK TABLE sagas, events IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('SELECT count(*) FROM sagas_%s WHERE ended_at_us IS NULL', suffix) INTO unfinished;
    IF unfinished > 0 THEN
        RAISE EXCEPTION 'a saga of the month has not ended' USING ERRCODE = 'SK005';
    END IF;
    EXECUTE format('DROP TABLE sagas_%s, events_%s', suffix, suffix);
END $$;
