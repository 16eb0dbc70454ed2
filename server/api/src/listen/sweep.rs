//! Which connections only hold on?

use std::time::Duration;

use quern_server::settings::Settings;

/// How long a client may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// To send the head of a request.
    pub(super) head: Duration,
    /// To send some more of a body.
    pub(super) body: Duration,
    /// To ask again.
    pub(super) idle: Duration,
    /// To keep a connection: one that is older is closed between two requests, and its client finds another server.
    pub(super) age: Duration,
    /// To take some more of a reply.
    pub(super) stream: Duration,
    /// The same once memory for requests is used up.
    pub(super) stream_when_full: Duration,
}

impl Limits {
    pub(super) fn of(settings: &Settings) -> Limits {
        Limits {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            // Longer than the load balancers keep theirs (60 s), so that they are the ones who close.
            idle: Duration::from_secs(75),
            age: Duration::from_secs(3_600),
            stream: settings.stream_idle,
            stream_when_full: settings.stream_idle.min(Duration::from_secs(30)),
        }
    }
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    /// Since when it has been open.
    pub(super) age: Duration,
    /// Requests under way.
    pub(super) requests: usize,
    /// Since when there has been none.
    pub(super) idle: Duration,
    /// Since when there is a part of a head, where there is one. Over HTTP/2 nobody can tell.
    pub(super) head: Option<Duration>,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays.
    Keep,
    /// It is closed once its requests are answered.
    Close,
    /// It is closed now.
    Cut,
}

/// What becomes of a connection that stands so.
pub(super) fn verdict(standing: &Standing, limits: &Limits) -> Verdict {
    let Standing { age, requests, idle, head } = *standing;
    match () {
        () if requests == 0 && head.is_some_and(|head| head > limits.head) => Verdict::Cut,
        // What was closed in good order may have a reply that nobody takes.
        () if requests == 0 && idle > 2 * limits.idle => Verdict::Cut,
        () if requests == 0 && idle > limits.idle => Verdict::Close,
        () if age > limits.age => Verdict::Close,
        () => Verdict::Keep,
    }
}

/// Whether a reader is let go that has taken nothing for so long of what there is for it.
pub(super) fn is_stuck(unread: Duration, limits: &Limits, is_full: bool) -> bool {
    unread > if is_full { limits.stream_when_full } else { limits.stream }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_only_holds_on_is_let_go() {
        let settings = Settings::load_from(std::path::Path::new("."), |_| None, &[]).unwrap();
        let limits = Limits::of(&settings);
        let of = |standing: Standing| verdict(&standing, &limits);
        let new = Standing::default();
        assert_eq!(of(new), Verdict::Keep);
        // A head that does not end, however often a byte of it comes.
        assert_eq!(of(Standing { head: Some(9 * SECOND), ..new }), Verdict::Keep);
        assert_eq!(of(Standing { head: Some(11 * SECOND), idle: SECOND, ..new }), Verdict::Cut);
        // The next request's head, sent while the one before is answered, waits for it.
        assert_eq!(of(Standing { head: Some(11 * SECOND), requests: 1, ..new }), Verdict::Keep);
        assert_eq!(of(Standing { idle: 74 * SECOND, ..new }), Verdict::Keep);
        assert_eq!(of(Standing { idle: 76 * SECOND, ..new }), Verdict::Close);
        assert_eq!(of(Standing { idle: 151 * SECOND, ..new }), Verdict::Cut);
        assert_eq!(of(Standing { age: 3_601 * SECOND, requests: 3, ..new }), Verdict::Close);
        let stuck = |seconds, is_full| is_stuck(seconds * SECOND, &limits, is_full);
        assert_eq!(
            [stuck(599, false), stuck(601, false), stuck(29, true), stuck(31, true)],
            [false, true, false, true]
        );
    }
}
