//! Do files that a server gives over HTTP say what they say on disk, whatever the server can and does?

mod server;

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Float64Type;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use quern_kit::{Authority, Node, Random, Repository, blocking};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use self::server::{Manner, Web};
use super::buckets::{END_US, KEYS, copy, same, spine, trained};

const ROWS: usize = 6_000;
const GROUP_ROWS: usize = 600;
const COLUMNS: &str = "columns: [{name: at, type: timestamp, format: epoch_us}, {name: user, type: int64}, \
                       {name: x, type: float64}]";
const PARQUET: &str = "public/rows.parquet";

/// The same views of the files here, and of those that the server gives.
fn definitions(web: &Web) -> String {
    let mut text = format!(
        "{}---\nkind: Entity\nname: user\njoin_keys: [{{name: user, type: int64}}]\n",
        web.connection()
    );
    for (name, folder) in [("here", "public".to_owned()), ("there", format!("{}/public", web.url))] {
        let files = [("parquet", "parquet", ""), ("csv", "csv.gz", COLUMNS), ("json", "ndjson", COLUMNS)];
        for (format, end, columns) in files {
            text += &format!(
                "---\nkind: Source\nname: {name}_{format}\nbatch: {{format: {format}, path: \"{folder}/rows.{end}\"}}\n\
                 event_timestamp: at\n{columns}\n\
                 ---\nkind: FeatureView\nname: {name}_{format}\nentities: [user]\nsource: {name}_{format}\n\
                 features: [{{name: x}}]\n"
            );
        }
        text += &format!(
            "---\nkind: FeatureView\nname: {name}_counts\nentities: [user]\nsource: {name}_parquet\n\
             aggregations: [{{name: n, function: count, windows: [1h, 7d]}}, {{name: s, function: sum, of: x, windows: [1d]}}]\n\
             ---\nkind: FeatureService\nname: {name}\nfeatures: [{{view: {name}_parquet, as: parquet}}, \
             {{view: {name}_csv, as: csv}}, {{view: {name}_json, as: json}}, {{view: {name}_counts, as: counts}}]\n"
        );
    }
    text
}

/// Rows, most of whose bytes nobody asks for.
fn rows(random: &mut Random) -> RecordBatch {
    let draws: Vec<[u64; 3]> = (0..ROWS).map(|_| std::array::from_fn(|_| random.draw())).collect();
    let at = draws.iter().map(|draw| (draw[0] % END_US as u64) as i64);
    let mut ballast = || (0..10).map(|_| format!("{:016x}", random.draw())).collect::<String>();
    let columns: [(&str, ArrayRef); 4] = [
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values(at).with_timezone("UTC"))),
        ("user", Arc::new(Int64Array::from_iter_values(draws.iter().map(|draw| (draw[1] % KEYS) as i64)))),
        ("x", Arc::new(Float64Array::from_iter_values(draws.iter().map(|draw| draw[2] as f64 * 1e-9)))),
        ("ballast", Arc::new(StringArray::from_iter_values((0..ROWS).map(|_| ballast())))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Files here, and the same there.
fn write_files(repository: &Repository, web: &Web) {
    let mut random = Random::new("rows over HTTP");
    repository.write_parquet_in_groups(PARQUET, &rows(&mut random), GROUP_ROWS);
    let mut draw = || [random.below(END_US as u64), random.below(KEYS), random.below(1_000)];
    let lines: String = (0..500).map(|_| draw()).map(|[at, user, x]| format!("{at},{user},{x}\n")).collect();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(format!("at,user,x\n{lines}").as_bytes()).unwrap();
    repository.write("public/rows.csv.gz", packed.finish().unwrap());
    let line = |[at, user, x]: [u64; 3]| format!("{{\"at\":{at},\"user\":{user},\"x\":{x}}}\n");
    repository.write("public/rows.ndjson", (0..500).map(|_| line(draw())).collect::<String>());
    copy(&repository.path().join("public"), &web.path().join("public"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_over_http_are_those_on_disk() {
    let web = Web::start().await;
    web.answers(Manner { fails: 9, ..Manner::default() });
    let repository = Repository::new(&definitions(&web));
    write_files(&repository, &web);
    let node = repository.open_applied().await;
    let (here, there) = (trained(&node, "here").await, trained(&node, "there").await);
    same(&here, &there);
    assert!(here.column_by_name("parquet__x").unwrap().null_count() < 1_000, "{:?}", here.schema());

    // Of a Parquet file that is asked for which is read, and once.
    let bytes = fs::metadata(web.path().join(PARQUET)).unwrap().len();
    let (asked, sent) = web.sent(PARQUET);
    assert!(sent < bytes / 2 && asked < 60, "{sent} bytes of {bytes} in {asked} answers");
    same(&trained(&node, "there").await, &there);
    let (again, sent_again) = web.sent(PARQUET);
    assert!(sent_again - sent == again - asked, "{sent} bytes, then {sent_again}, in {again} answers");

    // In the head as in history.
    let materialized = node.clone();
    blocking(move || materialized.materialize_to(END_US)).await;
    let look_up = async |service: &str| {
        let service = node.service(service);
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..KEYS as i64));
        service.look_up(service.inputs(vec![keys]), vec![END_US; KEYS as usize]).await.unwrap().vectors
    };
    same(&look_up("here").await, &look_up("there").await);
}

/// Python's `http.server` is one: neither parts nor tags.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_gives_no_parts_is_asked_for_all_once() {
    let web = Web::start().await;
    web.answers(Manner { undivided: true, tag: None, ..Manner::default() });
    let repository = Repository::new(&definitions(&web));
    write_files(&repository, &web);
    let node = repository.open_applied().await;
    let files = [PARQUET, "public/rows.csv.gz", "public/rows.ndjson"];
    let before = files.map(|file| web.sent(file).0);
    same(&trained(&node, "here").await, &trained(&node, "there").await);
    for (file, before) in files.iter().zip(before) {
        // To look whether it comes in parts, then what state it is of, then all of it.
        let asked = web.sent(file).0 - before;
        assert!(asked <= 6, "{file}: {asked} answers");
    }
    // Nobody reads any more.
    let left = format!("{}/.quern/cache/history/whole/*", repository.path().display());
    assert_eq!(glob::glob(&left).unwrap().count(), 0);
}

/// A file that is written over between its footer and its rows is refused, by whatever its server tells its states.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_while_it_is_read_over_http_is_refused() {
    for tag in ["", "W/"] {
        let web = Web::start().await;
        web.answers(Manner { tag: Some(tag), ..Manner::default() });
        let repository = Repository::new(&definitions(&web));
        write_files(&repository, &web);
        let node = repository.open_applied_with(&[("history_cache_bytes_max", "0".to_owned())]).await;
        let (path, reads) = (web.path().join(PARQUET), AtomicU64::new(0));
        let before = fs::read(&path).unwrap();
        web.before_reads(move |asked| {
            if asked == PARQUET && reads.fetch_add(1, Ordering::Relaxed) == 0 {
                let mut other = fs::read(&path).unwrap();
                other[1_000] ^= 1;
                fs::write(&path, other).unwrap();
            }
        });
        let service = node.service("there");
        let refused = blocking(move || service.try_training_set(&spine())).await.unwrap_err().to_string();
        let expected = format!("`{}/{PARQUET}` changed while it was being read", web.url);
        assert!(refused.contains(&expected), "{refused}");
        fs::write(web.path().join(PARQUET), before).unwrap();
        same(&trained(&node, "here").await, &trained(&node, "there").await);
    }
}

