-- Who may ask by an API key? One row for each key that there ever was; nobody finds the key itself here.
-- Portable SQL. Never edited once landed; a change is a new migration.
-- Times are of the database's clock, microseconds since the Unix epoch.

CREATE TABLE api_keys (
    id         TEXT   NOT NULL PRIMARY KEY,   -- stands in the key itself
    name       TEXT   NOT NULL,               -- whose it is: at most two that are valid have one name
    sha256     TEXT   NOT NULL,               -- of its secret, which has 256 bits drawn at random; in hexadecimal
    last_four  TEXT   NOT NULL,               -- its last characters, for people
    created_us BIGINT NOT NULL,
    expires_us BIGINT,                        -- never, where it is null
    revoked_us BIGINT,
    changed    BIGINT NOT NULL                -- counts what happened to all keys: 1, 2, 3, ...
);

CREATE INDEX api_keys_by_name ON api_keys (name);
