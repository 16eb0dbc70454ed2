//! One data folder, open: its stores, what is live on them, and what can be done with both.

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use quern_access::{Action, Caller};
use quern_base::clock::now_us;
use quern_base::memory::Budget;
use quern_base::tasks::blocking;
use quern_features::Reader;
use quern_identity::Identity;
use quern_store::history::History;
use quern_store::log::Log;
use quern_store::online::Online;
use quern_store::redis::Redis;
use quern_store::registry::Registry;
use quern_store::rocks::Head;
use quern_store::segments::Segments;
use quern_store::spill::Scratch;
use quern_store::turns::Turns;
use quern_wire::PredictionsCommand;

use crate::audit::Audit;
use crate::catching_up::CatchingUp;
use crate::data_folder::lock;
use crate::degraded::Degraded;
use crate::error::{Error, Result};
use crate::lag::{Lag, Stands};
use crate::live::{Deployment, Live, Loader};
use crate::logged::{Between, PredictionLog};
use crate::pull::Pulls;
use crate::quotas::Quotas;
use crate::restore;
use crate::runs::Runs;
use crate::settings::{OnlineStore, Settings};
use crate::streamed::Streams;
use crate::verbs::apply::Apply;
use crate::verbs::backup::Backup;
use crate::verbs::can::Can;
use crate::verbs::export::Export;
use crate::verbs::follow::Follow;
use crate::verbs::joined::Joined;
use crate::verbs::keys::Keys;
use crate::verbs::labels::{self, Labels};
use crate::verbs::materialize::Materialize;
use crate::verbs::predict::Predict;
use crate::verbs::push::{Push, Queue};
use crate::verbs::scrub::Scrub;
use crate::verbs::seal::Seal;
use crate::verbs::train::Train;
use crate::verbs::verify::Verify;

/// One data folder, open.
pub struct Node {
    /// How this process was set up.
    pub settings: Arc<Settings>,
    /// What requests under way may hold.
    pub memory: Arc<Budget>,
    /// Knows who asks.
    pub identity: Arc<Identity>,
    /// Makes and revokes API keys.
    pub keys: Arc<Keys>,
    /// What is live.
    pub live: Live,
    /// Reads values of keys at times.
    pub reader: Reader,
    /// Checks definitions, plans, makes them live.
    pub apply: Arc<Apply>,
    /// Makes live what other servers applied.
    pub follow: Arc<Follow>,
    /// Takes pushed rows in.
    pub push: Arc<Push>,
    /// Makes the head from history.
    pub materialize: Materialize,
    /// Makes training sets.
    pub train: Train,
    /// Gives out rows as tables.
    pub export: Export,
    /// Answers with predictions.
    pub predict: Arc<Predict>,
    /// What models said, on its way into files.
    pub predictions: Arc<PredictionLog>,
    /// What came true of it.
    pub labels: Arc<Labels>,
    /// Compares what was served with history.
    pub verify: Verify,
    /// What those who ask have left.
    pub quotas: Quotas,
    /// Explains who may do what.
    pub can: Can,
    /// Seals, scrubs, backs up.
    pub upkeep: Upkeep,
    /// What cannot be written now.
    pub degraded: Arc<Degraded>,
    /// What was materialized, when, and what came of it.
    pub runs: Arc<Runs>,
    /// How far the head is behind the log of pushed rows.
    pub lag: Arc<Lag>,
    /// Whether the head has what was pushed before this process began.
    pub catching_up: CatchingUp,
    /// How the streams of sources are doing.
    pub streams: Arc<Streams>,
    /// What was pulled out of databases.
    pub pulls: Pulls,
    /// When it was opened.
    pub started: Instant,
    /// Every apply.
    pub registry: Registry,
    /// What is kept for good.
    pub segments: Arc<Segments>,
    /// Whose turn it is to change what.
    pub turns: Arc<Turns>,
    /// The RocksDB of the data folder: the online store, unless that is shared.
    pub local: Arc<Head>,
    // Given back when everything above is closed.
    _lock: Arc<File>,
}

/// What is done for what is kept.
pub struct Upkeep {
    /// Writes pushed rows into segments.
    pub seal: Seal,
    /// Reads all that is kept.
    pub scrub: Scrub,
    /// Copies all that counts.
    pub backup: Backup,
}

impl Upkeep {
    fn of(settings: &Arc<Settings>, registry: &Registry, segments: &Arc<Segments>, push: &Push) -> Upkeep {
        Upkeep {
            seal: Seal {
                live: push.live.clone(),
                history: Arc::clone(&push.history),
                log: push.log.clone(),
                turns: Arc::clone(&push.turns),
            },
            scrub: Scrub {
                settings: Arc::clone(settings),
                registry: registry.clone(),
                segments: Arc::clone(segments),
                log: push.log.clone(),
                one: Default::default(),
            },
            backup: Backup {
                settings: Arc::clone(settings),
                registry: registry.clone(),
                segments: Arc::clone(segments),
                log: push.log.clone(),
                one: Default::default(),
            },
        }
    }
}

