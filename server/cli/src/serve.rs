//! `quern serve`: from the first connection to the last one answered.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::backend::{Server, open_behind};
use super::failure::Result;
use super::output::print;
use super::{Options, Repository};
use crate::error::Error;
use quern_api::trace::export::Traces;
use quern_api::{Doors, Tls};
use quern_base::tasks::Task;
use quern_server::Settings;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    repository: Repository,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Listen in the open, to whoever gets there: behind a proxy that decides who does.
    #[arg(long)]
    insecure: bool,
}

impl Arguments {
    fn settings(&self, options: &Options) -> Result<Settings> {
        let listen = self.listen.iter().map(|listen| ("listen", listen.clone()));
        let insecure = self.insecure.then(|| ("insecure", true.to_string()));
        options.settings(&self.repository.folder(), &listen.chain(insecure).collect::<Vec<_>>())
    }
}

/// How often it is said that a server stands open.
const WARN: Duration = Duration::from_secs(60);

pub(super) async fn run(arguments: &Arguments, options: &Options) -> Result<()> {
    let settings = arguments.settings(options)?;
    let open = settings.stands_open()?;
    let tls = Tls::load(&settings)?;
    let node = open_behind(settings).await?;
    let _catching_up = node.go_on_catching_up().await;
    let doors = Doors::open(&node.settings, tls)?;
    let (url, admin_url) = (doors.url()?, doors.admin_url()?);
    // Before anybody hears of us: who is told to stop right after must end in good order, too.
    let stop = told_to_stop()?;
    let announcement = Server::announce(&node, &url)?;
    print(format!("listening on {url}"));
    let number = node.live().number;
    tracing::info!(url, admin_url, apply = number, data = %node.settings.data.display(), "serving");
    let _warning = open.map(|open| Task::spawn(warn_again(open)));
    if number == 0 {
        tracing::warn!("nothing has been applied yet; run `quern apply`");
    }
    for folder in node.settings.roots.iter().filter(|folder| !folder.is_dir()) {
        tracing::warn!(folder = %folder.display(), "a folder that `roots` names is not there");
    }
    if node.settings.hosts_at(node.settings.listen).is_empty() {
        tracing::warn!("any name of this server will do; `hosts` in quern.yaml says which it has");
    }
    let streams = Arc::clone(&node.streams);
    let streams = quern_streams::follow(node.live.clone(), Arc::clone(&node.push), streams);
    quern_api::serve(node, doors, Box::pin(stop)).await?;
    streams.end().await;
    drop(announcement);
    tracing::info!("stopped");
    Ok(())
}

/// Who reads the log now may not have read its beginning.
async fn warn_again(open: String) {
    loop {
        tracing::warn!("{open}");
        tokio::time::sleep(WARN).await;
    }
}

/// What sends the traces of the server to come, where the settings name a collector.
pub(super) fn traces(arguments: &Arguments, options: &Options) -> Result<Option<Traces>> {
    // Settings that cannot be read are the server's to report.
    let settings = arguments.settings(options);
    let url = settings.ok().and_then(|settings| settings.otlp);
    Ok(url.map(|url| Traces::start(&url)).transpose()?)
}

/// Ends at SIGINT or SIGTERM, from now on.
fn told_to_stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    let heard = |kind| signal(kind).map_err(|error| Error::internal("signals cannot be waited for", error));
    let (mut interrupt, mut terminate) = (heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: requests under way are answered, new ones are not");
    })
}
