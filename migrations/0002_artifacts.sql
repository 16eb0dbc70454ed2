-- Where is the model file with this digest? Here, since servers that share a registry share no disk.
-- PostgreSQL only. Never edited once landed; a change is a new migration.

CREATE TABLE artifacts (
    digest  TEXT   NOT NULL,                  -- SHA-256 of the whole file, in hexadecimal
    part    BIGINT NOT NULL,                  -- 0, 1, 2, ...: one value cannot hold the largest file
    content BYTEA  NOT NULL,
    PRIMARY KEY (digest, part)
);

-- Weights do not compress; trying to costs more than it saves.
ALTER TABLE artifacts ALTER COLUMN content SET STORAGE EXTERNAL;
