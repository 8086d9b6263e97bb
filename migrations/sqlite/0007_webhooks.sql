-- Whom Skald tells of sagas that end or park. Their secrets are derived from the database's, so none lies here.
CREATE TABLE webhooks (
    id            BLOB PRIMARY KEY NOT NULL,
    created_at_us INTEGER NOT NULL,
    -- What else there is to say of it, as JSON.
    document      TEXT NOT NULL
);

-- Each attempt to deliver a message, for people to look at; old ones are deleted.
CREATE TABLE webhook_attempts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook     BLOB NOT NULL,
    message     TEXT NOT NULL,
    type        TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    at_us       INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    -- NULL: there was no answer.
    http_status INTEGER,
    -- NULL: it was delivered.
    error       TEXT
);

CREATE INDEX webhook_attempts_by_webhook ON webhook_attempts (webhook, id);
CREATE INDEX webhook_attempts_by_time ON webhook_attempts (at_us);
