//! What did other servers apply, and is it live here?
//!
//! Servers that share a registry follow one another: what one applies goes live on all. PostgreSQL tells those who
//! listen, and each also asks once a second, since a word may get lost. Definitions are compiled and models loaded
//! beside what is live, which answers until the new deployment takes its place whole.
//!
//! What cannot be had here, because this build does not read it or the registry is away, changes nothing: what is live
//! stays live, `/v2/health/ready` and `/metrics` say so, and it is tried again.
//!
//! Architecture invariant: a server never goes back to an apply with a smaller number.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quern_base::tasks::Task;
use quern_store::registry::{Changes, Registry};

use crate::error::{Error, Result};
use crate::live::following::{PAUSE, Standing};
use crate::live::{Live, Loader};

/// How long to wait for a word before asking.
const POLL: Duration = PAUSE;
/// How long the registry may take to say the latest number, or to let us listen.
const ANSWER: Duration = Duration::from_secs(5);

/// Makes live here what other servers applied.
pub struct Follow {
    pub(crate) registry: Registry,
    pub(crate) loader: Arc<Loader>,
    pub(crate) live: Live,
}

impl Follow {
    /// Follows the applies of other servers while the result lives; none where there can be no others.
    pub fn start(self: &Arc<Self>) -> Option<Task> {
        let follow = Arc::clone(self);
        self.registry.is_shared().then(|| Task::spawn(async move { follow.go_on().await }))
    }

    /// How this server stands beside its registry, where it shares one.
    pub fn standing(&self) -> Option<Standing> {
        let standing = || self.live.following().standing(self.live.now().number, Instant::now());
        self.registry.is_shared().then(standing)
    }

    async fn go_on(&self) {
        let mut changes: Option<Changes> = None;
        loop {
            if self.catch_up().await.is_err() {
                // The connection that listens may be as dead as the one that was asked, without a word.
                changes = None;
                tokio::time::sleep(POLL).await;
                continue;
            }
            match &mut changes {
                Some(words) => {
                    if let Ok(Err(_)) = tokio::time::timeout(POLL, words.next()).await {
                        changes = None;
                    }
                }
                None => match in_time(self.registry.changes()).await {
                    // Asks once more at once: something may have been written before it listened.
                    Ok(listening) => changes = listening,
                    Err(_) => tokio::time::sleep(POLL).await,
                },
            }
        }
    }

    /// Makes the latest apply live, where it is not and can be.
    ///
    /// # Errors
    /// Where the registry does not answer.
    async fn catch_up(&self) -> Result<()> {
        let latest = match in_time(self.registry.latest_number()).await {
            Ok(latest) => latest,
            Err(error) => {
                self.live.following().lost(&error);
                return Err(error);
            }
        };
        if !self.live.following().heard(latest, self.live.now().number, Instant::now()) {
            return Ok(());
        }
        // An apply of our own that is written and not live yet is no other's.
        let _one_at_a_time = self.live.turn().await;
        if latest <= self.live.now().number {
            return Ok(());
        }
        let restored =
            async { self.loader.restore(&self.live.now(), self.registry.apply(latest).await?).await };
        match restored.await {
            Ok(deployment) => {
                self.live.replace(deployment);
                self.live.following().heard(latest, latest, Instant::now());
                tracing::info!(number = latest, "definitions that another server applied are live");
            }
            Err(error) => self.live.following().failed(latest, &error, Instant::now()),
        }
        Ok(())
    }
}

async fn in_time<T>(asked: impl Future<Output = quern_store::Result<T>>) -> Result<T> {
    let late = |_| {
        Err(Error::unavailable("the registry does not answer")
            .because(format!("no answer within {} seconds", ANSWER.as_secs())))
    };
    tokio::time::timeout(ANSWER, asked).await.map_or_else(late, |answer| Ok(answer?))
}
