//! Which settings hold, and what is said of those that do not?

use expect_test::expect;
use quern_identity::KeysAt;

use super::*;

fn check(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> std::result::Result<Settings, String> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join(SETTINGS_FILE), file).expect("written");
    let flags: Vec<(&str, String)> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let environment =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    let settings = Settings::load_from(folder.path(), environment, &flags);
    settings.map_err(|error| error.to_string())
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let file = "listen: 127.0.0.1:1\n";
    let listen = |variables: &[(&str, &str)], flags: &[(&str, &str)]| {
        check(file, variables, flags).expect("sound").listen.port()
    };
    assert_eq!(listen(&[], &[]), 1);
    assert_eq!(listen(&[("QUERN_LISTEN", "127.0.0.1:2")], &[]), 2);
    assert_eq!(listen(&[("QUERN_LISTEN", "127.0.0.1:2")], &[("listen", "127.0.0.1:3")]), 3);
}

#[test]
fn paths_in_the_file_start_at_the_repository() {
    let settings = check("data: store # beside the definitions\n", &[], &[]).expect("sound");
    assert_eq!(settings.data, settings.own.repository.join("store"));
    assert_eq!(check("", &[], &[]).expect("sound").data.file_name(), Some(".quern".as_ref()));
}

#[test]
fn definitions_lie_in_folders_of_the_repository() {
    let folders = |file: &str| check(file, &[], &[]).map(|settings| settings.own.definitions);
    assert_eq!(folders(""), Ok(Vec::new()));
    assert_eq!(folders("definitions: ./features/\n"), Ok(vec![PathBuf::from("features")]));
    assert_eq!(folders("definitions: [a, b/c]\n"), Ok(vec![PathBuf::from("a"), PathBuf::from("b/c")]));
    assert_eq!(folders("definitions: .\n"), Ok(Vec::new()));
    for wrong in ["/srv/features", "../features", "a/../../b"] {
        let mistake = folders(&format!("definitions: {wrong}\n")).expect_err("refused");
        assert!(mistake.contains("quern.yaml:1:14") && mistake.contains(wrong), "{mistake}");
    }
}

#[test]
fn a_server_on_loopback_is_called_localhost() {
    let hosts = |file: &str| check(file, &[], &[]).map(|settings| settings.hosts_at(settings.listen));
    assert_eq!(hosts(""), Ok(vec!["localhost".to_owned()]));
    assert_eq!(hosts("listen: 0.0.0.0:7400\n"), Ok(Vec::new()));
    let admin = check("listen: 0.0.0.0:7400\nlisten_admin: 127.0.0.1:7401\n", &[], &[]).expect("sound");
    assert_eq!(admin.hosts_at(admin.listen_admin.expect("named")), ["localhost"]);
    assert_eq!(hosts("hosts: [Quern.internal, q]\n"), Ok(vec!["quern.internal".to_owned(), "q".to_owned()]));
    assert!(hosts("hosts: http://q\n").expect_err("refused").contains("without scheme and port"));
}

