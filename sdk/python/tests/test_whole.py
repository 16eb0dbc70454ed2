"""What can a program do from Python alone? Against the real server, with either client."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import quern
from conftest import repository_at, run, serve
from stand_in import Awaited

UTC = dt.timezone.utc
TENTH = dt.datetime(2013, 1, 10, tzinfo=UTC)


@pytest.fixture(params=["blocking", "awaiting"])
def client(request: pytest.FixtureRequest, server: str) -> Iterator[Any]:
    kind = quern.Client if request.param == "blocking" else Awaited
    with kind(server.removeprefix("http://")) as client:
        yield client


def asked(planes: list[str], distance: float = 100.0) -> list[dict[str, Any]]:
    return [{"tailnum": plane, "distance": distance, "event_timestamp": TENTH} for plane in planes]


def test_what_was_predicted_can_be_labelled(client: Any) -> None:
    got = client.predict("delay", asked(["N1", "N2"]))
    assert (got.served_by, got.model_version, got.rows) == (["1", "1"], "1", [0, 1])
    assert client.label("delay", got.labels(label=[12.5, None])) == 1
    logged = client.predictions("delay", labelled=True)
    told = {row["request_id"]: (row["row"], row["label"]) for row in logged.to_pylist()}
    assert told[got.request_id] == (0, 12.5)

    named = client.predict("delay", asked(["N1"]), request_id=f"named by {type(client).__name__}")
    assert named.request_id == f"named by {type(client).__name__}"
    assert named.request_id in client.predictions("delay")["request_id"].to_pylist()


def test_features_of_a_canary(client: Any) -> None:
    planes = [f"P{n}" for n in range(16)]
    got = client.predict("canary", asked(planes), with_features=True)
    assert set(got.served_by) == {"1", "2"} and got.model_version == "1,2"
    assert got.feature_service == "delays,delays_otherwise"
    names = {part.model_version: part.features.names for part in got.parts}
    assert names == {
        "1": ["distance", "last_delay", "legs", "delay_by_mile"],
        "2": ["legs", "last_delay", "distance"],
    }
    assert sorted(at for part in got.parts for at in part.instances) == list(range(16))
    for part in got.parts:
        assert [got.served_by[at] for at in part.instances] == [part.model_version] * len(part.instances)
    pinned = client.predict("canary", asked(planes[:2]), version="2", with_features=True)
    assert (pinned.served_by, pinned.features.names) == (["2", "2"], names["2"])


def test_a_service_says_what_it_takes_and_gives_and_in_which_order(client: Any) -> None:
    service = client.service("delays")
    assert service.join_keys == [("tailnum", "string")]
    assert service.request == [("distance", "float64")]
    assert service.outputs == [
        ("distance", "float64"),
        ("last_delay", "float64"),
        ("legs", "int64"),
        ("delay_by_mile", "float64"),
    ]
    spine = [{"tailnum": "N1", "event_timestamp": TENTH, "distance": 1.0}]
    trained = set(client.training_set("delays", spine).column_names)
    assert {column.name for column in service.inputs + service.outputs} | {"event_timestamp"} == trained
    with pytest.raises(quern.QuernError, match="did you mean `delays`"):
        client.service("delay")
    live = client.definitions()
    assert live.feature_views["plane_history"].ttl == dt.timedelta(days=30)
    assert {model: [v.weight for v in live.models[model].versions] for model in live.models} == {
        "canary": [1, 1],
        "delay": [1],
    }


def test_it_is_well(client: Any) -> None:
    assert client.health() == quern.Health(live=True, ready=True, message="", version=quern.__version__)


def test_it_tells_how_far_it_is(client: Any) -> None:
    status = client.status()
    assert status and not status.troubles and status.server["ready"]
    view = status.feature_views["plane_history"]
    assert (view.head, view.source, view.last_run.state) == ("materialized", "landings", "done")
    assert view.last_run.ended == view.last_success and view.last_run.rows_written is not None
    assert status.sources["landings"].newest_event is not None
    assert status.stores["registry"]["reachable"]
    assert status.to_pandas()["last_run"].tolist() == ["done"] * len(status.feature_views)
    assert "plane_history" in status._repr_html_()


def test_materialize(client: Any) -> None:
    seen: list[Any] = []
    done = client.materialize(["plane_history"], to=TENTH, on_progress=lambda *told: seen.append(told))
    (view,) = done.views
    assert (view.view, view.to) == ("plane_history", TENTH)
    assert all(name == "plane_history" and done_rows <= total for name, done_rows, total in seen)
    assert "plane_history" in done._repr_html_()
    with pytest.raises(quern.QuernError, match="plane_histori") as caught:
        client.materialize(["plane_histori"])
    assert (caught.value.status, caught.value.code) == (404, "not_found")


def test_values_that_json_has_not(client: Any) -> None:
    infinite = float("inf")
    rows = [
        {"tailnum": "N1", "x": infinite, "raw": b"\x00\xff", "text": "é"},
        {"tailnum": b"N1", "x": -infinite, "raw": b"", "text": b"N1"},
        {"tailnum": None, "x": float("nan"), "raw": None, "text": None},
    ]
    got = client.get_online_features("as_given", rows)
    # A reply has null where JSON has no number; `PRESENT` says that there is one.
    assert got.to_dict()["x"] == [None, None, None]
    assert got.statuses["x"] == ["PRESENT", "PRESENT", "NULL_VALUE"]
    assert got.to_dict()["raw"] == ["AP8=", "", None]
    assert got.to_dict()["text"] == ["é", "N1", None]
    with pytest.raises(quern.QuernError, match="column `text`: expected string, found an object of 1"):
        client.get_online_features("as_given", [{"tailnum": "N1", "x": 1.0, "raw": b"", "text": b"\xff"}])
    # 1 / inf is 0, and not null: what was sent is what the expression got.
    assert client.predict("delay", asked(["N1"], infinite), with_features=True).features.to_dict()["delay_by_mile"] == [
        0.0
    ]


def test_more_than_the_server_answers_at_a_time(client: Any) -> None:
    planes = [f"N{n % 4}" for n in range(10_050)]
    got = client.predict("delay", asked(planes), request_id="many")
    alone = {plane: client.predict("delay", asked([plane]))[0] for plane in ("N0", "N1", "N2", "N3")}
    assert got == [alone[plane] for plane in planes]
    assert (got.request_ids[0], got.request_ids[-1], got.rows[-1]) == ("many", "many.1", 49)
    found = client.get_online_features(["plane_history:legs"], {"tailnum": planes, "event_timestamp": [TENTH] * 10_050})
    assert found.to_dict()["tailnum"] == planes
    assert len(found.statuses["legs"]) == 10_050


def test_a_deadline_that_nobody_can_keep(client: Any) -> None:
    with pytest.raises(quern.QuernError) as caught:
        client.predict("delay", asked([f"P{n}" for n in range(9_000)]), deadline=1e-6, priority="batch")
    assert (caught.value.status, caught.value.code) == (504, "late")


def test_a_name_is_no_path(client: Any) -> None:
    number = client.definitions().number
    for name in ("../apply?", "..", "a/b", "%2e%2e/apply"):
        with pytest.raises(quern.QuernError) as caught:
            client.predict(name, asked(["N1"]))
        assert caught.value.status == 404
        with pytest.raises(quern.QuernError):
            client.predict("delay", asked(["N1"]), version=name)
    assert client.definitions().number == number


def test_tasks_share_a_client(server: str) -> None:
    async def ask() -> tuple[Any, ...]:
        async with quern.AsyncClient(server) as client:
            scores = [client.predict("delay", asked(["N1"])) for _ in range(40)]
            spine = [{"tailnum": "N1", "event_timestamp": TENTH, "distance": 100.0}]
            trained = client.training_set("delays", spine)
            rows = [batch async for batch in client.training_set_batches("delays", spine)]
            scored = [batch async for batch in client.predict_batches("delay", spine, as_of=True)]
            latest = [batch async for batch in client.export("plane_history", latest=True, at=TENTH)]
            return *await asyncio.gather(*scores, trained), rows, scored, latest

    *scores, trained, rows, scored, latest = asyncio.run(ask())
    assert "N1" in [row["tailnum"] for batch in latest for row in batch.to_pylist()]
    assert len({tuple(score) for score in scores}) == 1
    assert trained["last_delay"].to_pylist() == rows[0]["last_delay"].to_pylist() == [0.1]
    assert [row["score"] for batch in scored for row in batch.to_pylist()] == scores[0]


def test_a_body_larger_than_this_server_takes_is_cut(tmp_path: Path) -> None:
    repository_at(tmp_path, "data: .quern\nbody_bytes_max: 20000\n")
    run("apply", tmp_path)
    planes = [f"plane {n} {'x' * 40}" for n in range(3_000)]
    with serve(tmp_path) as url:
        for kind in (quern.Client, Awaited):
            with kind(url) as client:
                got = client.predict("delay", asked(planes))
                assert len(got) == 3_000
                assert len(set(got.request_ids)) > 10
                with pytest.raises(quern.QuernError, match="body_bytes_max") as caught:
                    client.predict("delay", asked(["x" * 5_000_000]))
                assert caught.value.status == 413
                assert client.health().ready


def test_what_cannot_be_computed_is_counted_by_whoever_answers(tmp_path: Path) -> None:
    repository_at(tmp_path)
    (tmp_path / "parts.yaml").write_text(
        "kind: FeatureService\nname: parts\nrequest: [{name: n, type: int64}]\n"
        "features: [{view: plane_history, features: [legs]}]\nderived: [{name: part, expr: legs / n}]\n"
    )
    run("apply", tmp_path)
    run("materialize", tmp_path, "--to", "2013-01-10T00:00:00Z")
    rows = 1_000
    spine = {"tailnum": ["N1", "N2"] * rows, "n": [0, 7] * rows, "event_timestamp": [TENTH] * 2 * rows}
    with serve(tmp_path) as url:
        for kind in (quern.Client, Awaited):
            with kind(url) as client:
                with pytest.warns(UserWarning, match="1000 values of `part` could not be computed"):
                    table = client.training_set("parts", spine)
                assert table["part"].to_pylist() == [None, 1] * rows
                assert json.loads(table.schema.metadata[b"quern.failed"]) == {"part": rows}
                entities = {"tailnum": ["N1", "N1"], "n": [0, 2], "event_timestamp": [TENTH] * 2}
                found = client.get_online_features("parts", entities)
                assert (found.to_dict()["part"], found.failed) == ([None, 1], {"part": 1})
