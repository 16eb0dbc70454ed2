//! How much may one who asks ask for? What their roles say, of each server.
//!
//! A bucket for each limit of each who asks: it holds what a whole time of it gives, and fills as time passes. Whatever
//! is asked for while there is one in it is answered, whole, and what that takes too much is waited for
//! afterwards: a table of more rows than a second's may be asked for, once in as many seconds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use feature_defs::{Limits, Rate};
use parking_lot::Mutex;
use quern_access::{Principal, Rights};

use crate::error::{Kind, Result};

/// As many who ask are remembered; of more, those who have all that they may have are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// What those who ask have left.
#[derive(Debug, Default)]
pub struct Quotas(Mutex<HashMap<String, Left>>);

#[derive(Debug, Default)]
struct Left {
    requests: Option<Bucket>,
    instances: Option<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Quotas {
    /// Takes one request of `who`, whose rights these are.
    ///
    /// # Errors
    /// `Kind::Overloaded`, and after which time there is more.
    pub fn take_request(&self, who: &Principal, rights: &Rights, now: Instant) -> Result<()> {
        self.take(who, strictest(rights, |limits| limits.requests), ("requests", 1), now, |left| {
            &mut left.requests
        })
    }

    /// Takes so many rows of a request of theirs.
    ///
    /// # Errors
    /// As [`Quotas::take_request`].
    pub fn take_rows(&self, who: &Principal, rights: &Rights, rows: usize, now: Instant) -> Result<()> {
        let rate = strictest(rights, |limits| limits.instances);
        self.take(who, rate, ("instances", rows), now, |left| &mut left.instances)
    }

    fn take(
        &self,
        who: &Principal,
        rate: Option<Rate>,
        (what, count): (&str, usize),
        now: Instant,
        of: impl Fn(&mut Left) -> &mut Option<Bucket>,
    ) -> Result<()> {
        let Some(rate) = rate else { return Ok(()) };
        let (most, per_second) = (rate.count as f64, rate.count as f64 / rate.seconds as f64);
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED_MAX && !all.contains_key(who.name()) {
            all.retain(|_, left| {
                [left.requests, left.instances].into_iter().flatten().any(|it| it.left < most)
            });
        }
        let bucket = of(all.entry(who.name().to_owned()).or_default());
        let Bucket { left, at } = bucket.unwrap_or(Bucket { left: most, at: now });
        let left = (left + now.saturating_duration_since(at).as_secs_f64() * per_second).min(most);
        let is_some = left >= 1.0;
        let left = if is_some { left - count as f64 } else { left };
        *bucket = Some(Bucket { left, at: now });
        if is_some {
            return Ok(());
        }
        let wait = Duration::from_secs_f64(((1.0 - left) / per_second).max(0.001));
        let cause =
            format!("{} has asked for more than {rate} {what}, which a role of theirs allows", who.name());
        Err(quern_base::Failure::new(Kind::Overloaded, cause).again_after(wait).into())
    }
}

/// The least that any of their roles says: each limit holds.
fn strictest(rights: &Rights, of: impl Fn(&Limits) -> Option<Rate>) -> Option<Rate> {
    let rates = rights.limits().iter().filter_map(of);
    rates.min_by(|a, b| {
        (u128::from(a.count) * u128::from(b.seconds)).cmp(&(u128::from(b.count) * u128::from(a.seconds)))
    })
}

#[cfg(test)]
mod tests {
    use feature_defs::{DefFile, Definitions, parse};
    use quern_access::{Access, Proof};

    use super::*;

    fn access() -> Access {
        let text = "kind: Role\nname: a\nmembers: [{key: k}]\nlimits: {requests: 2/s, instances: 600/m}\n\
                    ---\nkind: Role\nname: b\nmembers: [{key: k}]\nlimits: {requests: 60/s}\n";
        let file = DefFile::new("roles.yaml", text.to_owned());
        let definitions: Definitions = parse(&[file]).expect("sound");
        Access::new(&definitions, Vec::new())
    }

    #[test]
    fn each_limit_of_each_role_holds_and_time_gives_it_back() {
        let (quotas, access, begun) = (Quotas::default(), access(), Instant::now());
        let who = Principal::new(Proof::Key("k".to_owned()));
        let rights = access.rights(&who);
        let ask = |millis: u64| quotas.take_request(&who, &rights, begun + Duration::from_millis(millis));
        assert!(ask(0).is_ok() && ask(0).is_ok());
        let refused = ask(0).unwrap_err();
        assert_eq!(refused.kind(), Kind::Overloaded);
        assert!(refused.retry_after().is_some());
        assert!(ask(600).is_ok());
        assert!(
            ask(10_000).is_ok() && ask(10_000).is_ok() && ask(10_000).is_err(),
            "no more than one time's"
        );
    }

    #[test]
    fn what_is_more_than_a_time_gives_is_waited_for_afterwards() {
        let (quotas, access, begun) = (Quotas::default(), access(), Instant::now());
        let who = Principal::new(Proof::Key("k".to_owned()));
        let rights = access.rights(&who);
        let ask = |rows, seconds| quotas.take_rows(&who, &rights, rows, begun + Duration::from_secs(seconds));
        assert!(ask(1_800, 0).is_ok());
        let wait = ask(1, 0).unwrap_err().retry_after().unwrap();
        assert_eq!(wait.as_millis(), 120_100);
        assert!(ask(1, 120).is_err() && ask(1, 121).is_ok());
        let other = Principal::new(Proof::Key("other".to_owned()));
        let rights = access.rights(&other);
        assert!(quotas.take_rows(&other, &rights, usize::MAX, begun).is_ok(), "nothing limits them");
    }
}
