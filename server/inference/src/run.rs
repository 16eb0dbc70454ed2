//! What does one session say of these tensors, and what does it cost?

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use quern_engine::each_number_kind;
use quern_engine::fit::{Tensor, TensorData};

use crate::error::{Error, Result};
use crate::metrics::metrics;
use crate::outputs::{self, Says, Shape};

/// What a run is expected to cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// One row, in microseconds.
    pub(crate) micros: f64,
    /// Each further row.
    pub(crate) micros_per_row: f64,
}

impl Cost {
    /// Whether a request of many rows may take so long that it must be possible to end it at any moment. In a session
    /// of this process a run ends between two operators only.
    pub(crate) fn is_long(self) -> bool {
        const ROWS: f64 = 10_000.0;
        const MICROS_MAX: f64 = 10e6;
        self.micros + self.micros_per_row * ROWS > MICROS_MAX
    }
}

/// Runs `inputs`, which are in the model's order, and returns a column for each output.
pub(crate) fn run(
    session: &mut Session,
    inputs: Vec<Tensor>,
    rows: usize,
    options: Option<&RunOptions<NoSelectedOutputs>>,
) -> Result<RecordBatch> {
    let at_a_time = outputs::rows_at_a_time(session);
    in_pieces(at_a_time, (inputs, rows), |inputs, shape| run_once(session, inputs, shape, options))
}

/// All rows at once; where a model takes so many `at_a_time`, in pieces, the last one filled up with its last row.
pub(crate) fn in_pieces(
    at_a_time: Option<usize>,
    (inputs, rows): (Vec<Tensor>, usize),
    mut once: impl FnMut(Vec<Tensor>, Shape) -> Result<RecordBatch>,
) -> Result<RecordBatch> {
    let Some(at_a_time) = at_a_time else { return once(inputs, Shape { rows, is_alone: false }) };
    let mut pieces = Vec::with_capacity(rows.div_ceil(at_a_time));
    for start in (0..rows).step_by(at_a_time) {
        let there = at_a_time.min(rows - start);
        let mut piece: Vec<Tensor> = inputs.iter().map(|tensor| tensor.slice(start, there)).collect();
        piece.iter_mut().for_each(|tensor| tensor.pad(at_a_time - there));
        let shape = Shape { rows: at_a_time, is_alone: at_a_time == 1 };
        pieces.push(once(piece, shape)?.slice(0, there));
    }
    let schema = pieces.first().map(RecordBatch::schema).unwrap_or_else(|| Arc::new(Schema::empty()));
    if pieces.iter().any(|piece| piece.schema_ref() != &schema) {
        let cause = "its output has another length for each row, and these rows have several: ask about one at a time";
        return Err(Error::invalid(cause));
    }
    Ok(concat_batches(&schema, &pieces)?)
}

fn run_once(
    session: &mut Session,
    inputs: Vec<Tensor>,
    shape: Shape,
    options: Option<&RunOptions<NoSelectedOutputs>>,
) -> Result<RecordBatch> {
    let says: Vec<Says> = session.outputs().iter().map(|output| Says::of(output.dtype())).collect();
    let inputs: Vec<SessionInputValue<'_>> = inputs.into_iter().map(input).collect::<Result<_>>()?;
    let timer = metrics().inference.start_timer();
    let outputs = match options {
        None => session.run(inputs.as_slice()),
        Some(options) => session.run_with_options(inputs.as_slice(), options),
    };
    let outputs = outputs.map_err(|error| failed(error.message()))?;
    timer.observe_duration();
    let mut columns = Vec::with_capacity(outputs.len());
    for ((name, value), says) in outputs.iter().zip(says) {
        let column = outputs::column(&value, shape, says).map_err(|cause| {
            Error::internal(format!("reading the model's output `{name}`"), format!("it {cause}"))
        })?;
        columns.push((name, column, true));
    }
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn input(tensor: Tensor) -> Result<SessionInputValue<'static>> {
    use ort::value::Tensor as Onnx;
    let Tensor { name, shape, data } = tensor;
    macro_rules! value {
        ($($kind:ident: $cell:ty),*) => {
            match data {
                $(TensorData::$kind(cells) => Onnx::from_array((shape, cells)).map(Into::into),)*
                // A text with a zero byte in it is the one value that ONNX Runtime does not take.
                TensorData::String(cells) => {
                    Onnx::from_string_array((shape, cells.as_slice())).map(Into::into)
                }
            }
        };
    }
    let value = each_number_kind!(value);
    value.map_err(|error| {
        let input = format!("the model's input `{name}`");
        let whole = format!("{input}: {}", error.message());
        Error::invalid(format!("{input} holds a text with a zero byte, which ONNX Runtime does not take"))
            .quoting(whole)
    })
}

/// That a run failed. ONNX Runtime quotes what it met, as the index that `Gather` does not find: so only the node is
/// for every reader of the log.
fn failed(said: &str) -> Error {
    let node = said.split_once(" Status Message:").map_or("ONNX Runtime fails", |(node, _)| node);
    Error::internal("running the model", node.to_owned()).quoting(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ten_thousand_rows_may_wait_for_is_long() {
        let is_long = |micros, micros_per_row| Cost { micros, micros_per_row }.is_long();
        assert!(!is_long(500.0, 500.0));
        assert!(is_long(1_500.0, 1_500.0));
        assert!(is_long(11e6, 0.0));
    }
}
