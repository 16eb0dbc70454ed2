"""Does what a caller brings become what the wire carries, and times times again?"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from quern import results, tables

UTC = dt.timezone.utc
NOON = dt.datetime(2013, 1, 1, 12, tzinfo=UTC)
NOON_US = 1_357_041_600_000_000


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (NOON, NOON_US),
        (NOON.replace(tzinfo=None), NOON_US),  # a naive time is UTC
        (NOON.astimezone(dt.timezone(dt.timedelta(hours=-5))), NOON_US),
        (dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "1969-12-31T23:59:59.999999+00:00"),
        (np.array(["1970-01-01"], dtype="datetime64[D]"), ["1970-01-01T00:00:00+00:00"]),
        (dt.datetime(1973, 3, 4, tzinfo=UTC), 100_051_200_000_000),
        (pd.Timestamp(NOON), NOON_US),
        (pd.NaT, None),
        (pd.NA, None),
        (np.datetime64("2013-01-01T12:00"), NOON_US),
        (np.datetime64("NaT"), None),
        (np.array(["2013-01-01T12:00", "NaT"], dtype="datetime64[s]"), [NOON_US, None]),
        (dt.date(2013, 1, 1), "2013-01-01"),
        (float("nan"), None),
        (np.float32("nan"), None),
        (np.float64(0.1), 0.1),
        (np.int64(2**62), 2**62),
        (np.bool_(True), True),
        (np.array([1.5, np.nan]), [1.5, None]),
        (float("inf"), "Infinity"),
        (np.float32("-inf"), "-Infinity"),
        ([1.5, float("inf")], [1.5, "Infinity"]),
        (b"\x00\xff", {"b64": "AP8="}),
        (np.bytes_(b"N1"), {"b64": "TjE="}),
        (decimal.Decimal("12.50"), 12.5),
        (decimal.Decimal("7"), 7),
        (decimal.Decimal("NaN"), None),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ([1, 2.5, None], [1, 2.5, None]),
        (True, True),
        ("N1", "N1"),
    ],
)
def test_values_for_json(value: Any, sent: Any) -> None:
    got = tables.json_value(value)
    assert got == sent
    assert type(got) is type(sent)


def test_values_that_json_has_not() -> None:
    with pytest.raises(TypeError, match="a object cannot be sent"):
        tables.json_value(object())
    with pytest.raises(TypeError, match="column tailnum: expected a list of values"):
        tables.json_columns({"tailnum": "N1"})
    with pytest.raises(TypeError, match="column odd: a object cannot be sent"):
        tables.json_rows([{"odd": object()}])


def test_every_kind_of_table_gives_the_same_columns_and_rows() -> None:
    rows = [{"tailnum": "N1", "at": NOON, "x": 1.5}, {"tailnum": None, "at": None, "x": None}]
    columns = {"tailnum": ["N1", None], "at": [NOON_US, None], "x": [1.5, None]}
    table = pa.Table.from_pylist(rows)
    kinds = [
        rows,
        {name: table[name] for name in table.column_names},
        table,
        table.to_batches()[0],
        table.to_reader(),
        table.to_pandas(),
        pl.from_arrow(table),
        pl.from_arrow(table).lazy(),
    ]
    for kind in kinds:
        assert tables.json_columns(kind) == columns
    assert tables.json_rows(table) == tables.json_rows(rows) == [{n: c[i] for n, c in columns.items()} for i in (0, 1)]
    assert tables.json_columns([{"a": 1}, {"b": 2}]) == {"a": [1, None], "b": [None, 2]}
    with pytest.raises(ValueError, match="columns differ in length: a has 1, b has 2"):
        tables.json_rows({"a": [1], "b": [1, 2]})
    with pytest.raises(TypeError, match=r"expected a table of pyarrow, pandas or polars, .*, found int 7"):
        tables.json_columns(7)


def test_columns_that_arrow_alone_would_not_take() -> None:
    mixed = tables.to_table(
        {"at": ["2013-01-01T12:00:00Z", NOON, None, pd.Timestamp(NOON)], "x": [1, 2.5, None, float("inf")]}
    )
    assert mixed["at"].to_pylist() == ["2013-01-01T12:00:00Z", NOON.isoformat(), None, NOON.isoformat()]
    assert mixed["x"].to_pylist() == [1.0, 2.5, None, float("inf")]
    decimals = tables.to_table({"x": [decimal.Decimal("1.5"), 0.1, None]})
    assert decimals["x"].to_pylist() == [1.5, 0.1, None]
    days = tables.to_table({"at": [np.datetime64("2013-01-01T12"), np.datetime64("NaT")]})
    assert days["at"].to_pylist() == [NOON.replace(tzinfo=None), None]
    missing = tables.to_table([{"at": NOON, "n": 1}, {"at": pd.NaT, "n": pd.NA}])
    assert missing.to_pylist() == [{"at": NOON, "n": 1}, {"at": None, "n": None}]
    with pytest.raises(
        TypeError, match="column odd, row 2: found str 'one' beside int 1 in row 0; the values of a column"
    ):
        tables.to_table({"odd": [1, None, "one"]})


def test_moments() -> None:
    assert tables.moment("to", None) is None
    for text in ("2013-01-01T12:00:00Z", "2013-01-01T13:00:00+01:00", "2013-01-01 12:00:00"):
        assert tables.moment("to", text) == NOON_US
    with pytest.raises(ValueError, match=r"to: expected a time .*, found 'noon'"):
        tables.moment("to", "noon")


def test_times_come_in_every_length() -> None:
    assert results.parse_time("2013-01-01T12:00:00Z") == NOON
    assert results.parse_time("2013-01-01T12:00:00.5Z") == NOON.replace(microsecond=500_000)
    assert results.parse_time("2013-01-01T12:00:00.000001234Z") == NOON.replace(microsecond=1)
    assert results.parse_time("2013-01-01T07:00:00-05:00") == NOON
    with pytest.raises(ValueError, match="not a time"):
        results.parse_time("noon")
