-- Whom Skald tells of sagas that end or park. Their secrets are derived from the database's, so none lies here.
CREATE TABLE webhooks (
    id            uuid PRIMARY KEY,
    created_at_us bigint NOT NULL,
    -- What else there is to say of it, as JSON.
    document      text NOT NULL
);

-- Each attempt to deliver a message, for people to look at; old ones are deleted.
CREATE TABLE webhook_attempts (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook     uuid NOT NULL,
    message     text NOT NULL,
    type        text NOT NULL,
    attempt     integer NOT NULL,
    at_us       bigint NOT NULL,
    duration_ms bigint NOT NULL,
    -- NULL: there was no answer.
    http_status integer,
    -- NULL: it was delivered.
    error       text
);

CREATE INDEX webhook_attempts_by_webhook ON webhook_attempts (webhook, id);
CREATE INDEX webhook_attempts_by_time ON webhook_attempts (at_us);
