//! Which feature vectors are the examples of a model?

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use feature_defs::{DefError, Example, Literal, suggest};

use crate::ServicePlan;
use crate::default::constant;
use crate::schema::{quern_type, type_name};

const ROWS_MAX: usize = 256;

/// `examples` as vectors of `service`; none where there are none. What one leaves out has its declared default, or is
/// null.
///
/// # Errors
/// A column that the service does not have, a value that its column cannot have, and where that stands.
pub fn vectors(service: &ServicePlan, examples: &[Example]) -> Result<Option<RecordBatch>, DefError> {
    let Some(first) = examples.first() else { return Ok(None) };
    if examples.len() > ROWS_MAX {
        let cause = format!("{} examples are more than a trial needs: at most {ROWS_MAX}", examples.len());
        return Err(DefError::new(&first.loc, cause).with_help("keep those that differ most"));
    }
    let fields = service.outputs.fields();
    for (column, _) in examples.iter().flat_map(|example| &example.values) {
        let names = || fields.iter().map(|field| field.name().as_str());
        if names().all(|name| name != column.sql) {
            let cause = format!("feature service `{}` has no column `{}`", service.name, column.sql);
            return Err(DefError::new(&column.loc, cause).with_help(suggest(&column.sql, names())));
        }
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(fields.len());
    for (field, default) in fields.iter().zip(&service.defaults) {
        let cell = |example: &Example| -> Result<ArrayRef, DefError> {
            let given = example.values.iter().find(|(column, _)| column.sql == *field.name());
            let wrong = |wants: String| {
                let (name, dtype) = (field.name(), type_name(field.data_type()));
                let cause = format!("example: `{name}`, which is {dtype}, must be {wants}");
                DefError::new(given.map_or(&example.loc, |(column, _)| &column.loc), cause)
            };
            let literal: Option<Literal> = match (given, quern_type(field.data_type())) {
                (Some((_, given)), Some(dtype)) => {
                    let fitted = feature_defs::fit(given.clone(), dtype);
                    Some(fitted.map_err(|wants| wrong(format!("{wants}; found {given}")))?)
                }
                (Some(_), None) => return Err(wrong("left out: nothing is written so".to_owned())),
                (None, _) => default.clone(),
            };
            match literal {
                Some(literal) => {
                    constant(&literal, field.data_type()).map_err(|error| wrong(error.to_string()))
                }
                None if field.is_nullable() => Ok(new_null_array(field.data_type(), 1)),
                None => Err(wrong("given: it is never null, and has no `default`".to_owned())),
            }
        };
        let cells = examples.iter().map(cell).collect::<Result<Vec<_>, _>>()?;
        let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
        columns.push(concat(&cells).map_err(|error| DefError::new(&first.loc, error.to_string()))?);
    }
    let vectors = RecordBatch::try_new(Arc::clone(&service.outputs), columns);
    vectors.map(Some).map_err(|error| DefError::new(&first.loc, error.to_string()))
}
