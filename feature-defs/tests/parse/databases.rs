//! Which rows of a database may a source have, and which mistakes does one make?

use expect_test::expect;
use feature_defs::{DriverOption, PulledRows, Secret};

use crate::{check, parse_all};

fn source(batch: &str, more: &str) -> String {
    format!(
        "kind: Source\nname: orders\nbatch: {{{batch}}}\nevent_timestamp: at\n{more}\
         columns: [{{name: at, type: timestamp}}, {{name: id, type: int64}}, {{name: total, type: float64}}]\n---\n"
    )
}

const CONNECTION: &str = "kind: Connection
name: warehouse
url: postgresql://db:5432/shop
driver: postgresql
credentials: {username: {env: PGUSER}, password: {file: /run/pw}}
options: {adbc.one: plain, adbc.two: {env: TOKEN}}
---
kind: Connection
name: lake
url: s3://lake/
---
";

#[test]
fn a_table_or_a_query_is_a_source() {
    let of = |batch: &str| {
        let text =
            CONNECTION.to_owned() + &source(&format!("format: sql, connection: warehouse, {batch}"), "");
        let definitions = parse_all(&[("a.yaml", &text)]).unwrap();
        definitions.sources["orders"].clone()
    };
    let source = of("table: public.orders, cursor: at");
    let pull = source.pull.as_ref().unwrap();
    assert_eq!(pull.rows, PulledRows::Table("public.orders".to_owned()));
    assert_eq!((pull.cursor.as_str(), pull.overlap, pull.is_pushed_to), ("at", 3_600_000_000, false));
    assert!(source.push && !source.is_pushed_to() && source.batch.is_none());
    let connection = pull.connection.as_ref().unwrap();
    let database = connection.database.as_ref().unwrap();
    assert_eq!(database.driver, "postgresql");
    assert_eq!(database.options["adbc.one"], DriverOption::Plain("plain".to_owned()));
    assert_eq!(database.options["adbc.two"], DriverOption::Secret(Secret::Env("TOKEN".to_owned())));
    assert_eq!(connection.storage.credentials["password"], Secret::File("/run/pw".to_owned()));
    let overlap = |batch: &str| of(&format!("query: SELECT 1, {batch}")).pull.unwrap().overlap;
    assert_eq!(
        [overlap("cursor: at, overlap: 90s"), overlap("cursor: id"), overlap("cursor: id, overlap: 7")],
        [90_000_000, 0, 7]
    );
}

