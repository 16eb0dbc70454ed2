//! Is history what a database gave, each row once, in the order of pulls? And is it to training and serving what files
//! with the same rows are?

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use quern_kit::{Node, Random, Repository, Store, Summary, cases, run_in, runtime};

use super::databases::{COLUMNS, Database, NOW_US, START_US, drivers, open, payments};

const CARDS: u64 = 5;
/// The overlap of the tests, s.
const OVERLAP: i64 = 3_600;

/// A payment, with its times in seconds from the beginning and its amount in quarters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    updated: i64,
    at: i64,
    card: i64,
    amount: i64,
    note: Option<String>,
}

/// As what the database has the cursor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cursor {
    Time,
    Text,
    Seconds,
}

/// The set of distinct rows in the order of pulls, as simply as it can be said.
#[derive(Default)]
struct Oracle {
    history: Vec<Row>,
    greatest: Option<i64>,
}

impl Oracle {
    fn pull(&mut self, table: &[Row]) {
        let from = self.greatest.map(|greatest| greatest - OVERLAP);
        let mut asked: Vec<&Row> =
            table.iter().filter(|row| from.is_none_or(|from| row.updated >= from)).collect();
        asked.sort();
        for row in asked {
            if !self.history.contains(row) {
                self.history.push(row.clone());
            }
            self.greatest = self.greatest.max(Some(row.updated));
        }
    }
}

struct World<'a> {
    random: &'a mut Random,
    database: Database,
    cursor: Cursor,
    table: Vec<Row>,
    clock: i64,
}

impl World<'_> {
    fn time(&self, seconds: i64, cursor: Cursor) -> String {
        match cursor {
            Cursor::Seconds => (START_US / 1_000_000 + seconds).to_string(),
            _ => {
                let time = chrono::DateTime::from_timestamp_micros(START_US + seconds * 1_000_000).unwrap();
                format!("'{}'", time.format("%Y-%m-%d %H:%M:%S"))
            }
        }
    }

    async fn make(&self) {
        let updated = match self.cursor {
            Cursor::Time => "timestamptz",
            Cursor::Text => "text",
            Cursor::Seconds => "bigint",
        };
        let statement = format!(
            "CREATE TABLE payments (card bigint, at timestamp, updated_at {updated}, amount double precision, note text)"
        );
        self.database.execute(&statement).await;
    }

    /// A row that is new, late, changed, or there already.
    fn row(&mut self) -> Row {
        let random = &mut *self.random;
        if let (Some(known), 0) = (self.table.last().cloned(), random.below(4)) {
            let changed = random.below(2) as i64;
            return Row { amount: known.amount + changed, ..known };
        }
        let late = if random.below(3) == 0 { random.below(2 * OVERLAP as u64) as i64 } else { 0 };
        self.clock += random.below(2_000) as i64;
        let updated = (self.clock - late).max(0);
        Row {
            updated,
            at: updated - random.below(100_000) as i64,
            card: random.below(CARDS) as i64,
            amount: random.below(100) as i64,
            note: random.pick(&[None, Some("é'".to_owned()), Some(String::new()), Some("n".to_owned())]),
        }
    }

    async fn change(&mut self) {
        let rows: Vec<Row> = (0..self.random.below(8)).map(|_| self.row()).collect();
        let values = rows.iter().map(|row| {
            let note = row.note.as_ref().map(|note| format!("'{}'", note.replace('\'', "''")));
            let (at, updated) = (self.time(row.at, Cursor::Time), self.time(row.updated, self.cursor));
            let (amount, note) = (row.amount as f64 / 4.0, note.unwrap_or_else(|| "NULL".to_owned()));
            format!("({}, {at}, {updated}, {amount}, {note})", row.card)
        });
        let values: Vec<String> = values.collect();
        if !values.is_empty() {
            self.database.execute(&format!("INSERT INTO payments VALUES {}", values.join(", "))).await;
        }
        self.table.extend(rows);
        if self.random.below(4) == 0 && !self.table.is_empty() {
            let gone = self.table[self.random.below(self.table.len() as u64) as usize].card;
            self.database.execute(&format!("DELETE FROM payments WHERE card = {gone}")).await;
            self.table.retain(|row| row.card != gone);
        }
    }
}

