use expect_test::expect;
use quern_wire::{
    LogStatus, PartitionsStatus, PastError, PredictionsStatus, PullStatus, PushedStatus, RampState,
    RunStatus, ServerInfo,
};

use super::*;

fn run(state: RunState) -> RunStatus {
    let has_ended = matches!(state, RunState::Done | RunState::Failed);
    RunStatus {
        state,
        began: "2026-11-29T11:57:00Z".to_owned(),
        ended: has_ended.then(|| "2026-11-29T11:57:01.2Z".to_owned()),
        seconds: has_ended.then_some(1.234),
        age_seconds: 180.0,
        rows_written: has_ended.then_some(1_234),
        until: None,
        instance: "0123456789abcdef".to_owned(),
        error: None,
    }
}

fn view(name: &str, until: Option<&str>, last_run: Option<RunStatus>) -> ViewStatus {
    ViewStatus {
        name: name.to_owned(),
        source: "landings".to_owned(),
        head: if until.is_some() { HeadState::Materialized } else { HeadState::Never },
        materialized_until: until.map(str::to_owned),
        last_run,
        last_success: None,
    }
}

fn well() -> ServerStatus {
    let store = |kind: &str, place: &str| StoreStatus {
        kind: kind.to_owned(),
        place: place.to_owned(),
        reachable: true,
        ..StoreStatus::default()
    };
    ServerStatus {
        healthy: true,
        troubles: Vec::new(),
        server: ServerInfo {
            version: "1.2.3".to_owned(),
            instance: "0123456789abcdef".to_owned(),
            now: "2026-11-29T12:00:00Z".to_owned(),
            uptime_seconds: 7_300,
            ready: true,
            apply: 4,
            applied_at: Some("2026-11-28T12:00:00Z".to_owned()),
            ..ServerInfo::default()
        },
        stores: Stores {
            online_store: store("rocksdb", "`head` in the data folder"),
            registry: store("sqlite", "`registry.sqlite` in the data folder"),
            log: LogStatus { kind: "local".to_owned(), commits_behind: Some(0), behind_seconds: 0 },
            predictions: PredictionsStatus { waiting: 12, written: 34_567, dropped: 0 },
        },
        feature_views: vec![view("planes", Some("2026-11-29T11:56:59Z"), Some(run(RunState::Done)))],
        sources: vec![SourceStatus {
            name: "landings".to_owned(),
            newest_event: Some("2026-11-29T11:59:58.5Z".to_owned()),
            pushed: Some(PushedStatus {
                rows: 1_234_567,
                tail_rows: 131_071,
                files: 9,
                bytes: 1_234_567_890,
                accepted: 77,
                ..PushedStatus::default()
            }),
            stream: None,
            pull: None,
        }],
        ramps: Vec::new(),
    }
}

fn ramp() -> RampStatus {
    RampStatus {
        model: "fraud".to_owned(),
        version: "2".to_owned(),
        state: RampState::Waiting,
        step: 2,
        steps: ["10%", "50%", "100%"].map(|share| share.to_owned().try_into().unwrap()).into(),
        every: "10m".to_owned(),
        since: "2026-11-29T11:48:00Z".to_owned(),
        requests: Some(57),
        requests_min: 100,
        stop_if: Vec::new(),
        reason: None,
    }
}

