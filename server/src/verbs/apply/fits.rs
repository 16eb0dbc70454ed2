//! How is a version fed, and how did its trial go? As it is told to who checks or applies it.

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;
use quern_engine::fit::Filled;
use quern_inference::{Model, Part, Tried};
use quern_wire::{ColumnFit, InputFit, ModelFit, Trial};

/// Each file of a version.
pub(super) fn fits((model, version): (&str, &str), loaded: &Model) -> Vec<ModelFit> {
    let fit = |part: Part<'_>| ModelFit {
        model: model.to_owned(),
        version: version.to_owned(),
        step: Some(part.step.to_owned()).filter(|step| !step.is_empty()),
        inputs: part.filled.iter().map(input).collect(),
        tried: trial(part.tried),
    };
    loaded.parts().map(fit).collect()
}

/// The trial on rows of history.
pub(super) fn on_history() -> Trial {
    Trial { on: "history".to_owned(), failed: None, said: None }
}

fn input(filled: &Filled) -> InputFit {
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let columns = filled.columns.iter().map(|filling| ColumnFit {
        column: filling.column.clone(),
        dtype: filling.dtype.clone(),
        cast: said(&filling.cast),
        null: said(&filling.null),
    });
    InputFit {
        input: filled.input.clone(),
        dtype: filled.element.to_string(),
        shape: filled.shape.clone(),
        columns: columns.collect(),
    }
}

fn trial(Tried { on, failed, said }: &Tried) -> Trial {
    Trial { on: on.name().to_owned(), failed: failed.clone(), said: said.as_ref().and_then(first) }
}

/// The first row of outputs, for people.
fn first(outputs: &RecordBatch) -> Option<String> {
    let outputs = outputs.schema_ref().fields().iter().zip(outputs.columns());
    let said = outputs
        .map(|(field, column)| Some(format!("{} {}", field.name(), array_value_to_string(column, 0).ok()?)));
    Some(said.collect::<Option<Vec<_>>>()?.join(", "))
}
