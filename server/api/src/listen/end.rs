//! How is a stream told to end?

use std::sync::Arc;

use tokio::sync::Notify;

/// Tells a stream to end.
#[derive(Debug, Clone, Default)]
pub(super) struct End(Arc<Notify>);

impl End {
    pub(super) fn tell(&self) {
        self.0.notify_one();
    }

    pub(super) async fn told(&self) {
        self.0.notified().await;
    }
}

tokio::task_local! {
    /// What ends the stream of this task. A request over HTTP/1 has its connection for a stream, and none here.
    pub(super) static END: End;
}
