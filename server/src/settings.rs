//! Where does this server keep its data, where does it listen, and what does it allow?
//!
//! `quern.yaml` in the repository's root says so; an environment variable (`QUERN_LISTEN`, …) overrides it, and a flag
//! overrides both.

mod exposed;
mod project;
mod value;
mod who;
mod written;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use feature_defs::{DEFAULT_PROJECT, DefError, Loc, Member, suggest};
use quern_base::memory::default_max;
use quern_identity::issuer::origin;
use quern_inference::{Program, Provider};
use quern_store::registry::Location;
use quern_store::roots::{ProjectRoots, Roots};
use quern_store::segments::StoreAt;
use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};

pub use self::project::Project;
pub use self::value::{AuditTo, Auth, OnlineStore};
use self::value::{
    address, addresses, auth, collector, folders, hosts, members, online, providers, roots, store, time,
    truth, whole,
};
pub use self::who::KeysOf;
use self::who::{issuers, keys, scopes};
pub use self::written::Wants;
use self::written::{found, is_quoted};
use crate::error::{Error, Result};

/// The settings' file, in the repository's root.
pub const SETTINGS_FILE: &str = "quern.yaml";
const MISNAMED: &str = "quern.yml";

/// The largest request body that a server can be told to accept.
const BODY_BYTES_MAX: usize = 1 << 30;
/// What all requests together can be told to hold: nothing works with less.
const REQUESTS_BYTES: RangeInclusive<usize> = 1 << 20..=usize::MAX >> 1;
/// What the keys of a run of materialize may take where nothing is said, some two million of ten bytes; and what can be
/// said.
const MATERIALIZE_DEFAULT: usize = 128 << 20;
const MATERIALIZE_BYTES: RangeInclusive<usize> = 1..=usize::MAX >> 1;
/// The longest queue of pushed rows that a server can be told to keep.
const PUSH_QUEUE_ROWS_MAX: usize = 1 << 26;
/// How long a look-up waits for a shared online store where nothing is said, and at most.
const ONLINE_TIMEOUT_DEFAULT: Duration = Duration::from_millis(100);
const ONLINE_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The longest that logged predictions may wait, and the longest time that can be said.
const PREDICTIONS_EVERY_MAX: Duration = Duration::from_secs(3_600);
const KEEP_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);
/// What copies of segments may take where nothing is said, and at least: one is wanted whole.
const STORE_CACHE_DEFAULT: usize = 10 << 30;
const STORE_CACHE_MIN: usize = 1 << 20;
/// The most connections that a server keeps open, descriptors allowing.
const CONNECTIONS_MAX: usize = 16_384;
/// The longest time without progress that a stream can be given.
const STREAM_IDLE_MAX: Duration = Duration::from_secs(86_400);