#[test]
fn nobody_listens_in_the_open_by_accident() {
    const TLS: &str = "tls_certificate: c.pem\ntls_key: k.pem\n";
    let open = |file: &str| {
        let settings = check(file, &[], &[]).expect("sound");
        (settings.auth(), settings.stands_open().map_err(|error| error.to_string()))
    };
    for file in ["", "listen: '[::1]:7400'\nlisten_admin: 127.0.0.1:7401\n", "insecure: true\n"] {
        assert_eq!(open(file), (Auth::None, Ok(None)), "{file}");
    }
    for file in
        ["listen: 0.0.0.0:7400\n", "listen_admin: '[::]:7401'\n", "listen: 10.0.0.1:7400\nauth: required\n"]
    {
        let (auth, refused) = open(file);
        let refused = refused.expect_err("in the open");
        let [setting, address] =
            [file.split(": ").next(), file.split(['\'', ' ', '\n']).find(|word| word.contains("740"))];
        assert!(auth == Auth::Required && refused.contains(setting.expect("named")), "{refused}");
        for part in [
            address.expect("named"),
            "no `tls_certificate`",
            "`auth: required`",
            "--insecure",
            "127.0.0.1:7400",
        ] {
            assert!(refused.contains(part), "{part} in {refused}");
        }
        assert!(!refused.contains("auth: none"), "they are asked: {refused}");
        let (auth, warned) = open(&format!("{file}insecure: true\n"));
        assert_eq!(auth == Auth::Required, file.contains("required"), "who may stand open need not ask");
        assert!(
            warned.expect("allowed").is_some_and(|warned| warned.contains("stands open to other machines"))
        );
        assert_eq!(open(&format!("{file}{TLS}")), (Auth::Required, Ok(None)), "closed");
    }
    let (_, refused) = open(&format!("listen: 0.0.0.0:7400\nauth: none\n{TLS}"));
    let refused = refused.expect_err("nobody is asked");
    assert!(refused.contains("`auth: none`") && !refused.contains("on its way"), "{refused}");
}

#[test]
fn files_of_tls_come_together() {
    for (file, said) in [
        ("tls_certificate: c.pem\n", "`tls_key` is not set: name the PEM file of its private key"),
        ("tls_key: k.pem\n", "`tls_certificate` is not set"),
        ("tls_client_ca: a.pem\n", "`tls_certificate` is not set"),
        ("tls_certificate: c.pem\ntls_key: k.pem\ntls_revoked: r.pem\n", "`tls_client_ca` is not set"),
        ("auth: maybe\n", "`maybe` is neither `none` nor `required`"),
    ] {
        let mistake = check(file, &[], &[]).expect_err("refused");
        assert!(mistake.contains(said), "{mistake}");
    }
    let settings = check("tls_certificate: c.pem\ntls_key: k.pem\nauth: none\n", &[], &[]).expect("sound");
    assert_eq!(settings.tls_key, Some(settings.own.repository.join("k.pem")));
    assert_eq!(settings.auth, Some(Auth::None));
}

#[test]
fn settings_under_another_name_are_not_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("quern.yml"), "listen: 127.0.0.1:1\n").expect("written");
    let mistake = Settings::load_from(folder.path(), |_| None, &[]).expect_err("refused").to_string();
    assert!(mistake.contains("rename quern.yml"), "{mistake}");
}

#[test]
fn every_mistake_of_the_file_is_named_with_its_line() {
    let mistakes = check("lisen: 127.0.0.1:1\nbody_bytes_max: much\nonline: redis://h?prefx=a\n", &[], &[])
        .expect_err("three");
    for part in [
        "quern.yaml:1:1: there is no setting `lisen`",
        "did you mean `listen`?",
        "quern.yaml:2:17: `body_bytes_max` must be a whole number, found the text `much`",
        "quern.yaml:3:9: `online`: there is no option `prefx`; did you mean `prefix`?",
    ] {
        assert!(mistakes.contains(part), "{part} in {mistakes}");
    }
}

