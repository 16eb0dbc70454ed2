"""Do pushed rows arrive, once, in look-ups and in training? Against the real server."""

from __future__ import annotations

import datetime as dt
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pyarrow as pa
import pytest

import quern
from conftest import run, serve

UTC = dt.timezone.utc
NOON = dt.datetime(2013, 1, 1, 12, tzinfo=UTC)
DEFINITIONS = """
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: sightings
push: true
event_timestamp: seen_at
columns: [{name: tailnum, type: string}, {name: seen_at, type: timestamp}, {name: delay, type: float64}]
---
kind: Source
name: known_sightings
push: true
event_timestamp: seen_at
event_id: [tailnum, seen_at]
columns: [{name: tailnum, type: string}, {name: seen_at, type: timestamp}, {name: delay, type: float64}]
---
kind: Source
name: archive
batch: {format: csv, path: data/archive.csv}
event_timestamp: seen_at
columns: [{name: tailnum, type: string}, {name: seen_at, type: timestamp}, {name: delay, type: float64}]
---
kind: Source
name: reports
push: true
event_timestamp: seen_at
columns: [{name: tailnum, type: string}, {name: seen_at, type: timestamp}, {name: delay, type: float64}]
---
kind: FeatureView
name: last_report
entities: [plane]
source: reports
features: [delay]
---
kind: FeatureService
name: reported
features: [last_report]
---
kind: FeatureView
name: last_sighting
entities: [plane]
source: sightings
features: [delay]
---
kind: FeatureView
name: traffic
entities: [plane]
source: sightings
aggregations: [{name: sightings, function: count, windows: [lifetime]}]
---
kind: FeatureView
name: known_traffic
entities: [plane]
source: known_sightings
aggregations: [{name: known, function: count, windows: [lifetime]}]
---
kind: FeatureView
name: archived
entities: [plane]
source: archive
features: [{name: archived_delay, expr: delay}]
---
kind: FeatureService
name: planes
features: [last_sighting, traffic, known_traffic]
"""
NAMES = ["delay", "sightings_lifetime", "known_lifetime"]


@pytest.fixture(scope="module")
def pushed_to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root: Path = tmp_path_factory.mktemp("pushes")
    (root / "quern.yaml").write_text("data: .quern\n")
    (root / "definitions.yaml").write_text(DEFINITIONS)
    (root / "data").mkdir()
    (root / "data/archive.csv").write_text("tailnum,seen_at,delay\n")
    run("apply", root)
    run("materialize", root)  # of a window that was never materialized nobody knows that it is empty
    with serve(root) as url:
        yield url


@pytest.fixture
def client(pushed_to: str) -> Iterator[quern.Client]:
    with quern.Client(pushed_to) as client:
        yield client


def sightings(plane: str, delays: list[float | None], first: dt.datetime = NOON) -> pa.Table:
    """One a minute."""
    times = [first + dt.timedelta(minutes=minute) for minute in range(len(delays))]
    columns = {"tailnum": [plane] * len(delays), "seen_at": times, "delay": delays}
    schema = pa.schema({"tailnum": pa.string(), "seen_at": pa.timestamp("us", "UTC"), "delay": pa.float64()})
    return pa.table(columns, schema=schema)


def served(client: quern.Client, plane: str) -> list[Any]:
    found = client.get_online_features("planes", {"tailnum": [plane]}).to_dict()
    return [found[name][0] for name in NAMES]


def reported(client: quern.Client, plane: str) -> Any:
    return client.get_online_features("reported", {"tailnum": [plane]}).to_dict()["delay"][0]


def trained(client: quern.Client, plane: str) -> list[Any]:
    later = NOON + dt.timedelta(days=1)
    spine = pa.table({"tailnum": [plane], "event_timestamp": pa.array([later], pa.timestamp("us", "UTC"))})
    row = client.training_set("planes", spine).to_pylist()[0]
    return [row[name] for name in NAMES]


