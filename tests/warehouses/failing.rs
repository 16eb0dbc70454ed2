//! What does somebody read when a database cannot be pulled, and what becomes of the server?

use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use quern_kit::{Process, Repository, Server, free_port, runtime, until};
use serde_json::{Value, json};

use super::databases::{COLUMNS, Database, NOW_US, drivers, open, payments};

const BATCH: &str = "format: sql, connection: shop, table: payments";

fn table() -> String {
    let columns = "card bigint, at timestamp, updated_at timestamp, amount double precision, note text";
    let row = |day: u32| format!("(1, '2026-01-0{day}', '2026-01-0{day}', {day}, NULL)");
    format!("CREATE TABLE payments ({columns}); INSERT INTO payments VALUES {}, {}", row(1), row(2))
}

/// What a pull by this connection says.
async fn check(connection: &str, expected: Expect) {
    let repository = Repository::new(&(format!("{connection}---\n") + &payments(BATCH, COLUMNS)));
    let node = open(&repository).await;
    let error = node.pull(NOW_US).unwrap_err();
    let folder = repository.path().display().to_string();
    let text = error.text.replace(&folder, "FOLDER").replace(&drivers(), "DRIVERS");
    expected.assert_eq(&format!("{:?}: {text}", error.code));
    // The server goes on, and says so.
    assert_eq!(node.history("payments").num_rows(), 0);
    let metrics = node.metrics();
    assert!(metrics.contains("quern_pulls_total{outcome=\"failed\",source=\"payments\"}"), "{metrics}");
}

