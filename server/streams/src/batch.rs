//! Which events are pushed together, and what is said of those that are no good?

use std::collections::HashSet;

use feature_defs::Source;
use quern_decode::json::Json;
use quern_server::verbs::push::Position;
use quern_wire::Rejected;

use crate::error::Error;

/// What an event says, or why that cannot be told.
pub(crate) type Event<'a> = std::result::Result<Json<'a>, String>;

/// Events that are pushed together, with how far their stream was read then.
pub(crate) struct Batch<'a> {
    pub(crate) events: &'a [Event<'a>],
    /// Where each of them lies, for people.
    pub(crate) place: &'a (dyn Fn(usize) -> String + Sync),
    pub(crate) positions: Vec<Position>,
    /// How reading may begin after them, where no event of the stream was ever taken in. Then none is passed over as
    /// long as none is any good: what is wrong is the definition.
    pub(crate) way_past: Option<&'static str>,
}

impl Batch<'_> {
    /// Why none of them was passed over.
    pub(crate) fn held(&self, rejected: &[Rejected], way_past: &str) -> Error {
        let (first, events) = (self.first(rejected), self.events.len());
        Error::refused(format!(
            "all of the first {events} events were refused, so none is passed over yet: {first}; mend the definition, or \
             {way_past}"
        ))
    }

    /// The columns of `source` that none of them has.
    pub(crate) fn lacking(&self, source: &Source) -> Vec<String> {
        let entries = self.events.iter().filter_map(|event| match event {
            Ok(Json::Object(entries)) => Some(entries),
            _ => None,
        });
        let found: HashSet<&str> = entries.flatten().map(|(name, _)| name.as_ref()).collect();
        let names = source.columns.iter().map(|column| column.name.as_str());
        names.filter(|name| !found.contains(name)).map(|name| format!("`{name}`")).collect()
    }

    /// Where the first of `rejected` lies, and what is wrong with it.
    pub(crate) fn first(&self, rejected: &[Rejected]) -> String {
        let Some(Rejected { index, column, cause }) = rejected.first() else { return String::new() };
        let column = column.as_ref().map(|column| format!("column `{column}`: ")).unwrap_or_default();
        format!("{}: {column}{}", (self.place)(*index), without_values(cause))
    }
}

const QUOTES: [char; 2] = ['"', '\''];

/// A cause without what it quotes of an event, which belongs to people who never asked: what stands in quotes, and
/// numbers of several digits.
fn without_values(cause: &str) -> String {
    // A text that is cast.
    if let Some((_, dtype)) = cause.rsplit_once("` is no ") {
        return format!("a value is no {dtype}");
    }
    // What is expected quotes nothing.
    let (expected, found) = cause.split_at(cause.find(", found ").unwrap_or(0));
    let found = match (found.find(QUOTES), found.rfind(QUOTES)) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &found[..first], &found[last + 1..]),
        _ => found.to_owned(),
    };
    let words = found.split(' ').map(|word| {
        let number = word.trim_end_matches([',', ';', ':', ')']);
        let digits = number.trim_start_matches(['-', '(']);
        match digits.len() > 1 && digits.starts_with(|letter: char| letter.is_ascii_digit()) {
            true => format!("…{}", &word[number.len()..]),
            false => word.to_owned(),
        }
    });
    format!("{expected}{}", words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_without_what_it_quotes() {
        for (cause, told) in [
            ("the event timestamp is null", "the event timestamp is null"),
            (
                "expected timestamp (RFC 3339, or whole microseconds), found string \"on \\\"Monday\\\"\"",
                "expected timestamp (RFC 3339, or whole microseconds), found string …",
            ),
            (
                "expected timestamp, found number 1767225600, which looks like seconds; `format` says it",
                "expected timestamp, found number …, which looks like seconds; `format` says it",
            ),
            ("expected int64, found number -12.5", "expected int64, found number …"),
            ("expected int64, found an object of 3", "expected int64, found an object of 3"),
            (
                "the event names no schema: it does not begin with 0 and a number",
                "the event names no schema: it does not begin with 0 and a number",
            ),
            ("in `v`: `S3CRET` is no float64", "a value is no float64"),
            ("Cannot cast string 'S3CRET' to Int64", "Cannot cast string … to Int64"),
            ("Overflow happened on: 9223372036854775807 + 11", "Overflow happened on: … + …"),
        ] {
            assert_eq!(without_values(cause), told);
        }
    }

    #[test]
    fn what_is_held_says_where_its_first_fault_lies() {
        let events = [Err("no".to_owned()), Err("no".to_owned())];
        let place = |index: usize| format!("partition 0, offset {}", 17 + index);
        let batch = Batch { events: &events, place: &place, positions: Vec::new(), way_past: None };
        let cause = "the event timestamp is null".to_owned();
        let rejected = [Rejected { index: 1, column: Some("at".to_owned()), cause }];
        assert_eq!(
            batch.held(&rejected, "say `start: latest` to begin after them").to_string(),
            "all of the first 2 events were refused, so none is passed over yet: partition 0, offset 18: column `at`: the \
             event timestamp is null; mend the definition, or say `start: latest` to begin after them"
        );
    }
}