/// A weak tag may stay where a file changes; the time beside it does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weak_tag_that_stays_is_of_its_time() {
    let web = Web::start().await;
    web.answers(Manner { tag: Some("W/"), tells: false, ..Manner::default() });
    let repository = Repository::new(&one(&web.connection(), &format!("{}/rows.csv", web.url)));
    let path = web.path().join("rows.csv");
    fs::write(&path, "at,user,x\n1700000000000000,2,3\n").unwrap();
    let node = repository.open_applied().await;
    let numbers = || {
        let rows = node.history("rows");
        rows.column_by_name("x").unwrap().as_primitive::<Float64Type>().values().to_vec()
    };
    assert_eq!(numbers(), [3.0]);
    fs::write(&path, "at,user,x\n1700000000000000,2,4\n").unwrap();
    let later = SystemTime::now() + Duration::from_secs(5);
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(numbers(), [4.0]);
}

/// A view of one CSV file.
fn one(connection: &str, path: &str) -> String {
    format!(
        "{connection}---\nkind: Entity\nname: user\njoin_keys: [{{name: user, type: int64}}]\n\
         ---\nkind: Source\nname: rows\nbatch: {{format: csv, path: \"{path}\"}}\nevent_timestamp: at\n{COLUMNS}\n\
         ---\nkind: FeatureView\nname: rows\nentities: [user]\nsource: rows\nfeatures: [{{name: x}}]\n"
    )
}