#[test]
fn a_database_that_does_not_answer_is_named_without_secrets() {
    runtime().block_on(async {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "hunter@2\n").unwrap();
        let who = format!(
            "credentials: {{username: {{file: {0}}}, password: {{file: {0}}}}}\n",
            secret.path().display()
        );
        let of = |url: &str, who: &str| {
            format!("kind: Connection\nname: shop\ndriver: postgresql\nurl: \"{url}\"\n{who}")
        };
        let Database::Postgres(url) = Database::postgres().await else { unreachable!() };
        let port = url.split(['@', '/']).nth(3).unwrap().split(':').nth(1).unwrap().to_owned();
        let url = url.replace("postgres://quern@", "postgresql://");
        let repository = Repository::new(&(of(&url, &who) + "---\n" + &payments(BATCH, COLUMNS)));
        let error = open(&repository).await.pull(NOW_US).unwrap_err();
        let text = error.text.replace(&port, "PORT");
        expect![[r#"Unavailable: the database of connection `shop` (driver `postgresql`) failed at opening it (IO): [libpq] Failed to connect: connection to server at "127.0.0.1", port PORT failed: FATAL:  role "***" does not exist; what history has is materialized"#]].assert_eq(&format!("{:?}: {text}", error.code));
        let dead = format!("postgresql://127.0.0.1:{}/shop", free_port());
        let repository = Repository::new(&(of(&dead, &who) + "---\n" + &payments(BATCH, COLUMNS)));
        let error = open(&repository).await.pull(NOW_US).unwrap_err();
        assert!(error.text.contains("Connection refused") && !error.text.contains("hunter"), "{error}");
        check(
            &of("postgresql://127.0.0.1/shop", "credentials: {username: {env: NOBODY_SETS_THIS}}\n"),
            expect!["Refused: its connection has `username` told by the environment variable `NOBODY_SETS_THIS`, which this process does not have; what history has is materialized"],
        )
        .await;
    });
}

#[test]
fn a_driver_that_is_missing_or_broken_is_named() {
    runtime().block_on(async {
        let of = |driver: &str| format!("kind: Connection\nname: shop\ndriver: {driver}\nurl: nowhere\n");
        let repository = Repository::new(&(of("snowflake") + "---\n" + &payments(BATCH, COLUMNS)));
        // Definitions may be checked where nothing is pulled.
        let node = repository.open_applied().await;
        let error = node.pull(NOW_US).unwrap_err();
        expect!["the ADBC driver `snowflake` is not installed: `adbc_drivers` names no folder of drivers. As one way to it, `pip install --target FOLDER adbc-driver-snowflake`, and `adbc_drivers: FOLDER`; what history has is materialized"].assert_eq(&error.text);
        check(&of("snowflake"), expect!["Refused: the ADBC driver `snowflake` is not installed: there is no libadbc_driver_snowflake.so in DRIVERS, nor in its adbc_driver_snowflake (there: postgresql, sqlite). As one way to it, `pip install --target DRIVERS adbc-driver-snowflake`, and `adbc_drivers: DRIVERS`; what history has is materialized"]).await;
        for (driver, code, expected) in [
            ("crash", "int AdbcDriverInit(int v, void *d, void *e) { __builtin_trap(); }", expect!["the process that asks the database of connection `shop` (driver `crash`) was ended by signal 4: its driver may be broken; what history has is materialized"]),
            (
                "leave",
                "#include <stdlib.h>\nint AdbcDriverInit(int v, void *d, void *e) { exit(7); }",
                expect!["the process that asks the database of connection `shop` (driver `leave`) ended with exit code 7; what history has is materialized"],
            ),
            ("empty", "int nothing;", expect!["the database of connection `shop` (driver `empty`) failed at loading the driver (Internal): Error with dynamic library: FOLDER/libadbc_driver_empty.so: undefined symbol: AdbcDriverInit; what history has is materialized"]),
        ] {
            let repository = Repository::new(&(of(driver) + "---\n" + &payments(BATCH, COLUMNS)));
            compile(repository.path(), driver, code);
            let folder = repository.path().display().to_string();
            let node = repository.open_applied_with(&[("adbc_drivers", folder.clone())]).await;
            let error = node.pull(NOW_US).unwrap_err();
            expected.assert_eq(&error.text.replace(&folder, "FOLDER"));
        }
    });
}

/// Makes a library of C.
fn compile(folder: &Path, driver: &str, code: &str) {
    std::fs::write(folder.join("driver.c"), code).unwrap();
    let library = format!("libadbc_driver_{driver}.so");
    let arguments = ["-shared", "-fPIC", "-w", "-o", &library, "driver.c"];
    let mut compiler = Command::new("cc");
    assert!(compiler.args(arguments).current_dir(folder).status().unwrap().success());
}

/// Of a driver that hangs nothing is left when its server is killed.
#[test]
fn a_driver_ends_with_its_server() {
    runtime().block_on(async {
        let connection = "kind: Connection\nname: shop\ndriver: hang\nurl: nowhere\n---\n";
        let repository = Repository::new(&(connection.to_owned() + &payments(BATCH, COLUMNS)));
        let code =
            "#include <unistd.h>\nint AdbcDriverInit(int v, void *d, void *e) { for (;;) sleep(1000); }";
        compile(repository.path(), "hang", code);
        drop(repository.open_applied().await);
        let environment = [("QUERN_ADBC_DRIVERS", repository.path().display().to_string())];
        let server = Process::start_in(repository.path(), &environment);
        let url = format!("{}/v1/materialize", server.url);
        let asked = reqwest::Client::new().post(url).header("content-type", "application/json").send();
        let asked = tokio::spawn(asked);
        let child = until("a process that asks", async || server.children().first().copied()).await;
        // What asks has no secrets where others look for them, from the moment on that it is a program of its own.
        let environment = || std::fs::read_to_string(format!("/proc/{child}/environ")).unwrap();
        let asks = async || Some(environment()).filter(|it| it.contains("QUERN_ASKS="));
        let environment = until("a program that asks", asks).await;
        assert!(!environment.contains("QUERN_ADBC_DRIVERS"), "{}", environment.replace('\0', " "));
        server.kill();
        let is_gone = async || (!is_running(child)).then_some(());
        until("the end of that process", is_gone).await;
        asked.abort();
    });
}

/// Whether the process is more than a note for a parent that does not ask.
fn is_running(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn rows_without_a_cursor_are_counted_and_none_are_pushed_from_outside() {
    runtime().block_on(async {
        let repository = Repository::new("");
        let database = Database::sqlite(&repository);
        database.execute(&table()).await;
        database.execute("INSERT INTO payments (card, at) VALUES (1, '2026-01-01')").await;
        database.execute("INSERT INTO payments (card, updated_at) VALUES (1, '2026-01-03')").await;
        repository.write("definitions.yaml", database.connection() + &payments(BATCH, COLUMNS));
        repository.write("quern.yaml", format!("adbc_drivers: {}\n", drivers()));
        let node = repository.open_applied().await;
        let server = Server::of(repository, node).await;
        let (status, text) = server.ask("POST", "/v1/materialize", "").await;
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        let summary = &last["summary"];
        let pulled = &summary["pulled"][0];
        assert_eq!((status, &pulled["rows"], &pulled["rejected"]), (200, &json!(2), &json!(2)), "{text}");
        expect![[r#"["source `payments`: rows without `updated_at` are not pulled: 1","source `payments`: rows that were pulled and are no good are left out: 1; a log at `debug` says why"]"#]].assert_eq(&summary["warnings"].to_string());
        let row = json!({"push_source_name": "payments", "df": {"card": [1]}}).to_string();
        expect!["409 refused: the rows of source `payments` come from a database; where some are pushed beside, give it `push: true` (definitions.yaml:11) and apply"].assert_eq(&server.refusal("POST", "/push", row).await);
        let status: Value = serde_json::from_str(&server.ask("GET", "/v1/status", "").await.1).unwrap();
        let pull = &status["sources"][0]["pull"];
        assert_eq!((&pull["connection"], &pull["rows"]), (&json!("shop"), &json!(2)), "{status}");
        server.stop().await;
    });
}
