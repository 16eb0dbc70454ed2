"""Do both clients, the one that blocks and the one that awaits, say what they should and read what comes back?"""

from __future__ import annotations

import datetime as dt
import json
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest

import quern
from stand_in import KINDS, StandIn, echo, said

TOKEN = {"Authorization": "Bearer t"}


@pytest.fixture(params=sorted(KINDS))
def client(request: pytest.FixtureRequest, stand_in: StandIn) -> Iterator[Any]:
    with KINDS[request.param](stand_in.url, timeout=10, headers=TOKEN) as client:
        yield client


def test_a_prediction_says_who_answered_and_on_which_terms_it_was_asked(stand_in: StandIn, client: Any) -> None:
    stand_in.replies = [
        said({"predictions": [0.5, 1.5]}, x_request_id="7e1c", x_quern_version="2"),
        said({"predictions": []}),
    ]
    got = client.predict(
        "m",
        [{"a": 1}, {"a": 2}],
        request_id="7e1c",
        deadline=dt.timedelta(seconds=2.5),
        priority="batch",
        headers={"X-Tenant": "north"},
    )
    assert got == [0.5, 1.5] == got.predictions
    assert (got.served_by, got.model_version, got.fallbacks) == (["2", "2"], "2", [])
    assert (got.request_id, got.request_ids, got.rows) == ("7e1c", ["7e1c", "7e1c"], [0, 1])
    headers = stand_in.headers[0]
    asked = {name: headers.get(name) for name in ("authorization", "x-request-id", "x-priority", "x-tenant")}
    assert asked == {"authorization": "Bearer t", "x-request-id": "7e1c", "x-priority": "batch", "x-tenant": "north"}
    assert 2_000 < int(headers["x-request-timeout-ms"]) <= 2_500
    assert headers["user-agent"] == f"quern-python/{quern.__version__}"
    assert client.predict("m", []) == []
    assert not {"x-request-id", "x-request-timeout-ms", "x-priority"} & set(stand_in.headers[1])


def test_what_happened_to_some_of_the_instances(stand_in: StandIn, client: Any) -> None:
    fallback = {"instances": [1], "served_by": "expr", "cause": "missing", "detail": "more than `max_missing`"}
    told = {"predictions": [1.0, 2.0], "served_by": ["2", "expr"], "fallbacks": [fallback], "failed": {"ratio": 1}}
    stand_in.replies = [said(told, x_quern_version="2,expr")]
    got = client.predict("m", [{}, {}])
    assert (got.served_by, got.model_version) == (["2", "expr"], "2,expr")
    assert got.fallbacks == [quern.Fallback([1], "expr", "missing", "more than `max_missing`")]
    assert got.failed == {"ratio": 1}
    with pytest.raises(ValueError, match="with_features=True"):
        _ = got.features


def vectors(*values: float, names: tuple[str, ...] = ("x",)) -> dict[str, Any]:
    cells = [[value] * len(names) for value in values]
    statuses = [["PRESENT"] * len(names) for _ in values]
    times: list[list[None]] = [[None] * len(names) for _ in values]
    return {"names": list(names), "values": cells, "statuses": statuses, "event_timestamps": times}


def test_features_over_several_versions(stand_in: StandIn, client: Any) -> None:
    def part(version: str, service: str, instances: list[int], **names: Any) -> dict[str, Any]:
        features = vectors(*(10.0 + at for at in instances), **names)
        return {"instances": instances, "model_version": version, "feature_service": service, "features": features}

    told = {"predictions": [0, 1, 2], "served_by": ["1", "2", "1"]}
    other = part("2", "b", [1], names=("y",))
    nothing = {"instances": [1], "model_version": "2"}
    stand_in.replies = [
        said({**told, "parts": [part("1", "a", [0, 2]), second]}) for second in (part("2", "a", [1]), other, nothing)
    ]
    got = client.predict("m", [{}, {}, {}], with_features=True)
    assert (got.model_version, got.feature_service) == ("1,2", "a")
    assert got.features.to_dict() == {"x": [10.0, 11.0, 12.0]}
    assert [(part.model_version, part.instances) for part in got.parts] == [("1", [0, 2]), ("2", [1])]
    with pytest.raises(ValueError, match="see other features than each other; `parts` has those of each"):
        _ = client.predict("m", [{}, {}, {}], with_features=True).features
    got = client.predict("m", [{}, {}, {}], with_features=True)
    assert got.parts[1] == quern.Part([1], "2", None, None)
    with pytest.raises(ValueError, match="nothing could be looked up"):
        _ = got.features