fn rows(history: &RecordBatch) -> Vec<Row> {
    let times =
        |name: &str| history.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().clone();
    let (at, updated) = (times("at"), times("updated_at"));
    let card = history.column_by_name("card").unwrap().as_primitive::<Int64Type>();
    let amount = history.column_by_name("amount").unwrap().as_primitive::<Float64Type>();
    let note = history.column_by_name("note").unwrap().as_string::<i32>();
    let row = |row| Row {
        updated: (updated.value(row) - START_US) / 1_000_000,
        at: (at.value(row) - START_US) / 1_000_000,
        card: card.value(row),
        amount: (amount.value(row) * 4.0) as i64,
        note: note.is_valid(row).then(|| note.value(row).to_owned()),
    };
    (0..history.num_rows()).map(row).collect()
}

fn pulled(summary: &Summary) -> (u64, u64, u64) {
    let pulled = &summary.pulled[0];
    (pulled.rows, pulled.known, pulled.rejected)
}

/// History holds the rows of the oracle: those that came with one pull one after the other by their cursor, and in any
/// order where that is the same.
fn check(node: &Node, oracle: &Oracle, before: usize) {
    let found = rows(&node.history("payments"));
    assert_eq!(found[..before], oracle.history[..before], "what was there stays");
    assert!(found[before..].is_sorted_by_key(|row| row.updated), "{:?}", &found[before..]);
    let mut since = found[before..].to_vec();
    since.sort();
    assert_eq!(since, oracle.history[before..]);
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len());
}

async fn pulls(random: &mut Random, (database, cursor): (Database, Cursor)) {
    let repository = Repository::new("");
    let format = if cursor == Cursor::Seconds {
        "{name: updated_at, type: timestamp, format: epoch_s}"
    } else {
        "{name: updated_at, type: timestamp}"
    };
    let definitions =
        payments("format: sql, connection: shop, query: \"SELECT * FROM payments -- all\"", COLUMNS);
    let definitions = definitions.replace("{name: updated_at, type: timestamp}", format);
    repository.write("definitions.yaml", database.connection() + &definitions);
    // Every fourth row is a push of its own.
    repository.write("quern.yaml", "push_queue_rows: 3\n");
    let mut world = World { random, database, cursor, table: Vec::new(), clock: 0 };
    world.make().await;
    let (mut node, mut oracle) = (open(&repository).await, Oracle::default());
    for pull in 0..5 {
        world.change().await;
        let before = oracle.history.len();
        oracle.pull(&world.table);
        if pull == 2 {
            // A process that ends in the middle: what it has pulled stays, and the rest comes after it.
            drop(node);
            let (end_at, drivers) = ("push: in the log#1".to_owned(), drivers());
            let environment = [("QUERN_END_AT", end_at), ("QUERN_ADBC_DRIVERS", drivers)];
            let printed = run_in(repository.path(), &["materialize"], &environment);
            assert_eq!(printed.code.is_none(), oracle.history.len() > before, "{printed:?}");
            node = open(&repository).await;
            let left = rows(&node.history("payments")).len();
            assert_eq!(left - before, (oracle.history.len() - before).min(3));
        }
        node.pull(NOW_US).unwrap();
        check(&node, &oracle, before);
        oracle.history = rows(&node.history("payments"));
        let (new, ..) = pulled(&node.pull(NOW_US).unwrap());
        assert_eq!(new, 0, "nothing is new the second time");
    }
    as_of_files(&node, world.random).await;
}

