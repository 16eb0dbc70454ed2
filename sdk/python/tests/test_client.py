"""Does the client say on the wire what it should, and read what comes back? Against stand-ins that only echo."""

from __future__ import annotations

import datetime as dt
import json
import pickle
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from pyarrow import flight

import quern
from quern import errors
from stand_in import Recorder, StandIn

UTC = dt.timezone.utc
NOON = dt.datetime(2013, 1, 1, 12, tzinfo=UTC)
NOON_US = 1_357_041_600_000_000


@pytest.fixture
def client(stand_in: StandIn) -> Iterator[quern.Client]:
    with quern.Client(stand_in.url, timeout=10) as client:
        yield client


FOUND = {
    "metadata": {"feature_names": ["tailnum", "delay"]},
    "results": [
        {"values": ["N1", "N2"], "statuses": ["PRESENT"] * 2, "event_timestamps": ["1970-01-01T00:00:00Z"] * 2},
        {
            "values": [1.5, None],
            "statuses": ["PRESENT", "NOT_FOUND"],
            "event_timestamps": ["2013-01-01T12:00:00.25Z", None],
        },
    ],
}


def test_look_up(stand_in: StandIn, client: quern.Client) -> None:
    stand_in.replies = [(200, json.dumps(FOUND).encode())] * 2
    online = client.get_online_features("delays", {"tailnum": ["N1", "N2"], "event_timestamp": [NOON, None]})
    client.get_online_features(["planes:delay"], [{"tailnum": "N1"}, {"tailnum": "N2"}], full_feature_names=True)

    assert [(path, body) for path, body, _ in stand_in.seen] == [
        (
            "/get-online-features",
            {
                "feature_service": "delays",
                "entities": {"tailnum": ["N1", "N2"], "event_timestamp": [NOON_US, None]},
                "full_feature_names": False,
            },
        ),
        (
            "/get-online-features",
            {"features": ["planes:delay"], "entities": {"tailnum": ["N1", "N2"]}, "full_feature_names": True},
        ),
    ]
    assert len(online) == 2
    assert online.to_dict() == {"tailnum": ["N1", "N2"], "delay": [1.5, None]}
    assert online.statuses["delay"] == ["PRESENT", "NOT_FOUND"]
    assert online.event_timestamps["tailnum"] == [None, None]
    assert online.event_timestamps["delay"] == [NOON.replace(microsecond=250_000), None]
    assert online.to_arrow().schema.types == [pa.string(), pa.float64()]
    assert list(online.to_pandas().columns) == ["tailnum", "delay"]


def test_predict(stand_in: StandIn, client: quern.Client) -> None:
    features = {
        "names": ["distance", "delay"],
        "values": [[1400.0, 3], [733.0, None]],
        "statuses": [["PRESENT", "PRESENT"], ["PRESENT", "NULL_VALUE"]],
        "event_timestamps": [[None, "2013-01-01T12:00:00Z"], [None, None]],
    }
    told = {"predictions": [0.25, 0.75], "model_version": "2", "feature_service": "delays", "features": features}
    stand_in.replies = [(200, b'{"predictions": [0.25]}'), (200, json.dumps(told).encode())]
    assert client.predict("arrival delay", [{"tailnum": "N1", "departs_at": NOON}]) == [0.25]
    prediction = client.predict("arrival", pl.DataFrame({"tailnum": ["N1", "N2"]}), version="2", with_features=True)

    assert [(path, body) for path, body, _ in stand_in.seen] == [
        (
            "/v1/models/arrival%20delay:predict",
            {"instances": [{"tailnum": "N1", "departs_at": NOON_US}], "with_features": False},
        ),
        (
            "/v1/models/arrival/versions/2:predict",
            {"instances": [{"tailnum": "N1"}, {"tailnum": "N2"}], "with_features": True},
        ),
    ]
    assert (prediction.predictions, prediction.model_version, prediction.feature_service) == (
        [0.25, 0.75],
        "2",
        "delays",
    )
    assert prediction.features.to_dict() == {"distance": [1400.0, 733.0], "delay": [3, None]}
    assert prediction.features.statuses["delay"] == ["PRESENT", "NULL_VALUE"]
    assert prediction.features.event_timestamps["delay"] == [NOON, None]