/// The stores of a data folder.
struct Stores {
    registry: Registry,
    segments: Arc<Segments>,
    local: Arc<Head>,
    head: Online,
    log: Log,
    history: Arc<History>,
}

impl Stores {
    async fn open(settings: &Arc<Settings>, lock: &Arc<File>) -> Result<Stores> {
        restore::check_whole(&settings.data)?;
        let mut registry = Registry::open(&settings.registry, &settings.data).await?;
        let redis = match &settings.online {
            OnlineStore::RocksDb => None,
            OnlineStore::Redis(address) => Some(Redis::open(address.clone(), settings.online_timeout).await?),
        };
        let shared_log = if redis.is_some() { registry.log().await? } else { None };
        let (settings, lock) = (Arc::clone(settings), Arc::clone(lock));
        // Opening RocksDB blocks for as long as it takes.
        blocking("opening the data folder", move || {
            let local = Arc::new(Head::open(&settings.data.join("head"))?.locked_by(Arc::clone(&lock)));
            let head = match redis {
                Some(redis) => Online::Redis(redis, None),
                None => {
                    quern_store::metrics().online_store_up.set(1);
                    Online::Rocks(Arc::clone(&local))
                }
            };
            let cache = (settings.data.join("cache"), settings.store_cache_bytes_max as u64);
            let segments = Segments::open(settings.store(), &registry, cache)?;
            segments.keep_models_of(&mut registry);
            let log = Log::of(&head, shared_log, (&settings.data, lock))?;
            let copies = (settings.data.join("cache/history"), settings.history_cache_bytes_max as u64);
            let history = History::open_with(settings.roots(), &log, &segments, &settings.data)?;
            let history = Arc::new(history.caching(copies.0, copies.1)?);
            labels::look_for_older(&settings.data);
            // The names of what was made just now must survive a loss of power, as what will be in it.
            for folder in settings.data.ancestors().take(2) {
                File::open(folder).and_then(|folder| folder.sync_all())?;
            }
            Ok(Stores { registry, segments, local, head, log, history })
        })
        .await
    }
}

impl Node {
    /// Opens the data folder that `settings` name, or makes it, brings the latest apply live, and the head up to what
    /// was pushed.
    ///
    /// # Errors
    /// `Kind::Refused` where another process has it open.
    pub async fn open(settings: Settings) -> Result<Arc<Node>> {
        let node = Node::open_behind(settings).await?;
        node.catch_up_or_tell().await?;
        Ok(node)
    }

    /// The same, with a head that may lack what was pushed: [`Node::go_on_catching_up`].
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn open_behind(settings: Settings) -> Result<Arc<Node>> {
        let settings = Arc::new(settings);
        let _lock = Arc::new(lock(&settings.data).await?);
        let Stores { registry, segments, local, head, log, history } =
            Stores::open(&settings, &_lock).await?;
        let audit = Audit::open(&settings)?;
        let loader = Arc::new(Loader::new(Arc::clone(&settings), registry.clone(), audit));
        let live = Node::latest(&registry, &loader).await?;
        let (identity, keys) = known(&settings, &registry, &live).await?;
        let degraded = Arc::new(Degraded::default());
        let runs = Arc::new(Runs::open(registry.clone(), head.id()?, head.is_shared()));
        let lag = Arc::new(Lag { head: head.clone(), log: log.clone(), stands: Stands::default() });
        let turns = Arc::new(Turns::new(head.clone(), log.clone()));
        let predictions = Arc::new(PredictionLog::open(&settings, &segments)?);
        let reader = reader(&settings, &history, &head);
        let scratch = Scratch::new(settings.data.clone(), settings.materialize_bytes_max);
        let push = Arc::new(Push {
            live: live.clone(),
            history: Arc::clone(&history),
            head: head.clone(),
            log: log.clone(),
            turns: Arc::clone(&turns),
            queue_rows_max: settings.push_queue_rows,
            queue: Queue::default(),
            degraded: Arc::clone(&degraded),
        });
        Ok(Arc::new(Node {
            apply: Arc::new(apply(&settings, &loader, &registry, &push)),
            follow: Arc::new(Follow { registry: registry.clone(), loader, live: live.clone() }),
            upkeep: Upkeep::of(&settings, &registry, &segments, &push),
            predict: Arc::new(predict(&live, &reader, &predictions)),
            quotas: Quotas::default(),
            can: Can { live: live.clone() },
            train: Train { history: Arc::clone(&history) },
            export: Export { history: Arc::clone(&history), scratch: scratch.clone() },
            verify: Verify { history: Arc::clone(&history), log: Arc::clone(&predictions) },
            labels: Arc::new(labels_beside(&push, &segments, &predictions)),
            materialize: Materialize {
                live: live.clone(),
                history,
                head,
                log,
                turns: Arc::clone(&turns),
                degraded: Arc::clone(&degraded),
                runs: Arc::clone(&runs),
                scratch,
                covered: Default::default(),
            },
            push,
            degraded,
            runs,
            lag,
            catching_up: CatchingUp::default(),
            streams: Arc::default(),
            pulls: Pulls::default(),
            started: Instant::now(),
            identity,
            keys,
            memory: Budget::new(settings.requests_bytes_max),
            settings,
            live,
            reader,
            predictions,
            registry,
            segments,
            turns,
            local,
            _lock,
        }))
    }