/// Files with the rows of history, in its order, are trained and served alike.
async fn as_of_files(node: &Node, random: &mut Random) {
    let files = Repository::new(&payments("format: parquet, path: payments.parquet", COLUMNS));
    files.write_parquet("payments.parquet", &node.history("payments"));
    let of_files = files.open_applied().await;
    of_files.materialize_to(NOW_US);
    let cards: ArrayRef = Arc::new(Int64Array::from_iter_values((0..40).map(|row| row % CARDS as i64)));
    let times: Vec<i64> = (0..40).map(|_| START_US + random.below(40_000) as i64 * 1_000_000).collect();
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let spine = [("card", Arc::clone(&cards)), ("event_timestamp", at)];
    let spine = RecordBatch::try_from_iter(spine).unwrap();
    for as_known in [false, true] {
        let trained = [node, &of_files].map(|node| node.service("fraud").training_set(&spine, as_known));
        assert_eq!(trained[0], trained[1]);
    }
    let mut served = Vec::new();
    for node in [node, &of_files] {
        let service = node.service("fraud");
        let found =
            service.look_up(service.inputs(vec![Arc::clone(&cards)]), vec![NOW_US; 40]).await.unwrap();
        served.push(found.vectors);
    }
    assert_eq!(served[0], served[1]);
}

#[test]
fn history_is_what_was_pulled_once_each_in_order() {
    let mut random = Random::new("pulls");
    runtime().block_on(async {
        for _ in 0..cases(1) {
            let scratch = Repository::new("");
            pulls(&mut random, (Database::sqlite(&scratch), Cursor::Text)).await;
            pulls(&mut random, (Database::postgres().await, Cursor::Time)).await;
            let other = Repository::new("");
            let database =
                if random.below(2) == 0 { Database::sqlite(&other) } else { Database::postgres().await };
            let cursor = random.pick(&[Cursor::Text, Cursor::Seconds]);
            pulls(&mut random, (database, cursor)).await;
        }
    });
}

/// Numbers tell what is new as well: 2 below the greatest are asked for once more.
#[test]
fn a_cursor_may_be_a_number() {
    runtime().block_on(async {
        let scratch = Repository::new("");
        for database in [Database::sqlite(&scratch), Database::postgres().await] {
            let repository = Repository::new("");
            let batch = "format: sql, connection: shop, table: payments, cursor: id, overlap: 2";
            let columns = format!("{COLUMNS}, {{name: id, type: int32}}");
            repository.write("definitions.yaml", database.connection() + &payments(batch, &columns));
            let insert = |ids: &[i64]| {
                let row = |id: &i64| format!("(1, '2026-01-01', '2026-01-01', {id}, NULL, {id})");
                format!("INSERT INTO payments VALUES {};", ids.iter().map(row).collect::<Vec<_>>().join(", "))
            };
            let columns =
                "card bigint, at timestamp, updated_at timestamp, amount double precision, note text, id int";
            database.execute(&format!("CREATE TABLE payments ({columns}); {}", insert(&[5, 1, 9]))).await;
            let node = open(&repository).await;
            assert_eq!(pulled(&node.pull(NOW_US).unwrap()), (3, 0, 0));
            database.execute(&insert(&[6, 7, 8, 10])).await;
            assert_eq!(pulled(&node.pull(NOW_US).unwrap()), (3, 1, 0));
            let history = node.history("payments");
            let ids = history.column_by_name("id").unwrap().as_primitive::<arrow::datatypes::Int32Type>();
            assert_eq!(ids.values().to_vec(), [1, 5, 9, 7, 8, 10]);
        }
    });
}

