//! Do the files of a source hold what is declared, and what somebody uses?

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use feature_defs::{BatchSource, DefError, Format, Source};

use super::columns::Told;
use super::look::Look;
use super::{History, MISTAKES_SHOWN, columns, files, hive, infer};
use crate::error::Error;

impl History {
    /// The canonical schema of a source's rows, all columns nullable. Parquet and Arrow: the columns of all files by
    /// name, declared types before the files' own. CSV and sources that are only pushed to: the declared columns. Looks
    /// at every file.
    ///
    /// # Errors
    ///
    /// Every column that is missing in all files, or of a wrong type in one, with the file and both types; every file
    /// that cannot be read.
    pub fn schema(&self, source: &Source) -> std::result::Result<SchemaRef, Vec<DefError>> {
        let Some(batch) = &source.batch else { return columns::declared_schema(source) };
        let found = files::find(&self.places, source, batch).map_err(|missed| vec![missed.mistake])?;
        let unreadable = |error: &Error| {
            let cause = format!("source `{}`: {}", source.name, error.said());
            DefError::new(&batch.loc, cause).with_help("rewrite the file, or leave it out of the path")
        };
        let Some(first) = found.first() else {
            return match files::columns(&self.places, batch) {
                Some(fields) => columns::file_schema(source, &Told::of_table(&batch.path, &Look::of(fields))),
                None => columns::declared_schema(source),
            };
        };
        if let (Some(why), true) = (source.must_declare(), source.columns.is_empty()) {
            let undeclared = infer::undeclared(source, batch, first.clone(), why);
            return Err(vec![undeclared.unwrap_or_else(|error| unreadable(&error))]);
        }
        let declared = match batch.format {
            Format::Csv | Format::Json => columns::declared_schema(source)?,
            Format::Parquet | Format::Arrow | Format::Delta | Format::Iceberg => Arc::new(Schema::empty()),
        };
        let looks = self.looks.at(&found, batch, &declared);
        let unreadable = looks.iter().filter_map(|(_, look)| look.as_ref().err()).map(unreadable);
        let unreadable: Vec<DefError> = unreadable.take(MISTAKES_SHOWN).collect();
        // Most say the same, which is one and the same then.
        let mut seen = HashSet::new();
        let told =
            looks.iter().filter_map(|(place, look)| Some((found[*place].name.as_str(), look.as_ref().ok()?)));
        let told = told.filter(|(_, look)| seen.insert(Arc::as_ptr(look)));
        let files: Vec<(&str, &Look)> = told.map(|(name, look)| (name, look.as_ref())).collect();
        if files.is_empty() {
            return Err(unreadable);
        }
        let folders = columns::of_folders(source, hive::columns(&found), &files);
        let told = Told { files, folders };
        let schema = match batch.format {
            Format::Parquet | Format::Arrow | Format::Delta | Format::Iceberg => {
                columns::file_schema(source, &told)
            }
            Format::Csv | Format::Json => match columns::missing(source, batch.format, &told) {
                mistakes if mistakes.is_empty() => Ok(declared),
                mistakes => Err(mistakes),
            },
        };
        match schema {
            Ok(schema) if unreadable.is_empty() => Ok(schema),
            schema => Err(unreadable.into_iter().chain(schema.err().unwrap_or_default()).collect()),
        }
    }

    /// How the files of a source fall short of `used`, the columns that somebody reads, and of what is declared.
    /// Looks at every file, of which [`History::schema`] remembers what it said.
    pub fn fits(&self, source: &Source, used: &Schema) -> Fits {
        let Some(batch) = &source.batch else { return Fits::default() };
        let Ok(found) = files::find(&self.places, source, batch) else { return Fits::default() };
        let wanted = columns::wanted(source, used);
        let (mut mistakes, mut gaps) = (Vec::new(), Gaps::of(&wanted));
        for (place, look) in self.looks.at(&found, batch, &wanted) {
            let Ok(look) = look else { continue };
            mistakes.extend(columns::mismatches(source, &wanted, &found[place].name, &look));
            gaps.note(&found[place].name, &look);
        }
        Fits { mistakes: listed(source, batch, mistakes), gaps: gaps.told(source, batch.format) }
    }
}

/// At most so many mistakes, at the path of the files.
fn listed(source: &Source, batch: &BatchSource, mut mistakes: Vec<(String, String)>) -> Vec<DefError> {
    let more = mistakes.len().saturating_sub(MISTAKES_SHOWN);
    mistakes.truncate(MISTAKES_SHOWN);
    if more > 0 {
        let cause = format!("source `{}`: {more} more columns of files do not fit", source.name);
        mistakes.push((cause, String::new()));
    }
    let mistake = |(cause, help): (String, String)| {
        let mistake = DefError::new(&batch.loc, cause);
        if help.is_empty() { mistake } else { mistake.with_help(help) }
    };
    mistakes.into_iter().map(mistake).collect()
}

/// How the files of a source fit what is asked of them.
#[derive(Debug, Default)]
pub struct Fits {
    /// What is wrong.
    pub mistakes: Vec<DefError>,
    /// Which columns some files lack, where they are null: for people, since of a renamed column all new rows are.
    pub gaps: Vec<String>,
}

/// Which of the wanted columns how many of the files lack, and the first that does.
struct Gaps<'a> {
    files: usize,
    lacking: Vec<(&'a str, usize, String)>,
}

impl<'a> Gaps<'a> {
    fn of(wanted: &'a Schema) -> Self {
        let names = wanted.fields().iter().map(|field| (field.name().as_str(), 0, String::new()));
        Gaps { files: 0, lacking: names.collect() }
    }

    fn note(&mut self, file: &str, look: &Look) {
        self.files += 1;
        let lacks = |name: &str| look.fields.find(name).is_none() && !hive::says(file, name);
        for (_, count, first) in self.lacking.iter_mut().filter(|(name, ..)| lacks(name)) {
            if *count == 0 {
                file.clone_into(first);
            }
            *count += 1;
        }
    }

    fn told(self, source: &Source, format: Format) -> Vec<String> {
        let Gaps { files, lacking } = self;
        // Of a JSON file the first lines are looked at, and a later one may have what they lack.
        let shows_all = format != Format::Json;
        let is_gap = |count: usize| count > 0 && (shows_all || count == files);
        let lacking =
            lacking.into_iter().filter(|(name, count, _)| is_gap(*count) && *name != source.event_timestamp);
        let told = lacking.map(|(column, count, first)| match shows_all {
            true => format!(
                "source `{}`: {count} of {files} files lack column `{column}`, `{first}` is the first: it is null in their \
                 rows; if they call it otherwise, rename it there",
                source.name
            ),
            false => format!(
                "source `{}`: no file shows column `{column}` in its first lines, `{first}` is the first; if it is called \
                 otherwise there, it is null",
                source.name
            ),
        });
        told.take(MISTAKES_SHOWN).collect()
    }
}
