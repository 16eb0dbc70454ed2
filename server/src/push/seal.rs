//! When are pushed rows written into a file?

use crate::Quern;
use crate::metrics::metrics;

/// From so many rows on, or so many bytes, the tail is written into a file.
const SEAL_ROWS: usize = 1 << 17;
const SEAL_BYTES: usize = 64 << 20;

/// Whether the tail is to be written into a file.
pub(super) fn is_large(quern: &Quern, source: &str) -> bool {
    let (rows, bytes) = quern.history.pushed.of(source).tail_size();
    metrics().pushed_tail_rows.with_label_values(&[source]).set(rows as i64);
    rows >= SEAL_ROWS || bytes >= SEAL_BYTES
}

/// Writes the tail into files where it is so large.
pub(super) fn seal_if_large(quern: &Quern, source: &str) {
    if is_large(quern, source) {
        seal(quern, source);
    }
}

/// Writes the tail into files.
pub(super) fn seal(quern: &Quern, source: &str) {
    // Whoever makes the head from history takes from the tail what came meanwhile: it stays until then.
    let Some(_alone) = quern.materializing.try_lock() else { return };
    let sealed = quern.history.pushed.seal(source).and_then(|end| quern.log.sealed(source, end));
    if let Err(error) = sealed {
        tracing::warn!(source, cause = %error, "pushed rows could not be written into a file; they stay in the tail");
    }
    let (rows, _) = quern.history.pushed.of(source).tail_size();
    metrics().pushed_tail_rows.with_label_values(&[source]).set(rows as i64);
}
