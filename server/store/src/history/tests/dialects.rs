//! CSV files in other dialects, encodings and packings.

use std::io::Write;

use expect_test::expect;
use feature_defs::ScalarType::*;
use feature_defs::{Dialect, Encoding};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn repository(dialect: Dialect) -> Repository {
    let mut repository = Repository::csv(&[("n", scalar(Float64)), ("word", scalar(String))]);
    if let Some(batch) = &mut repository.source.batch {
        batch.dialect = dialect;
    }
    repository
}

fn rows(repository: &Repository) -> std::string::String {
    table(&all(&repository.open().unwrap()).unwrap())
}

const PLAIN: &str = "at,n,word\n2013-01-01,1.5,Zoë\n2013-01-02,,b\n";

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[test]
fn an_escape_stands_within_quotes_only() {
    let repository = repository(Dialect { escape: Some(b'\\'), ..Dialect::default() });
    let spark =
        "at,n,word\n2013-01-01,1,\"say \\\"a,b\\\" \\\\\"\n2013-01-02,2,C:\\d\n2013-01-03,3,\"x\"\"y\"\n";
    repository.file("data/a.csv", spark);
    expect![[r#"
        +----------------------+-----+-------------+
        | at                   | n   | word        |
        +----------------------+-----+-------------+
        | 2013-01-01T00:00:00Z | 1.0 | say "a,b" \ |
        | 2013-01-02T00:00:00Z | 2.0 | C:\d        |
        | 2013-01-03T00:00:00Z | 3.0 | x"y         |
        +----------------------+-----+-------------+"#]]
    .assert_eq(&rows(&repository));
    repository.file("data/a.csv", "at,n,word\n2013-01-01,1,\"a\\\"\n2013-01-02,2,b\n");
    expect!["`data/a.csv` cannot be read: the quote that opens on line 2 is never closed"]
        .assert_eq(&repository.error());
}

#[test]
fn delimiters_quotes_and_nulls_are_the_source_s() {
    let null_values = vec!["NA".to_owned(), "\\N".to_owned()];
    let repository = repository(Dialect { delimiter: b';', quote: b'\'', null_values, ..Dialect::default() });
    repository.file(
        "data/a.csv",
        "at;n;word\n2013-01-01; NA ;'a; ''b'''\n2013-01-02;1.5;NA\n2013-01-03;'\\N';\"x\n2013-01-04;; NA\n",
    );
    expect![[r#"
        +----------------------+-----+--------+
        | at                   | n   | word   |
        +----------------------+-----+--------+
        | 2013-01-01T00:00:00Z |     | a; 'b' |
        | 2013-01-02T00:00:00Z | 1.5 |        |
        | 2013-01-03T00:00:00Z |     | "x     |
        | 2013-01-04T00:00:00Z |     |  NA    |
        +----------------------+-----+--------+"#]]
    .assert_eq(&rows(&repository));
    repository.file("data/a.csv", "at;n;word\n2013-01-01;1;'a\n2013-01-02;1;b\n");
    expect!["`data/a.csv` cannot be read: the quote that opens on line 2 is never closed"]
        .assert_eq(&repository.error());
    repository.file("data/a.csv", PLAIN);
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.csv` cannot be read: its header `at,n,word` has commas between the columns, and no ";"; say under `batch` what does: `delimiter: ","`
          help: rewrite the file, or leave it out of the path
    "#]].assert_eq(&repository.mistakes());
}

#[test]
fn what_is_not_as_in_most_files_is_named_with_its_way_out() {
    let repository = repository(Dialect::default());
    let mut said = std::string::String::new();
    let utf_16: Vec<u8> = "\u{feff}at,n,word\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let header = [PLAIN.replace(',', ";").into_bytes(), PLAIN.replace(',', "\t").into_bytes(), utf_16];
    for bytes in header {
        repository.file("data/a.csv", bytes);
        said += &repository.mistakes();
    }
    let cells = [b"at,n,word\n2013-01-01,1,Zo\xeb\n".as_slice(), b"at,n,word\n2013-01-01,n/a,b\n"];
    for bytes in cells {
        repository.file("data/a.csv", bytes);
        said += &(repository.error() + "\n");
    }
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.csv` cannot be read: its header `at;n;word` has semicolons between the columns, and no ","; say under `batch` what does: `delimiter: ";"`
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.csv` cannot be read: its header `at n word` has tabs between the columns, and no ","; say under `batch` what does: `delimiter: "\t"`
          help: rewrite the file, or leave it out of the path
        events.yaml:3:5: source `events`: `data/a.csv` cannot be read: it is UTF-16; say so under `batch`: `encoding: utf-16`
          help: rewrite the file, or leave it out of the path
        `data/a.csv`, line 2, column `word`: its cell is not of type string: it is not UTF-8; say under `batch` how it is written, as in `encoding: windows-1252`
        `data/a.csv`, line 2, column `n`: its cell is not of type float64, such as -1.5e3; if it stands for null, name it in `null_values` under `batch`
    "#]].assert_eq(&said);
}

#[test]
fn however_text_is_encoded_and_packed_it_says_the_same() {
    let expected = {
        let plain = repository(Dialect::default());
        plain.file("data/a.csv", PLAIN);
        rows(&plain)
    };
    let latin = PLAIN.chars().map(|c| c as u8).collect::<Vec<u8>>();
    let utf_16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        std::iter::once(0xfeff).chain(PLAIN.encode_utf16()).flat_map(order).collect()
    };
    let halves = PLAIN.split_at(20);
    // Files that were packed one by one and put together.
    let members = [gzip(halves.0), gzip(halves.1)].concat();
    for (name, encoding, bytes) in [
        ("a.csv", Encoding::Latin1, latin.clone()),
        ("a.csv", Encoding::Windows1252, latin),
        ("a.csv", Encoding::Utf16, utf_16(u16::to_le_bytes)),
        ("a.csv", Encoding::Utf16, utf_16(u16::to_be_bytes)),
        ("a.csv.gz", Encoding::Utf8, members),
        ("a.CSV.zst", Encoding::Utf8, zstd::encode_all(PLAIN.as_bytes(), 0).unwrap()),
    ] {
        let other = repository(Dialect { encoding, ..Dialect::default() });
        other.file(&format!("data/{name}"), bytes);
        assert_eq!(rows(&other), expected, "{name}, {}", encoding.name());
    }
}

#[test]
fn a_line_is_counted_in_what_is_unpacked() {
    let bad = "at,n,word\n2013-01-01,1,a\n\n2013-01-02,x,b\n";
    let packed = repository(Dialect::default());
    packed.file("data/a.csv.gz", gzip(bad));
    expect!["`data/a.csv.gz`, line 4, column `n`: its cell is not of type float64, such as -1.5e3"]
        .assert_eq(&packed.error());
    packed.file("data/a.csv.gz", &gzip(PLAIN)[..30]);
    expect!["`data/a.csv.gz` cannot be read: incomplete deflate stream"].assert_eq(&packed.error());
    packed.file("data/a.csv.gz", PLAIN);
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.csv.gz` cannot be read: invalid gzip header
          help: rewrite the file, or leave it out of the path
    "#]]
    .assert_eq(&packed.mistakes());
    let wide = repository(Dialect { encoding: Encoding::Utf16, ..Dialect::default() });
    wide.file(
        "data/a.csv",
        std::iter::once(0xfeff).chain(bad.encode_utf16()).flat_map(u16::to_le_bytes).collect::<Vec<u8>>(),
    );
    expect!["`data/a.csv`, line 4, column `n`: its cell is not of type float64, such as -1.5e3"]
        .assert_eq(&wide.error());
    wide.file("data/a.csv", PLAIN);
    expect![[r#"
        events.yaml:3:5: source `events`: `data/a.csv` cannot be read: it does not begin with a byte order mark, as UTF-16 does
          help: rewrite the file, or leave it out of the path
    "#]].assert_eq(&wide.mistakes());
}