def test_a_call_is_cut_at_the_servers_limit_and_put_together_again(stand_in: StandIn, client: Any) -> None:
    echo(stand_in)
    rows = [{"n": n} for n in range(25_000)]
    got = client.predict("m", rows, request_id="r")
    assert got == list(range(25_000))
    assert [len(body["instances"]) for _, body, _ in stand_in.seen] == [10_000, 10_000, 5_000]
    assert [headers["x-request-id"] for headers in stand_in.headers] == ["r", "r.1", "r.2"]
    assert got.served_by == [str(n % 2) for n in range(25_000)]
    assert [one.instances for one in got.fallbacks] == [[0], [10_000], [20_000]]
    assert got.failed == {"f": 3}
    assert (got.request_ids[9_999], got.rows[9_999]) == ("r", 9_999)
    assert (got.request_ids[24_999], got.rows[24_999]) == ("r.2", 4_999)

    stand_in.seen.clear()
    found = client.get_online_features("s", {"n": list(range(10_001))})
    assert found.to_dict() == {"n": list(range(10_001))}
    assert found.event_timestamps["n"] == [None] * 10_001
    assert [len(body["entities"]["n"]) for _, body, _ in stand_in.seen] == [10_000, 1]
    assert client.get_online_features("s", {"n": []}).to_dict() == {"n": []}


def test_a_server_of_a_smaller_limit_is_asked_in_smaller_parts(stand_in: StandIn, client: Any) -> None:
    echo(stand_in, rows_max=3)
    assert client.predict("m", [{"n": n} for n in range(8)], request_id="r") == list(range(8))
    assert [len(body["instances"]) for _, body, _ in stand_in.seen] == [8, 4, 2, 2, 2, 2]
    answered = [headers["x-request-id"] for headers in stand_in.headers[2:]]
    assert answered == ["r", "r.1", "r.2", "r.3"]
    echo(stand_in, rows_max=0)
    with pytest.raises(quern.QuernError, match="too many") as caught:
        client.predict("m", [{"n": 0}, {"n": 1}])
    assert caught.value.status == 413


