-- How far is the log of each source? Servers that push to different ones need not wait for one another.
-- PostgreSQL only. Never edited once landed; a change is a new migration.

-- The last commit of each source. Whoever commits the next one counts on, or is too late.
CREATE TABLE push_sources (
    source   TEXT   NOT NULL PRIMARY KEY,
    commits  BIGINT NOT NULL,                 -- its number: 1, 2, 3, ...
    token    BIGINT NOT NULL,                 -- and its name, drawn at random: a log that is brought back from before
                                              -- and goes on from there has other names for the same numbers
    previous BIGINT NOT NULL                  -- the name of the one before; 0 for the first
);

-- Numbers counted the commits of all sources together, and now count those of one.
ALTER TABLE pushed_rows DROP CONSTRAINT pushed_rows_pkey;
ALTER TABLE pushed_rows ADD COLUMN token BIGINT NOT NULL DEFAULT 0;
UPDATE pushed_rows SET number = counted.number, token = counted.number
    FROM (SELECT ctid AS place, row_number() OVER (PARTITION BY source ORDER BY number) AS number FROM pushed_rows)
        AS counted
    WHERE pushed_rows.ctid = counted.place;
ALTER TABLE pushed_rows ALTER COLUMN token DROP DEFAULT;
ALTER TABLE pushed_rows ADD PRIMARY KEY (source, number);

INSERT INTO push_sources (source, commits, token, previous)
    SELECT source, MAX(number), MAX(number), MAX(number) - 1 FROM pushed_rows GROUP BY source;

ALTER TABLE push_log DROP COLUMN commits;
