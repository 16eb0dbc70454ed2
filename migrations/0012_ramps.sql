-- Whose share grows by itself, how far is it, and how does its version do?
-- Portable SQL: SQLite and PostgreSQL. Never edited once landed; a change is a new migration.

-- The ramps that an apply left, by model: those that go on, and how the last ones ended. A step is an apply of its own.
CREATE TABLE ramps (
    apply_number BIGINT NOT NULL REFERENCES applies (number),
    model        TEXT   NOT NULL,
    ramp         TEXT   NOT NULL,             -- JSON: what was asked for, the step, and when that began
    PRIMARY KEY (apply_number, model)
);

-- What the version of a ramp answered since its step began, as each server said last.
CREATE TABLE ramp_counts (
    model    TEXT   NOT NULL,
    since    BIGINT NOT NULL,                 -- the apply that the step began with
    server   TEXT   NOT NULL,                 -- one that has a data folder open, from its start to its end
    requests BIGINT NOT NULL,
    hits     TEXT   NOT NULL,                 -- how many of them met each condition, in their order, with commas between
    PRIMARY KEY (model, since, server)
);
