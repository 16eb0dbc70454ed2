//! Who stands in line for which sources?
//!
//! Whoever wants some waits for all who came before and want one of the same; those who want others pass.

use std::collections::BTreeSet;

use parking_lot::{Condvar, Mutex};

/// The line.
#[derive(Debug, Default)]
pub(super) struct Line {
    standing: Mutex<Standing>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct Standing {
    next: u64,
    /// In the order in which they came, those who have what they want too.
    all: Vec<(u64, Wants)>,
}

/// What somebody wants.
#[derive(Debug, Clone)]
pub(super) enum Wants {
    /// These sources.
    Sources(BTreeSet<String>),
    /// Every source.
    All,
}

/// Somebody who has it, until this is dropped.
pub(super) struct Place<'t> {
    line: &'t Line,
    number: u64,
}

impl Wants {
    fn overlaps(&self, other: &Wants) -> bool {
        match (self, other) {
            (Wants::Sources(some), Wants::Sources(others)) => !some.is_disjoint(others),
            (Wants::All, _) | (_, Wants::All) => true,
        }
    }
}

impl Line {
    /// Waits for it.
    pub(super) fn take(&self, wants: &Wants) -> Place<'_> {
        let mut standing = self.standing.lock();
        let number = standing.next;
        standing.next += 1;
        standing.all.push((number, wants.clone()));
        let is_before = |other: &&(u64, Wants)| other.0 < number;
        while standing.all.iter().take_while(is_before).any(|(_, before)| before.overlaps(wants)) {
            self.left.wait(&mut standing);
        }
        Place { line: self, number }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.standing.lock().all.retain(|(number, _)| *number != self.number);
        self.line.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{TryRecvError, channel};
    use std::thread;

    use super::*;

    fn of(names: &[&str]) -> Wants {
        Wants::Sources(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// Waits until so many stand there.
    fn until(line: &Line, count: usize) {
        while line.standing.lock().all.len() != count {
            thread::yield_now();
        }
    }

    #[test]
    fn who_wants_something_else_passes_and_who_wants_the_same_waits_in_order() {
        let line = Line::default();
        let (send, received) = channel();
        thread::scope(|scope| {
            let a = line.take(&of(&["a"]));
            let wait = |wants: Wants, name: &'static str| {
                let (line, send) = (&line, send.clone());
                scope.spawn(move || {
                    let place = line.take(&wants);
                    send.send(name).unwrap();
                    drop(place);
                });
            };
            wait(of(&["a", "b"]), "a and b");
            until(&line, 2);
            // Nobody has `b`, and yet somebody was there before.
            wait(of(&["b"]), "b");
            until(&line, 3);
            drop(line.take(&of(&["c"])));
            wait(Wants::All, "all");
            until(&line, 4);
            wait(of(&["c"]), "c");
            until(&line, 5);
            assert_eq!(received.try_recv(), Err(TryRecvError::Empty));
            drop(a);
            let came: Vec<_> = (0..4).map(|_| received.recv().unwrap()).collect();
            assert_eq!(came, ["a and b", "b", "all", "c"]);
        });
        assert!(line.standing.lock().all.is_empty());
    }
}
