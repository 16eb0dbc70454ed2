//! Did models see what training would have shown them? Logged vectors are computed once more, from history as of their
//! query times, by the code that makes training sets, and compared bit for bit.
//!
//! Where a value differs, the log says why ([`causes`]): it holds what each look-up found, and which definitions were
//! live.

mod causes;
mod near;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array, make_comparator};
use arrow::compute::{SortOptions, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, SchemaRef};
use quern_access::{Action, Caller, Question};
use quern_engine::size::row_bytes;
use quern_engine::{Found, ServicePlan};
use quern_features::past::{Past, Rule};
use quern_store::history::History;
use quern_wire::{FeatureReport, ModelReport, Place, Report, VerifyRequest};

use self::causes::Causes;
use self::near::near;
use crate::error::{Kind, Result};
use crate::live::{Deployment, LiveVersion};
use crate::logged::read::column;
use crate::logged::rows::{ASKED, DIGEST, Fingerprint};
use crate::logged::{Between, PredictionLog};

/// Rows that history is asked about together: it is read once for all of them.
const ROWS: usize = 1 << 17;

/// What they may hold besides.
const BYTES: usize = 256 << 20;

/// Compares what was logged with what history says.
pub struct Verify {
    pub(crate) history: Arc<History>,
    pub(crate) log: Arc<PredictionLog>,
}

impl Verify {
    /// Verifies what was logged of the models whose log `who` may read. Reads history: call it where blocking is
    /// allowed.
    ///
    /// # Errors
    /// A model that is neither live nor logged, files that cannot be read.
    pub fn run(&self, (live, who): (&Deployment, &Caller), request: &VerifyRequest) -> Result<Report> {
        let (mut logged, seen) = (self.log.models()?, live.seen_by(who));
        let models = match &request.model {
            None => {
                logged.retain(|model| seen.may(Question::Do(Action::ReadLog, model)));
                logged.iter().for_each(|model| seen.note(Question::Do(Action::ReadLog, model), true));
                logged
            }
            Some(model) => {
                seen.model_that_was(Action::ReadLog, model, || Ok(logged.contains(model)))?;
                vec![model.clone()]
            }
        };
        let between = Between { from_us: request.from_us, to_us: request.to_us };
        let reports = models.into_iter().map(|model| {
            let mut verifying =
                Verifying { verb: self, live, report: ModelReport { model, ..ModelReport::default() } };
            verifying.run(between)?;
            Ok(verifying.report)
        });
        Ok(Report { models: reports.collect::<Result<_>>()? })
    }
}

struct Verifying<'a> {
    verb: &'a Verify,
    live: &'a Deployment,
    report: ModelReport,
}

