use proptest::prelude::*;

use super::*;

const SECOND_US: i64 = 1_000_000;

fn ramp(steps: usize, every_s: i64, stop_if: &str) -> Ramp {
    Ramp {
        version: "2".to_owned(),
        steps: (1..=steps).map(|step| (step * 100 / steps).to_string().parse().unwrap()).collect(),
        every_us: every_s * SECOND_US,
        stop_if: Condition::parse_all(stop_if).unwrap(),
        before: BTreeMap::new(),
        set_before: None,
        step: 0,
        since: 1,
        since_us: 0,
        end: None,
    }
}

#[test]
fn too_few_requests_are_waited_for() {
    let ramp = ramp(2, 600, "error_rate > 0.01 or p99 > 5ms");
    let counts = |requests, failed, slow| RampCounts { requests, hits: vec![failed, slow] };
    let day_us = 86_400 * SECOND_US;
    assert_eq!(ramp.next(&RampCounts::default(), day_us), Next::Stay);
    assert_eq!(ramp.next(&counts(99, 99, 99), day_us), Next::Stay, "nothing is decided by fewer");
    assert_eq!(ramp.status("m", Some(&counts(99, 99, 0)), day_us).state, RampState::Waiting);
    assert_eq!(ramp.status("m", Some(&counts(99, 99, 0)), 1).state, RampState::Running);
    assert_eq!(ramp.next(&counts(100, 1, 1), day_us), Next::Step);
    assert_eq!(ramp.next(&counts(100, 1, 1), 600 * SECOND_US - 1), Next::Stay);
    assert_eq!(ramp.next(&counts(100, 1, 2), 0), Next::Stop(1), "it stops at once");
    let said = "`p99 > 5ms`: of 100 requests in step 1 of 2 (50%), 2 took longer than 5ms (2.00 %)";
    assert_eq!(ramp.reason(1, &counts(100, 1, 2)), said);
    let last = Ramp { step: 1, ..ramp.clone() };
    assert_eq!(last.next(&counts(100, 0, 0), day_us), Next::Done);
    let over = last.ended(End::Done, 9, day_us);
    assert_eq!(over.next(&counts(100, 100, 0), 2 * day_us), Next::Stay);
    let written = serde_json::to_string(&over).unwrap();
    assert_eq!(serde_json::from_str::<Ramp>(&written).unwrap(), over);
}

/// A request: when it came, in seconds, and whether it failed.
type Request = (i64, bool);

/// Where a ramp must stand after `asked_s`: its step, whether it stopped, whether it is done. From the list of all
/// requests, again from the beginning for each look.
fn oracle(looks_s: &[i64], requests: &[Request], steps: usize, every_s: i64) -> (usize, &'static str) {
    let (mut step, mut began_s) = (0, 0);
    for look_s in looks_s {
        let seen: Vec<bool> = requests
            .iter()
            .filter(|(at_s, _)| (began_s..*look_s).contains(at_s))
            .map(|(_, failed)| *failed)
            .collect();
        let failed = seen.iter().filter(|failed| **failed).count();
        if seen.len() < 100 {
            continue;
        }
        // More than 5 of 100.
        if failed * 20 > seen.len() {
            return (step, "stopped");
        }
        if look_s - began_s >= every_s {
            if step == steps - 1 {
                return (step, "done");
            }
            (step, began_s) = (step + 1, *look_s);
        }
    }
    (step, "running")
}

proptest! {
    #[test]
    fn a_ramp_stands_where_its_requests_say(
        (steps, every_s) in (1usize..5, 10i64..60),
        gaps_s in prop::collection::vec(1i64..40, 1..40),
        (rate, share, restarts) in (1usize..12, 0u32..12, 1usize..9),
        seed in any::<u64>(),
    ) {
        let looks_s: Vec<i64> = gaps_s.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
        let mut state = seed | 1;
        let mut draw = || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state % 100 };
        let requests: Vec<Request> = (0..*looks_s.last().unwrap())
            .flat_map(|at_s| (0..rate).map(move |_| at_s))
            .map(|at_s| (at_s, draw() < u64::from(share)))
            .collect();
        let mut ramp = ramp(steps, every_s, "fallback_rate > 0.9 or error_rate > 5%");
        let (mut counts, mut at_s) = (RampCounts { requests: 0, hits: vec![0, 0] }, 0);
        for (look, look_s) in looks_s.iter().enumerate() {
            for (_, failed) in requests.iter().filter(|(time, _)| (at_s..*look_s).contains(time)) {
                counts += &RampCounts { requests: 1, hits: vec![0, u64::from(*failed)] };
            }
            at_s = *look_s;
            if look % restarts == 0 {
                // Another server goes on from what is kept.
                ramp = serde_json::from_str(&serde_json::to_string(&ramp).unwrap()).unwrap();
            }
            let next = ramp.next(&counts, look_s * SECOND_US);
            match next {
                Next::Stay => continue,
                Next::Step => (ramp.step, ramp.since_us) = (ramp.step + 1, look_s * SECOND_US),
                Next::Done => ramp = ramp.ended(End::Done, 2, 0),
                Next::Stop(place) => {
                    prop_assert_eq!(place, 1);
                    ramp = ramp.ended(End::Stopped(ramp.reason(place, &counts)), 2, 0);
                }
            }
            counts = RampCounts { requests: 0, hits: vec![0, 0] };
        }
        let stands = match &ramp.end {
            None => "running",
            Some(End::Done) => "done",
            Some(_) => "stopped",
        };
        prop_assert_eq!((ramp.step, stands), oracle(&looks_s, &requests, steps, every_s));
    }
}