#[test]
fn a_setting_of_another_type_is_refused() {
    let wrong = "definitions: [a, 1]\ndata: [1]\nlisten: 7400\nonline: true\nonline_timeout: 100\nregistry: {a: b}\n\
                 onnxruntime: 1.5\nexecution_providers: {}\nbody_bytes_max: \"1000\"\nhistory_fallback: \"true\"\n\
                 push_queue_rows: many\notlp:\n";
    expect![[r#"
        quern.yaml:1:14: `definitions` must be a text or a list of texts, found the number `1` in it
          help: as in `definitions: [features/, models/]`
        quern.yaml:2:7: `data` must be one text, found a list
          help: as in `data: .quern`
        quern.yaml:3:9: `listen` must be one text, found the number `7400`
          help: as in `listen: 127.0.0.1:7400`
        quern.yaml:4:9: `online` must be one text, found the boolean `true`
          help: as in `online: rocksdb`
        quern.yaml:5:17: `online_timeout` must be one text, found the number `100`
          help: as in `online_timeout: 100ms`
        quern.yaml:6:11: `registry` must be one text, found a mapping
          help: as in `registry: sqlite`
        quern.yaml:7:14: `onnxruntime` must be one text, found the number `1.5`
          help: as in `onnxruntime: /usr/lib/libonnxruntime.so`
        quern.yaml:8:22: `execution_providers` must be a text or a list of texts, found a mapping
          help: as in `execution_providers: [cuda, cpu]`
        quern.yaml:9:17: `body_bytes_max` must be a whole number, found the text `1000`
          help: write it without quotes
        quern.yaml:10:19: `history_fallback` must be true or false, found the text `true`
          help: write it without quotes
        quern.yaml:11:18: `push_queue_rows` must be a whole number, found the text `many`
        quern.yaml:12:5: `otlp` must be one text, found nothing
          help: as in `otlp: http://127.0.0.1:4317`
        12 mistakes"#]]
    .assert_eq(&check(wrong, &[], &[]).expect_err("all of them"));
    let number = check("1: x\n", &[], &[]).expect_err("no name");
    assert_eq!(number, "quern.yaml:1:1: the name of a setting is a text, found the number `1`");
    let both = "data: a\ndata: b\n";
    expect!["quern.yaml:2:1: duplicated key in mapping"]
        .assert_eq(&check(both, &[], &[]).expect_err("twice"));
    for (setting, value) in [("data", " "), ("onnxruntime", " ")] {
        let mistake = check("", &[], &[(setting, value)]).expect_err("empty");
        assert_eq!(mistake, format!("option --{setting}: it is empty"));
    }
    let sound = check("body_bytes_max: 1_000\npush_queue_rows: 7\nhistory_fallback: false\n", &[], &[])
        .expect("sound");
    assert_eq!((sound.body_bytes_max, sound.push_queue_rows, sound.history_fallback), (1_000, 7, false));
}

#[test]
fn the_online_store_is_rocksdb_or_a_redis() {
    assert_eq!(check("", &[], &[]).expect("sound").online, OnlineStore::RocksDb);
    let settings =
        check("online: redis://h:1/2?prefix=a\nonline_timeout: 1s500ms\n", &[], &[]).expect("sound");
    let OnlineStore::Redis(address) = settings.online else { panic!("a Redis") };
    assert_eq!((address.to_string().as_str(), address.prefix.as_str()), ("redis://h:1/2", "a"));
    assert_eq!(settings.online_timeout, Duration::from_millis(1_500));
    for (flags, said) in [
        (("online", "mysql://root:secret@h"), "`mysql://` is unknown"),
        (("online", "rocks"), "this is `rocksdb`, or a URL as `redis://host:6379`"),
        (("online", "redis://"), "names no server"),
        (("online_timeout", "0s"), "`0s` is not more than 0 and at most 60s"),
        (("online_timeout", "100"), "`100` has no unit"),
        (("requests_bytes_max", "100"), "`100` is not a whole number from 1048576 to"),
    ] {
        let mistake = check("", &[], &[flags]).expect_err("refused");
        let named = format!("--{}", flags.0.replace('_', "-"));
        assert!(
            mistake.contains(said) && mistake.contains(&named) && !mistake.contains("secret"),
            "{mistake}"
        );
    }
}

#[test]
fn segments_lie_in_a_folder_or_in_a_bucket() {
    let store = |file: &str| check(file, &[], &[]).map(|settings| (settings.store(), settings.data));
    let (at, data) = store("").expect("sound");
    assert_eq!(at, StoreAt::Folder { path: data.join("store"), shared: false });
    let (at, data) = store("store: kept\nstore_shared: true\n").expect("sound");
    let path = data.parent().expect("the repository").join("kept");
    assert_eq!(at, StoreAt::Folder { path, shared: true });
    for url in ["s3://bucket/some/prefix", "gs://bucket", "az://container/prefix"] {
        let (at, _) = store(&format!("store: {url}\n")).expect("sound");
        assert!(matches!(at, StoreAt::Bucket(_)) && at.is_said_shared(), "{at:?}");
        assert_eq!(at.to_string(), url);
    }
    for (file, said) in [
        ("store: ftp://h/x", "`store`: `ftp://h/x` is not the URL of an object"),
        ("store: s3://k:secret@b/x", "`store`: a URL must not hold a password"),
        ("store_shared: true", "name it in `store`, as in `store: /mnt/quern`"),
        ("store: s3://b/x\nstore_shared: true", "A bucket is every server's anyway"),
        ("store_cache_bytes_max: 7", "`7` is not a whole number from 1048576"),
        ("predictions_every: 2h", "`2h` is not more than 0 and at most 3600s"),
    ] {
        let mistake = store(file).expect_err("refused");
        assert!(mistake.contains(said) && !mistake.contains("secret"), "{mistake}");
    }
    let settings = check("predictions_every: 5s\npredictions_keep: 90d\n", &[], &[]).expect("sound");
    let days = Duration::from_secs(90 * 86_400);
    assert_eq!((settings.predictions_every.as_secs(), settings.predictions_keep), (5, Some(days)));
}

#[test]
fn traces_go_to_a_url() {
    assert_eq!(check("", &[], &[]).expect("sound").otlp, None);
    let settings = check("otlp: http://h:4317\n", &[], &[]).expect("sound");
    assert_eq!(settings.otlp.as_deref(), Some("http://h:4317"));
    for wrong in ["h:4317", "https://h:4317", "http://", "http://h:4318/v1/traces"] {
        let mistake = check("", &[("QUERN_OTLP", wrong)], &[]).expect_err("refused");
        assert!(mistake.contains("QUERN_OTLP") && mistake.contains("http://127.0.0.1:4317"), "{mistake}");
    }
}

#[test]
fn a_wrong_variable_is_named() {
    let mistake = check("", &[("QUERN_REGISTRY", "mysql://u:secret@h/d")], &[]).expect_err("refused");
    assert!(mistake.contains("QUERN_REGISTRY") && mistake.contains("postgres://"), "{mistake}");
    assert!(!mistake.contains("secret"), "{mistake}");
}

#[test]
fn a_registry_is_a_url_and_its_password_is_shown_to_nobody() {
    let url = "postgres://u:hidden@h/d?sslmode=require";
    let settings = check("", &[], &[("registry", url)]).expect("sound");
    assert_eq!(settings.registry, Location::Postgres(url.to_owned()));
    assert!(!format!("{settings:?}").contains("hidden"));
    for wrong in ["postgres://u:secret@h:port/d", "postgres://u:secret@h/d?sslmode=maybe"] {
        let mistake = check("", &[], &[("registry", wrong)]).expect_err("refused");
        assert!(mistake.contains("--registry") && !mistake.contains("secret"), "{mistake}");
    }
}

#[test]
fn whom_a_server_believes_is_said_to_the_letter() {
    let trust = |file: &str| check(file, &[], &[]).map(|settings| settings.trust().expect("checked"));
    assert_eq!(trust("").expect("nobody").issuers, []);
    let one = trust("jwt_issuers: https://sso.corp\n").expect("one");
    assert_eq!((one.issuers[0].name.as_str(), one.audience.as_str()), ("https://sso.corp", "quern"));
    let two = "jwt_issuers: [https://sso.corp, https://kubernetes.default.svc]\njwt_audience: features\n";
    let with_keys =
        trust(&format!("{two}jwt_keys: https://kubernetes.default.svc=jwks.json\n")).expect("two");
    assert_eq!(with_keys.issuers[0].keys, KeysAt::Discovery);
    assert!(matches!(&with_keys.issuers[1].keys, KeysAt::File(path) if path.ends_with("jwks.json")));
    let at = trust("jwt_issuers: https://sso.corp\njwt_keys: https://sso.corp/keys?of=all\n").expect("a URL");
    assert_eq!(at.issuers[0].keys, KeysAt::Url("https://sso.corp/keys?of=all".to_owned()));
    for (file, part) in [
        ("jwt_issuers: sso.corp\n", "is no URL"),
        ("jwt_issuers: http://sso.corp\n", "must begin with https://"),
        ("jwt_keys: jwks.json\n", "do not say whose they are, and `jwt_issuers` has 0"),
        (&format!("{two}jwt_keys: jwks.json\n"), "`jwt_issuers` has 2: write `ISSUER=FILE`"),
        (&format!("{two}jwt_keys: https://sso.crop=a\n"), "did you mean `https://sso.corp`?"),
        ("jwt_issuers: https://a\njwt_keys: [a, b]\n", "two places"),
    ] {
        let mistake = check(file, &[], &[]).expect_err("refused");
        assert!(mistake.contains(part), "{part} in {mistake}");
    }
}

#[test]
fn nobody_is_asked_on_loopback() {
    let auth = |file: &str| check(file, &[], &[]).map(|settings| settings.auth());
    assert_eq!(auth(""), Ok(Auth::None));
    assert_eq!(auth("listen: 0.0.0.0:7400\n"), Ok(Auth::Required));
    assert_eq!(auth("listen: 0.0.0.0:7400\nauth: none\n"), Ok(Auth::None));
    assert_eq!(auth("auth: required\n"), Ok(Auth::Required));
    assert!(auth("auth: maybe\n").expect_err("refused").contains("neither `none` nor `required`"));
}

#[test]
fn people_sign_in_where_all_of_it_is_said() {
    const ISSUER: &str = "jwt_issuers: https://sso.corp\n";
    const CLIENT: &str = "oidc_client_id: quern-web\nauth: required\n";
    const PUBLIC: &str = "public_url: https://Quern.corp:443/\n";
    let refused = |file: &str, said: &str| {
        let mistake = check(file, &[], &[]).expect_err("refused");
        assert!(mistake.contains(said), "{said} in {mistake}");
    };
    for (file, said) in [
        ("oidc_client_secret: s\n".to_owned(), "`oidc_client_secret` says nothing without `oidc_client_id`"),
        ("oidc_client_id: quern\n".to_owned(), "`auth: none`"),
        (format!("{CLIENT}jwt_audience: quern-web\n"), "are both `quern-web`"),
        (format!("{CLIENT}{ISSUER}"), "needs `public_url`"),
        (format!("{CLIENT}{PUBLIC}"), "`jwt_issuers` has 0"),
        (format!("{CLIENT}{PUBLIC}jwt_issuers: [https://a.corp, https://b.corp]\n"), "`jwt_issuers` has 2"),
        (
            format!("{CLIENT}{PUBLIC}{ISSUER}oidc_issuer: https://sso.crp\n"),
            "did you mean `https://sso.corp`",
        ),
        ("public_url: http://quern.corp\n".to_owned(), "must begin with https://"),
        ("public_url: https://quern.corp/features\n".to_owned(), "is more than a scheme, a host and a port"),
        ("oidc_scopes: [groups]\n".to_owned(), "lacks `openid`"),
        ("oidc_scopes: openid a\"b\n".to_owned(), "`a\"b` is no name of a scope"),
    ] {
        refused(&file, said);
    }
    let settings = check(&format!("{CLIENT}{PUBLIC}{ISSUER}oidc_scopes: [openid, groups]\n"), &[], &[]);
    let settings = settings.expect("sound");
    assert_eq!(settings.hosts_at(settings.listen), ["localhost", "quern.corp"]);
    let sign_in = settings.trust().expect("sound").sign_in.expect("people sign in");
    assert_eq!((&*sign_in.issuer, &*sign_in.scopes), ("https://sso.corp", "openid groups"));
    assert_eq!(sign_in.redirect_uri, "https://quern.corp/login/callback");
    let here = check("public_url: http://127.0.0.1:7400\n", &[], &[]).expect("sound");
    assert_eq!(here.hosts_at(here.listen), ["localhost"], "addresses are known anyway");
}
