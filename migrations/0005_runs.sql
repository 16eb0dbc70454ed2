-- Which views were materialized, when, by whom, and what came of it? The latest run of each view, and when one last
-- succeeded. Portable SQL. Never edited once landed; a change is a new migration.
-- All times are of the database's clock, microseconds since the Unix epoch, but for those that are said to be of events.

CREATE TABLE runs (
    head         TEXT   NOT NULL,             -- names the head that the run wrote: several may share a registry
    view         TEXT   NOT NULL,
    instance     TEXT   NOT NULL,             -- of the process that ran
    begun_us     BIGINT NOT NULL,
    seen_us      BIGINT NOT NULL,             -- when the process last said that it is at it
    ended_us     BIGINT,                      -- null while it runs, and for good where its process died
    rows_written BIGINT,
    until_us     BIGINT,                      -- query time up to which it has materialized
    newest_us    BIGINT,                      -- the newest event of all runs
    error        TEXT,                        -- why it failed
    success_us   BIGINT,                      -- when the latest run that did not fail ended
    PRIMARY KEY (head, view)
);
