//! On what terms is a prediction asked for? What the request is called, until when somebody waits, and who goes first.
//!
//! The headers say it for every way to ask; a request of the Open Inference Protocol may say it in its parameters too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::error::ApiError;
use super::http::{REQUEST_ID, REQUEST_ID_BYTES_MAX};
use crate::error::{Error, Result};
use quern_server::Node;
use quern_server::verbs::predict::{Ask, Given, Priority};
use quern_wire::VERSION_HEADER;

/// The last of Triton's priorities, which begin at 1, for which somebody waits. 0 is that of who names none.
const INTERACTIVE_MAX: u64 = 1;

/// The terms of one request.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    /// The client's name for the request, or ours.
    pub request_id: String,
    /// The version that is to answer, whatever the route says.
    pub version: Option<String>,
    deadline: Option<Instant>,
    priority: Priority,
}

impl FromRequestParts<Arc<Node>> for Terms {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Node>) -> std::result::Result<Self, ApiError> {
        Ok(Terms::of(&parts.headers)?)
    }
}

impl Terms {
    /// What the headers say; those of a call over gRPC are its metadata.
    ///
    /// # Errors
    /// A header that cannot be read, and what it should be.
    pub(super) fn of(headers: &HeaderMap) -> Result<Terms> {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let mut terms = Terms::default();
        if let Some(id) = headers.get(REQUEST_ID) {
            terms.request_id = String::from_utf8_lossy(id.as_bytes()).into_owned();
        }
        terms.version = header(VERSION_HEADER).map(str::to_owned);
        if let Some(text) = header("x-request-timeout-ms") {
            let millis = text.parse().map_err(|_| {
                Error::invalid(format!(
                    "header `x-request-timeout-ms`: `{text}` is no number of milliseconds"
                ))
            })?;
            terms.wait_for(Duration::from_millis(millis));
        }
        if let Some(text) = header("grpc-timeout") {
            let timeout = grpc_timeout(text).ok_or_else(|| {
                Error::invalid(format!("header `grpc-timeout`: `{text}` is no time, as `100m` is"))
            })?;
            terms.wait_for(timeout);
        }
        if let Some(text) = header("x-priority") {
            terms.name_priority("header `x-priority`", text)?;
        }
        Ok(terms)
    }

    /// Calls the request what its body says, instead of what its headers do.
    ///
    /// # Errors
    /// A longer name than the log keeps.
    pub(super) fn name_request(&mut self, id: &str) -> Result<()> {
        if id.len() > REQUEST_ID_BYTES_MAX {
            let bytes = id.len();
            return Err(Error::invalid(format!(
                "`id` has {bytes} bytes; it may have {REQUEST_ID_BYTES_MAX}"
            )));
        }
        id.clone_into(&mut self.request_id);
        Ok(())
    }

    /// Nobody waits for longer than this; of several such words the strictest counts.
    pub(super) fn wait_for(&mut self, time: Duration) {
        // What is too far away to be told is no deadline.
        if let Some(deadline) = Instant::now().checked_add(time) {
            self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
        }
    }

    /// Triton's `timeout` in µs; none where it is zero.
    pub(super) fn wait_for_micros(&mut self, micros: i64) -> Result<()> {
        match u64::try_from(micros) {
            Ok(0) => Ok(()),
            Ok(micros) => {
                self.wait_for(Duration::from_micros(micros));
                Ok(())
            }
            Err(_) => {
                Err(Error::invalid(format!("parameter `timeout`: {micros} is no number of microseconds")))
            }
        }
    }

    /// Triton's `priority`: 1 goes first, and the greater the number, the later its turn.
    pub(super) fn rank(&mut self, priority: u64) {
        self.priority = if priority <= INTERACTIVE_MAX { Priority::Interactive } else { Priority::Batch };
    }

    /// A priority by name, given as `what`.
    pub(super) fn name_priority(&mut self, what: &str, name: &str) -> Result<()> {
        self.priority = match name {
            "batch" => Priority::Batch,
            "interactive" => Priority::Interactive,
            other => {
                let expected = "expected `batch` or `interactive`";
                return Err(Error::invalid(format!("{what}: {expected}, found `{other}`")));
            }
        };
        Ok(())
    }

    /// What `work` gives, where somebody still waits for it then.
    ///
    /// # Errors
    /// Those of `work`; `Kind::Late` once the deadline has passed.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(deadline) = self.deadline else { return work.await };
        let late = || Err(Error::late("it was not done within the time that the request names"));
        // A timer may look at the time after the work has begun.
        if deadline <= Instant::now() {
            return late();
        }
        tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| late())
    }

    /// The ask about `given`, on these terms.
    pub(super) fn ask(self, given: Given) -> Ask {
        let Terms { request_id, deadline, priority, version: _ } = self;
        Ask { given, request_id, deadline, priority }
    }
}

/// gRPC's own form: at most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = (digits.len() <= 8).then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(headers: &[(&'static str, &'static str)]) -> Result<Terms> {
        Terms::of(
            &headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
        )
    }

    #[test]
    fn the_strictest_deadline_counts() {
        let before = Instant::now();
        let mut strict = terms(&[("x-request-timeout-ms", "60000"), ("grpc-timeout", "2S")]).unwrap();
        assert!(strict.deadline.unwrap() < before + Duration::from_secs(30));
        strict.wait_for_micros(0).unwrap();
        strict.wait_for_micros(90_000_000).unwrap();
        assert!(strict.deadline.unwrap() < before + Duration::from_secs(30));
        assert!(strict.deadline.unwrap() >= before + Duration::from_secs(2));
        assert_eq!(terms(&[]).unwrap().deadline, None);
        assert_eq!(grpc_timeout("1H"), Some(Duration::from_secs(3600)));
        for wrong in ["", "S", "1", "1s", "123456789S", "1.5S", "-1S", "1µ"] {
            assert_eq!(grpc_timeout(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn nobody_waits_beyond_the_deadline() {
        let late = terms(&[("x-request-timeout-ms", "0")]).unwrap();
        let error = late.within(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Late);
        assert_eq!(terms(&[]).unwrap().within(async { Ok(7) }).await.unwrap(), 7);
    }

    #[test]
    fn a_priority_is_a_number_or_a_name() {
        let mut terms = terms(&[("x-priority", "batch"), ("x-request-id", "r-1")]).unwrap();
        assert_eq!((terms.priority, terms.request_id.as_str()), (Priority::Batch, "r-1"));
        for (number, priority) in
            [(0, Priority::Interactive), (1, Priority::Interactive), (2, Priority::Batch)]
        {
            terms.rank(number);
            assert_eq!(terms.priority, priority);
        }
        let said = |headers| super::tests::terms(headers).unwrap_err().to_string();
        assert_eq!(
            said(&[("x-priority", "high")]),
            "header `x-priority`: expected `batch` or `interactive`, found `high`"
        );
        assert_eq!(
            said(&[("x-request-timeout-ms", "soon")]),
            "header `x-request-timeout-ms`: `soon` is no number of milliseconds"
        );
        assert_eq!(said(&[("grpc-timeout", "1")]), "header `grpc-timeout`: `1` is no time, as `100m` is");
    }
}
