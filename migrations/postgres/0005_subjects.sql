-- The keys that personal data is sealed under: one per person, and a new one after an erasure. To erase a person is to
-- destroy the key; the row stays, and says so.
CREATE TABLE subject_keys (
    id             text COLLATE "C" PRIMARY KEY,
    -- A keyed hash of the person's name.
    subject        text COLLATE "C" NOT NULL,
    -- NULL: destroyed.
    key            bytea,
    created_at_us  bigint NOT NULL,
    erased_at_us   bigint,
    erased_by      text,
    erased_because text
);

CREATE UNIQUE INDEX subject_keys_live ON subject_keys (subject) WHERE key IS NOT NULL;
CREATE INDEX subject_keys_by_subject ON subject_keys (subject, created_at_us);

-- The key that a saga's personal data is sealed under. Written with the saga's first events.
CREATE TABLE saga_subjects (
    saga   uuid PRIMARY KEY,
    key_id text COLLATE "C" NOT NULL
);

CREATE INDEX saga_subjects_by_key ON saga_subjects (key_id, saga);

-- As before, and what is noted here too.
CREATE OR REPLACE FUNCTION skald_delete_beside(low uuid, high uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM start_keys WHERE saga >= low AND saga < high;
    DELETE FROM saga_subjects WHERE saga >= low AND saga < high;
END $$;

-- For the commit of a saga's first events: the key, kept from being destroyed until that commit has ended. Raises if it
-- was destroyed.
CREATE FUNCTION skald_live_key(wanted text)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM subject_keys WHERE id = wanted AND key IS NOT NULL FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the key % of a saga''s personal data was destroyed', wanted USING ERRCODE = 'SK002';
    END IF;
    RETURN wanted;
END $$;

-- Destroys the subject's key, unless unfinished sagas hold data under it: then it returns those, at most `most`.
--
-- Whoever commits a saga under the key holds a lock on its row until then. Once we have the row, such sagas can be seen:
-- each statement of a function sees what was committed before it.
CREATE FUNCTION skald_erase_subject(erased text, actor text, reason text, most bigint)
RETURNS TABLE (id uuid, status text) LANGUAGE plpgsql AS $$
DECLARE
    live text;
BEGIN
    SELECT k.id INTO live FROM subject_keys AS k WHERE k.subject = erased AND k.key IS NOT NULL FOR UPDATE;
    IF live IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT s.id, s.status
        FROM saga_subjects AS of_key
        JOIN sagas AS s ON s.id = of_key.saga
        WHERE of_key.key_id = live AND s.status IN ('running', 'compensating', 'parked')
        ORDER BY s.id
        LIMIT most;
    IF NOT FOUND THEN
        UPDATE subject_keys AS k
        SET key = NULL, erased_at_us = skald_now_us(), erased_by = actor, erased_because = reason
        WHERE k.id = live;
    END IF;
END $$;
