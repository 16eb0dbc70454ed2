//! Which schemas does a schema of a registry stand on? What is imported comes first.
//!
//! Schemas name others, which name others. Each is asked for once, however many name it; a circle has no first one.

use std::collections::BTreeMap;

use quern_base::secret::encoded;
use quern_http::Refused;
use serde_json::Value;

/// More than this no schema stands on.
const REFERENCES_MAX: usize = 500;

/// What a schema calls another one, and where a registry has that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    name: String,
    subject: String,
    version: i64,
}

impl Reference {
    /// Where it is, below the path of a registry.
    pub(super) fn path(&self) -> String {
        format!("subjects/{}/versions/{}", encoded(&self.subject), self.version)
    }
}

/// That what answers is no registry.
pub(super) fn odd() -> Refused {
    Refused::odd("it does not answer as a registry of schemas does")
}

/// What a registry says that a schema names.
pub(super) fn references(said: &Value) -> Result<Vec<Reference>, Refused> {
    let reference = |said: &Value| -> Result<Reference, Refused> {
        let text = |key: &str| said[key].as_str().map(str::to_owned).ok_or_else(odd);
        let version = said["version"].as_i64().ok_or_else(odd)?;
        Ok(Reference { name: text("name")?, subject: text("subject")?, version })
    };
    said["references"].as_array().into_iter().flatten().map(reference).collect()
}

/// A way down through what a schema stands on. Who walks it asks for what [`next`](Below::next) says, and says by
/// [`found`](Below::found) what that is.
pub(super) struct Below {
    /// Those whose references are being followed, the outermost first.
    open: Vec<Open>,
    /// The texts that were found, by subject and version.
    known: BTreeMap<(String, i64), String>,
    /// By name, what is imported first.
    done: Vec<(String, String)>,
}

/// A schema, and what it names that was not looked at yet, the first at the end.
struct Open {
    /// None of the schema at the top, which is known by its number.
    by: Option<(Reference, String)>,
    rest: Vec<Reference>,
}

impl Below {
    pub(super) fn of(first: Vec<Reference>) -> Below {
        let mut below = Below { open: Vec::new(), known: BTreeMap::new(), done: Vec::new() };
        below.enter(None, first);
        below
    }

    fn enter(&mut self, by: Option<(Reference, String)>, mut rest: Vec<Reference>) {
        rest.reverse();
        self.open.push(Open { by, rest });
    }

    /// What is to be asked for; none where all is known.
    ///
    /// # Errors
    /// A circle, and more than any schema stands on.
    pub(super) fn next(&mut self) -> Result<Option<Reference>, String> {
        while let Some(top) = self.open.last_mut() {
            let Some(reference) = top.rest.pop() else {
                let ended = self.open.pop().and_then(|ended| ended.by);
                self.done.extend(ended.map(|(reference, text)| (reference.name, text)));
                continue;
            };
            let is_it =
                |open: &Reference| open.subject == reference.subject && open.version == reference.version;
            let mut around = self.open.iter().filter_map(|open| open.by.as_ref());
            if around.any(|(open, _)| is_it(open)) {
                let by = self.open.last().and_then(|open| open.by.as_ref());
                let by = by.map_or("", |(by, _)| by.subject.as_str());
                return Err(format!("`{}` and `{by}` refer to one another in a circle", reference.subject));
            }
            // As Confluent's clients do, the first of a name is meant.
            if self.done.iter().any(|(name, _)| *name == reference.name) {
                continue;
            }
            if let Some(text) = self.known.get(&(reference.subject.clone(), reference.version)) {
                self.done.push((reference.name, text.clone()));
                continue;
            }
            if self.known.len() >= REFERENCES_MAX {
                return Err(format!("it stands on more than {REFERENCES_MAX} others"));
            }
            return Ok(Some(reference));
        }
        Ok(None)
    }

