//! Which commands are there, and what do they take?
//!
//! A command reads its flags, calls one route, of a server that it opens here or of the one that holds the data folder,
//! and prints the answer.

mod audit;
mod backend;
mod backup;
mod batch;
mod bytes;
mod can;
mod cells;
mod error;
mod export;
mod failure;
mod infer;
mod init;
mod key;
mod materialize;
mod out;
mod output;
mod read;
mod route;
mod scrub;
mod seal;
mod serve;
mod status;
mod tables;
mod train;
mod verify;
mod words;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use quern_wire::{Checked, Plan, ProjectRequest};

use self::backend::Backend;
use self::failure::{Failure, Result};
use self::output::{print, print_json};
use quern_api::trace::export::Traces;
use quern_server::Settings;
use quern_server::repository::{self, LeftAlone};

/// A plan that changes something, with `--detailed-exitcode`; a verification that finds a difference.
const EXIT_CHANGES: u8 = 2;

/// How long work that nobody waits for any more may go on.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// Spans are for tracers.
const LOG_NO_SPANS: &str = "quern::trace=off";

/// A feature store that serves models: from raw events to predictions, in one binary.
#[derive(Debug, Parser)]
#[command(name = "quern", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

/// Settings that override `quern.yaml` and the environment, and how to log.
#[derive(Debug, Args)]
#[command(next_help_heading = "Settings, which override quern.yaml and the environment")]
struct Options {
    /// The folder of history, head and registry.
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<String>,
    /// The online store: `rocksdb`, or the URL of a Redis.
    #[arg(long, global = true, value_name = "STORE")]
    online: Option<String>,
    /// The registry of definitions: `sqlite`, or the URL of a PostgreSQL database.
    #[arg(long, global = true, value_name = "REGISTRY")]
    registry: Option<String>,
    /// Where segments are kept: a folder, or a URL as `s3://bucket/prefix`.
    #[arg(long, global = true, value_name = "STORE")]
    store: Option<String>,
    /// ONNX Runtime's shared library.
    #[arg(long, global = true, value_name = "FILE")]
    onnxruntime: Option<String>,
    /// How log lines look. QUERN_LOG sets the level, as in `debug` or `quern_store=trace`.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a small repository to start from
    Init(init::Arguments),
    /// Write the source that a file makes, to paste into the definitions
    Infer(infer::Arguments),
    /// Find every mistake in the definitions
    Check(CheckArgs),
    /// Say what `apply` would change
    Plan(PlanArgs),
    /// Make the definitions live
    Apply(CheckArgs),
    /// Bring what look-ups read, the head, up to date with the sources
    Materialize(materialize::Arguments),
    /// Start the server, which answers look-ups, predictions and training sets
    Serve(serve::Arguments),
    /// Look up one feature vector by its keys
    Get(read::GetArguments),
    /// Make a training set: what was known at each time of a table of keys and times, the spine
    Train(train::Arguments),
    /// Write the rows of a feature view, of a source or of a model's log as a table for others
    Export(export::Arguments),
    /// Show or change which version of a model answers whom
    Route(route::Arguments),
    /// Ask a model about one entity, or about each row of a file
    Predict(read::PredictArguments),
    /// Say how the server is: what is wrong, how far each feature view is, what its stores hold
    Status(status::Arguments),
    /// Compare what models were served with what training would have shown them
    Verify(verify::Arguments),
    /// Say whether somebody may do something, and why
    Can(can::Arguments),
    /// Say what stands for an entity in the audit
    Audit(audit::Arguments),
    /// Write what was pushed, and lies in the log alone, into segments now
    Seal(seal::Arguments),
    /// Read all that is kept, and say what is damaged or missing
    Scrub(scrub::Arguments),
    /// Copy all that counts into a new folder, as of one moment, while the server runs
    Backup(backup::BackupArguments),
    /// Make a new data folder of a backup
    Restore(backup::RestoreArguments),
    /// Make, list and revoke API keys
    Key(key::Arguments),
    /// Run models, or ask databases, for the server that started it
    #[command(hide = true)]
    Worker,
    /// Print the JSON Schema of definition files, for editors
    Schema,
}