def test_connections_are_kept_one_for_each_thread(stand_in: StandIn, client: quern.Client) -> None:
    stand_in.replies = [(200, b'{"predictions": [1]}')] * 4

    def twice() -> None:
        client.predict("m", [{}])
        client.predict("m", [{}])

    twice()
    other = threading.Thread(target=twice)
    other.start()
    other.join()
    ports = [address for _, _, address in stand_in.seen]
    assert ports[0] == ports[1] != ports[2] == ports[3]


def test_a_connection_that_the_server_dropped_is_replaced(stand_in: StandIn, client: quern.Client) -> None:
    stand_in.replies = [(200, b'{"predictions": [1]}'), (200, b'{"predictions": [2]}')]
    stand_in.hang_up = True
    assert client.predict("m", [{}]) == [1]
    assert client.predict("m", [{}]) == [2]
    assert len(stand_in.seen) == 2


def test_errors_are_the_servers_words(stand_in: StandIn, client: quern.Client) -> None:
    stand_in.replies = [
        (404, b'{"error": "no model `m`; there is `n`", "code": "not_found"}'),
        (502, b"<html>Bad Gateway</html>"),
        (500, b'["an error of an unknown shape"]'),
        (503, b""),
    ]
    found = []
    for _ in range(4):
        with pytest.raises(quern.QuernError) as caught:
            client.predict("m", [{}])
        found.append((caught.value.status, caught.value.code, str(caught.value)))
    assert found == [
        (404, "not_found", "no model `m`; there is `n`"),
        (502, "unknown", "<html>Bad Gateway</html>"),
        (500, "unknown", '["an error of an unknown shape"]'),
        (503, "unknown", "Service Unavailable"),
    ]


def test_no_server() -> None:
    client = quern.Client("http://127.0.0.1:1")
    for ask in (
        lambda: client.predict("m", [{}]),
        lambda: client.training_set("s", pa.table({"event_timestamp": [NOON]})),
    ):
        with pytest.raises(quern.QuernError, match=r"^no answer from http://127\.0\.0\.1:1: .*refused") as caught:
            ask()
        assert (caught.value.status, caught.value.code) == (503, "unavailable")


