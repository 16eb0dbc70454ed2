"""What did the caller bring? Tables of pyarrow, pandas or polars and plain lists become what the wire carries."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import decimal
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from quern import arguments

_MISSING = ("NAType", "NaTType")  # pandas' nulls, by their names: it is no dependency
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_MICROSECONDS_MIN = 10**14  # of March 1973; smaller numbers are rather seconds or milliseconds
_MESSAGE_BYTES_MAX = 2 * 1024 * 1024  # gRPC servers commonly refuse messages beyond 4 MiB


def json_value(value: Any) -> Any:
    """Translate one value for JSON: times to microseconds since the epoch, numpy's scalars to Python's, NaN to null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dt.datetime):
        if value != value:  # pandas' NaT is a datetime that equals nothing
            return None
        return _time(microseconds(value))
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, decimal.Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else _number(float(value))
    if isinstance(value, uuid.UUID):
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy, by its manners: it is no dependency
        if value.dtype.kind == "M":
            return _numpy_times(value)
        return json_value(value.tolist())
    if type(value).__name__ in _MISSING:
        return None
    known = "strings, bytes, numbers, booleans, times and lists"
    raise TypeError(f"a {type(value).__name__} cannot be sent; known are {known}")


def _number(value: float) -> float | str | None:
    if math.isnan(value):  # what pandas and numpy write for "missing"
        return None
    if math.isinf(value):  # JSON has no number for it; this is the name that protobuf's JSON gives it
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def moment(argument: str, time: dt.datetime | str | None) -> int | None:
    """Give a time, or a text as ISO 8601 has it, as microseconds since the epoch; without a zone it is UTC."""
    if isinstance(time, str):
        text = time.replace("Z", "+00:00") if time.endswith("Z") else time
        try:
            return microseconds(dt.datetime.fromisoformat(text))
        except ValueError:
            told = "expected a time as ISO 8601 has it, such as 2013-01-31T08:30:00Z"
            raise ValueError(f"{argument}: {told}, found {time!r}") from None
    if time is None or time != time:  # pandas' NaT equals nothing
        return None
    if not isinstance(time, dt.datetime):
        raise arguments.wrong(argument, "a datetime or a text as ISO 8601 has it", time)
    return microseconds(time)


def microseconds(time: dt.datetime) -> int:
    """Count since the epoch; a naive time is UTC."""
    aware = time if time.tzinfo is not None else time.replace(tzinfo=dt.timezone.utc)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1)


def _time(count: int) -> int | str:
    """Translate microseconds since the epoch: the few that a server would take for seconds are sent as text."""
    if abs(count) < _MICROSECONDS_MIN:
        return (_EPOCH + dt.timedelta(microseconds=count)).isoformat()
    return count


def _numpy_times(value: Any) -> Any:
    """Translate numpy's datetime64, one or many."""
    counts = value.astype("datetime64[us]").astype("int64").tolist()
    not_a_time = -(2**63)
    if isinstance(counts, list):
        return [None if count == not_a_time else _time(count) for count in counts]
    return None if counts == not_a_time else _time(counts)


def json_columns(data: Any) -> dict[str, list[Any]]:
    """Turn entities, given as columns, as rows or as a table, into columns for JSON."""
    if isinstance(data, Mapping):
        columns = {str(name): _json_list(name, values) for name, values in data.items()}
        _check_lengths(columns)
        return columns
    if _is_rows(data):
        names = list(dict.fromkeys(name for row in data for name in row))
        return {str(name): [_json_cell(name, row.get(name)) for row in data] for name in names}
    table = to_table(data)
    return {name: _arrow_list(table.column(at)) for at, name in enumerate(table.column_names)}


def json_rows(data: Any) -> list[dict[str, Any]]:
    """Turn instances, given as rows or as a table, into rows for JSON."""
    if _is_rows(data):
        return [{str(name): _json_cell(name, value) for name, value in row.items()} for row in data]
    columns = json_columns(data)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _is_rows(data: Any) -> bool:
    if not isinstance(data, (list, tuple)):
        return isinstance(data, Sequence) and not isinstance(data, (str, bytes)) and _all_rows(data)
    for at, row in enumerate(data):
        if not isinstance(row, Mapping):
            raise arguments.wrong(f"row {at}", "a dict of columns", row)
    return True


def _all_rows(data: Sequence[Any]) -> bool:
    return all(isinstance(row, Mapping) for row in data)


def _check_lengths(columns: Mapping[str, Any]) -> None:
    if len({len(values) for values in columns.values()}) > 1:
        told = ", ".join(f"{name} has {len(values)}" for name, values in columns.items())
        raise ValueError(f"columns differ in length: {told}")


def check_list(name: object, values: Any) -> None:
    """Refuse a single value in the place of a column: whoever brings one row may think that it is a table."""
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        told = "a list of values, one for each row (a single row is a list of one dict: `[{...}]`)"
        raise arguments.wrong(f"column {name}", told, values)