impl Verifying<'_> {
    fn run(&mut self, between: Between) -> Result<()> {
        let files = self.verb.log.files(&self.report.model, between)?;
        for files in files.chunk_by(|a, b| a.folder == b.folder) {
            let (mut held, mut count, mut bytes) = (Vec::new(), 0, 0);
            for file in files {
                for rows in self.verb.log.read(file, between)? {
                    let rows = rows?;
                    count += rows.num_rows();
                    bytes += row_bytes(&rows);
                    held.push(rows);
                    if count >= ROWS || bytes >= BYTES {
                        self.compare(&std::mem::take(&mut held))?;
                        (count, bytes) = (0, 0);
                    }
                }
            }
            self.compare(&held)?;
        }
        Ok(())
    }

    /// Compares rows of one folder.
    fn compare(&mut self, rows: &[RecordBatch]) -> Result<()> {
        let Some(first) = rows.first() else { return Ok(()) };
        let rows = concat_batches(&first.schema(), rows)?;
        let versions = column(&rows, "version")?.as_string::<i32>();
        let digests = rows.column_by_name(DIGEST).and_then(|digests| digests.as_string_opt::<i32>());
        let digest = |row: usize| digests.filter(|digests| digests.is_valid(row)).map(|all| all.value(row));
        let times = column(&rows, "event_timestamp")?;
        let mut by_version: BTreeMap<(&str, Option<&str>), Vec<u32>> = BTreeMap::new();
        let mut brought = 0;
        for row in 0..rows.num_rows() {
            if times.is_null(row) {
                brought += 1;
            } else {
                by_version.entry((versions.value(row), digest(row))).or_default().push(row as u32);
            }
        }
        self.leave_out("the caller brought the vector", brought);
        for ((version, digest), places) in by_version {
            let live = match self.version(version, digest) {
                Ok(live) => Arc::clone(live),
                Err(cause) => {
                    self.leave_out(&cause, places.len());
                    continue;
                }
            };
            let count = places.len();
            let rows = take_record_batch(&rows, &UInt32Array::from(places))?;
            self.replay(&live, &rows)?;
            match part(&rows, "inputs", &live.service.inputs)? {
                Some(inputs) => self.compare_with(&live.service, &rows, inputs)?,
                None => self.leave_out("the feature service takes other inputs now", count),
            }
        }
        Ok(())
    }

    /// The live version that answered: it has the name, and is made of the same files where these are known. Under
    /// another name it is the same model. Or why there is none.
    fn version(&self, name: &str, digest: Option<&str>) -> std::result::Result<&Arc<LiveVersion>, String> {
        let versions = self.live.models.get(&self.report.model).map_or(&[][..], |model| &model.versions);
        let is_it = |live: &&Arc<LiveVersion>| digest.is_none_or(|digest| live.model.digest == digest);
        let named = || versions.iter().find(|live| live.version == name);
        let found = named().filter(is_it);
        let found = found.or_else(|| digest.and_then(|_| versions.iter().find(is_it)));
        found.ok_or_else(|| match named() {
            Some(_) => format!("another model is live as version `{name}`"),
            None => format!("version `{name}` is not live any more"),
        })
    }

    /// Makes predictions again of which models on other servers had a part, from what these said then.
    fn replay(&mut self, live: &LiveVersion, rows: &RecordBatch) -> Result<()> {
        let Some(schema) = live.model.asked() else { return Ok(()) };
        self.report.not_reproducible.extend(schema.fields().iter().map(|field| field.name().clone()));
        let asked = part(rows, ASKED, schema)?;
        let vectors = part(rows, "features", &live.service.outputs)?;
        let said = part(rows, "outputs", &live.model.outputs)?;
        let (Some(asked), Some(vectors), Some(said)) = (asked, vectors, said) else { return Ok(()) };
        // Where something else answered, nobody was asked, or in vain.
        let answered =
            (0..rows.num_rows()).filter(|row| asked.column(0).is_valid(*row)).map(|row| row as u32);
        let answered = UInt32Array::from_iter_values(answered);
        let [asked, vectors, said] =
            [asked, vectors, said].map(|columns| take_record_batch(&columns, &answered));
        let (vectors, said) = (vectors?, said?);
        let again = match live.model.replay(&vectors, &asked?) {
            Ok(again) => again.outputs,
            Err(error) => {
                self.leave_out(&format!("they cannot be made again: {error}"), answered.len());
                return Ok(());
            }
        };
        let columns = said.columns().iter().zip(again.columns());
        let same = columns.map(|(then, now)| near(then, now)).collect::<Result<Vec<_>>>()?;
        let differ = (0..said.num_rows()).filter(|row| !same.iter().all(|same| same(*row, *row)));
        self.report.replayed_differ += differ.count() as u64;
        self.report.replayed += said.num_rows() as u64;
        Ok(())
    }

    fn leave_out(&mut self, cause: &str, rows: usize) {
        if rows > 0 {
            *self.report.not_compared.entry(cause.to_owned()).or_default() += rows as u64;
        }
    }

    fn compare_with(
        &mut self,
        service: &Arc<ServicePlan>,
        rows: &RecordBatch,
        inputs: RecordBatch,
    ) -> Result<()> {
        let asked = (inputs, Arc::clone(column(rows, "event_timestamp")?));
        let rule = Rule { expired: true, ..Rule::default() };
        let past = Past::ask((&self.verb.history, &self.live.compiled), service, asked, rule)?;
        let (mut first, mut most) = (0, rows.num_rows());
        while first < rows.num_rows() {
            let count = most.min(rows.num_rows() - first);
            let some = first..first + count;
            let found = past.found(some.clone());
            match found.and_then(|found| Ok((past.finish(some, &found)?.0, found))) {
                // Together they are too large.
                Err(error) if count > 1 && error.kind() == Kind::TooLarge => most = count / 2,
                computed => {
                    let (vectors, found) = computed?;
                    self.compare_vectors(service, &rows.slice(first, count), &vectors, &found)?;
                    first += count;
                }
            }
        }
        Ok(())
    }

    fn compare_vectors(
        &mut self,
        service: &Arc<ServicePlan>,
        rows: &RecordBatch,
        vectors: &RecordBatch,
        found: &[Found],
    ) -> Result<()> {
        let causes = Causes::new(service, &Fingerprint::of(self.live, service), rows, found)?;
        let logged = column(rows, "features")?.as_struct();
        let mut differs = vec![false; rows.num_rows()];
        for (output, field) in service.outputs.fields().iter().enumerate() {
            let Some(then) = logged.column_by_name(field.name()) else { continue };
            if then.data_type() != field.data_type() {
                continue;
            }
            let is_equal = equal(then, vectors.column(output))?;
            let mut feature = FeatureReport { rows: rows.num_rows() as u64, ..FeatureReport::default() };
            for row in (0..rows.num_rows()).filter(|row| !is_equal(*row)) {
                differs[row] = true;
                feature.differ += 1;
                *feature.causes.entry(causes.of(output, row)).or_default() += 1;
                if feature.first.is_none() {
                    feature.first = Some(place(rows, row)?);
                }
            }
            self.add(&service.name, field.name(), feature);
        }
        self.report.rows += rows.num_rows() as u64;
        self.report.rows_differ += differs.into_iter().filter(|differs| *differs).count() as u64;
        Ok(())
    }

    fn add(&mut self, service: &str, name: &str, more: FeatureReport) {
        let features = &mut self.report.features;
        let known =
            features.iter().position(|known| known.feature_service == service && known.feature == name);
        let place = known.unwrap_or_else(|| {
            let (feature_service, feature) = (service.to_owned(), name.to_owned());
            features.push(FeatureReport { feature_service, feature, ..FeatureReport::default() });
            features.len() - 1
        });
        let sum = &mut features[place];
        sum.rows += more.rows;
        sum.differ += more.differ;
        more.causes.into_iter().for_each(|(cause, count)| *sum.causes.entry(cause).or_default() += count);
        sum.first = sum.first.take().or(more.first);
    }
}