    /// What was asked for: its text, and what it names.
    pub(super) fn found(&mut self, reference: Reference, text: String, names: Vec<Reference>) {
        self.known.insert((reference.subject.clone(), reference.version), text.clone());
        self.enter(Some((reference, text)), names);
    }

    /// All of it: names and texts, what is imported first.
    pub(super) fn into_texts(self) -> Vec<(String, String)> {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(subject: &str) -> Reference {
        Reference { name: format!("{subject}.proto"), subject: subject.to_owned(), version: 1 }
    }

    /// The subjects below `first` in their order, and what was asked for; `names` says what each names.
    fn walked(
        first: &[&str],
        names: impl Fn(&str) -> Vec<String>,
    ) -> (Result<Vec<String>, String>, Vec<String>) {
        let mut below = Below::of(first.iter().map(|subject| reference(subject)).collect());
        let mut asked = Vec::new();
        loop {
            match below.next() {
                Ok(Some(next)) => {
                    asked.push(next.subject.clone());
                    let (text, named) = (format!("text of {}", next.subject), names(&next.subject));
                    below.found(next, text, named.iter().map(|subject| reference(subject)).collect());
                }
                Ok(None) => break,
                Err(why) => return (Err(why), asked),
            }
        }
        let texts = below.into_texts();
        assert!(texts.iter().all(|(name, text)| format!("text of {name}") == format!("{text}.proto")));
        (Ok(texts.into_iter().map(|(name, _)| name.trim_end_matches(".proto").to_owned()).collect()), asked)
    }

    #[test]
    fn what_is_imported_comes_first_and_is_asked_for_once() {
        let names = |subject: &str| match subject {
            "order" => vec!["item".to_owned(), "money".to_owned()],
            "item" => vec!["money".to_owned()],
            _ => Vec::new(),
        };
        let (found, asked) = walked(&["money", "order", "item"], names);
        assert_eq!(found.unwrap(), ["money", "item", "order"]);
        assert_eq!(asked, ["money", "order", "item"]);
        let (found, _) = walked(&["order"], names);
        assert_eq!(found.unwrap(), ["money", "item", "order"]);
    }

    #[test]
    fn diamonds_cost_no_more_than_what_is_in_them() {
        // Each names the two of the next floor: ways to the last one double with each.
        let names = |subject: &str| {
            let floor: u32 = subject[1..].parse().unwrap();
            if floor < 60 { vec![format!("a{}", floor + 1), format!("b{}", floor + 1)] } else { Vec::new() }
        };
        let (found, asked) = walked(&["a0", "b0"], names);
        assert_eq!((found.unwrap().len(), asked.len()), (122, 122));
    }

    #[test]
    fn a_circle_is_refused_by_name_and_so_is_no_end() {
        let names = |subject: &str| match subject {
            "a" => vec!["b".to_owned()],
            "b" => vec!["c".to_owned()],
            "c" => vec!["b".to_owned()],
            _ => vec![format!("{subject}x")],
        };
        let (found, asked) = walked(&["a"], names);
        assert_eq!(found.unwrap_err(), "`b` and `c` refer to one another in a circle");
        assert_eq!(asked, ["a", "b", "c"]);
        let (found, asked) = walked(&["x"], names);
        assert_eq!(found.unwrap_err(), "it stands on more than 500 others");
        assert_eq!(asked.len(), REFERENCES_MAX);
    }

    #[test]
    fn one_that_has_two_names_stands_under_both() {
        let called = |name: &str| Reference { name: name.to_owned(), ..reference("money") };
        let mut below = Below::of(vec![called("money.proto"), called("cash.proto")]);
        let next = below.next().unwrap().unwrap();
        assert_eq!((next.path().as_str(), &next), ("subjects/money/versions/1", &called("money.proto")));
        below.found(next, "text".to_owned(), Vec::new());
        assert_eq!(below.next(), Ok(None));
        let names: Vec<String> = below.into_texts().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["money.proto", "cash.proto"]);
    }
}
