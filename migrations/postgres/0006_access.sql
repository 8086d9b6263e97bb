-- The keys that clients show, as digests; none is ever deleted, so that who has had one stays known.
CREATE TABLE api_keys (
    id            text COLLATE "C" PRIMARY KEY,
    -- SHA-256 of the whole key.
    hash          bytea NOT NULL,
    name          text NOT NULL,
    role          text NOT NULL,
    created_at_us bigint NOT NULL,
    expires_at_us bigint,
    revoked_at_us bigint
);

-- Who did, or was refused, what. Append-only.
CREATE TABLE audit_log (
    -- Begins with its time.
    id             uuid PRIMARY KEY,
    at_us          bigint NOT NULL,
    -- NULL: nobody said who.
    actor          text,
    -- What showed who it is; NULL: nothing did.
    credential     text,
    action         text NOT NULL,
    target         text NOT NULL,
    reason         text,
    request_id     text NOT NULL,
    correlation_id text,
    outcome        text NOT NULL,
    code           text,
    -- How often, where the like was put together.
    times          bigint NOT NULL
);

CREATE INDEX audit_log_by_actor ON audit_log (actor, id);
CREATE INDEX audit_log_by_target ON audit_log (target, id);
CREATE INDEX audit_log_by_request ON audit_log (request_id, id);

CREATE FUNCTION skald_audit_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'SK003';
END $$;

CREATE TRIGGER audit_log_is_kept BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION skald_audit_is_kept();
CREATE TRIGGER audit_log_is_not_truncated BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION skald_audit_is_kept();