/// Where the definitions are.
#[derive(Debug, Args)]
struct Repository {
    /// The repository (default: the nearest folder upwards with a quern.yaml)
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Repository {
    fn folder(&self) -> PathBuf {
        words::repository(self.directory.as_deref())
    }
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    repository: Repository,
    /// Say on stderr which YAML was left alone, and why.
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct PlanArgs {
    #[command(flatten)]
    check: CheckArgs,
    /// Exit with 2 where `apply` would change something.
    #[arg(long)]
    detailed_exitcode: bool,
}

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let Cli { command, options } = Cli::parse();
    if let Command::Worker = command {
        return worker();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::from(crate::error::Error::from(error)).report(false),
    };
    let json = command.json();
    let traces = {
        let _here = runtime.enter();
        match &command {
            Command::Serve(arguments) => serve::traces(arguments, &options),
            _ => Ok(None),
        }
    };
    let traces = match traces {
        Ok(traces) => traces,
        Err(failure) => return failure.report(json),
    };
    log(&command, &options, traces.as_ref());
    let code = match runtime.block_on(run(command, &options)) {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    };
    if let Some(traces) = traces {
        traces.end();
    }
    // Whatever is cut off here, an acknowledged write is on disk, and a materialization goes on in the next run.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    code
}

/// Answers a server, until it is gone.
fn worker() -> ExitCode {
    match quern_server::worker() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quern: only a server starts a worker, and talks to it over sockets: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, options: &Options) -> Result<ExitCode> {
    match command {
        Command::Init(arguments) => init::run(&arguments)?,
        Command::Infer(arguments) => infer::run(&arguments)?,
        Command::Check(arguments) => check(&arguments, options).await?,
        Command::Plan(arguments) => return plan(&arguments, options).await,
        Command::Apply(arguments) => apply(&arguments, options).await?,
        Command::Materialize(arguments) => materialize::run(&arguments, options).await?,
        Command::Serve(arguments) => serve::run(&arguments, options).await?,
        Command::Get(arguments) => read::get(&arguments, options).await?,
        Command::Train(arguments) => train::run(&arguments, options).await?,
        Command::Export(arguments) => export::run(&arguments, options).await?,
        Command::Predict(arguments) => read::predict(&arguments, options).await?,
        Command::Route(arguments) => route::run(&arguments, options).await?,
        Command::Status(arguments) => return status::run(&arguments, options).await,
        Command::Verify(arguments) => return verify::run(&arguments, options).await,
        Command::Can(arguments) => return can::run(&arguments, options).await,
        Command::Audit(arguments) => audit::run(&arguments, options).await?,
        Command::Seal(arguments) => seal::run(&arguments, options).await?,
        Command::Scrub(arguments) => return scrub::run(&arguments, options).await,
        Command::Backup(arguments) => backup::backup(&arguments, options).await?,
        Command::Restore(arguments) => backup::restore(&arguments, options).await?,
        Command::Key(arguments) => key::run(&arguments, options).await?,
        // It has ended by then: a worker needs no async runtime.
        Command::Worker => {}
        Command::Schema => print_json(&feature_defs::schemas()),
    }
    Ok(ExitCode::SUCCESS)
}

impl Command {
    fn json(&self) -> bool {
        match self {
            Command::Check(arguments) | Command::Apply(arguments) => arguments.json,
            Command::Plan(arguments) => arguments.check.json,
            Command::Materialize(arguments) => arguments.json,
            Command::Get(arguments) => arguments.json,
            Command::Train(arguments) => arguments.json,
            Command::Export(arguments) => arguments.json,
            Command::Predict(arguments) => arguments.json,
            Command::Route(arguments) => arguments.json,
            Command::Status(arguments) => arguments.json,
            Command::Verify(arguments) => arguments.json,
            Command::Can(arguments) => arguments.json,
            Command::Seal(arguments) => arguments.json,
            Command::Scrub(arguments) => arguments.json,
            Command::Backup(arguments) => arguments.json,
            Command::Key(arguments) => arguments.json(),
            Command::Init(_)
            | Command::Audit(_)
            | Command::Infer(_)
            | Command::Serve(_)
            | Command::Restore(_)
            | Command::Worker
            | Command::Schema => false,
        }
    }
}

impl Options {
    /// With what the flags of the command itself say.
    fn settings(&self, directory: &Path, own: &[(&str, String)]) -> Result<Settings> {
        let flags = [
            ("data", self.data.as_ref()),
            ("online", self.online.as_ref()),
            ("registry", self.registry.as_ref()),
            ("store", self.store.as_ref()),
            ("onnxruntime", self.onnxruntime.as_ref()),
        ];
        let given = flags.into_iter().filter_map(|(key, value)| Some((key, value?.clone())));
        let flags: Vec<(&str, String)> = given.chain(own.iter().cloned()).collect();
        Ok(Settings::load(directory, &flags)?)
    }
}

impl CheckArgs {
    /// Who answers a question that changes nothing.
    async fn open(&self, options: &Options) -> Result<Backend> {
        self.tell(options)?;
        Backend::open(&self.repository.folder(), options).await
    }