#[test]
fn ramps_say_how_they_are_and_why_they_ended() {
    let reason = "`error_rate > 0.01`: of 120 requests in step 2 of 3 (50%), 9 failed (7.50 %)".to_owned();
    let stopped = RampStatus { model: "risk".to_owned(), state: RampState::Stopped, ..ramp() };
    let status =
        ServerStatus { ramps: vec![ramp(), RampStatus { reason: Some(reason), ..stopped }], ..well() };
    let shown = page(&status);
    expect![[r#"
        ramp of  version  is         step  share    since  requests
        risk     2        stopped  2 of 3    50%  12m ago        57
        fraud    2        waiting  2 of 3    50%  12m ago        57
              risk: `error_rate > 0.01`: of 120 requests in step 2 of 3 (50%), 9 failed (7.50 %)
    "#]]
    .assert_eq(&(shown.rsplit("\n\n").next().unwrap().to_owned() + "\n"));
}

#[test]
fn a_server_that_is_well_says_so_first() {
    expect![[r#"
        all is well

        server        quern 1.2.3, ready, up 2h, apply 4 of 24h ago, instance 0123456789abcdef
        online store  rocksdb `head` in the data folder, answers
        registry      sqlite `registry.sqlite` in the data folder, answers
        log           local; the head has all of it
        predictions   12 wait, 34,567 logged, 0 dropped

        feature view  source     up to  last run      took  written  by
        planes        landings  3m ago  done 3m ago  1.2 s    1,234  01234567

        source    newest event  pushed rows  in no file  files    size  accepted  rejected
        landings        1s ago    1,234,567     131,071      9  1.2 GB        77         0
    "#]]
    .assert_eq(&(page(&well()) + "\n"));
}

/// Everything as long, as large and as many as it can be.
fn worst() -> ServerStatus {
    let long = "é".repeat(300);
    let mut status = well();
    status.server.instance = "f".repeat(16);
    status.server.uptime_seconds = u64::MAX;
    let failed = PastError { at: "1970-01-01T00:00:00Z".to_owned(), error: long.clone() };
    for store in [&mut status.stores.online_store, &mut status.stores.registry] {
        *store = StoreStatus { last_error: Some(failed.clone()), place: long.clone(), ..store.clone() };
    }
    let name = |number: usize| format!("{number:05}{long}");
    status.feature_views = (0..10_000)
        .map(|number| ViewStatus {
            source: long.clone(),
            last_run: Some(RunStatus {
                seconds: Some(1e9),
                rows_written: Some(u64::from(u32::MAX)),
                age_seconds: 1e9,
                state: RunState::Running,
                ..run(RunState::Done)
            }),
            ..view(&name(number), Some("1970-01-01T00:00:00Z"), None)
        })
        .collect();
    status.ramps = (0..10_000)
        .map(|_| RampStatus {
            model: long.clone(),
            version: long.clone(),
            step: 100,
            steps: vec!["99.999999%".to_owned().try_into().unwrap(); 100],
            since: "1970-01-01T00:00:00Z".to_owned(),
            requests: Some(999_999_999_999),
            reason: Some(long.clone()),
            ..ramp()
        })
        .collect();
    status.sources[0] = SourceStatus {
        name: long.clone(),
        newest_event: Some("1970-01-01T00:00:00Z".to_owned()),
        pushed: Some(PushedStatus {
            rows: 999_999_999_999,
            tail_rows: 999_999_999,
            files: 999_999,
            bytes: 999_999_999_999,
            accepted: 999_999_999_999,
            rejected: 999_999_999_999,
            ..PushedStatus::default()
        }),
        pull: Some(PullStatus {
            connection: long.clone(),
            rows: 999_999_999_999,
            at: Some("1970-01-01T00:00:00Z".to_owned()),
            cause: Some(long.clone()),
        }),
        stream: Some(StreamStatus {
            broker: "kafka".to_owned(),
            topic: long.clone(),
            reads: true,
            partitions: Some(PartitionsStatus { here: (0..10_000).collect(), all: 10_000 }),
            cause: Some(long.clone()),
            waiting_events: Some(999_999_999_999),
            behind_seconds: Some(1e9),
        }),
    };
    let trouble = |number| Trouble {
        part: Part::FeatureView,
        name: Some(name(number)),
        cause: format!("{long} and so on"),
    };
    status.troubles = (9_970..10_000).map(trouble).collect();
    status
}

#[test]
fn no_line_is_longer_than_a_terminal_and_there_are_not_many() {
    let page = page(&worst());
    for line in page.lines() {
        assert!(line.chars().count() <= WIDTH, "{} characters: {line}", line.chars().count());
    }
    assert!(page.lines().count() < 260, "{page}");
    assert!(page.starts_with("30 things are wrong\n  feature view 09970é"), "{page}");
    assert!(page.contains("  … and 10 more, which --json shows\n"), "{page}");
    assert!(page.contains("  … and 9,960 more, which --json shows\n"), "{page}");
    // What is wrong stands at the head of its table.
    let rows = page.lines().skip_while(|line| !line.starts_with("feature view "));
    assert!(rows.clone().nth(1).unwrap().starts_with("09970"), "{page}");
    assert!(rows.clone().nth(31).unwrap().starts_with("00000"), "{page}");
}

#[test]
fn streams_say_how_much_of_them_is_read_here() {
    let source = |(name, here): (&str, Vec<i32>)| SourceStatus {
        name: name.to_owned(),
        stream: Some(StreamStatus {
            broker: "kafka".to_owned(),
            topic: "payments".to_owned(),
            reads: !here.is_empty(),
            waiting_events: (!here.is_empty()).then_some(120),
            partitions: Some(PartitionsStatus { here, all: 4 }),
            cause: None,
            behind_seconds: None,
        }),
        newest_event: None,
        pushed: None,
        pull: None,
    };
    let sources = [("a", vec![0, 1, 2, 3]), ("b", vec![0, 2]), ("c", Vec::new())];
    let status = ServerStatus { sources: sources.map(source).into(), ..well() };
    let shown = page(&status);
    expect![[r#"
        stream of  broker  topic     read         waiting  behind
        a          kafka   payments  here             120       -
        b          kafka   payments  2 of 4 here      120       -
        c          kafka   payments  not here           -       -
    "#]]
    .assert_eq(&(shown.rsplit("\n\n").next().unwrap().to_owned() + "\n"));
}

#[test]
fn what_is_wrong_is_told_with_its_words() {
    let mut status = well();
    status.feature_views.push(view("gates", None, Some(run(RunState::Died))));
    status.stores.registry.reachable = false;
    status.stores.log.commits_behind = Some(3);
    status.troubles = vec![
        Trouble { part: Part::Registry, name: None, cause: "it does not answer".to_owned() },
        Trouble {
            part: Part::FeatureView,
            name: Some("gates".to_owned()),
            cause: "its last run died".to_owned(),
        },
    ];
    let page = page(&status);
    expect![[r#"
        2 things are wrong
          registry
              it does not answer
          feature view gates
              its last run died

        server        quern 1.2.3, ready, up 2h, apply 4 of 24h ago, instance 0123456789abcdef
        online store  rocksdb `head` in the data folder, answers
        registry      sqlite `registry.sqlite` in the data folder, does not answer
        log           local; the head lacks 3 commits
        predictions   12 wait, 34,567 logged, 0 dropped

        feature view  source     up to  last run      took  written  by
        gates         landings   never  died 3m ago      -        -  01234567
        planes        landings  3m ago  done 3m ago  1.2 s    1,234  01234567
    "#]]
    .assert_eq(&(page.split("\n\nsource ").next().unwrap().to_owned() + "\n"));
}

#[test]
fn ages_and_sizes_are_short() {
    let ages = [-61, -1, 0, 59, 60, 3_599, 3_600, 172_799, 172_800, 730 * 86_400].map(ago);
    let told = ["in 1m", "0s ago", "0s ago", "59s ago", "1m ago", "59m ago", "1h ago", "47h ago", "2d ago"];
    assert_eq!(ages[..9], told);
    assert_eq!(ages[9], "2y ago");
    let sizes = [0, 999, 1_000, 1_234_567, 999_960, 1_200_000_000, u64::MAX].map(size);
    assert_eq!(sizes, ["0 B", "999 B", "1.0 kB", "1.2 MB", "1.0 MB", "1.2 GB", "18.4 EB"]);
    assert_eq!([9_999_999, 12_345_678, 1_200_000_000].map(short), ["9,999,999", "12.3 M", "1.2 G"]);
}