    /// What the latest apply made live.
    async fn latest(registry: &Registry, loader: &Arc<Loader>) -> Result<Live> {
        let live = Live::beginning(loader.nothing());
        if let Some(apply) = registry.latest().await? {
            let deployment = loader.restore(&live.now(), apply).await?;
            live.replace(deployment);
        }
        Ok(live)
    }

    /// Whether look-ups are answered, as far as is known without asking.
    pub fn looks_up(&self) -> bool {
        self.reader.head.is_up()
    }

    /// What is live now.
    pub fn live(&self) -> Arc<Deployment> {
        self.live.now()
    }

    /// Takes so many rows of a request of theirs, as far as their roles say how many there may be.
    ///
    /// # Errors
    /// As [`Quotas::take_rows`].
    pub fn take_rows(&self, who: &Caller, rows: usize) -> Result<()> {
        self.quotas.take_rows(who, &self.live().access.rights(who), rows, Instant::now())
    }

    /// The logged predictions of a model that `command` asks for, with their labels. Reads files: call it where
    /// blocking is allowed.
    ///
    /// # Errors
    /// As [`Seen::model_that_was`](crate::live::Seen::model_that_was) and [`Joined::open`].
    pub fn joined(&self, who: &Caller, command: &PredictionsCommand) -> Result<Joined> {
        let PredictionsCommand { predictions: model, from_us, to_us, labelled, received: _ } = command;
        // What a model that is gone said is there still.
        let was = || Ok(self.predictions.models()?.contains(model));
        self.live().seen_by(who).model_that_was(Action::ReadLog, model, was)?;
        let between = Between { from_us: *from_us, to_us: *to_us };
        Joined::open((&self.predictions, &self.labels), model, between, *labelled)
    }

    /// Keeps labels of `model` that `who` gives; they are durable when this returns. Gives their number.
    ///
    /// # Errors
    /// As [`Labels::put`].
    pub async fn label(
        self: &Arc<Self>,
        who: Caller,
        model: String,
        rows: arrow::array::RecordBatch,
    ) -> Result<usize> {
        let (node, now_us) = (Arc::clone(self), now_us());
        let sealing = (Arc::clone(&self.labels), model.clone());
        let putting = move || node.labels.put((&node.live(), &who), &model, &rows, now_us);
        let accepted = blocking("keeping labels", putting).await?;
        tokio::task::spawn_blocking(move || sealing.0.seal_large(&sealing.1));
        Ok(accepted)
    }
}

/// Who may ask, as far as is known: whose tokens are believed, and which keys there are.
async fn known(settings: &Settings, registry: &Registry, live: &Live) -> Result<(Arc<Identity>, Arc<Keys>)> {
    let identity = Arc::new(Identity::new(settings.trust().map_err(Error::invalid)?)?);
    let keys = Keys::open(registry, &identity, live.clone()).await?;
    Ok((identity, keys))
}

fn reader(settings: &Settings, history: &Arc<History>, head: &Online) -> Reader {
    let history_fallback = settings.history_fallback;
    Reader { history: Arc::clone(history), head: head.clone(), history_fallback }
}

/// The verb that makes definitions live, over the stores that pushes go to.
fn apply(settings: &Arc<Settings>, loader: &Arc<Loader>, registry: &Registry, push: &Push) -> Apply {
    Apply {
        settings: Arc::clone(settings),
        live: push.live.clone(),
        loader: Arc::clone(loader),
        registry: registry.clone(),
        history: Arc::clone(&push.history),
        head: push.head.clone(),
        fetched: Default::default(),
        ramping: Default::default(),
    }
}

fn predict(live: &Live, reader: &Reader, log: &Arc<PredictionLog>) -> Predict {
    Predict { live: live.clone(), reader: reader.clone(), log: Arc::clone(log) }
}

/// The labels, which lie in the same log as what is pushed.
fn labels_beside(push: &Push, segments: &Arc<Segments>, predictions: &Arc<PredictionLog>) -> Labels {
    Labels {
        live: push.live.clone(),
        history: Arc::clone(&push.history),
        log: push.log.clone(),
        turns: Arc::clone(&push.turns),
        segments: Arc::clone(segments),
        predictions: Arc::clone(predictions),
        looked: Default::default(),
    }
}