/// What a check of these definitions says, where it is refused.
async fn checked(repository: &Repository, node: &Node, definitions: &str) -> Result<(), String> {
    repository.write("definitions.yaml", definitions);
    node.check().await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_does_wrong_is_named() {
    let web = Web::start().await;
    let repository = Repository::new("");
    let node = repository.open().await;
    fs::create_dir_all(web.path().join("public")).unwrap();
    fs::write(web.path().join("public/rows.csv"), "at,user,x\n1700000000000000,2,3\n").unwrap();
    fs::write(web.path().join("public/empty.csv"), "").unwrap();
    let usual = Manner::default;
    let connection = web.connection().replace("/\"\n", "/public/\"\n");
    let url = &web.url;
    let other = || Manner { moved: "http://me:S3CRET@elsewhere.test".to_owned(), ..usual() };
    for (manner, path, words) in [
        (usual(), "none.csv", "there is no such file"),
        (usual(), "empty.csv", "it is empty; a CSV file begins with a line of column names"),
        (
            other(),
            "moved/rows.csv",
            "redirects to `http://elsewhere.test`, where its connection does not lead",
        ),
        (
            Manner { moved: "/private".to_owned(), ..usual() },
            "moved/rows.csv",
            "redirects to `/private/rows.csv`, where its connection does not lead",
        ),
        (
            Manner { moved: "/public/moved".to_owned(), ..usual() },
            "moved/rows.csv",
            "its server redirects more than 5 times",
        ),
        (
            Manner { packed: Some("gzip"), ..usual() },
            "rows.csv",
            "it comes packed, as its `Content-Encoding: gzip` says",
        ),
        (Manner { endless: true, ..usual() }, "rows.csv", "more than 31 bytes came, which it was asked for"),
        (Manner { sized: false, ..usual() }, "rows.csv", "does not say by `Content-Length` how large it is"),
        (
            Manner { tag: None, dated: false, ..usual() },
            "rows.csv",
            "says neither `ETag` nor `Last-Modified`",
        ),
        (
            Manner { status: Some(StatusCode::FORBIDDEN), ..usual() },
            "rows.csv",
            "access is refused: its server answers 403 Forbidden",
        ),
        (Manner { status: Some(StatusCode::GONE), ..usual() }, "rows.csv", "there is no such file"),
        (
            Manner { status: Some(StatusCode::BAD_REQUEST), ..usual() },
            "rows.csv",
            "its server answers 400 Bad Request",
        ),
    ] {
        web.answers(manner);
        let path = format!("{url}/public/{path}");
        let refused = checked(&repository, &node, &one(&connection, &path)).await.unwrap_err();
        assert!(refused.contains(words) && refused.contains(&format!("`{path}`")), "{words}: {refused}");
        assert!(!refused.contains("S3CRET") && !refused.contains("words of its own"), "{refused}");
    }
    web.answers(usual());
    let outside =
        checked(&repository, &node, &one(&connection, &format!("{url}/rows.csv"))).await.unwrap_err();
    assert!(
        outside.contains(&format!("no connection of its project leads to `{url}/rows.csv`")),
        "{outside}"
    );
    // Where it leads on the same server, and what is packed by its own name, is the file.
    web.answers(Manner { moved: "/public".to_owned(), ..usual() });
    checked(&repository, &node, &one(&connection, &format!("{url}/public/moved/rows.csv"))).await.unwrap();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(b"at,user,x\n1700000000000000,2,3\n").unwrap();
    fs::write(web.path().join("public/rows.csv.gz"), packed.finish().unwrap()).unwrap();
    web.answers(Manner { packed: Some("gzip"), ..usual() });
    checked(&repository, &node, &one(&connection, &format!("{url}/public/rows.csv.gz"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_a_server_is_said_by_the_connection_and_told_nobody() {
    let web = Web::start().await;
    let repository = Repository::new("");
    let node = repository.open().await;
    fs::write(web.path().join("rows.csv"), "at,user,x\n1700000000000000,2,3\n").unwrap();
    repository.write(".name", "ann\n");
    repository.write(".secret", "S3CRET\n");
    let told = |name: &str| format!("{{file: {:?}}}", repository.path().join(name));
    let check = async |credentials: &str| {
        let connection = format!("{}{credentials}\n", web.connection());
        checked(&repository, &node, &one(&connection, &format!("{}/rows.csv", web.url))).await
    };
    let user = format!("credentials: {{username: {}, password: {}}}", told(".name"), told(".secret"));
    let token = format!("credentials: {{token: {}}}", told(".secret"));
    for (credentials, proof) in
        [(&user, format!("Basic {}", STANDARD.encode("ann:S3CRET"))), (&token, "Bearer S3CRET".to_owned())]
    {
        web.answers(Manner { only: Some(proof), ..Manner::default() });
        let nobody = check("").await.unwrap_err();
        assert!(nobody.contains("access is refused: its server answers 401 Unauthorized"), "{nobody}");
        check(credentials).await.unwrap();
    }
    // A token that is replaced counts at once.
    web.answers(Manner { only: Some("Bearer ANOTHER".to_owned()), ..Manner::default() });
    let before = check(&token).await.unwrap_err();
    assert!(before.contains("401 Unauthorized") && !before.contains("S3CRET"), "{before}");
    repository.write(".secret", "ANOTHER");
    check(&token).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_nobody_vouches_for_is_not_believed() {
    let signed = Authority::new("nobody knows").sign(&["127.0.0.1"]);
    let chain = CertificateDer::pem_slice_iter(signed.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = tls.accept(socket).await;
        }
    });
    let repository = Repository::new("");
    let node = repository.open().await;
    let connection = format!("kind: Connection\nname: files\nurl: \"{url}/\"\n");
    let refused =
        checked(&repository, &node, &one(&connection, &format!("{url}/rows.csv"))).await.unwrap_err();
    assert!(
        refused.contains(&format!("`{url}/rows.csv`: invalid peer certificate: UnknownIssuer")),
        "{refused}"
    );
}
