//! Does each type of a database become the one that is declared, or is it refused?

use arrow::util::pretty::pretty_format_batches;
use expect_test::{Expect, expect};
use quern_kit::{Repository, runtime};

use super::databases::{Database, NOW_US, open};

/// A source of these columns, and a view over all of them.
fn definitions(columns: &[(&str, &str)]) -> String {
    let declared = columns.iter().map(|(name, dtype)| format!("{{name: {name}, type: {dtype}}}"));
    let features: Vec<&str> =
        columns.iter().map(|(name, _)| *name).filter(|name| *name != "k" && *name != "at").collect();
    format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: k, type: int64}}]\n---\n\
         kind: Source\nname: s\nbatch: {{format: sql, connection: shop, table: t, cursor: at}}\nevent_timestamp: at\n\
         columns: [{}]\n---\nkind: FeatureView\nname: v\nentities: [e]\nsource: s\nfeatures: [{}]\n",
        declared.collect::<Vec<_>>().join(", "),
        features.join(", ")
    )
}

/// What history has of a table, or why it has nothing.
async fn check(database: &Database, statements: &str, columns: &[(&str, &str)], expected: Expect) {
    database.execute(&format!("DROP TABLE IF EXISTS t; {statements}")).await;
    let repository = Repository::new(&(database.connection() + &definitions(columns)));
    let node = open(&repository).await;
    match node.pull(NOW_US) {
        Ok(_) => expected.assert_eq(&pretty_format_batches(&[node.history("s")]).unwrap().to_string()),
        Err(error) => expected.assert_eq(&error.text),
    }
}

