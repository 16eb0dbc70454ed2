//! What can be asked of a server in this process? One data folder, open, and the operations on it.
//!
//! Whatever waits for a disk may be called anywhere but in a runtime of one thread.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use axum::Router;
use feature_defs::{DefFile, Operation};
use quern::wire::{BackupSummary, Damaged, ScrubProgress, ScrubRequest};
use quern::wire::{
    MaterializeRequest, NewKeyRequest, Plan, PushReply, PushTo, Report, RevokeKeysRequest, SourceCommand,
    Summary, VerifyRequest, ViewCommand,
};
use quern_access::{Caller, Principal, Proof};
use quern_base::clock::now_us;
use quern_base::tasks::Task;
use quern_engine::ViewId;
use quern_server::Settings;
use quern_server::logged::Between;
use quern_server::verbs::apply::Candidate;
use quern_server::verbs::export::Exported;
use quern_server::verbs::joined::{Joined, Room};
use quern_server::verbs::labels::Known;
use quern_server::verbs::labels::compact::{Bounds, Compacted, JOB};
use quern_server::verbs::push::PushedBatch;
use quern_server::verbs::scrub::Watch;
use quern_store::online::Online;
use quern_store::registry::Registry;
use quern_store::segments::{Segment, Segments, StoreAt};
use tokio::task::block_in_place;

use crate::{Model, Result, Service};

/// A server in this process, without its sockets. Its clones are the same server; it is closed with the last.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<quern_server::Node>,
}

/// What one apply made live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Number of the apply; 0 before the first one.
    pub number: u64,
    /// The definition files, as they were applied.
    pub files: Vec<DefFile>,
    /// The names of the feature services.
    pub services: Vec<String>,
}

/// Definitions that hold, and are not applied yet.
pub struct Checked {
    node: Node,
    candidate: Candidate,
}

/// Rows for a push source.
pub struct Push {
    /// Name of the source.
    pub source: String,
    /// The rows.
    pub rows: RecordBatch,
    /// Where they go.
    pub to: PushTo,
    /// The view that they are for, where one is named.
    pub view: Option<String>,
    /// Names the push, so that it counts once however often it comes.
    pub idempotency_key: Option<String>,
}

impl Push {
    /// Pushes to both stores, under no key.
    pub fn new(source: &str, rows: RecordBatch) -> Push {
        Push {
            source: source.to_owned(),
            rows,
            to: PushTo::OnlineAndOffline,
            view: None,
            idempotency_key: None,
        }
    }
}