#[test]
fn each_mistake_of_a_source_of_a_database_is_named() {
    for (batch, expected) in [
        (
            "format: sql",
            expect![[r#"
            a.yaml:14:8: a batch source lacks the key `connection`
              help: `connection`: the name of the connection to the database
            a.yaml:14:8: the rows of a database are said by one of `table` and `query`
              help: as in `table: public.orders`"#]],
        ),
        (
            "format: sql, connection: warehous, table: t, cursor: at",
            expect![[r#"
            a.yaml:14:34: unknown connection `warehous`
              help: did you mean `warehouse`? known: lake, warehouse"#]],
        ),
        (
            "format: sql, connection: lake, table: t, query: SELECT 1, cursor: at",
            expect![[r#"
            a.yaml:14:8: the rows of a database are said by one of `table` and `query`
              help: as in `table: public.orders`
            a.yaml:14:34: connection `lake` leads to no database: it has no `driver`
              help: give it the ADBC driver, as in `driver: postgresql`"#]],
        ),
        (
            "format: sql, connection: warehouse, table: t, path: a.csv, delimiter: \";\", cursor: total",
            expect![[r#"
                a.yaml:14:55: `path` is of files, and these are rows of a database
                  help: leave it out
                a.yaml:14:68: `delimiter` is of files, and these are rows of a database
                  help: leave it out
                a.yaml:14:92: `total` cannot tell which rows are new: it is `float64`
                  help: a `cursor` is a `timestamp`, `int32` or `int64`"#]],
        ),
        (
            "format: sql, connection: warehouse, table: t, cursor: idd",
            expect![[r#"
            a.yaml:14:63: `idd` is not among the declared columns of source `orders`
              help: did you mean `id`? known: at, id, total"#]],
        ),
        (
            "format: sql, connection: warehouse, table: t, cursor: at, overlap: 7",
            expect![[r#"
            a.yaml:14:76: `overlap` does not fit `at`, which is `timestamp`
              help: of a time it is a duration such as `1h`, of a number a whole number"#]],
        ),
        (
            "format: sql, connection: warehouse, table: t, cursor: id, overlap: 7s",
            expect![[r#"
            a.yaml:14:76: `overlap` does not fit `id`, which is `int64`
              help: of a time it is a duration such as `1h`, of a number a whole number"#]],
        ),
        (
            "format: sql, connection: warehouse, table: t, cursor: id, overlap: -1",
            expect![
                "a.yaml:14:76: `overlap` must be a duration such as `1h`, or a whole number, found the number `-1`"
            ],
        ),
        (
            "format: csv, table: t",
            expect![[r#"
            a.yaml:14:8: a batch source lacks the key `path`
              help: `path`: where the files lie, as a path or glob
            a.yaml:14:22: `table` is of rows of a database
              help: leave it out, or say `format: sql`"#]],
        ),
    ] {
        check(&(CONNECTION.to_owned() + &source(batch, "")), expected);
    }
}

#[test]
fn each_mistake_of_a_connection_to_a_database_is_named() {
    for (connection, expected) in [
        (
            "url: \"postgresql://me:secret@db/shop\"\ndriver: postgresql",
            expect![[r#"
            a.yaml:3:6: `url` must hold neither a user nor a password: these are kept, and shown
              help: who asks is said by `credentials`, as in `{username: {env: PGUSER}, password: {env: PGPASSWORD}}`"#]],
        ),
        (
            "url: \"postgresql://db/shop?PassWord=secret\"\ndriver: postgresql",
            expect![[r#"
            a.yaml:3:6: `url` must hold neither a user nor a password: these are kept, and shown
              help: who asks is said by `credentials`, as in `{username: {env: PGUSER}, password: {env: PGPASSWORD}}`"#]],
        ),
        (
            "url: \" a\"\ndriver: sqlite",
            expect![[r#"
            a.yaml:3:6: `url` has a blank at an end, or a control character
              help: who asks is said by `credentials`, as in `{username: {env: PGUSER}, password: {env: PGPASSWORD}}`"#]],
        ),
        (
            "url: postgresql://db/shop",
            expect![[r#"
            a.yaml:3:6: `url` is a URL of an unknown scheme
              help: a URL is written as in `s3://bucket/folder/`, `kafka://a:9092,b:9092`, `redis://host:6379` or `https://host:5000/`"#]],
        ),
        (
            "url: a.db\ndriver: ../evil",
            expect![
                "a.yaml:4:9: `driver` must be a name of letters, digits and `_` that does not start with a digit, found `../evil`"
            ],
        ),
        (
            "url: a.db\ndriver: SQLite\nregion: eu\noptions: {uri: x, adbc.y: {env: A, file: B}}",
            expect![[r#"
                a.yaml:4:9: `driver` must be a name of small letters, digits and `_`, found `SQLite`
                  help: as in `driver: postgresql`
                a.yaml:5:9: `region` is of an object store, and `driver` leads to a database
                  help: leave it out
                a.yaml:6:11: `uri` is no option of a driver: their names begin with `adbc.`
                  help: the database is said by `url`, who asks by `credentials`
                a.yaml:6:27: `adbc.y` must be told by one of `env` and `file`
                  help: as in `adbc.y: {env: NAME_OF_A_VARIABLE}`"#]],
        ),
        (
            "url: a.db\ndriver: sqlite\ncredentials: {account_key: {env: A}, password: secret}",
            expect![[r#"
            a.yaml:5:15: `account_key` is of an object store, and `driver` leads to a database
              help: a database takes `username` and `password`; what else its driver takes is said by `options`
            a.yaml:5:48: `password` must be `{env: NAME}` or `{file: PATH}`
              help: what is secret stands in no definition: these are kept, and shown"#]],
        ),
        (
            "url: s3://lake/\noptions: {adbc.x: y}\ncredentials: {username: {env: A}}",
            expect![[r#"
                a.yaml:4:10: `options` are of a database, and there is no `driver` that leads to one
                  help: leave them out, or name the ADBC driver, as in `driver: postgresql`
                a.yaml:5:14: `credentials` of `s3://` are not whole, or are another's
                  help: give `access_key_id`, `secret_access_key` (and `session_token`)"#]],
        ),
    ] {
        check(&format!("kind: Connection\nname: c\n{connection}\n"), expected);
    }
}
