//! What did history say about these keys at these times?
//!
//! Views over one source, windows included, share the pass that looks at every row: decoding the files is what it costs
//! most.

use std::collections::BTreeMap;

use quern_store::history::{History, Scan, State};
use quern_store::objects::Reads;

use crate::compiled::Compiled;
use crate::error::{Error, Result};
use crate::latest::Finding;
pub use crate::question::{Answer, Question};
use crate::read::{Visitor, read_once};
use crate::windows::gather::turns_of;
use crate::windows::train::{Windowed, in_groups};

/// The answers, in the order of the questions, the state in which each source was found, and what was read of buckets.
pub type Answered = (Vec<Answer>, BTreeMap<String, State>, Reads);

/// Asks history, and opens and reads each source once for all questions about it. Reads files: call it where blocking
/// is allowed.
pub fn ask(history: &History, live: &Compiled, questions: &[Question]) -> Result<Answered> {
    let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, question) in questions.iter().enumerate() {
        if u32::try_from(question.keys.len()).is_err() {
            return Err(Error::too_large("a spine holds at most 4,294,967,295 rows; send it in parts"));
        }
        by_source.entry(&question.view.source).or_default().push(index);
    }
    let (mut answers, mut states) = (Vec::with_capacity(questions.len()), BTreeMap::new());
    let mut reads = Reads::default();
    for (source, indices) in by_source {
        let scan = live.open(history, questions[indices[0]].view)?;
        let found = ask_source(&scan, indices.iter().map(|index| &questions[*index]))?;
        answers.extend(indices.into_iter().zip(found));
        states.insert(source.to_owned(), scan.state.clone());
        reads += scan.reads();
    }
    answers.sort_unstable_by_key(|(index, _)| *index);
    Ok((answers.into_iter().map(|(_, answer)| answer).collect(), states, reads))
}

/// A question that history streams past.
enum Asked<'a> {
    Rows(Box<Finding<'a>>),
    Windows(Box<Windowed<'a>>),
}

impl<'a> Asked<'a> {
    fn rows(&self) -> Option<&Finding<'a>> {
        match self {
            Asked::Rows(finding) => Some(finding),
            Asked::Windows(_) => None,
        }
    }

    fn windows(&self) -> Option<&Windowed<'a>> {
        match self {
            Asked::Rows(_) => None,
            Asked::Windows(asked) => Some(asked),
        }
    }
}

/// Answers questions about one source. It is read once for all of them, unless windows take turns.
pub(crate) fn ask_source<'a>(
    scan: &'a Scan,
    questions: impl Iterator<Item = &'a Question<'a>>,
) -> Result<Vec<Answer>> {
    let asked = questions.map(|question| {
        Ok(match &question.view.windows {
            Some(windows) => Asked::Windows(Box::new(Windowed::new(scan, windows, question)?)),
            None => Asked::Rows(Box::new(Finding::new(scan, question)?)),
        })
    });
    let asked: Vec<Asked> = asked.collect::<Result<_>>()?;
    let of_rows = asked.iter().filter_map(Asked::rows);
    let mut of_rows: Vec<Visitor> = of_rows.map(|finding| finding.visitor(scan)).collect();
    for together in in_groups(asked.iter().filter_map(Asked::windows)) {
        let turns = turns_of(together.iter().map(|asked| asked.bytes()).sum());
        for now in 0..turns {
            let of_windows = together.iter().map(|asked| asked.visitor(now, turns));
            read_once(scan, &of_rows.drain(..).chain(of_windows).collect::<Vec<_>>())?;
            together.iter().try_for_each(|asked| asked.sweep(now, turns))?;
        }
    }
    drop(of_rows);
    let answers = asked.into_iter().map(|asked| match asked {
        Asked::Rows(finding) => finding.fetch(scan),
        Asked::Windows(asked) => asked.answer(),
    });
    answers.collect()
}
