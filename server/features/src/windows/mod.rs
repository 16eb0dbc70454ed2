//! What happened to these keys within their windows? Events of history, gathered by key, for training and for the head.

pub(crate) mod gather;
pub(crate) mod head;
pub(crate) mod train;
