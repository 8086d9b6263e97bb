-- A row of events holds a run: consecutive events of one stream that were written together, with one time and one actor.
-- Position and version are those of the last of them. The columns in which they differ (kind, type, data) hold their values
-- one after the other, separated by the record separator (U+001E), which JSON text has only as an escape. A row of one
-- event is as it always was.
ALTER TABLE events ADD COLUMN events INTEGER NOT NULL DEFAULT 1;
-- NULL when `schema_version` is that of each.
ALTER TABLE events ADD COLUMN schema_versions TEXT;

-- The log, for people: one row per event. The columns with several values become JSON arrays on the way; what a type is
-- called may hold anything.
CREATE VIEW event_log AS
SELECT r.shard,
       r.position - r.events + 1 + k.key AS position,
       r.stream,
       r.version - r.events + 1 + k.key AS version,
       r.epoch,
       k.value AS kind,
       nullif(t.value, '') AS type,
       r.occurred_at_us,
       r.actor,
       CAST(coalesce(v.value, r.schema_version) AS INTEGER) AS schema_version,
       CASE WHEN r.events = 1 THEN r.data ELSE d.value END AS data,
       r.event_id,
       r.correlation_id,
       r.causation_id
FROM events AS r
JOIN json_each('["' || replace(r.kind, char(30), '","') || '"]') AS k
LEFT JOIN json_each(CASE WHEN r.events = 1 THEN json_array(r.type)
                         ELSE '["' || replace(replace(replace(r.type, '\', '\\'), '"', '\"'), char(30), '","') || '"]'
                    END) AS t ON t.key = k.key
LEFT JOIN json_each('[' || replace(r.schema_versions, char(30), ',') || ']') AS v ON v.key = k.key
LEFT JOIN json_each(CASE WHEN r.events = 1 THEN '[]' ELSE '[' || replace(r.data, char(30), ',') || ']' END) AS d
    ON d.key = k.key;

DROP VIEW saga_step_log;
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
FROM event_log AS e
JOIN sagas AS s ON s.id = e.stream
WHERE e.kind LIKE 'Step%' OR e.kind IN ('AttemptFailed', 'CompensationSkipped');
