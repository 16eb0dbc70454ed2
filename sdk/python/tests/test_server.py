"""Do the client and the real server understand each other?"""

from __future__ import annotations

import datetime as dt
import struct
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import quern
from conftest import BIAS, WEIGHTS

UTC = dt.timezone.utc
TENTH = dt.datetime(2013, 1, 10, tzinfo=UTC)
FOURTH = dt.datetime(2013, 1, 4, tzinfo=UTC)
OUTPUTS = ["distance", "last_delay", "legs", "delay_by_mile"]


def spine(rows: list[tuple[str | None, dt.datetime, float | None]]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"note": i, "tailnum": t, "event_timestamp": at, "distance": d} for i, (t, at, d) in enumerate(rows)],
        schema=pa.schema(
            {
                "note": pa.int64(),
                "tailnum": pa.string(),
                "event_timestamp": pa.timestamp("us", "UTC"),
                "distance": pa.float64(),
            }
        ),
    )


def bits(value: Any) -> Any:
    """A float by its bits: 0.0 and -0.0 differ, as do neighbours that print alike."""
    return struct.pack("<d", value) if isinstance(value, float) else value


def test_look_up_by_service(client: quern.Client) -> None:
    planes = ["N1", "N2", "N3", "N4"]
    asked = {"tailnum": planes, "distance": [100.0] * 4, "event_timestamp": [TENTH] * 4}
    online = client.get_online_features("delays", asked)
    assert online.names[0] == "tailnum"
    assert online.to_dict()["tailnum"] == planes
    assert online.to_dict()["last_delay"] == [0.1, None, None, None]
    assert online.to_dict()["legs"] == [2, 7, None, None]
    assert online.to_dict()["delay_by_mile"] == [0.1 / 100, None, None, None]
    assert online.statuses["last_delay"] == ["PRESENT", "NULL_VALUE", "OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert online.event_timestamps["last_delay"][0] == dt.datetime(2013, 1, 3, 10, tzinfo=UTC)


def test_a_look_up_has_the_types_of_a_training_set(client: quern.Client) -> None:
    asked = {"tailnum": ["N4"], "distance": [None]}
    online = client.get_online_features("delays", asked).to_arrow()
    trained = client.training_set("delays", spine([("N4", TENTH, 1.0)])).select(OUTPUTS)
    assert online.select(OUTPUTS).schema.equals(trained.schema.remove_metadata())
    assert online["tailnum"].type == pa.string()


def test_look_up_by_feature(client: quern.Client) -> None:
    asked = {"tailnum": ["N1"], "event_timestamp": [TENTH]}
    assert client.get_online_features(["plane_history:legs"], asked).to_dict() == {"tailnum": ["N1"], "legs": [2]}
    full = client.get_online_features(["plane_history:legs"], asked, full_feature_names=True)
    assert full.to_dict() == {"tailnum": ["N1"], "plane_history__legs": [2]}


def test_look_up_in_the_past(client: quern.Client) -> None:
    asked = {"tailnum": ["N1"], "distance": [1.0], "event_timestamp": [dt.datetime(2013, 1, 2, tzinfo=UTC)]}
    assert client.get_online_features("delays", asked).to_dict()["last_delay"] == [30.5]


def test_training_set(client: quern.Client) -> None:
    asked = spine([("N4", TENTH, 1.0), ("N1", FOURTH, 3.0), (None, FOURTH, None), ("N1", FOURTH, 3.0)])
    got = client.training_set("delays", asked)
    assert got.column_names == [*(name for name in asked.column_names if name not in OUTPUTS), *OUTPUTS]
    assert got.select(asked.column_names).to_pylist() == asked.to_pylist()
    assert got["last_delay"].to_pylist() == [None, 0.1, None, 0.1]
    assert got["legs"].to_pylist() == [None, 2, None, 2]
    for other in (asked.to_pandas(), pl.from_arrow(asked), asked.to_reader(1)):
        assert client.training_set("delays", other).to_pylist() == got.to_pylist()


def test_training_set_as_it_was_known(client: quern.Client) -> None:
    asked = spine([("N1", FOURTH, 1.0)])
    assert client.training_set("delays", asked)["last_delay"].to_pylist() == [0.1]
    assert client.training_set("delays", asked, as_known=True)["last_delay"].to_pylist() == [30.5]


def test_an_empty_spine_has_a_schema(client: quern.Client) -> None:
    got = client.training_set("delays", spine([]))
    assert got.num_rows == 0
    assert got.schema.field("delay_by_mile").type == pa.float64()


def test_export(client: quern.Client) -> None:
    reader = client.export("plane_history", ["last_delay"], latest=True, at=TENTH)
    assert reader.schema.names == ["tailnum", "event_timestamp", "created_timestamp", "last_delay"]
    latest = reader.read_all().sort_by("tailnum")
    # What a look-up of each finds: of N3 the row has expired, and of N4 there is none.
    assert latest["tailnum"].to_pylist() == ["N1", "N2"]
    assert latest["last_delay"].to_pylist() == [0.1, None]
    rows = client.export("plane_history").read_all()
    assert rows.num_rows > 2
    # With keys and times, it is a spine.
    assert (
        client.training_set(
            "delays_otherwise",
            rows.select(["tailnum", "event_timestamp"]).append_column(
                "distance", pa.nulls(rows.num_rows, pa.float64())
            ),
        ).num_rows
        == rows.num_rows
    )
    raw = client.export_source("landings", to=FOURTH).read_all()
    assert raw.column_names == ["tailnum", "landed_at", "loaded_at", "arr_delay", "legs"]
    assert all(at < FOURTH for at in raw["landed_at"].to_pylist())
    with pytest.raises(quern.QuernError, match="did you mean `plane_history`") as caught:
        client.export("plane_histori")
    assert caught.value.status is None or caught.value.status == 404


def test_serving_equals_training(client: quern.Client) -> None:
    planes, times = ("N1", "N2", "N3", "N4"), (TENTH, FOURTH, dt.datetime(2013, 1, 1, 10, tzinfo=UTC))
    asked = spine([(plane, at, 3.0) for plane in planes for at in times])
    trained = client.training_set("delays", asked)
    instances = asked.drop_columns(["note"])
    online = client.get_online_features("delays", instances).to_dict()
    served = client.predict("delay", instances, with_features=True)
    for name in OUTPUTS:
        wanted = [bits(value) for value in trained[name].to_pylist()]
        assert [bits(value) for value in online[name]] == wanted
        assert [bits(value) for value in served.features.to_dict()[name]] == wanted


def test_predict(client: quern.Client) -> None:
    instances = [{"tailnum": "N1", "distance": 100.0, "event_timestamp": TENTH}]
    prediction = client.predict("delay", instances, with_features=True)
    assert (prediction.model_version, prediction.feature_service) == ("1", "delays")
    vector = [prediction.features.to_dict()[name][0] for name in OUTPUTS]
    wanted = BIAS + sum(weight * value for weight, value in zip(WEIGHTS, vector, strict=True))
    assert prediction.predictions == [pytest.approx(wanted, rel=1e-6)]
    assert client.predict("delay", instances) == prediction.predictions
    assert client.predict("delay", instances, version="1") == prediction.predictions


def test_a_batch_as_of_says_what_single_predictions_say(client: quern.Client) -> None:
    planes, times = ("N1", "N2", "N3", None), (TENTH, FOURTH, dt.datetime(2013, 1, 1, 10, tzinfo=UTC))
    asked = spine([(plane, at, 3.0) for plane in planes for at in times])
    got = client.predict_batch("delay", asked, as_of=True)
    assert got.drop_columns(["score"]) == asked
    assert got.column_names == [*asked.column_names, "score"]
    single = client.predict("delay", asked.drop_columns(["note"]))
    # Over JSON there is no NaN.
    scores = [None if score != score else score for score in got["score"].to_pylist()]
    assert [bits(score) for score in scores] == [bits(score) for score in single]
    for other in (asked.to_pandas(), pl.from_arrow(asked), asked.to_reader(1)):
        assert str(client.predict_batch("delay", other, version="1", as_of=True)["score"]) == str(got["score"])


def test_a_batch_now(client: quern.Client) -> None:
    # Every plane was seen too long ago to count now, whatever time a row brings.
    rows = 20_000
    asked = pa.table(
        {"tailnum": ["N1", "N9"] * (rows // 2), "distance": [1.0] * rows, "event_timestamp": [TENTH] * rows}
    )
    got = client.predict_batch("delay", asked, batch_rows=999)
    assert got.drop_columns(["score"]) == asked
    assert all(score != score for score in got["score"].to_pylist())
    assert client.predict_batch("delay", asked.slice(0, 0)).column_names[-1] == "score"
    first = next(iter(client.predict_batches("delay", asked)))
    assert 0 < first.num_rows < rows


def test_predictions_with_labels(client: quern.Client) -> None:
    begun = dt.datetime.now(UTC)
    instances = [{"tailnum": plane, "distance": 250.0, "event_timestamp": TENTH} for plane in ("N1", "N2", "N4")]
    scores = client.predict("delay", instances)
    said = client.predictions("delay", from_=begun)
    assert said["row"].to_pylist() == [0, 1, 2]
    assert said["tailnum"].to_pylist() == ["N1", "N2", "N4"]
    assert said["last_delay"].to_pylist() == [0.1, None, None]
    assert said["event_timestamp"].to_pylist() == [TENTH] * 3
    assert bits(said["prediction.score"].to_pylist()[0]) == bits(scores[0])
    assert client.predictions("delay", to=begun).num_rows == client.predictions("delay").num_rows - 3

    request = said["request_id"].to_pylist()[0]
    assert client.label("delay", [{"request_id": request, "row": row, "label": 1.0, "by": "me"} for row in (0, 2)]) == 2
    assert client.label("delay", pl.DataFrame({"request_id": [request], "row": [2], "label": [7]})) == 1
    joined = client.predictions("delay", from_=begun)
    assert joined["label"].to_pylist() == [1.0, None, 7.0]
    assert joined["by"].to_pylist() == ["me", None, None]
    assert client.predictions("delay", from_=begun, labelled=True)["row"].to_pylist() == [0, 2]
    with pytest.raises(quern.QuernError) as caught:
        client.label("delay", [{"request_id": request, "label": "late"}])
    assert (caught.value.status, "`label` was float64 before" in caught.value.message) == (400, True), caught.value
    for refused in (lambda: client.label("dely", [{"request_id": "a"}]), lambda: client.predictions("dely")):
        with pytest.raises(quern.QuernError) as caught:
            refused()
        assert (caught.value.status, "did you mean `delay`?" in caught.value.message) == (404, True)


@pytest.mark.parametrize(
    ("change", "options", "status", "told"),
    [
        (lambda t: t, {"version": "2"}, 404, "has no version `2`"),
        (lambda t: t.drop_columns(["tailnum"]), {}, 400, "the table has no column `tailnum`"),
        (
            lambda t: t.append_column("score", t["distance"]),
            {},
            400,
            "`score` and an output of model `delay` share a name",
        ),
        (lambda t: t.drop_columns(["event_timestamp"]), {"as_of": True}, 400, "no column `event_timestamp`"),
    ],
)
def test_a_batch_that_cannot_be(client: quern.Client, change: Any, options: Any, status: int, told: str) -> None:
    with pytest.raises(quern.QuernError) as caught:
        client.predict_batch("delay", change(spine([("N1", TENTH, 1.0)])), **options)
    assert (caught.value.status, told in caught.value.message) == (status, True), caught.value.message


@pytest.mark.parametrize(
    ("ask", "status", "told"),
    [
        (lambda c: c.get_online_features("delay", {"tailnum": ["N1"]}), 404, "delays"),
        (lambda c: c.get_online_features(["plane_history:leg"], {"tailnum": ["N1"]}), 404, "legs"),
        (lambda c: c.get_online_features("delays", {"tailnum": ["N1"]}), 400, "distance"),
        (lambda c: c.predict("delays", [{}]), 404, "delay"),
        (lambda c: c.predict("delay", [{}], version="2"), 404, "1"),
        (lambda c: c.predict("delay", [{"tailnum": "N1", "distance": "far"}]), 400, "distance"),
        (lambda c: c.training_set("delay", spine([])), 404, "delays"),
        (lambda c: c.training_set("delays", spine([]).drop_columns(["tailnum"])), 400, "tailnum"),
    ],
)
def test_errors_tell_the_way_out(client: quern.Client, ask: Any, status: int, told: str) -> None:
    with pytest.raises(quern.QuernError) as caught:
        ask(client)
    assert caught.value.status == status
    assert told in caught.value.message
    assert "gRPC" not in caught.value.message