def test_a_slow_server(stand_in: StandIn) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as mute:  # listens, and never answers
        client = quern.Client(f"http://127.0.0.1:{mute.server_port}", timeout=0.05)
        with pytest.raises(quern.QuernError, match=r"did not answer within 0\.05 s") as caught:
            client.predict("m", [{}])
        assert caught.value.status == 504


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:7400/", "http://127.0.0.1:7400"),
        ("127.0.0.1:7400", "http://127.0.0.1:7400"),
        ("localhost:80", "http://localhost:80"),
        ("quern.internal", "http://quern.internal:7400"),
        ("[::1]:7400", "http://[::1]:7400"),
        ("https://quern.example.com", "https://quern.example.com"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert quern.Client(text).url == quern.AsyncClient(text).url == url


@pytest.mark.parametrize(
    "url",
    [
        "grpc://127.0.0.1:7400",
        "http://",
        "",
        "http://host/path",
        "host/path",
        "http://host?a=b",
        "localhost:port",
        "localhost:70000",
        "http://me:secret@host",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a server"):
        quern.Client(url)


def test_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(quern.QuernError(429, "overloaded", "busy", 0.25, "r-1")))
    assert (error.status, error.code, error.message) == (429, "overloaded", "busy")
    assert (error.retry_after, error.request_id) == (0.25, "r-1")


class Echo(flight.FlightServerBase):
    """Gives back what it gets, as it comes, with a column more; or fails as its command says."""

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        command = json.loads(descriptor.command)
        service = command["feature_service"]
        if service == "missing":
            raise pa.ArrowKeyError("no feature service `missing`. Known: `echo`")
        begun = False
        for chunk in reader:
            batch = chunk.data.append_column("as_known", pa.array([command["as_known"]] * chunk.data.num_rows))
            if not begun:
                writer.begin(batch.schema)
                begun = True
            if service == "notes":
                writer.write_with_metadata(batch, b'{"rows": 3, "coinciding": {"last_seen": 2}}')
                continue
            if service == "fails":
                failed = b'{"failed": {"ratio": 1, "share": 2}}' if batch.num_rows == 2 else b'{"failed": {"ratio": 3}}'
                writer.write_with_metadata(batch, failed)
                continue
            writer.write_batch(batch)
            if service == "breaks":
                raise pa.ArrowInvalid("row 1: no time")


@pytest.fixture
def flights() -> Iterator[quern.Client]:
    with Echo("grpc://127.0.0.1:0") as server, quern.Client(f"http://127.0.0.1:{server.port}") as client:
        yield client


def big_spine(rows: int) -> pa.Table:
    return pa.table({"row": pa.array(range(rows)), "name": pa.array(["x" * 40] * rows)})


def test_a_spine_larger_than_every_buffer_goes_up_while_its_answer_comes_down(flights: quern.Client) -> None:
    spine = big_spine(400_000)
    got = flights.training_set("echo", spine, as_known=True)
    assert got.select(["row", "name"]).equals(spine)
    assert got["as_known"].unique().to_pylist() == [True]


class Headers(flight.ServerMiddlewareFactory):
    """Notes the headers of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def start_call(self, info: Any, headers: Any) -> None:
        self.seen.append(headers)


def test_headers_go_out_with_tables_too() -> None:
    headers = Headers()
    with (
        Echo("grpc://127.0.0.1:0", middleware={"headers": headers}) as server,
        quern.Client(f"127.0.0.1:{server.port}", headers={"Authorization": "Bearer t"}) as client,
    ):
        client.training_set("echo", big_spine(1))
    assert headers.seen[0]["authorization"] == ["Bearer t"]


def test_what_is_odd_about_a_training_set_is_a_warning(flights: quern.Client) -> None:
    with pytest.warns(UserWarning, match="2 of 3 rows of the spine see a row of feature view `last_seen`"):
        assert flights.training_set("notes", big_spine(3)).num_rows == 3


def test_what_could_not_be_computed_is_counted_over_all_batches(flights: quern.Client) -> None:
    with pytest.warns(UserWarning, match="could not be computed") as told:
        table = flights.training_set("fails", big_spine(3), batch_rows=2)
    assert [str(one.message) for one in told] == [
        "4 values of `ratio` could not be computed",
        "2 values of `share` could not be computed",
    ]
    assert json.loads(table.schema.metadata[b"quern.failed"]) == {"ratio": 4, "share": 2}
    # What streams has its schema before anything failed.
    with pytest.warns(UserWarning, match="4 values of `ratio`"):
        assert flights.training_set_batches("fails", big_spine(3), batch_rows=2).read_all().schema.metadata is None
    assert flights.training_set("echo", big_spine(3)).schema.metadata is None


def test_spines_of_every_library(flights: quern.Client) -> None:
    spine = big_spine(10)
    for kind in (spine, spine.to_pandas(), pl.from_arrow(spine), pl.from_arrow(spine).lazy(), spine.to_reader(3)):
        got = flights.training_set("echo", kind, batch_rows=4)
        assert got["row"].to_pylist() == list(range(10))
        assert got["name"].to_pylist() == ["x" * 40] * 10


def test_batches_stream_and_may_be_left(flights: quern.Client) -> None:
    stream = flights.training_set_batches("echo", big_spine(400_000))
    assert stream.schema.names == ["row", "name", "as_known"]
    assert stream.read_next_batch().num_rows > 0
    del stream  # the rest is not wanted: the upload must end, not wait
    assert not [t for t in threading.enumerate() if t.name == "quern-upload"]


def test_flight_errors_are_the_servers_words(flights: quern.Client) -> None:
    with pytest.raises(quern.QuernError) as caught:
        flights.training_set("missing", big_spine(3))
    assert (caught.value.status, caught.value.code) == (404, "not_found")
    assert str(caught.value).startswith("no feature service `missing`. Known: `echo`")
    with pytest.raises(quern.QuernError) as caught:
        flights.training_set("breaks", big_spine(400_000))
    assert (caught.value.status, caught.value.code) == (400, "invalid_argument")


class Intake(flight.FlightServerBase):
    """Acknowledges batches of rows, and goes down once, after two of them, where its command says so."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.seen: list[tuple[Any, list[int]]] = []

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        command, rows = json.loads(descriptor.command), []
        self.seen.append((command, rows))
        for batch, chunk in enumerate(reader):
            if command["push_source_name"] == "going_down" and len(self.seen) == 1 and batch == 2:
                raise flight.FlightUnavailableError("going down")
            rows.append(chunk.data.num_rows)
            rejected = [{"index": 0, "cause": "seven"}] if 7 in chunk.data["row"].to_pylist()[:1] else []
            reply = {"batch": batch, "accepted": rows[-1] - len(rejected), "repeated": 0, "rejected": rejected}
            writer.write(json.dumps(reply).encode())


@pytest.fixture
def intake() -> Iterator[Intake]:
    with Intake() as server:
        yield server


def test_a_push_goes_up_in_batches(intake: Intake) -> None:
    with quern.Client(f"http://127.0.0.1:{intake.port}") as client:
        got = client.push("landings", big_spine(17), to="online", idempotency_key="k", batch_rows=7)
        assert got == quern.PushResult(accepted=16, repeated=0, rejected=[quern.Rejected(7, None, "seven")])
        assert client.push("landings", big_spine(400_000), batch_rows=1_000).accepted == 400_000
    command = {"push_source_name": "landings", "to": "online", "idempotency_key": "k"}
    assert intake.seen[0] == (command, [7, 7, 3])
    assert intake.seen[1][0] == {"push_source_name": "landings", "to": "online_and_offline", "idempotency_key": None}
    with pytest.raises(ValueError, match="batch_rows is 0"):
        client.push("landings", big_spine(1), batch_rows=0)


def test_a_push_that_broke_off_says_what_was_taken(intake: Intake) -> None:
    with quern.Client(f"http://127.0.0.1:{intake.port}") as client, pytest.raises(quern.PushError) as caught:
        client.push("going_down", big_spine(10), batch_rows=2)
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.status, error.code, error.result.accepted) == (503, "unavailable", 4)
    assert error.message.endswith("(4 rows had been taken before)")
    assert len(intake.seen) == 1


def test_a_push_with_a_key_is_tried_again(intake: Intake) -> None:
    with quern.Client(f"http://127.0.0.1:{intake.port}") as client:
        got = client.push("going_down", big_spine(10), idempotency_key="k", batch_rows=2)
    assert got.accepted == 10
    # From its beginning: the server finds batches by the key and their places.
    assert [rows for _, rows in intake.seen] == [[2, 2], [2] * 5]


def test_overload_is_told_from_too_much() -> None:
    def read(code: str, words: str, retry_after: float | None = None) -> tuple[int, str, float | None]:
        shown = f"gRPC returned {code} error, with message: {words}. gRPC client debug context: X. Client context: OK"
        error = errors.from_flight(pa.ArrowInvalid(shown), "", retry_after)
        assert error.message == words
        return error.status, error.code, error.retry_after

    assert read("resource exhausted", "the queue is full", 2.0) == (429, "overloaded", 2.0)
    assert read("resource exhausted", "the message is larger than 1 GiB") == (413, "too_large", None)
    assert read("precondition failed", "`landings` takes no rows") == (409, "refused", None)


def test_decoration_of_flight_errors_is_taken_off() -> None:
    shown = (
        "Flight returned invalid argument error, with message: spine: no column `a`. It has `b`. gRPC client debug "
        'context: UNKNOWN:Error received from peer {grpc_message:"spine: no column `a`"}. Client context: OK'
    )
    assert errors.from_flight(pa.ArrowInvalid(shown), "").message == "spine: no column `a`. It has `b`"


def test_a_spine_that_fails_is_the_callers_own_error(flights: quern.Client) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        yield big_spine(3).to_batches()[0]
        raise LookupError("the disk is gone")

    source = pa.RecordBatchReader.from_batches(big_spine(1).schema, batches())
    with pytest.raises(LookupError, match="the disk is gone"):
        flights.training_set("echo", source)
    with pytest.raises(ValueError, match="batch_rows is 0"):
        flights.training_set("echo", big_spine(1), batch_rows=0)
