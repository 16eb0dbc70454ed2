//! How do columns go into a model, and what did it say when it was tried? Its `Display` is for people.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most columns of an input that are told to people; JSON has all.
const COLUMNS_SHOWN: usize = 8;

/// A file of a model version: how it is fed, and how its trial went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFit {
    /// Name of the model.
    pub model: String,
    /// Name of the version.
    pub version: String,
    /// The step that runs it; absent where the version is one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// What fills each of its inputs, in the file's order.
    pub inputs: Vec<InputFit>,
    /// How its trial went.
    pub tried: Trial,
}

/// An input of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputFit {
    /// The file's name for it.
    pub input: String,
    /// The type of its elements, as in `float32`.
    #[serde(rename = "type")]
    pub dtype: String,
    /// As in `[N, 3]`.
    pub shape: String,
    /// The columns that fill it, side by side.
    pub columns: Vec<ColumnFit>,
}

/// A column, as it goes into an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ColumnFit {
    /// Its name.
    pub column: String,
    /// Its type.
    #[serde(rename = "type")]
    pub dtype: String,
    /// What happens to its values, as in `rounded`; absent where they stay as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cast: Option<String>,
    /// What null becomes, as in `NaN`; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null: Option<String>,
}

/// What a model was tried on before it went live, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trial {
    /// `examples`, `history`, `defaults`, `zeros` or `ones`; `nothing` where a server tells of its model.
    pub on: String,
    /// Why it fails on all rows that could be made up: it goes live all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What it says of the first row, output by output; absent where it fails, and of rows of history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
}

impl ModelFit {
    /// As in ``model `fraud`, version `3`, step `embed` ``.
    pub fn name(&self) -> String {
        let step = self.step.as_ref().map(|step| format!(", step `{step}`")).unwrap_or_default();
        format!("model `{}`, version `{}`{step}", self.model, self.version)
    }
}

impl fmt::Display for ModelFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name(), self.tried)?;
        let head = ["input".to_owned(), "takes".to_owned(), "from".to_owned()];
        let mut rows = vec![head];
        for InputFit { input, dtype, shape, columns } in &self.inputs {
            let mut place = [input.clone(), format!("{dtype} {shape}")];
            for alike in columns.chunk_by(|a, b| (&a.dtype, &a.cast, &a.null) == (&b.dtype, &b.cast, &b.null))
            {
                let [input, takes] = std::mem::take(&mut place);
                rows.push([input, takes, said(alike)]);
            }
        }
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths = [width(0), width(1)];
        let lines = rows.iter().map(|[input, takes, from]| {
            format!("  {input:0$}  {takes:1$}  {from}", widths[0], widths[1]).trim_end().to_owned()
        });
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// Columns that go in alike.
fn said(columns: &[ColumnFit]) -> String {
    let Some(ColumnFit { dtype, cast, null, .. }) = columns.first() else { return String::new() };
    let names = columns.iter().take(COLUMNS_SHOWN).map(|column| column.column.as_str());
    let mut names = names.collect::<Vec<_>>().join(", ");
    if columns.len() > COLUMNS_SHOWN {
        names += &format!(" and {} more", columns.len() - COLUMNS_SHOWN);
    }
    let null = null.as_ref().map(|null| format!("null: {null}"));
    let what: Vec<&str> =
        [Some(dtype), cast.as_ref(), null.as_ref()].into_iter().flatten().map(String::as_str).collect();
    format!("{names} ({})", what.join(", "))
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = match self.on.as_str() {
            "examples" => "its examples",
            "history" => "rows of its history",
            made_up => made_up,
        };
        match (&self.failed, &self.said) {
            (Some(failed), _) => write!(f, "{failed}; with `examples:` it is tried on rows that it knows"),
            (None, Some(said)) => write!(f, "tried on {on}, it says of the first row: {said}"),
            (None, None) if on == "nothing" => f.write_str("fitted to what its server tells of it"),
            (None, None) => write!(f, "tried on {on}"),
        }
    }
}