/// All batches of an export as one.
fn whole(exported: Exported) -> quern_server::Result<RecordBatch> {
    let schema = Arc::clone(exported.schema());
    let batches = exported.map(|batch| Ok(batch?.rows)).collect::<quern_server::Result<Vec<_>>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

/// The binary `quern`, which is a worker where it is told to: cargo builds it beside the tests and the benches.
fn worker_program() -> std::path::PathBuf {
    let told = std::env::var_os("CARGO_BIN_EXE_quern").map(std::path::PathBuf::from);
    told.unwrap_or_else(|| {
        let own = std::env::current_exe().unwrap();
        own.ancestors().nth(2).unwrap().join("quern")
    })
}

impl Node {
    /// Opens the repository in this folder, whatever the environment says but where ONNX Runtime is.
    ///
    /// # Errors
    /// What keeps a server from starting.
    pub async fn open(repository: &Path, settings: &[(&str, String)]) -> Result<Node> {
        Node::open_in(repository, settings, None).await
    }

    /// The same, which keeps segments at `store`, where that is said: a bucket may be told how it is reached.
    ///
    /// # Errors
    /// What keeps a server from starting.
    pub async fn open_in(
        repository: &Path,
        settings: &[(&str, String)],
        store: Option<StoreAt>,
    ) -> Result<Node> {
        let onnxruntime =
            |name: &str| (name == "QUERN_ONNXRUNTIME").then(|| std::env::var(name).ok()).flatten();
        let mut settings = Settings::load_from(repository, onnxruntime, settings)?;
        settings.worker.path = worker_program();
        settings.store = store.or(settings.store);
        Ok(Node { inner: quern_server::Node::open(settings).await? })
    }

    /// Applies the definitions of its repository.
    ///
    /// # Errors
    /// Their mistakes, and what the apply would break.
    pub async fn apply(&self) -> Result<Plan> {
        self.check().await?.apply().await
    }

    /// Checks the definitions of its repository.
    ///
    /// # Errors
    /// Their mistakes.
    pub async fn check(&self) -> Result<Checked> {
        self.check_project(&self.inner.settings.applies).await
    }

    /// Checks those of a project.
    ///
    /// # Errors
    /// Their mistakes.
    pub async fn check_project(&self, project: &str) -> Result<Checked> {
        let candidate = self.inner.apply.check(Caller::owner(), project.to_owned()).await?;
        Ok(Checked { node: self.clone(), candidate })
    }

    /// Makes an API key, and returns it.
    pub async fn key(&self, name: &str) -> String {
        let request = NewKeyRequest { name: name.to_owned(), expires: None };
        self.inner.keys.make(&Caller::owner(), &request).await.unwrap().key
    }

    /// Revokes the API keys of this name.
    pub async fn revoke(&self, name: &str) {
        let request = RevokeKeysRequest { key: name.to_owned() };
        self.inner.keys.revoke(&Caller::owner(), &request).await.unwrap();
    }

    /// Returns what is live.
    pub fn live(&self) -> Live {
        let live = self.inner.live();
        let services = live.compiled.catalog.services.keys().cloned().collect();
        Live { number: live.number, files: live.files.clone(), services }
    }

    /// Returns the feature service, as it is live now and for as long as the result is kept.
    ///
    /// # Panics
    /// Where there is no such service.
    pub fn service(&self, name: &str) -> Service {
        let live = self.inner.live();
        let plan = Arc::clone(&live.compiled.catalog.services[name]);
        Service { node: self.clone(), live, plan }
    }

    /// Returns the model, as it is live now and for as long as the result is kept.
    ///
    /// # Panics
    /// Where there is no such model.
    pub fn model(&self, name: &str) -> Model {
        Model::find(self, name)
    }

    /// Returns the id under which rows of the feature view are stored.
    pub fn view(&self, name: &str) -> ViewId {
        self.inner.live().compiled.catalog.views[name].id
    }

    /// Returns its online store.
    pub fn head(&self) -> &Online {
        &self.inner.reader.head
    }

    /// Exports rows of a view, or what look-ups find of it now.
    ///
    /// # Errors
    /// What keeps them from being exported.
    pub fn export(&self, command: &ViewCommand) -> Result<RecordBatch> {
        let who = Caller::owner();
        let rows = block_in_place(|| {
            let exported = self.inner.export.view((&self.inner.live(), &who), command, (now_us(), None))?;
            whole(exported)
        })?;
        Ok(rows)
    }

    /// Exports rows of a source.
    ///
    /// # Errors
    /// What keeps them from being exported.
    pub fn export_source(&self, command: &SourceCommand) -> Result<RecordBatch> {
        let who = Caller::owner();
        let rows = block_in_place(|| whole(self.inner.export.source((&self.inner.live(), &who), command)?))?;
        Ok(rows)
    }

    /// Materializes all views up to `to_us`, looking back to the beginning.
    pub fn materialize_to(&self, to_us: i64) -> Summary {
        self.try_materialize_to(to_us).unwrap()
    }

    /// Materializes as [`Node::materialize_to`] does, where that may fail.
    ///
    /// # Errors
    /// Those of sources and stores.
    pub fn try_materialize_to(&self, to_us: i64) -> Result<Summary> {
        let request = MaterializeRequest {
            to_us: Some(to_us),
            look_back_us: Some(i64::MAX),
            ..MaterializeRequest::default()
        };
        self.run(&request, to_us)
    }

    /// Materializes all views, without what the log has lost.
    ///
    /// # Errors
    /// Those of sources and stores.
    pub fn accept_loss(&self, to_us: i64) -> Result<Summary> {
        self.run(&MaterializeRequest { accept_loss: true, ..MaterializeRequest::default() }, to_us)
    }

    /// Materializes all views at `now_us`, as a user does who asks for nothing else.
    pub fn materialize(&self, now_us: i64) -> Summary {
        self.run(&MaterializeRequest::default(), now_us).unwrap()
    }

    /// Materializes all views at `now_us`, once their sources are pulled out of databases: as its edges do.
    ///
    /// # Errors
    /// Those of databases, sources and stores.
    pub fn pull(&self, now_us: i64) -> Result<Summary> {
        let live = self.inner.live();
        Ok(block_in_place(|| {
            let permitted = live.seen_by(&Caller::owner()).operate(Operation::Materialize)?;
            let request = MaterializeRequest::default();
            self.inner.bring_up_to_date((&live, &permitted), &request, now_us, &|_| ())
        })?)
    }

    /// Returns all rows that were pushed to `source`, in the order of their arrival.
    pub fn history(&self, source: &str) -> RecordBatch {
        let live = self.inner.live();
        let (schema, mut all) = (&live.compiled.source_schemas[source], Vec::new());
        let columns: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        block_in_place(|| {
            let source = &live.compiled.catalog.definitions.sources[source];
            let scan = self.inner.reader.history.open(source, schema).unwrap();
            for unit in 0..scan.units.len() {
                let mut take = |_, rows| {
                    all.push(rows);
                    Ok::<_, quern_store::Error>(())
                };
                scan.read(unit, &columns, None, &mut take).unwrap();
            }
        });
        concat_batches(schema, &all).unwrap()
    }

    fn run(&self, request: &MaterializeRequest, now_us: i64) -> Result<Summary> {
        let live = self.inner.live();
        Ok(block_in_place(|| {
            let permitted = live.seen_by(&Caller::owner()).operate(Operation::Materialize)?;
            self.inner.materialize.run((&live, &permitted), request, now_us, &|_| ())
        })?)
    }

    /// Brings this server's copy of a shared log up to date for a source, as every read of its history does.
    ///
    /// # Errors
    /// Where the log does not answer.
    pub fn refresh(&self, source: &str) -> Result<()> {
        let live = self.inner.live();
        let source = &live.compiled.catalog.definitions.sources[source];
        Ok(block_in_place(|| self.inner.reader.history.refresh(source))?)
    }

    /// Pushes rows.
    ///
    /// # Errors
    /// Where none is taken.
    pub async fn push(&self, push: Push) -> Result<PushReply> {
        let push = PushedBatch {
            source: push.source,
            rows: push.rows,
            rejected: Vec::new(),
            to: push.to,
            view: push.view,
            idempotency_key: push.idempotency_key,
            positions: Vec::new(),
        };
        Ok(self.inner.push.push(&Caller::owner(), push).await?)
    }

    /// Runs `work` while pushes wait.
    pub fn hold_pushes(&self, work: impl FnOnce()) {
        self.inner.turns.hold_pushes(work);
    }

    /// Runs `work` while pushes to `source` wait.
    pub fn hold_pushes_to(&self, source: &str, work: impl FnOnce()) {
        let _order = block_in_place(|| self.inner.turns.order(&[source.to_owned()].into())).unwrap();
        work();
    }

    /// Counts the rows of history that were pushed to `source`.
    pub fn pushed_rows(&self, source: &str) -> u64 {
        self.inner.reader.history.pushed.of(source).end()
    }

    /// Counts those of them that are in no file yet.
    pub fn tail_rows(&self, source: &str) -> usize {
        self.inner.reader.history.pushed.of(source).tail_size().0
    }

    /// Writes those into a file, unless the head is being made.
    pub fn seal(&self, source: &str) {
        assert!(block_in_place(|| self.inner.push.seal(source)).unwrap());
    }

    /// Returns what names its segments.
    pub fn registry(&self) -> Registry {
        self.inner.registry.clone()
    }

    /// Copies all that counts into a folder.
    ///
    /// # Errors
    /// Where that is used, takes nothing, or something is damaged.
    pub fn backup(&self, to: &Path) -> Result<BackupSummary> {
        Ok(block_in_place(|| {
            let permitted = self.inner.live().seen_by(&Caller::owner()).operate(Operation::Backup)?;
            self.inner.upkeep.backup.run(&permitted, to, &mut |_| ControlFlow::Continue(()))
        })?)
    }

    /// Reads all that is kept, and returns what is damaged or missing.
    pub fn scrub(&self) -> Vec<Damaged> {
        let mut found = Found(Vec::new());
        block_in_place(|| {
            let permitted = self.inner.live().seen_by(&Caller::owner()).operate(Operation::Scrub)?;
            self.inner.upkeep.scrub.run(&permitted, &ScrubRequest::default(), &mut found)
        })
        .unwrap();
        found.0
    }

    /// Has a shared log forget what lies in segments, without waiting for as long as a server does.
    pub fn forget_sealed(&self) {
        block_in_place(|| {
            let sealed = self.inner.push.forget_sealed(&BTreeMap::new()).unwrap();
            self.inner.push.forget_sealed(&sealed).unwrap();
        });
    }

    /// Counts the rows that were pushed to `source` and lie in segments.
    pub fn sealed_rows(&self, source: &str) -> u64 {
        self.inner.reader.history.pushed.of(source).sealed()
    }

    /// Follows the applies of other servers while the result lives; none where there can be no others.
    pub fn follow(&self) -> Option<Task> {
        self.inner.follow.start()
    }

    /// Notes what it counted for ramps, and does what is next at this time by the registry's clock.
    ///
    /// # Errors
    /// Where the registry does not answer.
    pub async fn run_ramps(&self, now_us: i64) -> Result<()> {
        Ok(self.inner.apply.run_ramps(Some(now_us)).await?)
    }

    /// Whether it knows how it stands beside a registry that it shares.
    pub fn has_standing(&self) -> bool {
        self.inner.follow.standing().is_some()
    }

    /// Brings what other servers left behind into the head while the result lives; none where a push is one write.
    pub fn complete(&self) -> Option<Task> {
        self.inner.push.complete()
    }

    /// Returns every prediction of `model` that was logged, in one batch; none where nothing was.
    pub async fn logged(&self, model: &str) -> Option<RecordBatch> {
        self.inner.predictions.flush().await;
        let mut batches = Vec::new();
        for file in self.inner.predictions.files(model, Between::default()).unwrap() {
            let rows = self.inner.predictions.read(&file, Between::default()).unwrap();
            batches.extend(rows.map(std::result::Result::unwrap));
        }
        batches.first().map(|first| concat_batches(&first.schema(), &batches).unwrap())
    }

    /// Returns what it keeps for good.
    pub fn segments(&self) -> &Arc<Segments> {
        &self.inner.segments
    }

    /// Makes large segments of small ones whose day is over at `now_us`: how many, of how many, and how many were
    /// removed because they were kept for long enough.
    pub fn merge_predictions(&self, now_us: i64) -> [usize; 3] {
        let merged = self.inner.predictions.merge(now_us).unwrap();
        [merged.wholes, merged.parts, merged.expired]
    }

    /// Verifies every prediction of `model` that was logged.
    pub async fn verify(&self, model: &str) -> Report {
        self.inner.predictions.flush().await;
        let request = VerifyRequest { model: Some(model.to_owned()), ..VerifyRequest::default() };
        block_in_place(|| self.inner.verify.run((&self.inner.live(), &Caller::owner()), &request)).unwrap()
    }

    /// Waits until the predictions so far are written, or dropped.
    pub async fn flush_predictions(&self) {
        self.inner.predictions.flush().await;
    }

    /// Keeps labels of `model` that come at `now_us`.
    pub fn label(&self, model: &str, labels: &RecordBatch, now_us: i64) {
        self.try_label(model, labels, now_us).unwrap();
    }

    /// The same, where they may be refused.
    ///
    /// # Errors
    /// Why they are.
    pub fn try_label(&self, model: &str, labels: &RecordBatch, now_us: i64) -> Result<usize> {
        self.put_labels(&Caller::owner(), model, labels, now_us)
    }

    /// Keeps labels of `model` by whose API key is called so.
    pub fn label_by(&self, key: &str, model: &str, labels: &RecordBatch, now_us: i64) {
        let principal = Arc::new(Principal::new(Proof::Key(key.to_owned())));
        let who = Caller { principal, request_id: String::new() };
        self.put_labels(&who, model, labels, now_us).unwrap();
    }

    fn put_labels(&self, who: &Caller, model: &str, labels: &RecordBatch, now_us: i64) -> Result<usize> {
        Ok(block_in_place(|| self.inner.labels.put((&self.inner.live(), who), model, labels, now_us))?)
    }

    /// Reads the labels of `model`.
    pub fn labels(&self, model: &str) -> Labels {
        Labels(block_in_place(|| self.inner.labels.of(model)).unwrap())
    }

    /// Counts the labels of `model` that are in no segment yet.
    pub fn label_tail_rows(&self, model: &str) -> usize {
        self.tail_rows(&format!("labels/{model}"))
    }

    /// Returns the segments that the others lie in.
    pub fn label_segments(&self, model: &str) -> Vec<Segment> {
        block_in_place(|| self.inner.labels.files(model)).unwrap()
    }

    /// Writes those that are in none into one, once nobody else does.
    pub fn seal_labels(&self, model: &str) {
        while !block_in_place(|| self.inner.labels.seal(model)).unwrap() {
            std::thread::yield_now();
        }
    }

    /// Leaves out labels that count no more, whether they have grown much or little, where those that belong to no
    /// logged request may take so many bytes; and looks at so many together. Gives the turn back.
    pub fn compact_labels(&self, strangers_bytes: u64, together: usize) -> Compacted {
        let bounds = Bounds { strangers_bytes, together, growth: u64::MAX, ..Bounds::default() };
        block_in_place(|| {
            let compacted = self.inner.labels.compact(&bounds).unwrap();
            self.inner.segments.lease(JOB, Duration::ZERO).unwrap();
            compacted
        })
    }

    /// Joins the logged predictions of `model` with their labels, of so many rows and bytes at a time: how many have
    /// one, of how many, and the most bytes of predictions and of labels that were held.
    pub async fn joined(&self, model: &str, room: Room) -> ([usize; 2], [usize; 2]) {
        self.inner.predictions.flush().await;
        block_in_place(|| {
            let (log, labels) = (&self.inner.predictions, &self.inner.labels);
            let joined = Joined::open((log, labels), model, Between::default(), false).unwrap();
            let (mut joined, mut count) = (joined.within(room), [0, 0]);
            for rows in joined.by_ref() {
                let rows = rows.unwrap();
                let labelled = rows.column_by_name("labelled_at");
                count[0] += labelled.map_or(0, |at| rows.num_rows() - at.null_count());
                count[1] += rows.num_rows();
            }
            (count, joined.most_held())
        })
    }

    /// Returns its metrics, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        self.inner.show_metrics(&Caller::owner()).unwrap()
    }

    /// Returns everything that it answers over HTTP, gRPC and Flight.
    pub fn router(&self) -> Router {
        quern_api::router(Arc::clone(&self.inner))
    }
}

