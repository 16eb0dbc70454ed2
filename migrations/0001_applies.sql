-- What was live, and since when? One row of `applies` for every apply that changed something; the others hang on it.
-- Portable SQL: SQLite today, PostgreSQL for many servers. Never edited once landed; a change is a new migration.

CREATE TABLE applies (
    number      BIGINT NOT NULL PRIMARY KEY,  -- 1, 2, 3, ...: the key makes two applies on top of one base impossible
    applied_at  BIGINT NOT NULL,              -- microseconds since the Unix epoch, UTC
    fingerprint TEXT   NOT NULL               -- SHA-256 of the definitions, whatever their files look like
);

-- The definition files, verbatim.
CREATE TABLE definition_files (
    apply_number BIGINT NOT NULL REFERENCES applies (number),
    path         TEXT   NOT NULL,
    content      TEXT   NOT NULL,
    PRIMARY KEY (apply_number, path)
);

-- The columns that each source had at that moment.
CREATE TABLE source_schemas (
    apply_number BIGINT NOT NULL REFERENCES applies (number),
    source       TEXT   NOT NULL,
    arrow_schema TEXT   NOT NULL,             -- an Arrow IPC stream of no batches, in hexadecimal
    PRIMARY KEY (apply_number, source)
);

-- Which file answered for which version of a model. The files lie beside the registry, named by digest.
CREATE TABLE model_versions (
    apply_number BIGINT NOT NULL REFERENCES applies (number),
    model        TEXT   NOT NULL,
    version      TEXT   NOT NULL,
    digest       TEXT   NOT NULL,             -- SHA-256 of the ONNX file, in hexadecimal
    path         TEXT   NOT NULL,             -- where it lay in the repository
    service      TEXT   NOT NULL,
    PRIMARY KEY (apply_number, model, version)
);

CREATE INDEX model_versions_by_name ON model_versions (model, version);
