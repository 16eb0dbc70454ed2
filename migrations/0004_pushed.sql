-- Which rows were pushed, at whichever server, and what tells a repetition? For servers that share their head.
-- PostgreSQL only. Never edited once landed; a change is a new migration.

-- How many groups of pushes were ever committed. One row: whoever commits the next one counts on, or is too late.
CREATE TABLE push_log (
    id      TEXT   NOT NULL PRIMARY KEY,      -- names the log, so that a copy of it is taken for no other's
    commits BIGINT NOT NULL
);

INSERT INTO push_log (id, commits) VALUES (md5(random()::text || clock_timestamp()::text), 0);

-- The rows of each group and source. Kept for good: they are history.
CREATE TABLE pushed_rows (
    number    BIGINT NOT NULL,                -- of the commit: 1, 2, 3, ...
    source    TEXT   NOT NULL,
    first_row BIGINT NOT NULL,                -- number of the first row among all that were pushed to the source
    row_count BIGINT NOT NULL,                -- how many there are
    in_head   BIGINT NOT NULL,                -- how many of these, from the first on, are for the head as well
    history   BYTEA  NOT NULL,                -- the rows, an Arrow IPC stream
    online    BYTEA  NOT NULL,                -- rows for the head alone, the same; empty where there are none
    PRIMARY KEY (number, source)
);

-- Events, pushes and places in streams that were seen.
CREATE TABLE push_seen (
    key     BYTEA  NOT NULL PRIMARY KEY,      -- SHA-256 of what was seen
    until   BIGINT NOT NULL,                  -- microseconds since the Unix epoch until which it is known
    content BYTEA  NOT NULL
);

CREATE INDEX push_seen_by_until ON push_seen (until);

-- Which servers read a stream, since when, and until when unless they say so again. Each reads its share of it.
CREATE TABLE stream_readers (
    source TEXT        NOT NULL,
    reader TEXT        NOT NULL,
    since  TIMESTAMPTZ NOT NULL,
    until  TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (source, reader)
);
