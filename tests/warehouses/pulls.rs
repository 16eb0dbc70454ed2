//! Is history what a database gave, each row once, in the order of pulls?

use quern_kit::{Repository, runtime};

use super::databases::{COLUMNS, Database, NOW_US, open, payments};

#[test]
fn a_table_becomes_a_source() {
    runtime().block_on(async {
        let repository = Repository::new("");
        for database in [Database::sqlite(&repository), Database::postgres().await] {
            let repository = Repository::new("");
            let batch = "format: sql, connection: shop, table: payments";
            repository.write("definitions.yaml", database.connection() + &payments(batch, COLUMNS));
            database
                .execute(
                    "CREATE TABLE payments (card bigint, at timestamp, updated_at timestamp, amount double precision, note text);\
                     INSERT INTO payments VALUES (1, '2026-01-01 05:00:00', '2026-01-01 05:00:01', 1.5, 'a'), \
                     (2, '2026-01-01 06:00:00', '2026-01-01 06:00:01', 2.5, NULL);",
                )
                .await;
            let node = open(&repository).await;
            let summary = node.pull(NOW_US).unwrap();
            assert_eq!((summary.pulled[0].rows, summary.pulled[0].known), (2, 0), "{summary:?}");
            let summary = node.pull(NOW_US).unwrap();
            assert_eq!((summary.pulled[0].rows, summary.pulled[0].known), (0, 1), "{summary:?}");
            println!("{:?}", node.history("payments"));
        }
    });
}
