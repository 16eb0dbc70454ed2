//! How far is a job that reads or copies bytes? A bar on stderr, where that is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes, shown from the first word on. Its clones are the same bar.
#[derive(Debug, Clone)]
pub(super) struct BytesBar(ProgressBar);

impl Default for BytesBar {
    fn default() -> Self {
        if !std::io::stderr().is_terminal() {
            return BytesBar(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(0);
        let look = "{wide_bar} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(look) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        BytesBar(bar)
    }
}

impl BytesBar {
    pub(super) fn show(&mut self, what: &str, done: u64, total: u64) {
        self.0.set_message(what.to_owned());
        self.0.set_length(total);
        self.0.set_position(done);
    }

    /// Says something beside it.
    pub(super) fn aside(&self, say: impl FnOnce()) {
        self.0.suspend(say);
    }

    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
