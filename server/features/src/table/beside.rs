//! How does what is read piece by piece become an iterator?

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};

use arrow::array::RecordBatch;
use quern_engine::Failed;

use super::Take;
use crate::error::{Error, Result};

/// Batches made ahead.
const AHEAD: usize = 1;

/// What a thread of its own makes, as it is taken; the thread ends when nobody takes any more.
pub(super) struct Beside<T> {
    made: Receiver<T>,
    /// None once it has ended.
    maker: Option<JoinHandle<Result<()>>>,
}

impl Beside<(RecordBatch, Failed)> {
    /// Begins to make them. Batches without rows are passed over.
    pub(super) fn begin(
        what: &'static str,
        make: impl FnOnce(&mut Take<'_>) -> Result<()> + Send + 'static,
    ) -> Self {
        let (sender, made) = sync_channel(AHEAD);
        let maker = thread::spawn(move || {
            make(&mut |batch, failed| match batch.num_rows() {
                0 => Ok(()),
                _ => sender.send((batch, failed)).map_err(|error| Error::internal(what, error)),
            })
        });
        Beside { made, maker: Some(maker) }
    }
}

impl<T> Iterator for Beside<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Ok(made) = self.made.recv() {
            return Some(Ok(made));
        }
        // What ended early must not look whole.
        match self.maker.take()?.join() {
            Ok(ended) => ended.err().map(Err),
            Err(panic) => resume_unwind(panic),
        }
    }
}