#[test]
fn types_of_postgresql() {
    runtime().block_on(async {
        let database = Database::postgres().await;
        let table = "CREATE TABLE t (k int2, at timestamptz, b bool, i int4, f real, n numeric, w numeric(20, 0), s varchar(9), \
                     u uuid, d date, y bytea, j jsonb, l int8[], z timestamp);\
                     INSERT INTO t VALUES (1, '2026-01-01 01:00+02', true, 7, 1.5, 2.25, 12345678901234, 'é', \
                     '0123abcd-0000-0000-0000-000000000001', '2026-02-03', '\\x01ff', '{\"a\": 1}', '{1, NULL}', 'infinity');\
                     INSERT INTO t (k, at, n, z) VALUES (2, '2026-01-02', 'NaN', '2026-01-02 03:04:05.000006');\
                     INSERT INTO t (k, at, z) VALUES (3, '2026-01-03', '-infinity');";
        let columns = [
            ("k", "int64"),
            ("at", "timestamp"),
            ("b", "bool"),
            ("i", "int32"),
            ("f", "float64"),
            ("n", "float64"),
            ("w", "int64"),
            ("s", "string"),
            ("u", "string"),
            ("d", "date"),
            ("y", "bytes"),
            ("j", "string"),
            ("l", "\"list<int64>\""),
            ("z", "timestamp"),
        ];
        check(&database, table, &columns, expect![[r#"
            +---+----------------------+------+---+-----+------+----------------+---+--------------------------------------+------------+------+----------+-------+------------------------------------------------------------------------------------------------+
            | k | at                   | b    | i | f   | n    | w              | s | u                                    | d          | y    | j        | l     | z                                                                                              |
            +---+----------------------+------+---+-----+------+----------------+---+--------------------------------------+------------+------+----------+-------+------------------------------------------------------------------------------------------------+
            | 1 | 2025-12-31T23:00:00Z | true | 7 | 1.5 | 2.25 | 12345678901234 | é | 0123abcd-0000-0000-0000-000000000001 | 2026-02-03 | 01ff | {"a": 1} | [1, ] | ERROR: Cast error: Failed to convert 9223372036854775807 to datetime for Timestamp(µs, "UTC")  |
            | 2 | 2026-01-02T00:00:00Z |      |   |     | NaN  |                |   |                                      |            |      |          |       | 2026-01-02T03:04:05.000006Z                                                                    |
            | 3 | 2026-01-03T00:00:00Z |      |   |     |      |                |   |                                      |            |      |          |       | ERROR: Cast error: Failed to convert -9223372036854775807 to datetime for Timestamp(µs, "UTC") |
            +---+----------------------+------+---+-----+------+----------------+---+--------------------------------------+------------+------+----------+-------+------------------------------------------------------------------------------------------------+"#]]).await;
        let one = "CREATE TABLE t (k bigint, at timestamp, x text); INSERT INTO t VALUES (1, '2026-01-01', '7')";
        check(&database, one, &[("k", "int64"), ("at", "timestamp"), ("x", "int64")], expect!["source `s`: column `x` is string, and must be int64; say `from: string` of it where that is meant; what history has is materialized"]).await;
        check(&database, one, &[("k", "int64"), ("at", "timestamp"), ("x", "int64, from: string")], expect![[r#"
            +---+----------------------+---+
            | k | at                   | x |
            +---+----------------------+---+
            | 1 | 2026-01-01T00:00:00Z | 7 |
            +---+----------------------+---+"#]]).await;
        check(&database, one, &[("k", "int64"), ("at", "timestamp"), ("y", "int64")], expect![[r#"
            the database of connection `shop` (driver `postgresql`) failed at asking it (NotFound, SQLSTATE 42703): Failed to prepare query: ERROR:  column pulled.y does not exist
            LINE 1: SELECT pulled."k", pulled."at", pulled."y" FROM "t" AS pulle...
                                                    ^

            Query was: SELECT pulled."k", pulled."at", pulled."y" FROM "t" AS pulled WHERE pulled."at" IS NOT NULL ORDER BY pulled."at"; what history has is materialized"#]]).await;
        let fraction = one.replace("x text", "x numeric").replace("'7'", "7.5");
        check(&database, &fraction, &[("k", "int64"), ("at", "timestamp"), ("x", "int64")], expect!["source `s`: column `x` (string) does not fit int64: `7.5` is no int64, such as -7; what history has is materialized"]).await;
        let large = one.replace("x text", "x bigint").replace("'7'", "3000000000");
        check(&database, &large, &[("k", "int64"), ("at", "timestamp"), ("x", "int32")], expect!["source `s`: column `x` (int64) does not fit int32: 3000000000 is beyond int32; what history has is materialized"]).await;
        check(&database, &large, &[("k", "int64"), ("at", "timestamp"), ("x", "timestamp")], expect!["source `s`: column `x` is int64, and must be timestamp; its `format` says what its numbers count; what history has is materialized"]).await;
    });
}

#[test]
fn types_of_sqlite() {
    runtime().block_on(async {
        let scratch = Repository::new("");
        let database = Database::sqlite(&scratch);
        let table = "CREATE TABLE t (k integer, at text, b bool, f real, i integer, d date, y blob, s text, e integer);\
                     INSERT INTO t VALUES (1, '2026-01-01 01:00:00', 1, 1.5, 7, '2026-02-03', x'01ff', 'é', 1767225600);\
                     INSERT INTO t (k, at, b) VALUES (2, '2026-01-02 01:00:00', 0);";
        let columns = [
            ("k", "int64"),
            ("at", "timestamp"),
            ("b", "bool"),
            ("f", "float32"),
            ("i", "float64"),
            ("d", "date"),
            ("y", "bytes"),
            ("s", "string"),
            ("e", "timestamp, format: epoch_s"),
        ];
        check(&database, table, &columns, expect![[r#"
            +---+----------------------+-------+-----+-----+------------+------+---+----------------------+
            | k | at                   | b     | f   | i   | d          | y    | s | e                    |
            +---+----------------------+-------+-----+-----+------------+------+---+----------------------+
            | 1 | 2026-01-01T01:00:00Z | true  | 1.5 | 7.0 | 2026-02-03 | 01ff | é | 2026-01-01T00:00:00Z |
            | 2 | 2026-01-02T01:00:00Z | false |     |     |            |      |   |                      |
            +---+----------------------+-------+-----+-----+------------+------+---+----------------------+"#]]).await;
        let two = "CREATE TABLE t (k integer, at text, b integer); INSERT INTO t VALUES (1, '2026-01-01', 2)";
        check(&database, two, &[("k", "int64"), ("at", "timestamp"), ("b", "bool")], expect!["source `s`: column `b` (int64) does not fit bool: 2 is neither 0 nor 1; what history has is materialized"]).await;
        check(&database, two, &[("k", "int64"), ("at", "timestamp"), ("z", "bool")], expect![[r#"
            the database of connection `shop` (driver `sqlite`) failed at asking it (InvalidArguments): [SQLite] Failed to prepare query: no such column: pulled.z
            query: SELECT pulled."k", pulled."at", pulled."z" FROM "t" AS pulled WHERE pulled."at" IS NOT NULL ORDER BY pulled."at"; what history has is materialized"#]]).await;
        let times = |rows: &str| format!("CREATE TABLE t (k integer, at text, x integer); INSERT INTO t VALUES {rows}");
        let columns = [("k", "int64"), ("at", "timestamp"), ("x", "int64")];
        let mixed = times("(1, '2026-01-01 23:00:00', 1), (2, '2026-01-01T05:00:00', 1)");
        check(&database, &mixed, &columns, expect!["source `s`: its cursor `at` does not come in the order of what it says, so that the database cannot tell which rows are new: make it a time in a `query`, or name another `cursor`; what history has is materialized"]).await;
        let seconds = [("k", "int64"), ("at", "timestamp, format: epoch_s"), ("x", "int64")];
        check(&database, &times("(1, '1767225600', 1)"), &seconds, expect!["source `s`: its cursor `at` holds texts that do not begin as 2024-12-31 does, so that the database cannot tell which rows are new: make it a time in a `query`, or name another `cursor`; what history has is materialized"]).await;
        let empty = times("(1, NULL, 1); DELETE FROM t");
        check(&database, &empty, &columns, expect![[r#"
            +---+----+---+
            | k | at | x |
            +---+----+---+
            +---+----+---+"#]]).await;
    });
}
