//! Where may definitions lead over the network, and which URLs lead elsewhere than they look?

use expect_test::{Expect, expect};
use feature_defs::{DefError, DefFile, Reach, parse};
use proptest::prelude::*;

use crate::check;

const VIEW: &str = "kind: Entity
name: card
join_keys: [{name: card, type: string}]
---
kind: Source
name: payments
push: true
event_timestamp: at
columns: [{name: card, type: string}, {name: at, type: timestamp}, {name: n, type: int64}]
---
kind: FeatureView
name: card
entities: [card]
source: payments
features: [n]
---
kind: FeatureService
name: card_v1
features: [card]
---
";

fn model(path: &str) -> String {
    format!("kind: Model\nname: fraud\nversions: [{{version: 1, path: \"{path}\", service: card_v1}}]\n---\n")
}

fn stream(broker: &str, servers: &str) -> String {
    format!(
        "kind: Source\nname: clicks\nstream: {{broker: {broker}, servers: \"{servers}\", topic: clicks}}\n\
         event_timestamp: at\ncolumns: [{{name: at, type: timestamp}}]\n---\n"
    )
}

fn connection(name: &str, url: &str) -> String {
    format!("kind: Connection\nname: {name}\nurl: \"{url}\"\n---\n")
}

#[test]
fn nothing_leads_where_no_connection_does() {
    let steps = "kind: Model\nname: blend\nversions:\n  - version: 1\n    service: card_v1\n    steps: \
                 [{name: a, path: a.onnx}, {name: b, path: \"abfss://c@acc.dfs.core.windows.net/b.onnx\"}]\n---\n";
    check(
        &[
            VIEW,
            &model("s3://ml-models/fraud/1.onnx"),
            steps,
            &stream("kafka", "kafka-1:9092, kafka-2, [2001:DB8::0]:9093"),
            &connection("one", "kafka://Kafka-1:9092"),
            &connection("near", "s3://ml-models/fraud/1/"),
        ]
        .concat(),
        expect![[r#"
            a.yaml:23:31: no connection of its project leads to `s3://ml-models/fraud/1.onnx`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: ml-models, url: "s3://ml-models/fraud/"}`
            a.yaml:30:54: no connection of its project leads to `abfss://c@acc.dfs.core.windows.net/b.onnx`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: c, url: "abfss://c@acc.dfs.core.windows.net/"}`
            a.yaml:34:34: no connection of its project leads to `kafka://kafka-2:9092,[2001:db8::]:9093`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: kafka, url: "kafka://kafka-2:9092,[2001:db8::]:9093"}`"#]],
    );
    // What the mistake says mends it.
    check(
        &[
            VIEW,
            &model("s3://ml-models/fraud/1.onnx"),
            &stream("redis", "rediss://me:se/cret@redis-1/0"),
            &stream("redis", "rediss://me:secret@redis-1/0?protocol=resp3").replace("clicks", "more"),
            "{kind: Connection, name: ml-models, url: \"s3://ml-models/fraud/\"}\n---\n",
            &connection("redis", "rediss://redis-1:6379"),
        ]
        .concat(),
        expect![[r#"a.yaml:27:34: `servers` names no server as `host:port`"#]],
    );
    for url in ["redis://:my secret@redis-1:7", "rediss://redis-1/#insecure", "redis://me\\\\@redis-1:7"] {
        let text = [&stream("redis", url), VIEW].concat();
        let found = parse(&[DefFile::new("a.yaml", text)]).unwrap_err();
        assert!(found[0].cause.contains("`servers` has a blank, `#` or"), "{url}: {found:?}");
        assert!(!found[0].to_string().contains("secret"), "{url}");
    }
    let secret = [&stream("redis", "redis://me:secret@redis-1:7"), VIEW].concat();
    check(
        &secret,
        expect![[r#"
            a.yaml:3:34: no connection of its project leads to `redis://redis-1:7`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: redis, url: "redis://redis-1:7"}`"#]],
    );
}

#[test]
fn a_connection_is_its_project_s_and_of_those_it_is_shared_with() {
    let leads = |share: &str, project: &str| {
        let shared = format!("kind: Connection\nname: models\nshare: [{share}]\nurl: s3://models/\n");
        let model = format!("{VIEW}{}", model("s3://models/a.onnx"));
        let theirs = DefFile { project: "risk".to_owned(), ..DefFile::new("a.yaml", model) };
        let other = DefFile { project: project.to_owned(), ..DefFile::new("c.yaml", shared) };
        match parse(&[theirs, other]) {
            Ok(definitions) => definitions.connection("risk", "s3://models/a.onnx").unwrap().name.clone(),
            Err(errors) => errors.iter().map(DefError::to_string).collect::<Vec<_>>().join("\n"),
        }
    };
    assert_eq!(leads("risk", "default"), "models");
    assert_eq!(leads("\"*\"", "default"), "models");
    assert_eq!(leads("other", "risk"), "risk.models");
    expect![[r#"
        risk: a.yaml:23:31: no connection of its project leads to `s3://models/a.onnx`
          help: where definitions may lead, an administrator says: `{kind: Connection, name: models, url: "s3://models/"}`"#]]
    .assert_eq(&leads("other", "default"));
}

#[test]
fn the_narrowest_connection_leads() {
    let text: String = [("wide", "s3://m"), ("narrow", "s3://m/a/b"), ("middle", "s3://m/a/")]
        .map(|(n, u)| connection(n, u))
        .concat();
    let definitions = parse(&[DefFile::new("a.yaml", text)]).unwrap();
    for (url, name) in [("s3://m/a/b/c", "narrow"), ("s3://m/a/bc", "middle"), ("s3://m/ab", "wide")] {
        assert_eq!(definitions.connection("default", url).unwrap().name, name, "{url}");
    }
    assert_eq!(definitions.connection("default", "s3://n/a"), None);
}

#[test]
fn who_asks_is_no_part_of_a_connection() {
    let urls = [
        "redis://me:S3CRET@host:6379",
        "s3://me:S3CRET@models/",
        "kafka://S3CRET@a:1",
        "redis://me:S3CRET",
        "me:S3CRET@redis://h",
    ];
    for url in urls {
        let errors = parse(&[DefFile::new("a.yaml", connection("c", url))]).unwrap_err();
        let said: Vec<String> = errors.iter().map(DefError::to_string).collect();
        assert!(!said.join("\n").contains("S3CRET"), "{said:?}");
    }
    check(
        &[connection("c", urls[0]), connection("d", "ftp://a/"), "kind: Connection\nname: e\n".to_owned()]
            .concat(),
        expect![[r#"
            a.yaml:3:6: `url` must hold neither a user nor a password: a stream says them in its own `servers`, and for an object store the environment of the server does
              help: a URL is written as in `s3://bucket/folder/`, `kafka://a:9092,b:9092`, `redis://host:6379` or `https://host:5000/`
            a.yaml:7:6: `url` is a URL of an unknown scheme
              help: a URL is written as in `s3://bucket/folder/`, `kafka://a:9092,b:9092`, `redis://host:6379` or `https://host:5000/`
            a.yaml:9:1: a connection lacks the key `url`
              help: `url`: What may be reached: the objects of a bucket below a path, as `s3://bucket/folder/`, the files that a server gives below one over HTTP, as `https://host/folder/`, or servers, as `kafka://a:9092,b:9092`, `redis://host:6379` or `https://mlflow:5000/`; with a `driver`, a database as that driver names it, such as `postgresql://host:5432/shop`."#]],
    );
}

#[test]
fn a_name_and_a_url_of_another_tool_are_left_alone() {
    let whose = feature_defs::whose("name: charts\nurl: s3://charts/\n");
    assert_eq!(whose, feature_defs::Whose::Others("it has no `kind`".to_owned()));
}

#[test]
fn a_url_says_the_same_to_everybody_or_is_none() {
    let check = |texts: &[&str], expected: Expect| {
        let shown = texts.iter().map(|text| match Reach::parse(text) {
            Ok(Reach::Objects { bucket, path }) => format!("{text:?}: {bucket} {path:?}"),
            Ok(Reach::Files { server, path }) => format!("{text:?}: {server} {path:?}"),
            Ok(Reach::Servers(servers)) => {
                let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
                format!("{text:?}: {}", servers.join(" "))
            }
            Err(cause) => format!("{text:?} {cause}"),
        });
        expected.assert_eq(&shown.collect::<Vec<_>>().join("\n"));
    };
    check(
        &[
            "s3://b",
            "s3://b/",
            "s3a://b.c-d_e/a%20b/é/%C3%A9/",
            "az://c/x",
            "abfs://c@acc.blob.fabric.microsoft.com/x",
            "kafka://A:1,b,[::1]:9,127.0.0.1",
            "rediss://H/",
            "https://H/",
            "https://H/a%20b/é/%C3%A9/",
            "http://[::1]:8080/x",
        ],
        expect![[r#"
            "s3://b": s3://b []
            "s3://b/": s3://b []
            "s3a://b.c-d_e/a%20b/é/%C3%A9/": s3a://b.c-d_e ["a b", "é", "é"]
            "az://c/x": az://c ["x"]
            "abfs://c@acc.blob.fabric.microsoft.com/x": abfs://c@acc.blob.fabric.microsoft.com ["x"]
            "kafka://A:1,b,[::1]:9,127.0.0.1": kafka://a:1 kafka://b:9092 kafka://[::1]:9 kafka://127.0.0.1:9092
            "rediss://H/": rediss://h:6379
            "https://H/": https://h:443
            "https://H/a%20b/é/%C3%A9/": https://h:443 ["a b", "é", "é"]
            "http://[::1]:8080/x": http://[::1]:8080 ["x"]"#]],
    );
    for text in [
        "",
        "s3:/b",
        "S3://b/x",
        "https:///x",
        "https://h//x",
        "https://h/a/../x",
        "https://h/a/%2e%2E/x",
        "https://h/a%2fx",
        "https://h/a\\x",
        "https://h/x?y",
        "https://h/x#y",
        "https://h?x/y",
        "https://me:p@h/x",
        "https://a,b/x",
        "https://h:0/x",
        "file:///etc/passwd",
        "unix:///run/redis.sock",
        "s3:///x",
        "s3://../x",
        "s3://./x",
        "s3://b:9000/x",
        "s3://b@evil/x",
        "s3://b%40evil/x",
        "s3://b%2Fx/y",
        "s3://b\\x/y",
        "s3://bücket/x",
        "s3://b?x",
        "s3://b/x?versionId=1",
        "s3://b/x#y",
        "s3://b//",
        "s3://b//x",
        "s3://b/x//y",
        "s3://b/./x",
        "s3://b/a/../x",
        "s3://b/a/%2e%2E/x",
        "s3://b/a/.%2e/x",
        "s3://b/a%2F..%2Fx",
        "s3://b/a%2fx",
        "s3://b/a%00x",
        "s3://b/a%zz",
        "s3://b/a%2",
        "s3://b/%ff",
        "s3://b/.\t./x",
        "s3://b/a\n",
        " s3://b/a",
        "s3://b/a ",
        "s3://b/a\u{0}",
        "gs://b@host/x",
        "azure://c@acc.dfs.core.windows.net/x",
        "az://c@evil.com/x",
        "az://c@acc.dfs.core.windows.net.evil.com/x",
        "az://c@a.b.dfs.core.windows.net/x",
        "az://c:p@acc.dfs.core.windows.net/x",
        "az://c@acc.dfs.core.windows.net:1/x",
        "kafka://",
        "kafka://a,,b",
        "kafka://a:0",
        "kafka://a:65536",
        "kafka://a:+1",
        "kafka://a:",
        "kafka://a:1:2",
        "kafka://::1",
        "kafka://[::1",
        "kafka://[::1]x",
        "kafka://[fe80::1%eth0]:1",
        "kafka://a/x",
        "kafka://PLAINTEXT://a:1",
        "redis://a?b",
        "redis://a/0",
        "redis://a#insecure",
        "redis://u@a",
        "redis://-a",
        "redis://a%2eb",
    ] {
        assert!(Reach::parse(text).is_err(), "{text:?}: {:?}", Reach::parse(text));
    }
}

proptest! {
    #[test]
    fn a_connection_covers_what_its_text_begins(
        here in proptest::collection::vec("[ab]{1,2}", 0..4),
        there in proptest::collection::vec("[ab]{1,2}", 0..4),
        slashes in any::<[bool; 2]>(),
        root in proptest::sample::select(&["s3://bucket", "https://host:8443"][..]),
    ) {
        let url = |parts: &[String]| format!("{}/", [&[root.to_owned()], parts].concat().join("/"));
        let written = |parts: &[String], slash: bool| match slash {
            true => url(parts),
            false => url(parts).trim_end_matches('/').to_owned(),
        };
        let reach = |text: String| Reach::parse(&text).unwrap();
        let covers = reach(written(&here, slashes[0])).covers(&reach(written(&there, slashes[1])));
        prop_assert_eq!(covers, url(&there).starts_with(&url(&here)));
    }

    #[test]
    fn servers_are_covered_one_by_one(
        here in proptest::collection::vec(("[ab]", 1_u16..3), 1..4),
        there in proptest::collection::vec(("[abAB]", 1_u16..3), 1..4),
        schemes in proptest::array::uniform2(proptest::sample::select(&["kafka", "redis", "rediss"][..])),
    ) {
        let named = |servers: &[(String, u16)]| -> Vec<String> {
            servers.iter().map(|(host, port)| format!("{host}:{port}")).collect()
        };
        let (here, there) = (named(&here), named(&there));
        let reach = |scheme: &str, servers: &[String]| Reach::parse(&format!("{scheme}://{}", servers.join(","))).unwrap();
        let covers = reach(schemes[0], &here).covers(&reach(schemes[1], &there));
        let all = there.iter().all(|one| here.iter().any(|other| other.eq_ignore_ascii_case(one)));
        prop_assert_eq!(covers, schemes[0] == schemes[1] && all);
    }
}

fn source(name: &str, path: &str) -> String {
    format!(
        "kind: Source\nname: {name}\nbatch: {{format: parquet, path: \"{path}\"}}\nevent_timestamp: at\n---\n"
    )
}

#[test]
fn a_file_over_http_is_one_to_which_a_connection_leads() {
    check(
        &[
            source("a", "https://data.corp/public/a%20[]"),
            source("b", "https://data.corp/private/b.parquet"),
            source("c", "https://data.corp/public/*.parquet"),
            source("d", "https://data.corp/public/"),
            source("e", "https://data.corp/public/e.parquet?X-Amz-Signature=S3CRET"),
            source("f", "https://me:S3CRET@data.corp/public/f.parquet"),
            source("g", "https://[::1]:8443/g.parquet"),
            source("h", "http://data.corp/public/h.parquet"),
            source("i", "https://data.corp/public/t").replace("parquet", "delta"),
            source("j", "https://tables.corp/j.parquet"),
            connection("data", "https://Data.corp:443/public"),
            connection("local", "https://[0::1]:8443/"),
            connection("tables", "https://tables.corp/").replace("---", "catalog: {path: /}\n---"),
        ]
        .concat(),
        expect![[r#"
            a.yaml:3:32: `path` must name one file: over HTTP a server lists none, so it is neither a folder nor a glob
              help: give each file a source of its own, as in `path: "https://host/folder/file.parquet"`, or put them into a bucket; in a path `*` and `[` are written `%2A` and `%5B`
            a.yaml:8:32: no connection of its project leads to `https://data.corp/private/b.parquet`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: files, url: "https://data.corp/private/"}`
            a.yaml:13:32: `path` must name one file: over HTTP a server lists none, so it is neither a folder nor a glob
              help: give each file a source of its own, as in `path: "https://host/folder/file.parquet"`, or put them into a bucket; in a path `*` and `[` are written `%2A` and `%5B`
            a.yaml:18:32: `path` must name one file: over HTTP a server lists none, so it is neither a folder nor a glob
              help: give each file a source of its own, as in `path: "https://host/folder/file.parquet"`, or put them into a bucket; in a path `*` and `[` are written `%2A` and `%5B`
            a.yaml:23:32: `path` has `?` or `#`, and names a file over HTTP: it may be no glob, and hold no signature
              help: who asks is said by the `credentials` of its connection; in a path they are written `%3F` and `%23`
            a.yaml:28:32: `path` must hold neither a user nor a password: a stream says them in its own `servers`, and for an object store the environment of the server does
              help: a URL is written as in `https://host/folder/file.parquet`
            a.yaml:38:32: no connection of its project leads to `http://data.corp/public/h.parquet`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: files, url: "http://data.corp/public/"}`
            a.yaml:43:30: a table is many files, and over HTTP a server lists none
              help: copy the table into a bucket, or into a folder of this machine
            a.yaml:48:32: no connection of its project leads to `https://tables.corp/j.parquet`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: files, url: "https://tables.corp/"}`"#]],
    );
}

#[test]
fn who_asks_for_files_over_http_is_a_user_or_a_token() {
    let files = |more: &str| format!("{}{more}", connection("data", "https://d/x/").replace("---\n", ""));
    is_sound(&files(""));
    is_sound(&files(USER));
    is_sound(&files("credentials: {token: {env: TOKEN}}\n"));
    let not_whole = "`credentials` of a server of HTTP are not whole, or are another's";
    is_wrong_once(&files("credentials: {access_key_id: {env: A}}\n"), not_whole);
    is_wrong_once(&files("credentials: {username: {env: A}}\n"), not_whole);
    is_wrong_once(
        &files("region: eu\n"),
        "`region` is of an object store, and `url` leads to a server of HTTP",
    );
}

#[test]
fn nothing_is_written_over_http() {
    let definitions = parse(&[DefFile::new("a.yaml", connection("data", "https://d.corp/x/"))]).unwrap();
    let refused = definitions.leading_to("default", "https://d.corp/x/y.parquet").unwrap_err();
    assert_eq!(refused.cause, "`https://d.corp/x/y.parquet` is in no object store");
}

#[test]
fn files_in_a_bucket_are_where_a_connection_leads() {
    check(
        &[
            source("a", "s3://lake/landings/date=*/*.parquet"),
            source("b", "s3://lake/landings/old"),
            source("c", "gs://other/[ab]*.parquet"),
            source("d", "s3://lake/landings/?.parquet"),
            source("e", "s3://lake/landings//x.parquet"),
            source("f", "hdfs://lake.corp/x.parquet"),
            connection("lake", "s3://lake/landings"),
        ]
        .concat(),
        expect![[r#"
            a.yaml:13:32: no connection of its project leads to `gs://other/[ab]*.parquet`
              help: where definitions may lead, an administrator says: `{kind: Connection, name: other, url: "gs://other/"}`
            a.yaml:18:32: `path` has `?` or `#`; in a key they are written `%3F` and `%23`
              help: a URL is written as in `s3://bucket/landings/date=*/*.parquet`
            a.yaml:23:32: `path` has a part that is empty, `.`, `..` or an encoded `/`
              help: a URL is written as in `s3://bucket/landings/date=*/*.parquet`
            a.yaml:28:32: `path` is a URL of the scheme `hdfs`, which rows are not read by
              help: known: abfs, abfss, adl, az, azure, gs, http, https, s3, s3a"#]],
    );
}

#[test]
fn who_asks_an_object_store_is_said_whole_and_never_written() {
    let told = |more: &str| format!("{}{more}---\n", connection("lake", "s3://lake/").replace("---\n", ""));
    check(
        &told("endpoint: \"http://minio:9000\"\nregion: eu\nanonymous: true\n"),
        expect!["sound: 0 entities, 0 sources, 0 views, 0 services, 0 models"],
    );
    check(
        &told("credentials: {access_key_id: {env: ID}, secret_access_key: {file: /run/secrets/lake}}\n"),
        expect!["sound: 0 entities, 0 sources, 0 views, 0 services, 0 models"],
    );
    check(
        &told("credentials: {access_key_id: AKIA7}\n"),
        expect![[r#"
            a.yaml:4:14: `credentials` of `s3://` are not whole, or are another's
              help: give `access_key_id`, `secret_access_key` (and `session_token`)
            a.yaml:4:30: `access_key_id` must be `{env: NAME}` or `{file: PATH}`
              help: what is secret stands in no definition: these are kept, and shown"#]],
    );
    check(
        &told("credentials: {access_key_id: {env: ID}}\n"),
        expect![[r#"
            a.yaml:4:14: `credentials` of `s3://` are not whole, or are another's
              help: give `access_key_id`, `secret_access_key` (and `session_token`)"#]],
    );
    check(
        &told("credentials: {account_key: {env: ID}}\n"),
        expect![[r#"
            a.yaml:4:14: `credentials` of `s3://` are not whole, or are another's
              help: give `access_key_id`, `secret_access_key` (and `session_token`)"#]],
    );
    check(
        &told("anonymous: true\ncredentials: {access_key_id: {env: A, file: b}, secret_access_key: {}}\n"),
        expect![[r#"
            a.yaml:5:14: `credentials` say who asks, and `anonymous` that nobody is named
              help: leave one of them out
            a.yaml:5:30: `access_key_id` must be told by one of `env` and `file`
              help: as in `access_key_id: {env: NAME_OF_A_VARIABLE}`
            a.yaml:5:68: `secret_access_key` must be told by one of `env` and `file`
              help: as in `secret_access_key: {env: NAME_OF_A_VARIABLE}`"#]],
    );
    check(
        &told("endpoint: \"http://me:secret@minio:9000\"\n"),
        expect![[r#"
        a.yaml:4:11: `endpoint` must be a URL of `http` or `https`, without a user or a password
          help: as in `https://minio:9000`; who asks is said by `credentials`"#]],
    );
    check(
        &told("region: eu\n").replace("s3://lake/", "kafka://lake"),
        expect![[r#"
            a.yaml:4:9: `region` is of an object store, and `url` leads to Kafka
              help: leave it out"#]],
    );
}

/// What is wrong with definitions, in their order.
fn causes(text: &str) -> Vec<String> {
    let found = parse(&[DefFile::new("a.yaml", text)]).err().unwrap_or_default();
    found.into_iter().map(|error| error.cause).collect()
}

fn is_sound(text: &str) {
    assert_eq!(causes(text), Vec::<String>::new(), "{text}");
}

/// What only follows from a mistake is none.
fn is_wrong_once(text: &str, expected: &str) {
    let causes = causes(text);
    let is_it = matches!(&causes[..], [cause] if cause.starts_with(expected));
    assert!(is_it, "{text}\n{causes:?}\n{expected}");
    assert!(!causes[0].contains("hunter2"), "{causes:?}");
}

const USER: &str = "credentials: {username: {env: USER}, password: {file: /run/secrets/password}}\n";

#[test]
fn how_brokers_are_spoken_with_is_whole_and_wrong_once() {
    let kafka = |options: &str, credentials: &str| {
        let connection = connection("brokers", "kafka://a:9093").replace("---\n", "");
        format!("{connection}kafka: {{{options}}}\n{credentials}")
    };
    let and = |more: &str| USER.replace("}}", &format!("}}, {more}}}"));
    let told = |secret: &str| USER.replace("{file: /run/secrets/password}", secret);
    let scram = "security_protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-512";
    let certificate = "certificate: {file: a}, private_key: {file: b}, private_key_password: {env: C}";
    is_sound(&kafka(scram, USER));
    is_sound(&kafka(scram, &and(certificate)));
    let ssl = "security_protocol: SSL, ssl_ca: {file: ca.pem}";
    is_sound(&kafka(ssl, &format!("credentials: {{{certificate}}}\n")));
    // Two ways to the same brokers are two connections.
    is_sound(&[kafka(scram, USER), connection("plain", "kafka://a:9093")].join("---\n"));
    let client = "credentials: {client_id: {env: A}, client_secret: {env: B}}\n";
    let bearers =
        "security_protocol: SASL_SSL, sasl_mechanism: OAUTHBEARERS, token_url: \"https://idp/token\"";
    is_wrong_once(&kafka(bearers, client), "`sasl_mechanism` must be ");
    let scram_1 = "security_protocol: SASL_SSL, sasl_mechanism: SCRAM-SHA-1";
    is_wrong_once(&kafka(scram_1, USER), "`sasl_mechanism` must be ");
    let small = "security_protocol: sasl_ssl, sasl_mechanism: PLAIN";
    is_wrong_once(&kafka(small, USER), "`security_protocol` must be ");
    is_wrong_once(
        &kafka("sasl_mechanism: PLAIN", USER),
        "the options of Kafka lacks the key `security_protocol`",
    );
    is_wrong_once(&kafka("security_protocol: SASL_SSL", USER), "`SASL_SSL` needs a `sasl_mechanism`");
    let plain = "security_protocol: SSL, sasl_mechanism: PLAIN";
    is_wrong_once(&kafka(plain, USER), "`sasl_mechanism` is of `SASL_SSL`");
    let no_path = "security_protocol: SSL, ssl_ca: {file: \"\"}";
    is_wrong_once(&kafka(no_path, ""), "`ssl_ca` has a `file` that is no path: it is empty");
    for lone in ["certificate", "private_key_password"] {
        let alone = format!("credentials: {{{lone}: {{env: A}}}}\n");
        is_wrong_once(&kafka(ssl, &alone), "`credentials` of `SSL` are not whole, or are another's");
        let beside = and(&format!("{lone}: {{env: A}}"));
        is_wrong_once(&kafka(scram, &beside), "a `certificate` and its `private_key` belong together");
    }
    for secret in ["{env: \"\"}", "{env: \"A=hunter2\"}"] {
        is_wrong_once(&kafka(scram, &told(secret)), "`password` has an `env` that is no name of a variable");
    }
}

#[test]
fn a_schema_registry_is_a_server_and_where_it_begins_there() {
    let registry = |url: &str, options: &str, credentials: &str| {
        let connection = connection("schemas", url).replace("---\n", "");
        format!("{connection}schema_registry: {{{options}}}\n{credentials}")
    };
    let tokens = "token_url: \"https://idp/token\"";
    let client = "credentials: {client_id: {env: A}, client_secret: {env: B}}\n";
    let url = "https://r:8081";
    is_sound(&registry(url, "path: /contexts/.lab", USER));
    is_sound(&registry(url, "path: /apis/ccompat/v7", ""));
    is_sound(&registry(url, tokens, client));
    for who in ["", USER] {
        is_wrong_once(
            &registry(url, tokens, who),
            "`token_url` says where tokens are asked for, and nothing says",
        );
    }
    let blank = "path: \"/apis /v7\"";
    is_wrong_once(&registry(url, blank, USER), "`path` must be a path on the server of a schema registry");
    let apicurio = "https://r:8081/apis/ccompat/v7";
    is_wrong_once(&registry(apicurio, "path: /", USER), "`url` has a path, and leads to a server as a whole");
    is_wrong_once(&registry("https://my registry", "path: /", USER), "`url` names no server as `host:port`");
}

#[test]
fn a_stream_names_a_topic_and_where_it_starts() {
    let begun = |topic: &str, start: &str| {
        let stream = stream("kafka", "a:1").replace("topic: clicks}", &format!("topic: {topic:?}{start}}}"));
        [stream, connection("brokers", "kafka://a:1")].concat()
    };
    is_sound(&begun("clicks", ""));
    is_sound(&begun("Shop.clicks_v2-eu", ", start: latest"));
    is_sound(&begun(&"a".repeat(249), ", start: earliest"));
    is_sound(&begun("...", ", start: \"1969-12-31T23:00:00Z\""));
    for topic in ["", ".", "..", "a b", "a,b", "clicks.*", "kl\u{fc}cks", &"a".repeat(250)] {
        is_wrong_once(
            &begun(topic, ""),
            "`topic` must be 1 to 249 letters of ASCII, digits, `.`, `_` and `-`, found",
        );
    }
    for start in [", start: \"\"", ", start: first"] {
        is_wrong_once(&begun("clicks", start), "`start` must be `earliest`, `latest` or a time, found `");
    }
    // A key of Redis may be any text.
    let redis = stream("redis", "redis://r:1").replace("topic: clicks", "topic: \"a b\"");
    is_sound(&[redis, connection("redis", "redis://r:1")].concat());
}
