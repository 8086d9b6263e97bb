-- A row of events holds a run: consecutive events of one stream that were written together, with one time and one actor.
-- Position and version are those of the last of them. The columns in which they differ (kind, type, data) hold their values
-- one after the other, separated by the record separator (U+001E), which JSON text has only as an escape. A row of one
-- event is as it always was.
ALTER TABLE events
    ADD COLUMN events smallint NOT NULL DEFAULT 1,
    -- NULL when `schema_version` is that of each.
    ADD COLUMN schema_versions text;

-- The log, for people: one row per event.
CREATE VIEW event_log AS
SELECT r.shard,
       r.position - r.events + e.nth AS position,
       r.stream,
       r.version - r.events + e.nth AS version,
       r.epoch,
       e.kind,
       nullif(e.type, '') AS type,
       r.occurred_at_us,
       r.actor,
       coalesce(e.schema_version::smallint, r.schema_version) AS schema_version,
       e.data,
       r.event_id,
       r.correlation_id,
       r.causation_id
FROM (SELECT *, CASE WHEN events = 1 THEN '' ELSE E'\x1e' END AS separator FROM events) AS r
CROSS JOIN LATERAL ROWS FROM (
    string_to_table(r.kind, r.separator),
    string_to_table(r.type, r.separator),
    string_to_table(r.schema_versions, r.separator),
    string_to_table(r.data, r.separator)
) WITH ORDINALITY AS e (kind, type, schema_version, data, nth);

CREATE OR REPLACE VIEW saga_step_log AS
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
FROM event_log e
JOIN sagas s ON s.id = e.stream
WHERE e.kind LIKE 'Step%' OR e.kind IN ('AttemptFailed', 'CompensationSkipped');
