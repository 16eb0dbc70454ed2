//! Where does this server keep its data, where does it listen, and what does it allow?
//!
//! `quern.yaml` in the repository's root says so; an environment variable (`QUERN_LISTEN`, …) overrides it, and a flag
//! overrides both.

mod written;

use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Component, Path, PathBuf, absolute};
use std::sync::Arc;
use std::time::Duration;

use feature_defs::{DefError, Loc, parse_duration, suggest};
use http::Uri;
use quern_inference::Provider;
use quern_store::redis::Address;
use quern_store::registry::Location;
use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};

use self::written::{Wants, found, is_quoted};
use crate::error::{Error, Result};

/// The settings' file, in the repository's root.
pub const SETTINGS_FILE: &str = "quern.yaml";
const MISNAMED: &str = "quern.yml";

/// The largest request body that a server can be told to accept.
const BODY_BYTES_MAX: usize = 1 << 30;
/// The longest queue of pushed rows that a server can be told to keep.
const PUSH_QUEUE_ROWS_MAX: usize = 1 << 26;
/// How long a look-up waits for a shared online store where nothing is said, and at most.
const ONLINE_TIMEOUT_DEFAULT: Duration = Duration::from_millis(100);
const ONLINE_TIMEOUT_MAX: Duration = Duration::from_secs(60);

/// All settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The repository: the folder of the definition files.
    pub repository: PathBuf,
    /// The folders in it that definition files lie in, by their paths from its root; all of it where there is none.
    pub definitions: Vec<PathBuf>,
    /// The folder of history, head and registry.
    pub data: PathBuf,
    /// Where HTTP, gRPC and Flight are answered.
    pub listen: SocketAddr,
    /// The online store.
    pub online: OnlineStore,
    /// How long a look-up waits for an answer of a Redis.
    pub online_timeout: Duration,
    /// The registry of definitions.
    pub registry: Location,
    /// ONNX Runtime's shared library, where it is not to be searched for.
    pub onnxruntime: Option<PathBuf>,
    /// What models run on, in order: the first that starts.
    pub execution_providers: Vec<Provider>,
    /// What the server is called, in lower case and without a port; anything where there is none.
    pub hosts: Vec<String>,
    /// The largest body of an HTTP request.
    pub body_bytes_max: usize,
    /// Whether a look-up at a time before what the head holds is answered from history, or refused.
    pub history_fallback: bool,
    /// How many pushed rows may wait to be written; more are turned away until some are.
    pub push_queue_rows: usize,
    /// Where traces are sent: the URL of an OpenTelemetry collector.
    pub otlp: Option<String>,
}

/// Which online store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnlineStore {
    /// RocksDB, in the data folder.
    RocksDb,
    /// Redis.
    Redis(Address),
}

/// One setting: its name in the file (`listen`), of which the environment's (`QUERN_LISTEN`) is made, and its line of
/// documentation.
pub const KEYS: [(&str, &str); 13] = [
    (
        "definitions",
        "the folders of definition files, as in `definitions/` or `[features/, models/]`; the whole repository where it \
         is not set",
    ),
    ("data", "the folder of history, head and registry; `.quern` in the repository where it is not set"),
    ("listen", "where the server listens; `127.0.0.1:7400` where it is not set"),
    (
        "hosts",
        "what the server is called in `Host`, as in `[quern.internal]`, besides its addresses; where it is not set, \
         `localhost` if it listens on loopback, else anything",
    ),
    ("online", "the online store: `rocksdb`, or a URL as `redis://host:6379`; `rocksdb` where it is not set"),
    ("online_timeout", "how long a look-up waits for a Redis; `100ms` where it is not set"),
    (
        "registry",
        "the registry of definitions: `sqlite`, or for several servers `postgres://user@host/database`",
    ),
    ("onnxruntime", "ONNX Runtime's shared library; searched for where it is not set"),
    (
        "execution_providers",
        "what models run on, in order, as in `tensorrt,cuda,cpu`: the first that starts; `cpu` where it is not set",
    ),
    ("body_bytes_max", "the largest body of a request, in bytes; 16777216 where it is not set"),
    (
        "history_fallback",
        "whether a look-up at a time that the head no longer knows is answered from history",
    ),
    ("push_queue_rows", "how many pushed rows may wait to be written; 262144 where it is not set"),
    ("otlp", "where traces are sent over OTLP, as in `http://127.0.0.1:4317`; nowhere where it is not set"),
];