/// All settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The repository that the settings lie in, as a project.
    pub own: Project,
    /// The folder of the repository whose server serves this one.
    pub served_by: Option<PathBuf>,
    /// The folders of the repositories that are served beside this one.
    pub served: Vec<PathBuf>,
    /// What these are as projects.
    pub others: Vec<Project>,
    /// The project whose definitions are checked and applied where none is named.
    pub applies: String,
    /// Folders besides the repository that the paths of sources and models may lead into.
    pub roots: Vec<PathBuf>,
    /// The folder of history, head and registry.
    pub data: PathBuf,
    /// Where HTTP, gRPC and Flight are answered.
    pub listen: SocketAddr,
    /// Where what changes and watches the server is answered, where that is elsewhere.
    pub listen_admin: Option<SocketAddr>,
    /// The server's certificate and those between it and its authority, PEM: what is said at its ports goes over TLS.
    pub tls_certificate: Option<PathBuf>,
    /// The private key of that certificate, PEM.
    pub tls_key: Option<PathBuf>,
    /// The authorities that sign certificates of clients, PEM: clients are asked for theirs.
    pub tls_client_ca: Option<PathBuf>,
    /// Which certificates of clients count no more: lists that those authorities signed, PEM.
    pub tls_revoked: Option<PathBuf>,
    /// Whether whoever asks must say who they are, where that is said; see [`Settings::auth`].
    pub auth: Option<Auth>,
    /// Whether the server may stand open to others than this machine.
    pub insecure: bool,
    /// Who gives tokens that are believed, as they call themselves in them.
    pub jwt_issuers: Vec<String>,
    /// What a token must be for.
    pub jwt_audience: String,
    /// Where the keys of issuers are that do not say so themselves.
    pub jwt_keys: Vec<KeysOf>,
    /// What the issuer calls this server that people sign in at by a browser; where nothing is said, nobody does.
    pub oidc_client_id: Option<String>,
    /// The file of the secret that the two share.
    pub oidc_client_secret: Option<PathBuf>,
    /// Which of the issuers that is.
    pub oidc_issuer: Option<String>,
    /// What is asked of it, with spaces between.
    pub oidc_scopes: String,
    /// How browsers reach the server: scheme, host and port, as they write them.
    pub public_url: Option<String>,
    /// The online store.
    pub online: OnlineStore,
    /// How long a look-up waits for an answer of a Redis.
    pub online_timeout: Duration,
    /// The registry of definitions.
    pub registry: Location,
    /// Where segments are kept; in the data folder where nothing is said.
    pub store: Option<StoreAt>,
    /// Whether that is a folder which all servers of the registry have.
    pub store_shared: bool,
    /// What copies of a bucket's segments may take on this machine.
    pub store_cache_bytes_max: usize,
    /// What copies of the sources' files in buckets may take on this machine.
    pub history_cache_bytes_max: usize,
    /// How long logged predictions may wait before they are written.
    pub predictions_every: Duration,
    /// How long they are kept; for good where nothing is said.
    pub predictions_keep: Option<Duration>,
    /// The folder of the drivers that databases are asked by.
    pub adbc_drivers: Option<PathBuf>,
    /// ONNX Runtime's shared library, where it is not to be searched for.
    pub onnxruntime: Option<PathBuf>,
    /// What models run on, in order: the first that starts.
    pub execution_providers: Vec<Provider>,
    /// The program that models are tried in, that files run in which may end a process, and that databases are asked
    /// in. No file says it: whoever brings the node along as a library names one that calls [`worker`](crate::worker).
    pub worker: Program,
    /// What the server is called, in lower case and without a port, where that is said; see [`Settings::hosts_at`].
    pub hosts: Vec<String>,
    /// The largest body of an HTTP request.
    pub body_bytes_max: usize,
    /// The bytes that all requests under way may hold.
    pub requests_bytes_max: usize,
    /// The connections that may be open at a time.
    pub connections_max: usize,
    /// The connections of one address that may be.
    pub connections_per_address_max: usize,
    /// Addresses of which many clients' connections come: they are counted with all, but not by address.
    pub trusted_proxies: Vec<IpAddr>,
    /// How long a reader of a stream may make no progress.
    pub stream_idle: Duration,
    /// Whether a look-up at a time before what the head holds is answered from history, or refused.
    pub history_fallback: bool,
    /// How many bytes of keys a run of materialize holds; more lie on disk meanwhile.
    pub materialize_bytes_max: usize,
    /// How many pushed rows may wait to be written; more are turned away until some are.
    pub push_queue_rows: usize,
    /// Where it is written down who was allowed what; nowhere where nothing is said.
    pub audit: Option<AuditTo>,
    /// The file of the secret that makes what stands for entities in it; one in the data folder where nothing is said.
    pub audit_key: Option<PathBuf>,
    /// Who may do everything, beside who runs the server.
    pub admins: Vec<Member>,
    /// Where traces are sent: the URL of an OpenTelemetry collector.
    pub otlp: Option<String>,
}