impl Checked {
    /// Applies what was checked.
    ///
    /// # Errors
    /// What it would break, and another apply that went live since.
    pub async fn apply(self) -> Result<Plan> {
        Ok(self.node.inner.apply.apply(self.candidate).await?)
    }
}

/// Restores a backup as the command does, for the repository in this folder.
///
/// # Errors
/// Where the backup is damaged or does not fit, or the data folder is used.
pub async fn restore(repository: &Path, settings: &[(&str, String)], from: &Path) -> Result<()> {
    let settings = Settings::load_from(repository, |_: &str| None, settings)?;
    quern_server::restore(settings, from.to_owned(), |_| ()).await?;
    Ok(())
}

/// What a scrub finds.
struct Found(Vec<Damaged>);

impl Watch for Found {
    fn progress(&mut self, _: ScrubProgress) {}

    fn damaged(&mut self, damaged: Damaged) {
        self.0.push(damaged);
    }

    fn goes_on(&self) -> bool {
        true
    }
}

/// The labels of one model.
pub struct Labels(Known);

impl Labels {
    /// Returns the value of `column` for one row of a request; none where nothing is known of it.
    pub fn value(&self, column: &str, request_id: &str, row: i64) -> Option<ArrayRef> {
        self.value_for(column, request_id, row, None)
    }

    /// The same of a request of somebody.
    pub fn value_for(
        &self,
        column: &str,
        request_id: &str,
        row: i64,
        asked_by: Option<&str>,
    ) -> Option<ArrayRef> {
        let ids: ArrayRef = Arc::new(StringArray::from(vec![request_id]));
        let rows: ArrayRef = Arc::new(Int64Array::from(vec![row]));
        let principals: ArrayRef = Arc::new(StringArray::from(vec![asked_by]));
        let columns = [("request_id", ids), ("row", rows), ("principal", principals)];
        let asked = RecordBatch::try_from_iter(columns).unwrap();
        let found = block_in_place(|| self.0.find(std::slice::from_ref(&asked), usize::MAX)).unwrap()?;
        let places = found.of(&asked).unwrap();
        found.values(column, &places).unwrap().filter(|_| places.null_count() == 0)
    }
}

/// Finds the value of a series in metrics as Prometheus reads them; none where it is not there.
pub fn metric(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}
