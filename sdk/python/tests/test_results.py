"""How do results look, and do the client and what it is a client of go by one number?"""

from __future__ import annotations

import datetime as dt
import inspect
import re
from pathlib import Path

import pyarrow as pa

import quern
from quern.results import OnlineFeatures, Prediction
from quern.types import typed

ROOT = Path(__file__).parents[3]


def features() -> OnlineFeatures:
    times = [[None, None], ["2013-01-01T12:00:00Z", None]]
    return OnlineFeatures(["k", "x<y"], [["a", "b & c"], [1.5, None]], [["PRESENT"] * 2] * 2, times)


def test_a_table_in_a_notebook_shows_text_as_text() -> None:
    shown = features()._repr_html_()
    assert "<th>x&lt;y</th>" in shown and "<td>b &amp; c</td>" in shown and "<i>null</i>" in shown
    many = Prediction(range(1_000))
    many.served_by, many.request_ids, many.rows = ["1"] * 1_000, ["r"] * 1_000, list(range(1_000))
    shown = many._repr_html_()
    assert shown.count("<tr>") == 21 and "1,000 rows, 20 shown" in shown
    long = OnlineFeatures(["k"], [["x" * 1_000]], [["PRESENT"]], [[None]])._repr_html_()
    assert len(long) < 300


def test_what_a_reply_says_of_views() -> None:
    views = [
        {"name": "seen", "materialized_until": "2013-01-01T12:00:00Z"},
        {"name": "new", "materialized_until": None},
    ]
    column = {"values": [1], "statuses": ["PRESENT"], "event_timestamps": [None]}
    metadata = {"feature_names": ["k"], "feature_view_metadata": views}
    found = OnlineFeatures.from_reply({"metadata": metadata, "results": [column]})
    noon = dt.datetime(2013, 1, 1, 12, tzinfo=dt.timezone.utc)
    assert found.materialized_until == {"seen": noon, "new": None}
    assert features().materialized_until == {}


def test_results_as_frames() -> None:
    assert features().to_pandas()["x<y"].iloc[0] == 1.5
    several = Prediction([{"code": 1, "name": "a"}, {"code": 2, "name": None}])
    several.served_by, several.request_ids, several.rows = ["1", "2"], ["r", "r"], [0, 1]
    assert several.to_arrow().to_pydict() == {
        "served_by": ["1", "2"],
        "request_id": ["r", "r"],
        "row": [0, 1],
        "code": [1, 2],
        "name": ["a", None],
    }
    pushed = quern.PushResult(2, 1, [quern.Rejected(0, "c", "<bad>")])
    assert pushed.to_pandas()["cause"].tolist() == ["<bad>"]
    assert "2 accepted, 1 repeated, 1 rejected" in pushed._repr_html_() and "&lt;bad&gt;" in pushed._repr_html_()
    assert "<table>" not in quern.PushResult(2, 0, [])._repr_html_()


def test_a_prediction_is_the_list_that_it_was() -> None:
    got = Prediction([0.5, 0.25])
    assert got == [0.5, 0.25] and sorted(got) == [0.25, 0.5] and isinstance(got, list)
    assert str(got) == "[0.5, 0.25]" and max(got) == 0.5 and got[-1:] == [0.25]


def test_every_client_has_every_call() -> None:
    assert isinstance(quern.Client(), quern.FeatureStore)
    for name, call in vars(quern.Client).items():
        if not name.startswith("_"):
            awaited = inspect.signature(getattr(quern.AsyncClient, name)).parameters
            assert list(inspect.signature(call).parameters.items()) == list(awaited.items()), name
    for name, call in vars(quern.FeatureStore).items():
        if not name.startswith("_"):
            assert inspect.signature(call) == inspect.signature(getattr(quern.Client, name)), name


def test_one_number_covers_client_and_server() -> None:
    workspace = (ROOT / "Cargo.toml").read_text()
    number = re.search(r'^\[workspace\.package\][^\[]*?^version = "(.*?)"', workspace, re.S | re.M)
    assert number is not None and quern.__version__ == number[1]


def test_values_have_the_types_that_the_definitions_call_so() -> None:
    noon = dt.datetime(2024, 1, 1, 12, tzinfo=dt.timezone.utc)
    for name, values, wanted, dtype in [
        (
            "map<string, float64>",
            [{"Bücher": 2}, {}, None],
            [[("Bücher", 2.0)], [], None],
            pa.map_(pa.string(), pa.float64()),
        ),
        ("timestamp", ["2024-01-01T12:00:00Z", None], [noon, None], pa.timestamp("us", tz="UTC")),
        ("date", ["2024-01-01"], [dt.date(2024, 1, 1)], pa.date32()),
        ("bytes", ["AAE="], [b"\x00\x01"], pa.binary()),
        ("float32", [None], [None], pa.float32()),
        ("list<float32, 2>", [[1, 2.5]], [[1.0, 2.5]], pa.list_(pa.float32(), 2)),
        ("list<int64>", [[1], []], [[1], []], pa.list_(pa.int64())),
        ("list<string>", [["a", None], None], [["a", None], None], pa.list_(pa.string())),
        ("list<bool, 2>", [[True, None]], [[True, None]], pa.list_(pa.bool_(), 2)),
        ("of a later server", [1], [1], pa.int64()),
    ]:
        column = typed(values, name)
        assert (column.type, column.to_pylist()) == (dtype, wanted), name