impl Settings {
    /// The settings of the repository in the folder `repository`. `flags` are names as in [`KEYS`] and their values.
    ///
    /// # Errors
    /// Every mistake in the file by line; a wrong variable or flag by its name.
    pub fn load(repository: &Path, flags: &[(&str, String)]) -> Result<Settings> {
        Settings::load_from(repository, |name| std::env::var(name).ok(), flags)
    }

    /// [`Settings::load`] in another environment than the process's own.
    pub fn load_from(
        repository: &Path,
        environment: impl Fn(&str) -> Option<String>,
        flags: &[(&str, String)],
    ) -> Result<Settings> {
        // One name for one folder, however it was reached; one that is missing is reported by whoever reads it.
        let repository = repository.canonicalize().or_else(|_| absolute(repository))?;
        let mut settings = Settings {
            definitions: Vec::new(),
            data: repository.join(".quern"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            online: OnlineStore::RocksDb,
            online_timeout: ONLINE_TIMEOUT_DEFAULT,
            registry: Location::Sqlite,
            onnxruntime: None,
            execution_providers: vec![Provider::Cpu],
            hosts: Vec::new(),
            body_bytes_max: 16 << 20,
            history_fallback: true,
            push_queue_rows: 1 << 18,
            otlp: None,
            repository,
        };
        settings.read_file()?;
        for (key, _) in KEYS {
            let variable = format!("QUERN_{}", key.to_uppercase());
            if let Some(value) = environment(&variable).filter(|value| !value.is_empty()) {
                settings
                    .set(key, &value, Path::new("."))
                    .map_err(|cause| Error::invalid(format!("environment variable {variable}: {cause}")))?;
            }
        }
        for (key, value) in flags {
            settings
                .set(key, value, Path::new("."))
                .map_err(|cause| Error::invalid(format!("option --{}: {cause}", key.replace('_', "-"))))?;
        }
        if settings.hosts.is_empty() && settings.listen.ip().is_loopback() {
            settings.hosts.push("localhost".to_owned());
        }
        Ok(settings)
    }

    fn read_file(&mut self) -> Result<()> {
        let text = match std::fs::read_to_string(self.repository.join(SETTINGS_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return self.not_misnamed(),
            Err(error) => return Err(Error::invalid(format!("{SETTINGS_FILE} cannot be read: {error}"))),
        };
        let documents = MarkedYaml::load_from_str(&text).map_err(|error| {
            Error::definitions(vec![DefError::new(&place(*error.marker()), error.info())])
        })?;
        let mut mistakes = Vec::new();
        for document in &documents {
            match &document.data {
                YamlData::Mapping(entries) => {
                    for (key, value) in entries {
                        mistakes.extend(self.read_entry(key, value).err());
                    }
                }
                YamlData::Value(Scalar::Null) | YamlData::BadValue => {}
                _ => mistakes.push(
                    DefError::new(&place(document.span.start), "settings are a mapping of names to values")
                        .with_help("as in `listen: 127.0.0.1:7400`"),
                ),
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Error::definitions(mistakes)) }
    }

    /// Without a file of settings: settings in a file of a name that nobody reads would be silently lost.
    fn not_misnamed(&self) -> Result<()> {
        match self.repository.join(MISNAMED).exists() {
            true => Err(Error::invalid(format!("settings are read from {SETTINGS_FILE}; rename {MISNAMED}"))),
            false => Ok(()),
        }
    }

    fn read_entry(
        &mut self,
        key: &MarkedYaml<'_>,
        value: &MarkedYaml<'_>,
    ) -> std::result::Result<(), DefError> {
        let known = KEYS.map(|(key, _)| key);
        let (key_place, value_place) = (place(key.span.start), place(value.span.start));
        let Some(name) = key.data.as_str().map(str::to_owned) else {
            let cause = format!("the name of a setting is a text, found {}", found(key));
            return Err(DefError::new(&key_place, cause));
        };
        if !known.contains(&name.as_str()) {
            return Err(DefError::new(&key_place, format!("there is no setting `{name}`"))
                .with_help(suggest(&name, known)));
        }
        let wants = Wants::of(&name);
        let text = wants.text(value).map_err(|found| {
            let mistake =
                DefError::new(&value_place, format!("`{name}` must be {}, found {found}", wants.expected()));
            match wants {
                Wants::Bool | Wants::Whole if is_quoted(value) => {
                    mistake.with_help("write it without quotes")
                }
                Wants::Text(example) | Wants::Texts(example) => {
                    mistake.with_help(format!("as in `{name}: {example}`"))
                }
                _ => mistake,
            }
        })?;
        // The name is copied, since what follows changes the settings.
        let base = self.repository.clone();
        self.set(&name, &text, &base)
            .map_err(|cause| DefError::new(&value_place, format!("`{name}`: {cause}")))
    }

    /// Sets one of [`KEYS`]; a relative path starts at `base`.
    fn set(&mut self, key: &str, value: &str, base: &Path) -> std::result::Result<(), String> {
        let path = || absolute(base.join(value)).map_err(|error| format!("`{value}` is not a path: {error}"));
        if value.trim().is_empty() {
            return Err("it is empty".to_owned());
        }
        match key {
            "definitions" => self.definitions = folders(value)?,
            "data" => self.data = path()?,
            "listen" => self.listen = address(value)?,
            "hosts" => self.hosts = hosts(value)?,
            "online" => self.online = online(value, base)?,
            "online_timeout" => {
                let timeout = Duration::from_micros(parse_duration(value)?.unsigned_abs());
                if timeout.is_zero() || timeout > ONLINE_TIMEOUT_MAX {
                    return Err(format!("`{value}` is not more than 0 and at most 60s"));
                }
                self.online_timeout = timeout;
            }
            "registry" => self.registry = value.parse()?,
            "onnxruntime" => self.onnxruntime = Some(path()?),
            "execution_providers" => {
                self.execution_providers = value
                    .split(',')
                    .map(|name| name.trim().parse())
                    .collect::<std::result::Result<_, _>>()?;
            }
            "body_bytes_max" => self.body_bytes_max = whole(value, BODY_BYTES_MAX)?,
            "otlp" => self.otlp = Some(collector(value)?),
            "push_queue_rows" => self.push_queue_rows = whole(value, PUSH_QUEUE_ROWS_MAX)?,
            "history_fallback" => {
                self.history_fallback =
                    value.parse().map_err(|_| format!("`{value}` is neither `true` nor `false`"))?;
            }
            _ => return Err(format!("there is no such setting; {}", suggest(key, KEYS.map(|(key, _)| key)))),
        }
        Ok(())
    }
}

/// Folders of the repository, with commas between; none for all of it.
fn folders(text: &str) -> std::result::Result<Vec<PathBuf>, String> {
    let mut folders = Vec::new();
    for folder in text.split(',').map(str::trim).filter(|folder| !folder.is_empty()) {
        let mut path = PathBuf::new();
        for part in Path::new(folder).components() {
            match part {
                Component::CurDir => {}
                Component::Normal(name) => path.push(name),
                _ => {
                    return Err(format!(
                        "`{folder}` is not a folder within the repository, such as `definitions/`"
                    ));
                }
            }
        }
        folders.push(path);
    }
    // The root is all of it.
    Ok(if folders.iter().any(|folder| folder.as_os_str().is_empty()) { Vec::new() } else { folders })
}

/// Names, with commas between.
fn hosts(text: &str) -> std::result::Result<Vec<String>, String> {
    let name = |host: &str| {
        let is_name = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        match is_name {
            true => Ok(host.trim_end_matches('.').to_ascii_lowercase()),
            false => Err(format!(
                "`{host}` is no name of a host, such as `quern.internal`, without scheme and port"
            )),
        }
    };
    text.split(',').map(|host| name(host.trim())).collect()
}

fn whole(text: &str, max: usize) -> std::result::Result<usize, String> {
    let number = text.replace('_', "").parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| format!("`{text}` is not a whole number from 1 to {max}"))
}

fn address(text: &str) -> std::result::Result<SocketAddr, String> {
    let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| format!("`{text}` is not an address and a port, such as `127.0.0.1:7400`"))
}