/// Other rows, or rows in another order, are pulled from the beginning; what history has of them is known.
#[test]
fn another_question_begins_anew() {
    runtime().block_on(async {
        let repository = Repository::new("");
        let database = Database::sqlite(&repository);
        let define = |rows: &str| {
            let batch = format!("format: sql, connection: shop, {rows}");
            repository.write("definitions.yaml", database.connection() + &payments(&batch, COLUMNS));
        };
        define("query: \"SELECT * FROM payments WHERE amount > 1\"");
        let columns = "card bigint, at timestamp, updated_at timestamp, amount double precision, note text";
        let values = "(1, '2026-01-01', '2026-01-01', 1, NULL), (1, '2026-01-01', '2026-02-01', 2, NULL)";
        database
            .execute(&format!("CREATE TABLE payments ({columns}); INSERT INTO payments VALUES {values}"))
            .await;
        let node = open(&repository).await;
        assert_eq!(pulled(&node.pull(NOW_US).unwrap()), (1, 0, 0));
        define("table: payments");
        node.apply().await.unwrap();
        assert_eq!(pulled(&node.pull(NOW_US).unwrap()), (1, 1, 0));
    });
}

/// Of servers that share head and log each goes on where another one ended, and what two pull at once counts once.
#[test]
fn servers_pull_each_row_once() {
    runtime().block_on(async {
        let scratch = Repository::new("");
        let database = Database::sqlite(&scratch);
        let columns = "card bigint, at timestamp, updated_at timestamp, amount double precision, note text";
        let insert = |from: i64| {
            let row = |n: i64| {
                format!("({}, '2026-01-01', datetime(1767225600 + {n}, 'unixepoch'), {n}, NULL)", n % 5)
            };
            let rows: Vec<String> = (from..from + 200).map(row).collect();
            format!("INSERT INTO payments VALUES {}", rows.join(", "))
        };
        database.execute(&format!("CREATE TABLE payments ({columns}); {}", insert(0))).await;
        let mut settings = Store::Shared.settings().await;
        settings.extend([("adbc_drivers", drivers()), ("push_queue_rows", "50".to_owned())]);
        let batch = "format: sql, connection: shop, table: payments";
        let repositories =
            [(); 2].map(|()| Repository::new(&(database.connection() + &payments(batch, COLUMNS))));
        let [one, other] = [
            repositories[0].open_applied_with(&settings).await,
            repositories[1].open_with(&settings).await.unwrap(),
        ];
        assert_eq!(pulled(&one.pull(NOW_US).unwrap()), (200, 0, 0));
        assert_eq!(pulled(&other.pull(NOW_US).unwrap()), (0, 200, 0));
        database.execute(&insert(200)).await;
        let both = [one.clone(), other.clone()].map(|node| {
            // Who is overtaken, or finds the head being made, tries again.
            tokio::spawn(async move { while node.pull(NOW_US).is_err() {} })
        });
        for pulling in both {
            pulling.await.unwrap();
        }
        assert_eq!(pulled(&one.pull(NOW_US).unwrap()), (0, 400, 0));
        let found = [&one, &other].map(|node| rows(&node.history("payments")));
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0].iter().collect::<HashSet<_>>().len(), 400);
        assert_eq!(found[0].len(), 400);
    });
}

/// A time that is yet to come hides nothing of what comes until then.
#[test]
fn a_cursor_in_the_future_hides_nothing() {
    runtime().block_on(async {
        let repository = Repository::new("");
        let database = Database::sqlite(&repository);
        let batch = "format: sql, connection: shop, table: payments";
        repository.write("definitions.yaml", database.connection() + &payments(batch, COLUMNS));
        let columns = "card bigint, at timestamp, updated_at timestamp, amount double precision, note text";
        let insert = |time: &str| format!("INSERT INTO payments VALUES (1, '2026-01-01', '{time}', 1, NULL)");
        database.execute(&format!("CREATE TABLE payments ({columns}); {}", insert("2999-01-01"))).await;
        let node = open(&repository).await;
        assert_eq!(pulled(&node.pull(NOW_US).unwrap()), (1, 0, 0));
        // Half an hour before now.
        database.execute(&insert("2028-09-26 23:30:00")).await;
        assert_eq!(pulled(&node.pull(NOW_US).unwrap()), (1, 1, 0));
        assert_eq!(pulled(&node.pull(NOW_US).unwrap()), (0, 2, 0));
    });
}
