//! How is it caught that a library panics over what others wrote?
//!
//! Decoders and functions may panic where they should refuse. Whoever hands foreign bytes or values to one makes an
//! error of that. Nothing is printed then: whoever may send such bytes could fill the log.

use std::any::Any;
use std::cell::Cell;
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

/// How it panicked.
pub type Panic = Box<dyn Any + Send>;

thread_local! {
    /// Whether a panic is nobody's news.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`.
///
/// # Errors
/// Its panic.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |told| {
            if !QUIET.get() {
                others(told);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    done
}

/// The same while `work` goes on.
///
/// # Errors
/// Its panic.
pub async fn caught_while<T>(work: impl Future<Output = T>) -> Result<T, Panic> {
    let mut work = pin!(work);
    poll_fn(|context| match caught(|| work.as_mut().poll(context)) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// What a panic says, where it says anything.
pub fn told(panic: &Panic) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}