def test_tables_of_every_kind_arrive_in_look_ups_and_in_training(client: quern.Client) -> None:
    def kinds(table: pa.Table) -> list[Any]:
        columns = {name: table[name].to_pylist() for name in table.column_names}
        return [table, columns, table.to_pylist(), table.to_pandas(), pl.from_arrow(table), table.to_reader(1)]

    for at in range(len(kinds(sightings("K", [1.0])))):
        plane = f"K{at}"
        result = client.push("sightings", kinds(sightings(plane, [1.5, 0.1]))[at])
        assert result == quern.PushResult(accepted=2, repeated=0, rejected=[])
        assert served(client, plane) == [0.1, 2, 0]
        assert trained(client, plane) == [0.1, 2, 0]


def test_a_late_row_does_not_replace_a_newer_one(client: quern.Client) -> None:
    client.push("sightings", sightings("L1", [2.0]))
    client.push("sightings", sightings("L1", [1.0], NOON - dt.timedelta(hours=1)))
    assert served(client, "L1")[:2] == [2.0, 2]
    assert trained(client, "L1")[:2] == [2.0, 2]


def test_many_batches_go_up_while_their_acknowledgements_come_down(client: quern.Client) -> None:
    result = client.push("sightings", sightings("M1", [float(i) for i in range(10_000)]), batch_rows=250)
    assert result == quern.PushResult(accepted=10_000, repeated=0, rejected=[])
    assert served(client, "M1")[:2] == [9_999.0, 10_000]


def test_the_same_key_counts_nothing_twice(client: quern.Client) -> None:
    table = sightings("I1", [1.0, 2.0, 3.0])
    first = client.push("sightings", table, idempotency_key="once", batch_rows=2)
    again = client.push("sightings", table, idempotency_key="once", batch_rows=2)
    assert (first.accepted, first.repeated) == (3, 0)
    assert (again.accepted, again.repeated) == (0, 3)
    assert served(client, "I1")[1] == trained(client, "I1")[1] == 3
    client.push("sightings", table)  # without a key, and without an `event_id`, these are other events
    assert served(client, "I1")[1] == trained(client, "I1")[1] == 6


def test_an_event_that_was_seen_counts_once(client: quern.Client) -> None:
    assert client.push("known_sightings", sightings("E1", [1.0, 2.0])).accepted == 2
    again = client.push("known_sightings", sightings("E1", [1.0, 2.0, 3.0]))
    assert (again.accepted, again.repeated) == (1, 2)
    assert served(client, "E1")[2] == trained(client, "E1")[2] == 3


def test_a_row_that_is_wrong_is_told_and_the_others_are_taken(client: quern.Client) -> None:
    table = sightings("R1", [1.0, 2.0, 3.0, 4.0, 5.0])
    times = table["seen_at"].to_pylist()
    times[3] = None
    column = table.schema.get_field_index("seen_at")
    table = table.set_column(column, table.schema.field(column), pa.array(times, table.schema.field(column).type))
    result = client.push("sightings", table, batch_rows=2)
    assert (result.accepted, result.repeated) == (4, 0)
    assert [(row.index, row.column) for row in result.rejected] == [(3, "seen_at")]
    assert result.rejected[0].cause
    assert served(client, "R1")[:2] == [5.0, 4]


def test_where_rows_go(client: quern.Client) -> None:
    with pytest.raises(quern.QuernError, match="windows of feature view `traffic` count what lies in history"):
        client.push("sightings", sightings("W1", [1.0]), to="online")
    client.push("reports", sightings("W1", [1.0]), to="online")
    assert reported(client, "W1") == 1.0
    spine = {"tailnum": ["W1"], "event_timestamp": [NOON + dt.timedelta(days=1)]}
    assert client.training_set("reported", spine)["delay"].to_pylist() == [None]
    client.push("sightings", sightings("W2", [2.0]), to="offline")
    assert trained(client, "W2")[:1] == [2.0]