def test_a_body_larger_than_servers_take_is_not_sent(
    stand_in: StandIn, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quern.calls.BODY_BYTES_MAX", 200)
    echo(stand_in)
    assert client.predict("m", [{"n": n, "text": "x" * 50} for n in range(5)]) == list(range(5))
    assert [len(body["instances"]) for _, body, _ in stand_in.seen] == [2, 2, 1]


def test_labels_for_what_was_predicted(stand_in: StandIn, client: Any) -> None:
    echo(stand_in, rows_max=2)
    got = client.predict("m", [{"n": n} for n in range(4)], request_id="r")
    told = got.labels(label=[1.5, None, None, 0.0], by=["me", None, "you", None])
    assert told.to_pydict() == {
        "request_id": ["r", "r.1", "r.1"],
        "row": [0, 0, 1],
        "label": [1.5, None, 0.0],
        "by": ["me", "you", None],
    }
    with pytest.raises(ValueError, match="label has 1 values, and there are 4 predictions"):
        got.labels(label=[1.0])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"request_id": ""}, "a request ID has 1 to 100 characters"),
        ({"request_id": "x" * 101}, "a request ID has 1 to 100 characters"),
        ({"request_id": "a\r\nx-admin: yes"}, "header x-request-id: its value has characters that no header can carry"),
        ({"priority": "high"}, "priority is 'high'; it is 'interactive' or 'batch'"),
        ({"deadline": 0}, "deadline is 0 seconds"),
        ({"deadline": dt.timedelta(seconds=-1)}, r"deadline is -1\.0 seconds"),
        ({"headers": {"x y": "z"}}, "'x y' is not the name of a header"),
        ({"headers": {"x": "a\nb"}}, "header x: its value"),
    ],
)
def test_terms_that_cannot_be_said(stand_in: StandIn, client: Any, options: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        client.predict("m", [{}], **options)
    with pytest.raises(ValueError, match="is not the name of a header"):
        quern.Client(headers={"": "x"})
    assert stand_in.seen == []


def test_a_deadline_is_for_the_whole_call(stand_in: StandIn, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    echo(stand_in, rows_max=1)
    started = time.monotonic()
    clock = iter([0.0, 0.0, 0.0, 1.0, 1.0, 3.0])
    monkeypatch.setattr("quern.request.monotonic", lambda: started + next(clock))
    with pytest.raises(quern.QuernError, match="the deadline passed") as caught:
        client.predict("m", [{"n": 0}, {"n": 1}], deadline=2)
    monkeypatch.undo()
    assert (caught.value.status, caught.value.code) == (504, "late")
    assert [headers["x-request-timeout-ms"] for headers in stand_in.headers] == ["2000", "1000"]


def test_when_to_come_again_is_a_field_and_never_a_sentence(stand_in: StandIn, client: Any) -> None:
    ours = {"error": "come again in 9 seconds", "code": "overloaded"}
    stand_in.replies = [
        (429, json.dumps({**ours, "retry_after_ms": 250}).encode(), {"Retry-After": "1", "X-Request-Id": "r-7"}),
        (429, json.dumps(ours).encode()),
        (503, b"<html>try again in 30 seconds</html>", {"Retry-After": "2"}),
        (503, b"", {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}),
    ]
    found = []
    for _ in range(4):
        with pytest.raises(quern.QuernError) as caught:
            client.predict("m", [{}])
        found.append((caught.value.code, caught.value.retry_after, caught.value.request_id))
    assert found == [
        ("overloaded", 0.25, "r-7"),
        ("overloaded", None, None),
        ("unknown", 2.0, None),
        ("unknown", None, None),
    ]


DEFINITIONS = {
    "number": 3,
    "functions": "9d1dbbf3f238be2e",
    "connections": [{"name": "models", "description": "", "url": "s3://models/"}],
    "entities": [{"name": "plane", "description": "", "join_keys": [{"name": "tailnum", "type": "string"}]}],
    "feature_views": [
        {
            "name": "plane_history",
            "description": "last <seen>",
            "entities": ["plane"],
            "source": "landings",
            "ttl_us": 86_400_000_000,
            "lag_us": 0,
            "at": "including",
            "features": [{"name": "delay", "type": "float64"}],
            "from_a_later_version": True,
        }
    ],
    "feature_services": [
        {
            "name": "delays",
            "description": "",
            "inputs": [{"name": "tailnum", "type": "string"}, {"name": "distance", "type": "float64"}],
            "join_keys": 1,
            "outputs": [{"name": "distance", "type": "float64"}, {"name": "delay", "type": "float64"}],
        }
    ],
    "models": [
        {
            "name": "delay",
            "description": "",
            "versions": [{"version": "1", "feature_service": "delays", "digest": "ab", "weight": 1}],
        }
    ],
}


def test_what_is_live(stand_in: StandIn, client: Any) -> None:
    stand_in.replies = [said(DEFINITIONS)] * 3
    live = client.definitions()
    assert (live.number, list(live.entities), list(live.models)) == (3, ["plane"], ["delay"])
    view = live.feature_views["plane_history"]
    assert (view.ttl, view.lag, view.features) == (dt.timedelta(days=1), dt.timedelta(0), [("delay", "float64")])
    assert live.models["delay"].versions[0].feature_service == "delays"
    assert live.connections["models"].url == "s3://models/"
    assert live.to_pandas()["name"].tolist() == ["plane", "models", "plane_history", "delays", "delay"]
    assert "last &lt;seen&gt;" in live._repr_html_()

    service = client.service("delays")
    assert [column.name for column in service.outputs] == ["distance", "delay"]
    assert dict(service.inputs) == {"tailnum": "string", "distance": "float64"}
    assert (service.join_keys, service.request) == ([("tailnum", "string")], [("distance", "float64")])
    assert service.to_arrow().column("role").to_pylist() == ["join key", "request", "output", "output"]
    with pytest.raises(quern.QuernError, match="unknown feature service `delay`; did you mean `delays`") as caught:
        client.service("delay")
    assert (caught.value.status, caught.value.code) == (404, "not_found")


SUMMARY = {
    "summary": {
        "views": [
            {
                "view": "v",
                "to_us": 1_357_041_600_000_000,
                "rows_read": 5,
                "rows_written": 2,
                "rows_unchanged": 1,
                "rows_older": 0,
                "rows_filtered": 1,
                "rejected": {"the key is null": 1},
                "seconds": 0.1,
                "from_a_later_version": 1,
            }
        ],
        "wall_seconds": 0.2,
        "warnings": ["the clock is ahead"],
    }
}


@pytest.mark.parametrize("chunked", [False, True])
def test_materialize(stand_in: StandIn, client: Any, chunked: bool) -> None:
    stand_in.chunked = chunked
    progress = [{"progress": {"view": "v", "done_rows": done, "total_rows": 10}} for done in (5, 10)]
    lines = [json.dumps(line).encode() + b"\n" for line in (*progress, SUMMARY)]
    refused = json.dumps({"error": "busy", "code": "unavailable", "retry_after_ms": 500}).encode() + b"\n"
    stand_in.replies = [(200, b"".join(lines)), (200, lines[0] + refused), (200, lines[0]), (200, b"")]
    seen: list[Any] = []
    done = client.materialize(
        "v",
        from_="2013-01-01T00:00:00Z",
        to=dt.datetime(2013, 1, 2),
        look_back=dt.timedelta(days=1),
        on_progress=lambda *told: seen.append(told),
    )
    assert stand_in.seen[0][:2] == (
        "/v1/materialize",
        {
            "views": ["v"],
            "from_us": 1_356_998_400_000_000,
            "to_us": 1_357_084_800_000_000,
            "look_back_us": 86_400_000_000,
        },
    )
    assert seen == [("v", 5, 10), ("v", 10, 10)]
    (view,) = done.views
    assert (view.rows_read, view.rejected) == (5, {"the key is null": 1})
    assert view.to == dt.datetime(2013, 1, 1, 12, tzinfo=dt.timezone.utc)
    assert done.warnings == ["the clock is ahead"]
    assert done.to_pandas()["rejected"].tolist() == [1]

    with pytest.raises(quern.QuernError, match="busy") as caught:
        client.materialize()
    assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "unavailable", 0.5)
    for _ in range(2):
        with pytest.raises(quern.QuernError, match="broke off"):
            client.materialize()


def test_status(stand_in: StandIn, client: Any) -> None:
    run = {"state": "died", "began": "2026-11-29T11:57:00Z", "ended": None, "seconds": None, "age_seconds": 180.5}
    view = {"name": "v", "source": "s", "head": "begun", "materialized_until": None, "last_success": None, "new": 1}
    trouble = {"part": "feature_view", "name": "v", "cause": "its last run died", "new": 1}
    reply = {
        "healthy": False,
        "troubles": [trouble, {"part": "registry", "cause": "sqlite does not answer: no"}],
        "server": {"ready": True, "version": "9"},
        "stores": {"registry": {"reachable": False}},
        "feature_views": [{**view, "last_run": {**run, "instance": "i"}}, {**view, "name": "w", "last_run": None}],
        "sources": [{"name": "s", "newest_event": "2013-01-01T12:00:00Z", "pushed": {"rows": 5}}],
    }
    stand_in.replies = [said(reply)]
    status = client.status()
    assert not status and [trouble.name for trouble in status.troubles] == ["v", None]
    died = status.feature_views["v"].last_run
    assert (died.state, died.age_seconds, died.rows_written, died.error) == ("died", 180.5, None, None)
    assert died.began == dt.datetime(2026, 11, 29, 11, 57, tzinfo=dt.timezone.utc) and died.ended is None
    source = status.sources["s"]
    assert (source.newest_event.year, source.pushed, source.stream) == (2013, {"rows": 5}, None)
    assert status.to_dict()["last_run"] == ["died", None]
    assert pickle.loads(pickle.dumps(status)) == status


def test_route(stand_in: StandIn, client: Any) -> None:
    ramp = {"model": "m", "version": "2", "state": "running", "step": 1, "steps": ["10%", "100%"], "every": "10m"}
    ramp |= {"since": "2026-11-30T09:00:00Z", "requests": None, "stop_if": [{"condition": "p99 > 5ms", "share": None}]}
    shares = {"percent": {"1": 90.0, "2": 10.0}, "percent_before": {"1": 100.0, "2": 0.0}}
    reply = {"number": 3, "weights": {"1": 90, "2": 10}, **shares}
    stand_in.replies = [said({**reply, "ramp": ramp, "new": 1}), said({**reply, "ended_ramp": "the ramp"}), said(reply)]
    begun = client.route("a/b", ramp=quern.Ramp("2", ["10%", "100%"], dt.timedelta(minutes=10), "p99 > 5ms"))
    asked = {"version": "2", "steps": ["10%", "100%"], "every": "600000000us", "stop_if": ["p99 > 5ms"]}
    assert stand_in.seen[0][:2] == ("/v1/models/a%2Fb:route", {"ramp": asked})
    assert (begun.ramp.state, begun.ramp.since.hour, begun.ramp.reason) == ("running", 9, None)
    assert begun.to_dict() == {"version": ["1", "2"], "weight": [90, 10], "percent": [90.0, 10.0]}
    assert client.route("m", {2: "10%"}).ended_ramp == "the ramp"
    assert client.route("m", reset=True).ramp is None
    assert [seen[1] for seen in stand_in.seen[1:]] == [{"weights": {"2": "10%"}}, {}]
    for wrong in ({}, {"weights": {"2": 1}, "reset": True}, {"weights": {}}, {"ramp": "2"}):
        with pytest.raises(TypeError):
            client.route("m", **wrong)
    with pytest.raises(TypeError, match="steps: expected percentages"):
        client.route("m", ramp=quern.Ramp("2", "10%", "10m"))


def test_health(stand_in: StandIn, client: Any) -> None:
    version = said({"name": "quern", "version": "0.1.0"})
    live, ready = said({"live": True}), said({"ready": True})
    full = said({"ready": True, "degraded": [{"part": "push", "cause": "the disk is full"}]})
    idle = (503, b'{"ready": false, "error": "nothing is live yet", "code": "unavailable"}')
    stand_in.replies = [live, ready, version, live, full, version, live, idle, version, (502, b"Bad Gateway")]
    well, partly, empty, odd = [client.health() for _ in range(4)]
    assert partly == quern.Health(live=True, ready=True, message="push: the disk is full", version="0.1.0")
    assert bool(well) and well == quern.Health(live=True, ready=True, message="", version="0.1.0")
    assert not empty and empty == quern.Health(True, False, "nothing is live yet", "0.1.0")
    assert odd == quern.Health(False, False, "Bad Gateway", None)
    assert well.to_pandas()["ready"].tolist() == [True]


def test_clients_and_results_can_be_pickled(stand_in: StandIn) -> None:
    stand_in.replies = [
        said({"predictions": [1.0], "model_version": "1", "feature_service": "s", "features": vectors(2)})
    ]
    client = pickle.loads(pickle.dumps(quern.Client(stand_in.url, timeout=7, headers=TOKEN)))
    assert (client.url, client.timeout, client.headers) == (stand_in.url, 7, {"authorization": "Bearer t"})
    assert "Bearer" not in repr(client)
    again = pickle.loads(pickle.dumps(quern.AsyncClient("h:1", headers=TOKEN)))
    assert (again.url, again.headers) == ("http://h:1", {"authorization": "Bearer t"})
    with client:
        got = client.predict("m", [{}], with_features=True)
    copy = pickle.loads(pickle.dumps(got))
    assert (copy, copy.served_by, copy.features.to_dict()) == ([1.0], ["1"], {"x": [2]})
    for result in (
        got.features,
        got.parts,
        quern.PushResult(1, 0, [quern.Rejected(0, "c", "bad")]),
        quern.Health(True, True, "", None),
    ):
        assert pickle.loads(pickle.dumps(result)) == result
