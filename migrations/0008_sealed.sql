-- Which of the rows that were pushed lie in segments, and which commits does the log have no more?
-- PostgreSQL only. Never edited once landed; a change is a new migration.

ALTER TABLE push_sources
    ADD COLUMN sealed          BIGINT NOT NULL DEFAULT 0,  -- number of the row after the last in a segment of the shared store
    ADD COLUMN forgotten       BIGINT NOT NULL DEFAULT 0,  -- the last commit whose rows lie there alone, and no more here
    ADD COLUMN forgotten_token BIGINT NOT NULL DEFAULT 0;  -- its name