def test_times_may_be_text(client: quern.Client) -> None:
    rows = [
        {"tailnum": "T1", "seen_at": "2013-01-01T12:00:00Z", "delay": 1.5},
        {"tailnum": "T1", "seen_at": "2013-01-01T14:00:00.5+01:00", "delay": float("inf")},
        {"tailnum": "T1", "seen_at": NOON, "delay": 2.5},
        {"tailnum": "T1", "seen_at": "noon", "delay": 3.5},
    ]
    result = client.push("sightings", rows)
    assert (result.accepted, result.repeated) == (3, 0)
    told = 'expected timestamp (RFC 3339), found string "noon"'
    assert result.rejected == [quern.Rejected(3, "seen_at", told)]
    assert trained(client, "T1")[:2] == [float("inf"), 3]
    spine = {"tailnum": ["T1"], "event_timestamp": ["2013-01-01T12:30:00Z"]}
    assert client.training_set("planes", spine)["sightings_lifetime"].to_pylist() == [2]
    with pytest.raises(quern.QuernError, match="row 0 of the spine, column `event_timestamp`: expected timestamp"):
        client.training_set("planes", {**spine, "event_timestamp": ["noon"]})


def test_nothing_to_push(client: quern.Client) -> None:
    assert client.push("sightings", sightings("N1", [])) == quern.PushResult(0, 0, [])


@pytest.mark.parametrize(("source", "status", "told"), [("sighting", 404, "sightings"), ("archive", 409, "push")])
def test_sources_that_take_no_rows(client: quern.Client, source: str, status: int, told: str) -> None:
    with pytest.raises(quern.PushError) as caught:
        client.push(source, sightings("S1", [1.0]))
    assert caught.value.status == status
    assert told in caught.value.message
    assert "gRPC" not in caught.value.message
    assert caught.value.result == quern.PushResult(0, 0, [])


def test_a_push_as_feast_writes_it(client: quern.Client) -> None:
    address = urlsplit(client.url)
    frame = {"tailnum": ["F1", "F1"], "seen_at": [NOON.isoformat(), "noon"], "delay": [7.5, 1.0]}
    asked = {"push_source_name": "reports", "df": frame, "to": "online", "allow_registry_cache": True}
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    try:
        connection.request("POST", "/push", json.dumps(asked), {"Content-Type": "application/json"})
        response = connection.getresponse()
        reply = json.loads(response.read())
    finally:
        connection.close()
    assert response.status == 200, reply
    assert (reply["accepted"], reply["repeated"]) == (1, 0)
    assert [(row["index"], row["column"]) for row in reply["rejected"]] == [(1, "seen_at")]
    assert reported(client, "F1") == 7.5


def test_a_batch_larger_than_the_queue_is_cut(tmp_path: Path) -> None:
    (tmp_path / "quern.yaml").write_text("data: .quern\npush_queue_rows: 6\n")
    (tmp_path / "definitions.yaml").write_text(DEFINITIONS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/archive.csv").write_text("tailnum,seen_at,delay\n")
    run("apply", tmp_path)
    table = sightings("C1", [float(i) for i in range(41)])
    times = table["seen_at"].to_pylist()
    times[40] = None
    table = table.set_column(1, table.schema.field(1), pa.array(times, table.schema.field(1).type))
    with serve(tmp_path) as url, quern.Client(url) as client:
        first = client.push("sightings", table, idempotency_key="once")
        assert (first.accepted, [row.index for row in first.rejected]) == (40, [40])
        again = client.push("sightings", table, idempotency_key="once")
        assert (again.accepted, again.repeated) == (0, 40)
        assert client.push("sightings", table, batch_rows=5).accepted == 40


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "quern.yaml").write_text("data: .quern\npush_queue_rows: 4\n")
    (tmp_path / "definitions.yaml").write_text(DEFINITIONS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/archive.csv").write_text("tailnum,seen_at,delay\n")
    run("apply", tmp_path)
    # Four at once, each with as much as may wait: where the time that the server names were lost, a push would fail.
    with serve(tmp_path) as url, quern.Client(url) as client, ThreadPoolExecutor(4) as threads:

        def push(number: int) -> int:
            return client.push("sightings", sightings(f"Q{number}", [1.0] * 40), batch_rows=4).accepted

        assert list(threads.map(push, range(4))) == [40] * 4
