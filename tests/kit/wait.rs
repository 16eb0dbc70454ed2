//! How does a test wait? For what comes about by itself, and for work that blocks.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

/// Asks again and again until `found` is something, and fails where that takes far longer than it can.
pub async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} takes more than a minute");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Runs work that waits for a disk or a process, kept off the threads that answer.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Makes a runtime of two threads, for tests that run several times or stop servers in between.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