/// The settings: the name in the file (`listen`), of which the environment's (`QUERN_LISTEN`) is made, and of which
/// type it is there.
pub const KEYS: [(&str, Wants); 48] = [
    ("project", Wants::Text("risk")),
    ("projects", Wants::Texts("[../risk, ../growth]")),
    ("served_by", Wants::Text("../platform")),
    ("definitions", Wants::Texts("[features/, models/]")),
    ("roots", Wants::Texts("[/srv/history, /srv/models]")),
    ("data", Wants::Text(".quern")),
    ("listen", Wants::Text("127.0.0.1:7400")),
    ("listen_admin", Wants::Text("127.0.0.1:7401")),
    ("tls_certificate", Wants::Text("/etc/quern/tls.crt")),
    ("tls_key", Wants::Text("/etc/quern/tls.key")),
    ("tls_client_ca", Wants::Text("/etc/quern/clients.crt")),
    ("tls_revoked", Wants::Text("/etc/quern/revoked.pem")),
    ("auth", Wants::Text("required")),
    ("insecure", Wants::Bool),
    ("hosts", Wants::Texts("[quern.internal]")),
    ("jwt_issuers", Wants::Texts("[https://sso.corp]")),
    ("jwt_audience", Wants::Text("quern")),
    ("jwt_keys", Wants::Texts("/etc/quern/jwks.json")),
    ("oidc_client_id", Wants::Text("quern")),
    ("oidc_client_secret", Wants::Text("/etc/quern/client-secret")),
    ("oidc_issuer", Wants::Text("https://sso.corp")),
    ("oidc_scopes", Wants::Texts("[openid, groups]")),
    ("public_url", Wants::Text("https://quern.corp")),
    ("online", Wants::Text("rocksdb")),
    ("online_timeout", Wants::Text("100ms")),
    ("registry", Wants::Text("sqlite")),
    ("store", Wants::Text("s3://bucket/quern")),
    ("store_shared", Wants::Bool),
    ("store_cache_bytes_max", Wants::Whole),
    ("history_cache_bytes_max", Wants::Whole),
    ("predictions_every", Wants::Text("1m")),
    ("predictions_keep", Wants::Text("90d")),
    ("adbc_drivers", Wants::Text("/usr/lib/adbc")),
    ("onnxruntime", Wants::Text("/usr/lib/libonnxruntime.so")),
    ("execution_providers", Wants::Texts("[cuda, cpu]")),
    ("body_bytes_max", Wants::Whole),
    ("requests_bytes_max", Wants::Whole),
    ("connections_max", Wants::Whole),
    ("connections_per_address_max", Wants::Whole),
    ("trusted_proxies", Wants::Texts("[10.0.0.7]")),
    ("stream_idle", Wants::Text("10m")),
    ("history_fallback", Wants::Bool),
    ("materialize_bytes_max", Wants::Whole),
    ("push_queue_rows", Wants::Whole),
    ("audit", Wants::Text("/var/log/quern/audit.jsonl")),
    ("audit_key", Wants::Text("/etc/quern/audit-key")),
    ("admins", Wants::Texts("[key:ops, \"spiffe://corp/ops\", \"jwt:groups=platform\"]")),
    ("otlp", Wants::Text("http://127.0.0.1:4317")),
];