def _json_list(name: object, values: Any) -> list[Any]:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return _arrow_list(values)
    check_list(name, values)
    return [_json_cell(name, value) for value in values]


def _json_cell(name: object, value: Any) -> Any:
    try:
        return json_value(value)
    except TypeError as error:
        raise TypeError(f"column {name}: {error}") from None


def _arrow_list(values: pa.Array | pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(values.type):
        counts = pc.cast(values, pa.timestamp("us", values.type.tz), safe=False).cast(pa.int64())
        return [None if count is None else _time(count) for count in counts.to_pylist()]
    return [_arrow_value(value) for value in values.to_pylist()]


def _arrow_value(value: Any) -> Any:
    """Translate a value of Arrow, which tells NaN from null as Python's own values do not."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return [_arrow_value(item) for item in value] if isinstance(value, list) else json_value(value)


def to_table(data: Any) -> pa.Table:
    """Turn a table of any library that speaks Arrow into pyarrow's."""
    return to_reader(data).read_all()


def to_reader(data: Any) -> pa.RecordBatchReader:
    """Turn a table, or a stream of record batches, into a stream that knows its schema."""
    if isinstance(data, pa.RecordBatchReader):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(data.schema, [data])
    if isinstance(data, pa.Table):
        return data.to_reader()
    if isinstance(data, Mapping):
        columns = {str(name): _column(name, values) for name, values in data.items()}
        _check_lengths(columns)
        return pa.table(columns).to_reader()
    if _is_rows(data):
        names = list(dict.fromkeys(name for row in data for name in row))
        columns = {str(name): _column(name, [row.get(name) for row in data]) for name in names}
        return pa.table(columns).to_reader()
    library = type(data).__module__.partition(".")[0]
    if library == "pandas":  # its own export would add the index as a column
        return _of_pandas(data).to_reader()
    if library == "polars":  # its own export uses string views, which fewer servers read
        return (data.collect() if hasattr(data, "collect") else data).to_arrow().to_reader()
    if hasattr(data, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(data)
    known = "a table of pyarrow, pandas or polars, a dict of columns or a list of rows"
    raise TypeError(f"expected {known}, found {arguments.shown(data)}")


def _of_pandas(data: Any) -> pa.Table:
    try:
        return pa.Table.from_pandas(data, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        # Column by column: it tells which one it is, or makes it alike.
        return pa.table({str(name): _column(name, data[name].tolist()) for name in data.columns})


def _column(name: object, values: Any) -> Any:
    """Turn a column of plain values into an array, and say which one it is that cannot be."""
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    check_list(name, values)
    values = values if hasattr(values, "__len__") else list(values)
    if isinstance(values, (list, tuple)):
        values = [_plain(value) for value in values]
    try:
        return pa.array(values, from_pandas=True)  # NaN is what Python has for "missing"
    except (pa.ArrowException, OverflowError):
        alike = [_text_or_float(value) for value in values]
        with contextlib.suppress(pa.ArrowException, OverflowError):
            return pa.array(alike)
        raise _odd_one(name, alike) from None


def _odd_one(name: object, values: Sequence[Any]) -> Exception:
    """Find the value of a column that no array takes, alone or beside the first one."""
    first: tuple[int, Any] | None = None
    for at, value in enumerate(values):
        if value is None:
            continue
        if not _is_array([value]):
            if isinstance(value, int):
                return ValueError(f"column {name}, row {at}: {value} does not fit into 64 bits")
            known = "text, bytes, numbers, booleans, times and lists"
            return TypeError(f"column {name}, row {at}: {arguments.shown(value)} cannot be sent; known are {known}")
        first = first or (at, value)
        if not _is_array([first[1], value]):
            told = f"{arguments.shown(value)} beside {arguments.shown(first[1])} in row {first[0]}"
            return TypeError(f"column {name}, row {at}: found {told}; the values of a column are of one type")
    return TypeError(f"column {name}: its values are not of one type")


def _is_array(values: list[Any]) -> bool:
    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError):
        return False
    return True


def _plain(value: Any) -> Any:
    """Give what Arrow takes for a value that pandas or numpy made."""
    if type(value).__name__ in _MISSING:
        return None
    if getattr(getattr(value, "dtype", None), "kind", "") == "M" and not getattr(value, "shape", ()):
        return value.astype("datetime64[us]").item()
    return value


def _text_or_float(value: Any) -> Any:
    """Make values alike that come in two kinds: the server reads times as text, decimals become floats there."""
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, uuid.UUID):
        return str(value)
    return float(value) if isinstance(value, decimal.Decimal) else value


def messages(batches: pa.RecordBatchReader, rows_max: int) -> Iterator[pa.RecordBatch]:
    """Cut batches so that each fits into one message."""
    for batch in batches:
        parts = max(1, -(-batch.nbytes // _MESSAGE_BYTES_MAX))
        rows = max(1, min(rows_max, -(-batch.num_rows // parts)))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)