    /// The project whose repository this is.
    fn project(&self, options: &Options) -> Result<ProjectRequest> {
        Ok(ProjectRequest { project: Some(options.settings(&self.repository.folder(), &[])?.applies) })
    }

    /// The definitions are read where they lie, so whoever answers, what is left alone can be told here.
    fn tell(&self, options: &Options) -> Result<()> {
        let directory = self.repository.folder();
        if self.verbose {
            let settings = options.settings(&directory, &[])?;
            for LeftAlone { path, why } in repository::read(&settings, &settings.applies)?.left_alone {
                eprintln!("left alone: {path}: {why}");
            }
        }
        Ok(())
    }
}

async fn check(arguments: &CheckArgs, options: &Options) -> Result<()> {
    let backend = arguments.open(options).await?;
    let checked: Checked = backend.call("/v1/check", &arguments.project(options)?).await?;
    if arguments.json {
        print_json(&checked);
        return Ok(());
    }
    let Checked {
        entities,
        sources,
        feature_views,
        feature_services,
        models,
        roles,
        connections,
        fits,
        notes,
    } = checked;
    // Not all have these.
    let counted = |what: &str, count| if count > 0 { format!(", {what} {count}") } else { String::new() };
    let (roles, connections) = (counted("roles", roles), counted("connections", connections));
    print(format!(
        "the definitions hold: entities {entities}, sources {sources}, feature views {feature_views}, feature services \
         {feature_services}, models {models}{roles}{connections}"
    ));
    fits.iter().for_each(|fit| print(format!("\n{fit}")));
    notes.iter().for_each(|note| print(format!("\nnote: {note}")));
    Ok(())
}

async fn plan(arguments: &PlanArgs, options: &Options) -> Result<ExitCode> {
    let backend = arguments.check.open(options).await?;
    let plan: Plan = backend.call("/v1/plan", &arguments.check.project(options)?).await?;
    if arguments.check.json {
        print_json(&plan);
    } else {
        print(&plan);
    }
    let changes = arguments.detailed_exitcode && !plan.is_empty();
    // What apply would refuse has failed already.
    let goes = plan.breaks.is_empty() && plan.forbidden.is_none();
    Ok(match (goes, changes) {
        (false, _) => ExitCode::FAILURE,
        (true, true) => ExitCode::from(EXIT_CHANGES),
        (true, false) => ExitCode::SUCCESS,
    })
}

async fn apply(arguments: &CheckArgs, options: &Options) -> Result<()> {
    arguments.tell(options)?;
    let backend = Backend::open_to_change(&arguments.repository.folder(), options).await?;
    let plan: Plan = backend.call("/v1/apply", &arguments.project(options)?).await?;
    if arguments.json {
        print_json(&plan);
        return Ok(());
    }
    print(&plan);
    if plan.applied {
        print(format!("\napply {} is live", plan.number));
    }
    if !plan.materialize.is_empty() {
        let named = arguments.repository.directory.iter();
        let named: String = named.map(|directory| format!(" {}", directory.display())).collect();
        print(format!("next: quern materialize{named}"));
    }
    Ok(())
}

/// Log lines go to stderr: stdout is the answer. Spans for tracers go to `traces`, and no log shows them.
fn log(command: &Command, options: &Options, traces: Option<&Traces>) {
    use tracing_subscriber::layer::{Layer, SubscriberExt};
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{EnvFilter, fmt, registry};
    // Asked in this process, the routes need not log what the command is about to say.
    let quiet = if matches!(command, Command::Serve(_)) { "info" } else { "warn,quern_api=off" };
    let wanted = ["QUERN_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(quiet)).unwrap_or_else(|error| {
        eprintln!("quern: the log filter is not one ({error}); logging `{quiet}`");
        EnvFilter::new(quiet)
    });
    let filter = filter.add_directive(LOG_NO_SPANS.parse().expect("it is a directive"));
    // What it cannot read is told whoever asks, in better words.
    let filter = filter.add_directive("delta_kernel=off".parse().expect("it is a directive"));
    let log = fmt::layer().with_writer(std::io::stderr);
    let log = match options.log_format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => log.json().boxed(),
    };
    match traces {
        // One filter for everything: what is filtered away is not even made.
        None => registry().with(log).with(filter).init(),
        Some(traces) => registry().with(log.with_filter(filter)).with(traces.layer()).init(),
    }
}