fn collector(url: &str) -> std::result::Result<String, String> {
    let is_collector = |uri: &Uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.path() == "/"
    };
    // Not the whole of it: it may hold a password.
    url.parse().ok().filter(is_collector).map(|_| url.to_owned()).ok_or_else(|| {
        "this is the URL of a collector that takes OTLP over gRPC in the clear, as `http://127.0.0.1:4317`".to_owned()
    })
}

fn online(value: &str, base: &Path) -> std::result::Result<OnlineStore, String> {
    let schemes = ["redis", "rediss", "redis+cluster", "rediss+cluster", "redis+sentinel", "rediss+sentinel"];
    match value.split_once("://") {
        None if value == "rocksdb" => Ok(OnlineStore::RocksDb),
        Some((scheme, _)) if schemes.contains(&scheme) => {
            Ok(OnlineStore::Redis(Address::parse(value, base)?))
        }
        // Not the whole of it: it may hold a password.
        Some((scheme, _)) => Err(format!("`{scheme}://` is unknown; {}", suggest(scheme, schemes))),
        None => Err(format!("`{value}` is unknown; this is `rocksdb`, or a URL as `redis://host:6379`")),
    }
}

fn place(mark: Marker) -> Loc {
    Loc { file: Arc::from(SETTINGS_FILE), line: mark.line(), column: mark.col() + 1 }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn check(
        file: &str,
        variables: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> std::result::Result<Settings, String> {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(SETTINGS_FILE), file).expect("written");
        let flags: Vec<(&str, String)> =
            flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
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
        assert_eq!(settings.data, settings.repository.join("store"));
        assert_eq!(check("", &[], &[]).expect("sound").data.file_name(), Some(".quern".as_ref()));
    }

    #[test]
    fn definitions_lie_in_folders_of_the_repository() {
        let folders = |file: &str| check(file, &[], &[]).map(|settings| settings.definitions);
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
        let hosts = |file: &str| check(file, &[], &[]).map(|settings| settings.hosts);
        assert_eq!(hosts(""), Ok(vec!["localhost".to_owned()]));
        assert_eq!(hosts("listen: 0.0.0.0:7400\n"), Ok(Vec::new()));
        assert_eq!(
            hosts("hosts: [Quern.internal, q]\n"),
            Ok(vec!["quern.internal".to_owned(), "q".to_owned()])
        );
        assert!(hosts("hosts: http://q\n").expect_err("refused").contains("without scheme and port"));
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
        let mistakes =
            check("lisen: 127.0.0.1:1\nbody_bytes_max: much\nonline: redis://h?prefx=a\n", &[], &[])
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
        let url = "postgres://u:secret@h/d?sslmode=require";
        let settings = check("", &[], &[("registry", url)]).expect("sound");
        assert_eq!(settings.registry, Location::Postgres(url.to_owned()));
        assert!(!format!("{settings:?}").contains("secret"));
        for wrong in ["postgres://u:secret@h:port/d", "postgres://u:secret@h/d?sslmode=maybe"] {
            let mistake = check("", &[], &[("registry", wrong)]).expect_err("refused");
            assert!(mistake.contains("--registry") && !mistake.contains("secret"), "{mistake}");
        }
    }
}
