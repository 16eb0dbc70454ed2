"""Is an argument of another kind than is taken refused in words, before anything is sent?"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import quern
from stand_in import StandIn

ROWS = "a list of values, one for each row (a single row is a list of one dict: `[{...}]`)"
WRONG: list[tuple[Callable[[Any], Any], str]] = [
    (lambda c: c.predict(5, [{}]), "model: expected the name of a model, found int 5"),
    (lambda c: c.predict("", [{}]), "model: expected the name of a model, found an empty text"),
    (lambda c: c.predict("m", [5]), "row 0: expected a dict of columns, found int 5"),
    (lambda c: c.predict("m", [{}, "a"]), "row 1: expected a dict of columns, found str 'a'"),
    (lambda c: c.predict("m", {"k": 1}), f"column k: expected {ROWS}, found int 1"),
    (lambda c: c.predict("m", "k"), "a list of rows, found str 'k'"),
    (lambda c: c.predict("m", None), "a list of rows, found None"),
    (lambda c: c.predict("m", [{}], version=1.5), 'version: expected a version, such as "2", found float 1.5'),
    (lambda c: c.predict("m", [{}], with_features="yes"), "with_features: expected True or False, found str 'yes'"),
    (lambda c: c.predict("m", [{}], request_id=7), "request_id: expected a text, found int 7"),
    (
        lambda c: c.predict("m", [{}], deadline="x"),
        "deadline: expected a number of seconds or a timedelta, found str 'x'",
    ),
    (lambda c: c.predict("m", [{}], priority=1), "priority is 1; it is 'interactive' or 'batch'"),
    (lambda c: c.predict("m", [{}], headers="x"), "headers: expected a dict of names and texts, found str 'x'"),
    (lambda c: c.predict("m", [{}], headers={"x": 1}), "header x: expected a text, found int 1"),
    (lambda c: c.get_online_features(5, {}), "features: expected the name of a feature service, or a list of features"),
    (lambda c: c.get_online_features([5], {}), "features, item 0: expected a text, found int 5"),
    (lambda c: c.get_online_features("s", {"k": "a"}), f"column k: expected {ROWS}, found str 'a'"),
    (lambda c: c.get_online_features("s", {}, full_feature_names=1), "full_feature_names: expected True or False"),
    (lambda c: c.service(None), "name: expected the name of a feature service, found None"),
    (lambda c: c.materialize(5), "views: expected the name of a feature view, or a list of names, found int 5"),
    (lambda c: c.materialize(from_="noon"), "from_: expected a time as ISO 8601 has it, such as 2013-01-31T08:30:00Z"),
    (lambda c: c.materialize(to=5), "to: expected a datetime or a text as ISO 8601 has it, found int 5"),
    (
        lambda c: c.materialize(to=dt.date(2024, 1, 1)),
        "to: expected a datetime or a text as ISO 8601 has it, found date",
    ),
    (lambda c: c.materialize(look_back=5), "look_back: expected a timedelta, found int 5"),
    (lambda c: c.materialize(on_progress="print"), "on_progress: expected a function, found str 'print'"),
    (lambda c: c.push(None, []), "source: expected the name of a source, found None"),
    (lambda c: c.push("s", {"k": "a", "x": 1.0}), f"column k: expected {ROWS}, found str 'a'"),
    (lambda c: c.push("s", {"k": ["a"], "x": [1, 2]}), "columns differ in length: k has 1, x has 2"),
    (lambda c: c.push("s", [{"k": "a"}, 5]), "row 1: expected a dict of columns, found int 5"),
    (lambda c: c.push("s", [{"x": 1.5}, {"x": "a"}]), "column x, row 1: found str 'a' beside float 1.5 in row 0"),
    (lambda c: c.push("s", [{"x": [1]}, {"x": 1}]), "column x, row 1: found int 1 beside list [1] in row 0"),
    (lambda c: c.push("s", [{"x": 1}, {"x": 1 << 70}]), "column x, row 1: 1180591620717411303424 does not fit into 64"),
    (lambda c: c.push("s", [{"x": object()}]), "column x, row 0: a object cannot be sent"),
    (lambda c: c.push("s", pd.DataFrame({"x": [1, "a"]})), "column x, row 1: found str 'a' beside int 1 in row 0"),
    (lambda c: c.push("s", 5), "a list of rows, found int 5"),
    (lambda c: c.push("s", [], to="nowhere"), "to is 'nowhere'; it is 'online', 'offline' or 'online_and_offline'"),
    (lambda c: c.push("s", [], idempotency_key=5), "idempotency_key: expected a text, found int 5"),
    (lambda c: c.push("s", [], batch_rows="all"), "batch_rows: expected a whole number, found str 'all'"),
    (lambda c: c.predict_batch(5, []), "model: expected the name of a model, found int 5"),
    (lambda c: c.predict_batch("m", [], as_of="now"), "as_of: expected True or False, found str 'now'"),
    (lambda c: c.predict_batch("m", [], version=True), "version: expected a version"),
    (lambda c: c.export(5), "view: expected the name of a feature view, found int 5"),
    (lambda c: c.export("v", features="x"), "features: expected names of features, found str 'x'"),
    (lambda c: c.export("v", at="noon"), "at: expected a time as ISO 8601 has it"),
    (lambda c: c.export("v", latest=1), "latest: expected True or False, found int 1"),
    (lambda c: c.export_source(""), "source: expected the name of a source, found an empty text"),
    (lambda c: c.predictions(5), "model: expected the name of a model, found int 5"),
    (lambda c: c.predictions("m", "noon"), "from_: expected a time as ISO 8601 has it"),
    (lambda c: c.predictions("m", labelled="yes"), "labelled: expected True or False, found str 'yes'"),
    (lambda c: c.label(5, []), "model: expected the name of a model, found int 5"),
    (lambda c: c.label("m", [5]), "row 0: expected a dict of columns, found int 5"),
    (lambda c: quern.Client(5), "url: expected the address of a server, such as http://127.0.0.1:7400, found a int"),
    (lambda c: quern.Client(timeout="x"), "timeout: expected a number of seconds or a timedelta, found str 'x'"),
    (lambda c: quern.Client(timeout=0), "timeout is 0 seconds; it must be more than 0"),
    (lambda c: quern.Client(headers=["x"]), "headers: expected a dict of names and texts, found list ['x']"),
]


@pytest.mark.parametrize(("ask", "told"), WRONG, ids=range(len(WRONG)))
def test_an_argument_of_another_kind_is_refused_before_anything_is_sent(
    stand_in: StandIn, ask: Callable[[Any], Any], told: str
) -> None:
    with quern.Client(stand_in.url) as client, pytest.raises((TypeError, ValueError)) as caught:
        ask(client)
    assert told in str(caught.value)
    # What is raised is ours: those of Arrow are called otherwise.
    assert type(caught.value) in (TypeError, ValueError)
    assert stand_in.seen == []


def test_labels_that_are_no_columns_are_refused() -> None:
    prediction = quern.Prediction([1.0, 2.0])
    prediction.request_ids, prediction.rows = ["r", "r"], [0, 1]
    with pytest.raises(TypeError, match=r"column label: expected a list of values, .*, found float 1.5"):
        prediction.labels(label=1.5)
    with pytest.raises(TypeError, match=r"column label, row 1: found str 'late' beside float 1.5 in row 0"):
        prediction.labels(label=[1.5, "late"])
    series = pd.Series([1.5, 2.5], index=[7, 8])
    assert prediction.labels(label=series)["label"].to_pylist() == [1.5, 2.5]


def test_a_client_that_awaits_refuses_the_same(stand_in: StandIn) -> None:
    async def ask() -> str:
        async with quern.AsyncClient(stand_in.url) as client:
            with pytest.raises(TypeError) as caught:
                await client.push("s", {"k": "a"})
        return str(caught.value)

    assert asyncio.run(ask()) == f"column k: expected {ROWS}, found str 'a'"


def test_what_people_write_is_taken(stand_in: StandIn) -> None:
    stand_in.replies = [(200, b'{"predictions": [1.0]}')] * 2
    with quern.Client(stand_in.url, timeout=np.float64(3)) as client:
        client.predict("m", ({"k": 1},), version=2, deadline=np.int64(2))
        client.predict("m", [{"k": 1}], version=np.int64(2), deadline=dt.timedelta(seconds=2))
    assert len(stand_in.seen) == 2