impl Settings {
    /// The settings of the repository in the folder `repository`. `flags` are names as in the file and their values.
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
        let mut settings = Settings::defaults(repository);
        settings.read_file()?;
        if let Some(server) = settings.served_by.take() {
            return settings.of_server(&server, &environment, flags);
        }
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
        settings.trust().map_err(Error::invalid)?;
        if settings.store_shared && !matches!(settings.store, Some(StoreAt::Folder { .. })) {
            return Err(Error::invalid(
                "`store_shared` says that a folder is every server's: name it in `store`, as in `store: /mnt/quern`. A \
                 bucket is every server's anyway, and the data folder never is",
            ));
        }
        settings.check_tls()?;
        settings.applies = settings.own.name.clone();
        settings.find_others()?;
        Ok(settings)
    }

    /// What holds where nothing is said.
    fn defaults(repository: PathBuf) -> Settings {
        Settings {
            served_by: None,
            served: Vec::new(),
            others: Vec::new(),
            applies: DEFAULT_PROJECT.to_owned(),
            roots: Vec::new(),
            data: repository.join(".quern"),
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            listen_admin: None,
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
            tls_revoked: None,
            auth: None,
            insecure: false,
            jwt_issuers: Vec::new(),
            jwt_audience: "quern".to_owned(),
            jwt_keys: Vec::new(),
            oidc_client_id: None,
            oidc_client_secret: None,
            oidc_issuer: None,
            oidc_scopes: "openid".to_owned(),
            public_url: None,
            online: OnlineStore::RocksDb,
            online_timeout: ONLINE_TIMEOUT_DEFAULT,
            registry: Location::Sqlite,
            store: None,
            store_shared: false,
            store_cache_bytes_max: STORE_CACHE_DEFAULT,
            history_cache_bytes_max: STORE_CACHE_DEFAULT,
            predictions_every: Duration::from_secs(60),
            predictions_keep: None,
            adbc_drivers: None,
            onnxruntime: None,
            execution_providers: vec![Provider::Cpu],
            worker: Program::default(),
            hosts: Vec::new(),
            body_bytes_max: 16 << 20,
            requests_bytes_max: default_max(),
            connections_max: CONNECTIONS_MAX,
            connections_per_address_max: CONNECTIONS_MAX / 2,
            trusted_proxies: Vec::new(),
            stream_idle: Duration::from_secs(600),
            history_fallback: true,
            materialize_bytes_max: MATERIALIZE_DEFAULT,
            push_queue_rows: 1 << 18,
            audit: None,
            audit_key: None,
            admins: Vec::new(),
            otlp: None,
            own: Project::of(repository),
        }
    }

    /// Where segments are kept.
    pub fn store(&self) -> StoreAt {
        match &self.store {
            Some(StoreAt::Folder { path, .. }) => {
                StoreAt::Folder { path: path.clone(), shared: self.store_shared }
            }
            Some(bucket) => bucket.clone(),
            None => StoreAt::Folder { path: self.data.join("store"), shared: false },
        }
    }

    /// Where the paths of definitions lead.
    pub fn roots(&self) -> ProjectRoots {
        ProjectRoots::new(self.projects().map(|project| (project.name.clone(), self.roots_of(project))))
    }

    /// Where those of one project lead: not into another one's repository.
    pub(crate) fn roots_of(&self, project: &Project) -> Roots {
        let roots = Roots::new(&project.repository, &self.roots).without(&self.data);
        let others = self.projects().filter(|other| other.name != project.name);
        others.fold(roots, |roots, other| roots.without(&other.repository))
    }

    /// Reads its file, and says what that sets.
    fn read_file(&mut self) -> Result<Vec<String>> {
        let text = match std::fs::read_to_string(self.own.repository.join(SETTINGS_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return self.not_misnamed().map(|()| Vec::new());
            }
            Err(error) => return Err(Error::invalid(format!("{SETTINGS_FILE} cannot be read: {error}"))),
        };
        let documents = MarkedYaml::load_from_str(&text).map_err(|error| {
            Error::definitions(vec![DefError::new(&place(*error.marker()), error.info())])
        })?;
        let (mut said, mut mistakes) = (Vec::new(), Vec::new());
        for document in &documents {
            match &document.data {
                YamlData::Mapping(entries) => {
                    for (key, value) in entries {
                        mistakes.extend(self.read_entry(key, value).err());
                        said.extend(key.data.as_str().map(str::to_owned));
                    }
                }
                YamlData::Value(Scalar::Null) | YamlData::BadValue => {}
                _ => mistakes.push(
                    DefError::new(&place(document.span.start), "settings are a mapping of names to values")
                        .with_help("as in `listen: 127.0.0.1:7400`"),
                ),
            }
        }
        if mistakes.is_empty() { Ok(said) } else { Err(Error::definitions(mistakes)) }
    }

    /// Without a file of settings: settings in a file of a name that nobody reads would be silently lost.
    fn not_misnamed(&self) -> Result<()> {
        match self.own.repository.join(MISNAMED).exists() {
            true => Err(Error::invalid(format!("settings are read from {SETTINGS_FILE}; rename {MISNAMED}"))),
            false => Ok(()),
        }
    }

    fn read_entry(
        &mut self,
        key: &MarkedYaml<'_>,
        value: &MarkedYaml<'_>,
    ) -> std::result::Result<(), DefError> {
        let (key_place, value_place) = (place(key.span.start), place(value.span.start));
        let Some(name) = key.data.as_str().map(str::to_owned) else {
            let cause = format!("the name of a setting is a text, found {}", found(key));
            return Err(DefError::new(&key_place, cause));
        };
        let Some((_, wants)) = KEYS.into_iter().find(|(known, _)| *known == name) else {
            return Err(DefError::new(&key_place, format!("there is no setting `{name}`"))
                .with_help(suggest(&name, KEYS.map(|(key, _)| key))));
        };
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
        let base = self.own.repository.clone();
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
            "definitions" => self.own.definitions = folders(value)?,
            "project" => self.own.name = project::name(value)?,
            "projects" => self.served = roots(value, base)?,
            "served_by" => self.served_by = Some(path()?),
            "roots" => self.roots = roots(value, base)?,
            "data" => self.data = path()?,
            "listen" => self.listen = address(value)?,
            "listen_admin" => self.listen_admin = Some(address(value)?),
            "tls_certificate" => self.tls_certificate = Some(path()?),
            "tls_key" => self.tls_key = Some(path()?),
            "tls_client_ca" => self.tls_client_ca = Some(path()?),
            "tls_revoked" => self.tls_revoked = Some(path()?),
            "auth" => self.auth = Some(auth(value)?),
            "insecure" => self.insecure = truth(value)?,
            "hosts" => self.hosts = hosts(value)?,
            "jwt_issuers" => self.jwt_issuers = issuers(value)?,
            "jwt_audience" => self.jwt_audience = value.trim().to_owned(),
            "jwt_keys" => self.jwt_keys = keys(value, base)?,
            "oidc_client_id" => self.oidc_client_id = Some(value.trim().to_owned()),
            "oidc_client_secret" => self.oidc_client_secret = Some(path()?),
            "oidc_issuer" => self.oidc_issuer = Some(value.trim().to_owned()),
            "oidc_scopes" => self.oidc_scopes = scopes(value)?,
            "public_url" => self.public_url = Some(origin(value.trim())?),
            "online" => self.online = online(value, base)?,
            "online_timeout" => self.online_timeout = time(value, ONLINE_TIMEOUT_MAX)?,
            "registry" => self.registry = value.parse()?,
            "store" => self.store = Some(store(value, base)?),
            "store_shared" => self.store_shared = truth(value)?,
            "store_cache_bytes_max" => {
                self.store_cache_bytes_max = whole(value, STORE_CACHE_MIN..=usize::MAX >> 1)?;
            }
            "history_cache_bytes_max" => {
                self.history_cache_bytes_max = whole(value, 0..=usize::MAX >> 1)?;
            }
            "predictions_every" => self.predictions_every = time(value, PREDICTIONS_EVERY_MAX)?,
            "predictions_keep" => self.predictions_keep = Some(time(value, KEEP_MAX)?),
            "adbc_drivers" => self.adbc_drivers = Some(path()?),
            "onnxruntime" => self.onnxruntime = Some(path()?),
            "execution_providers" => self.execution_providers = providers(value)?,
            "body_bytes_max" => self.body_bytes_max = whole(value, 1..=BODY_BYTES_MAX)?,
            "requests_bytes_max" => self.requests_bytes_max = whole(value, REQUESTS_BYTES)?,
            "connections_max" => self.connections_max = whole(value, 1..=CONNECTIONS_MAX)?,
            "connections_per_address_max" => {
                self.connections_per_address_max = whole(value, 1..=CONNECTIONS_MAX)?;
            }
            "trusted_proxies" => self.trusted_proxies = addresses(value)?,
            "stream_idle" => self.stream_idle = time(value, STREAM_IDLE_MAX)?,
            "audit" if value == "stdout" => self.audit = Some(AuditTo::Stdout),
            "audit" => self.audit = Some(AuditTo::File(path()?)),
            "audit_key" => self.audit_key = Some(path()?),
            "admins" => self.admins = members(value)?,
            "otlp" => self.otlp = Some(collector(value)?),
            "materialize_bytes_max" => self.materialize_bytes_max = whole(value, MATERIALIZE_BYTES)?,
            "push_queue_rows" => self.push_queue_rows = whole(value, 1..=PUSH_QUEUE_ROWS_MAX)?,
            "history_fallback" => self.history_fallback = truth(value)?,
            _ => return Err(format!("there is no such setting; {}", suggest(key, KEYS.map(|(key, _)| key)))),
        }
        Ok(())
    }
}

fn place(mark: Marker) -> Loc {
    Loc { line: mark.line(), column: mark.col() + 1, ..Loc::start(SETTINGS_FILE) }
}

#[cfg(test)]
mod tests;
