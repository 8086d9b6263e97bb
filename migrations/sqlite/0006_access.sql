-- The keys that clients show, as digests; none is ever deleted, so that who has had one stays known.
CREATE TABLE api_keys (
    id            TEXT PRIMARY KEY NOT NULL,
    -- SHA-256 of the whole key.
    hash          BLOB NOT NULL,
    name          TEXT NOT NULL,
    role          TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    expires_at_us INTEGER,
    revoked_at_us INTEGER
) WITHOUT ROWID;

-- Who did, or was refused, what. Append-only.
CREATE TABLE audit_log (
    -- Begins with its time.
    id             BLOB PRIMARY KEY NOT NULL,
    at_us          INTEGER NOT NULL,
    -- NULL: nobody said who.
    actor          TEXT,
    -- What showed who it is; NULL: nothing did.
    credential     TEXT,
    action         TEXT NOT NULL,
    target         TEXT NOT NULL,
    reason         TEXT,
    request_id     TEXT NOT NULL,
    correlation_id TEXT,
    outcome        TEXT NOT NULL,
    code           TEXT,
    -- How often, where the like was put together.
    times          INTEGER NOT NULL
) WITHOUT ROWID;

CREATE INDEX audit_log_by_actor ON audit_log (actor, id);
CREATE INDEX audit_log_by_target ON audit_log (target, id);
CREATE INDEX audit_log_by_request ON audit_log (request_id, id);

CREATE TRIGGER audit_log_is_not_changed BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: UPDATE is refused');
END;

CREATE TRIGGER audit_log_is_not_deleted BEFORE DELETE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only: DELETE is refused');
END;
