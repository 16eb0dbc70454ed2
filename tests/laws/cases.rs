//! The rules of time as cases to read: each file in `tests/cases` is checked by look-up and by training set.
//!
//! A case has sections, done in order: `source` and `view` add to the definitions; `events` are written as a file more,
//! and everything is materialized; `ask` is a table of query times, keys and what the features say. Of `ask as known`
//! only the training set is asked. Empty cells are written `-`.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use quern_kit::{Node, Repository, root, timestamp};

/// After every event, µs: 2100-01-01.
const LATER_US: i64 = 4_102_444_800_000_000;

struct Section<'a> {
    title: &'a str,
    lines: Vec<&'a str>,
}

impl Section<'_> {
    /// The head of its table, and its rows.
    fn table(&self) -> (Vec<&str>, Vec<Vec<Option<&str>>>) {
        let mut rows = self.lines.iter().filter(|line| !line.trim().is_empty());
        let head = rows.next().unwrap().split_whitespace().collect();
        let cell = |cell| if cell == "-" { None } else { Some(cell) };
        (head, rows.map(|row| row.split_whitespace().map(cell).collect()).collect())
    }
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_suffix(':').filter(|_| !line.starts_with(' ')) {
            Some(title) => sections.push(Section { title, lines: Vec::new() }),
            None => sections.iter_mut().next_back().into_iter().for_each(|section| section.lines.push(line)),
        }
    }
    sections
}

fn definitions(sections: &[Section]) -> String {
    let of = |title: &str| {
        let lines = sections.iter().filter(|section| section.title == title).flat_map(|s| &s.lines);
        lines.fold(String::new(), |text, line| text + line.strip_prefix("  ").unwrap_or(line) + "\n")
    };
    let dtype = |column: &str| match column {
        "at" | "created" => "timestamp",
        "x" => "float64",
        _ => "string",
    };
    let (columns, _) = sections.iter().find(|section| section.title == "events").unwrap().table();
    let columns: Vec<String> =
        columns.iter().map(|column| format!("{{name: {column}, type: {}}}", dtype(column))).collect();
    format!(
        "kind: Entity\nname: e\njoin_keys: [{{name: key, type: string}}]\n---\n\
         kind: Source\nname: s\nbatch: {{format: csv, path: data/*.csv}}\nevent_timestamp: at\ncolumns: [{}]\n{}\n---\n\
         kind: FeatureView\nname: v\nentities: [e]\nsource: s\n{}\n---\n\
         kind: FeatureService\nname: svc\nfeatures: [v]\n",
        columns.join(", "),
        of("source"),
        of("view"),
    )
}

async fn check(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let sections = sections(&text);
    let repository = Repository::new(&definitions(&sections));
    let mut node: Option<Node> = None;
    let mut files = 0;
    for section in &sections {
        match section.title {
            "events" => {
                let (head, rows) = section.table();
                let rows =
                    rows.iter().map(|row| row.iter().map(|cell| cell.unwrap_or("")).collect::<Vec<_>>());
                let csv = std::iter::once(head)
                    .chain(rows)
                    .fold(String::new(), |csv, row| csv + &row.join(",") + "\n");
                repository.write(format!("data/{files}.csv"), csv);
                files += 1;
                if node.is_none() {
                    node = Some(repository.open_applied().await);
                }
                node.as_ref().unwrap().materialize_to(LATER_US);
            }
            "ask" | "ask as known" => {
                let said = ask(node.as_ref().unwrap(), section).await;
                let wanted = lined_up(section.lines.iter().map(|line| line.split_whitespace().collect()));
                said.iter().for_each(|(who, said)| {
                    assert_eq!(
                        *said,
                        wanted,
                        "{}, {}, {who}: found\n{said}\nexpected\n{wanted}",
                        path.display(),
                        section.title
                    );
                });
            }
            "source" | "view" => {}
            other => panic!("{}: no section is called `{other}`", path.display()),
        }
    }
}

/// The table as a look-up and as a training set fill it.
async fn ask(node: &Node, section: &Section<'_>) -> Vec<(&'static str, String)> {
    let (head, rows) = section.table();
    let column = |i: usize| -> ArrayRef { Arc::new(rows.iter().map(|row| row[i]).collect::<StringArray>()) };
    let (times, keys) = (cast(&column(0), &timestamp()).unwrap(), column(1));
    let service = node.service("svc");
    let shown = |found: &RecordBatch| {
        let options = FormatOptions::new().with_null("-");
        let columns: Vec<&ArrayRef> =
            head[2..].iter().map(|name| found.column_by_name(name).unwrap()).collect();
        let cell = |column: &ArrayRef, row| {
            ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string().replace(' ', "")
        };
        let row = |row: usize| {
            let asked = rows[row][..2].iter().map(|cell| cell.unwrap_or("-").to_owned());
            asked.chain(columns.iter().map(|column| cell(column, row))).collect::<Vec<_>>()
        };
        let rows: Vec<Vec<String>> = (0..found.num_rows()).map(row).collect();
        let all = std::iter::once(head.clone());
        lined_up(all.chain(rows.iter().map(|row| row.iter().map(String::as_str).collect())))
    };
    let spine = [("key", Arc::clone(&keys), true), ("event_timestamp", Arc::clone(&times), true)];
    let spine = RecordBatch::try_from_iter_with_nullable(spine).unwrap();
    let as_known = section.title == "ask as known";
    let mut said = vec![("training set", shown(&service.training_set(&spine, as_known)))];
    if !as_known {
        let inputs = RecordBatch::try_from_iter_with_nullable([("key", keys, true)]).unwrap();
        let times = arrow::array::AsArray::as_primitive::<arrow::datatypes::TimestampMicrosecondType>(&times);
        let found = service.look_up(inputs, times.values().to_vec()).await.unwrap();
        said.push(("look-up", shown(&found.vectors)));
    }
    said
}

fn lined_up<'a>(rows: impl Iterator<Item = Vec<&'a str>>) -> String {
    rows.filter(|row| !row.is_empty()).fold(String::new(), |mut text, row| {
        writeln!(text, "{}", row.join("  ")).unwrap();
        text
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_time_hold_case_by_case() {
    let folder = &root().join("tests/cases");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 8, "some cases are gone: {paths:?}");
    for path in paths {
        check(&path).await;
    }
}
