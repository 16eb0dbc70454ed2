-- Which files make up what Quern itself keeps for good, where are they, and what must be in them?
-- Portable SQL: SQLite for one server, PostgreSQL for many. Never edited once landed; a change is a new migration.

-- The stores that belong to this registry: only in these may files be removed that nobody names.
CREATE TABLE stores (
    id     TEXT   NOT NULL PRIMARY KEY,       -- stands in the store as well, in `store.json`
    shared BIGINT NOT NULL,                   -- 1 where it was said that all servers have it, else 0
    seen   BIGINT NOT NULL                    -- when a server had it open last, to the day: microseconds since the Unix epoch
);

-- A segment is a Parquet file that is written once. All times are microseconds since the Unix epoch.
CREATE TABLE segments (
    store      TEXT   NOT NULL,               -- the store that the file lies in
    path       TEXT   NOT NULL,               -- where it lies there
    family     TEXT   NOT NULL,               -- what kind of rows: `pushed`, `labels`, `predictions`
    log        TEXT   NOT NULL,               -- the log that numbered the rows; empty where none did
    name       TEXT   NOT NULL,               -- whose rows: a source, or a model and its feature service
    first_row  BIGINT NOT NULL,               -- number of the first row
    end_row    BIGINT NOT NULL,               -- and of the one after the last
    row_count  BIGINT NOT NULL,
    byte_count BIGINT NOT NULL,
    sha256     TEXT   NOT NULL,               -- of the whole file, in hexadecimal
    from_us    BIGINT NOT NULL,               -- the least time of a row
    to_us      BIGINT NOT NULL,               -- and the greatest
    created    BIGINT NOT NULL,               -- by the clock of this database
    replaced   BIGINT,                        -- since when it counts no more: its file stays for those who still read it
    PRIMARY KEY (store, path)
);

CREATE INDEX segments_by_set ON segments (store, family, log, name, first_row);

-- Rows that a log has numbered lie in one segment that counts.
CREATE UNIQUE INDEX segments_once ON segments (store, family, log, name, first_row)
    WHERE replaced IS NULL AND family <> 'predictions';

-- The servers that have a store open, to find out whether they have the same one.
CREATE TABLE store_servers (
    server TEXT   NOT NULL PRIMARY KEY,       -- as in the file that it writes into its store
    store  TEXT   NOT NULL,
    beat   BIGINT NOT NULL,                   -- how often it has said so; the file has this number, or a later one
    seen   BIGINT NOT NULL                    -- when it said so last, by the clock of this database
);

-- Who does what only one at a time does, until when unless it says so again, by the clock of this database.
CREATE TABLE leases (
    name   TEXT   NOT NULL PRIMARY KEY,
    holder TEXT   NOT NULL,
    until  BIGINT NOT NULL
);
