"""Which type of Arrow is a type of the definitions, and what are its values in JSON?"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_SCALARS = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
_LIST = re.compile(r"list<(?P<item>\w+)(, (?P<size>\d+))?>")
_MAP = re.compile(r"map<(?P<key>\w+), (?P<item>.+)>")


def arrow_type(name: str) -> pa.DataType | None:
    """Give the type that the definitions call so; None for one that is unknown here."""
    if listed := _LIST.fullmatch(name):
        item, size = arrow_type(listed["item"]), listed["size"]
        return None if item is None else pa.list_(item, -1 if size is None else int(size))
    if mapped := _MAP.fullmatch(name):
        key, item = arrow_type(mapped["key"]), arrow_type(mapped["item"])
        return None if key is None or item is None else pa.map_(key, item)
    return _SCALARS.get(name)


def typed(values: Sequence[Any], name: str) -> pa.Array:
    """Make a column of JSON's values; of the type that they seem to have where the name is unknown."""
    dtype = arrow_type(name)
    if dtype is None:
        return pa.array(values)
    if pa.types.is_map(dtype):
        return pa.array([None if value is None else list(value.items()) for value in values], dtype)
    if pa.types.is_binary(dtype):
        return pa.array([None if value is None else base64.b64decode(value) for value in values], dtype)
    if pa.types.is_temporal(dtype):
        return pa.array(values, pa.string()).cast(dtype)
    return pa.array(values, dtype)
