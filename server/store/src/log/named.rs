//! Whose rows does a log number: those that were pushed to a source, or the labels of a model?
//!
//! Labels lie in the log as pushed rows do, under a name that no source can have. The head does not follow these.

/// What such a name begins with; the name of a source has no slash.
const LABELS: &str = "labels/";

/// The name under which a log has the labels of `model`.
pub fn labels_of(model: &str) -> String {
    format!("{LABELS}{model}")
}

/// The model whose labels a log has under this name; none where it has the rows of a source.
pub fn labelled_model(name: &str) -> Option<&str> {
    name.strip_prefix(LABELS)
}