/// The columns of `schema` in the struct `name` of logged rows; none where these are others.
fn part(rows: &RecordBatch, name: &str, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
    let logged = rows.column_by_name(name).map(|column| column.as_struct());
    let find = |field: &Arc<arrow::datatypes::Field>| {
        let column = logged?.column_by_name(field.name())?;
        (column.data_type() == field.data_type()).then(|| Arc::clone(column))
    };
    let Some(columns) = schema.fields().iter().map(find).collect::<Option<Vec<ArrayRef>>>() else {
        return Ok(None);
    };
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(Some(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?))
}

fn place(rows: &RecordBatch, row: usize) -> Result<Place> {
    let request_id = column(rows, "request_id")?.as_string::<i32>().value(row).to_owned();
    Ok(Place { request_id, row: column(rows, "row")?.as_primitive::<Int64Type>().value(row) })
}

/// Whether two columns of one type have the same bits in a row; one NaN is like another.
fn equal<'a>(a: &'a ArrayRef, b: &'a ArrayRef) -> Result<Box<dyn Fn(usize) -> bool + 'a>> {
    macro_rules! floats {
        ($type:ty) => {{
            let (x, y) = (a.as_primitive::<$type>(), b.as_primitive::<$type>());
            Ok(Box::new(move |row| match (x.is_null(row), y.is_null(row)) {
                (false, false) => {
                    let (x, y) = (x.value(row), y.value(row));
                    x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan()
                }
                (x, y) => x == y,
            }))
        }};
    }
    match a.data_type() {
        DataType::Float32 => floats!(Float32Type),
        DataType::Float64 => floats!(Float64Type),
        _ => {
            let compare = make_comparator(a, b, SortOptions::default())?;
            Ok(Box::new(move |row| compare(row, row).is_eq()))
        }
    }
}
