"""What does a training set hold that a model takes, and as which cells does Quern hand it over?

As docs/models.md has it: numbers and bool are rounded to the input's type, null is NaN in a float and the declared
`default` elsewhere, the items of a list stand side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from quern import arguments, tables
from quern.catalogue import FeatureService
from quern.onnx.errors import ExportError, need

if TYPE_CHECKING:
    import pandas as pd

Matrix = Any  # of numpy, which pyarrow does without


@dataclass(frozen=True)
class TrainingSet:
    """A table, and what its metadata says of it."""

    table: pa.Table
    service: str
    outputs: list[str] | None
    """The columns of the service in their order, where they are known."""

    @classmethod
    def read(cls, table: Any, service: str | FeatureService) -> TrainingSet:
        """Take a table of any library. What its metadata lacks, a `FeatureService` knows."""
        found = tables.to_table(table)
        metadata = found.schema.metadata or {}
        outputs = json.loads(metadata[b"quern.outputs"]) if b"quern.outputs" in metadata else None
        if isinstance(service, FeatureService):
            outputs = outputs or [column.name for column in service.outputs]
            service = service.name
        arguments.text("service", service, "the name of a feature service")
        trained_on = metadata.get(b"quern.feature_service", b"").decode()
        # Another project's service has the project's name before its own.
        if trained_on and trained_on.rpartition(".")[2] != service.rpartition(".")[2]:
            raise ExportError(f"the table is a training set of feature service `{trained_on}`, not of `{service}`")
        if found.num_rows == 0:
            raise ExportError("the table has no rows, so nothing can be proved on it")
        return cls(found, service, outputs)

    @property
    def pin(self) -> dict[str, Any] | None:
        """Of what the set was made, as the server says."""
        pin = (self.table.schema.metadata or {}).get(b"quern.training_set")
        return None if pin is None else dict(json.loads(pin))

    def defaults(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Give what stands for null: of texts what the service declares; of whole numbers what is asked for."""
        metadata = self.table.schema.metadata or {}
        declared = json.loads(metadata.get(b"quern.defaults", b"{}"))
        for name, value in given.items():
            if name not in self.table.column_names:
                near = get_close_matches(name, self.table.column_names, 1)
                told = f"did you mean `{near[0]}`?" if near else f"it has {self.table.column_names}"
                raise ExportError(f"`defaults` has `{name}`, which is no column of the table; {told}")
            if b"quern.outputs" in metadata and declared.get(name) != value:
                told = repr(declared[name]) if name in declared else "none"
                raise ExportError(f"`defaults` has {value!r} for `{name}`, and the service declares {told}")
        texts = {name: value for name, value in declared.items() if isinstance(value, str)}
        return {**texts, **given}

    def choose(self, learner: Sequence[str] | None, given: Sequence[str] | None) -> pa.Table:
        """Choose columns: those that the learner names, in its order, else those given, else the service's."""
        wanted = learner or given or self.outputs
        if not wanted:
            told = "which columns does the model take, in which order?"
            raise ExportError(f"{told} The table's metadata has no `quern.outputs`: give `columns=[...]`")
        known = [name for name in self.outputs or self.table.column_names if name in self.table.column_names]
        for name in wanted:
            if name not in known:
                near = get_close_matches(name, known, 1)
                told = f"did you mean `{near[0]}`?" if near else f"it has {known}"
                whose = "was trained on" if learner else "is to take"
                raise ExportError(f"the model {whose} column `{name}`, which the training set lacks; {told}")
            if list(wanted).count(name) > 1:
                raise ExportError(f"column `{name}` is named twice")
        return self.table.select(list(wanted))


@dataclass(frozen=True)
class Columns:
    """The columns that a model takes, in its order."""

    table: pa.Table
    texts: frozenset[str]
    whole: frozenset[str]
    """Whole numbers that go as int64, since their null has a `default`."""

    @classmethod
    def of(cls, table: pa.Table, defaults: Mapping[str, Any], takes_whole: bool = False) -> Columns:
        """Look at the types. A default stands for null where an input has no NaN: of text, and of whole numbers."""
        texts, whole, arrays = set(), set(), []
        for name, array in zip(table.column_names, table.columns, strict=True):
            array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
            array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
            kind = array.type
            if _is_text(kind):
                texts.add(name)
                array = _filled(name, array.cast(pa.string()), defaults)
            elif pa.types.is_integer(kind) and name in defaults and takes_whole:
                whole.add(name)
                array = _filled(name, array, defaults)
            elif pa.types.is_decimal(kind):
                array = array.cast(pa.float64())
            elif _is_list(kind) and _is_number(kind.value_type):
                array = _sized(name, array)
            elif not _is_number(kind):
                told = "no input of a model takes it; derive a number of it in the feature service, or leave it out"
                raise ExportError(f"column `{name}` is {kind}: {told} by `columns=[...]`")
            arrays.append(array)
        return cls(pa.table(arrays, names=table.column_names), frozenset(texts), frozenset(whole))

    @property
    def names(self) -> list[str]:
        """What they are called."""
        names: list[str] = self.table.column_names
        return names

    @property
    def rows(self) -> int:
        """How many rows there are."""
        rows: int = self.table.num_rows
        return rows

    def slice(self, start: int, rows: int) -> Columns:
        """Give some rows of all columns."""
        return Columns(self.table.slice(start, rows), self.texts, self.whole)

    def frame(self) -> pd.DataFrame:
        """Give a frame, as a learner that was trained on one takes it."""
        need("pandas")
        kinds = dict.fromkeys(self.texts, object)
        for field, array in zip(self.table.schema, self.table.columns, strict=True):
            # With nulls among them, pandas would have bools as objects, which few learners take.
            if pa.types.is_boolean(field.type) and array.null_count:
                kinds[field.name] = float
        return self.table.to_pandas().astype(kinds)

    def matrix(self, names: Sequence[str] | None = None, dtype: str = "float64") -> Matrix:
        """Give cells side by side, [rows, cells], of some columns or all; `object` for texts."""
        np = need("numpy")
        return np.hstack([self._cells(np, name).astype(dtype) for name in names or self.names])

    def width(self, names: Sequence[str] | None = None) -> int:
        """Count the cells of a row."""
        return int(self.slice(0, 1).matrix(names, "object").shape[1])

    def _cells(self, np: Any, name: str) -> Matrix:
        array = self.table.column(name).combine_chunks()
        kind = array.type
        if _is_list(kind):
            width = kind.list_size
            cells = np.full((len(array), width), np.nan)
            cells[array.is_valid().to_numpy(zero_copy_only=False)] = _numbers(array.flatten()).reshape(-1, width)
            return cells
        plain = array.to_numpy(zero_copy_only=False) if name in self.texts else _numbers(array)
        return plain.reshape(-1, 1)

    def examples(self, rows_max: int) -> list[dict[str, Any]]:
        """Pick the first rows that have the fewest nulls, as feature vectors; what is null is left out."""
        np = need("numpy")
        missing = np.zeros(self.rows, int)
        for array in self.table.columns:
            missing += array.is_null(nan_is_null=True).to_numpy()
            if pa.types.is_string(array.type):  # which ONNX Runtime does not take
                missing += self.table.num_columns * pc.fill_null(pc.match_substring(array, "\0"), False).to_numpy()
        chosen = np.sort(np.argsort(missing, kind="stable")[:rows_max])
        rows = self.table.take(pa.array(chosen)).to_pylist()
        return [{name: _written(value) for name, value in row.items() if _is_written(value)} for row in rows]

    def row(self, at: int) -> dict[str, Any]:
        """Give the values of one row."""
        values: dict[str, Any] = self.table.slice(at, 1).to_pylist()[0]
        return values


def _filled(name: str, array: pa.Array, defaults: Mapping[str, Any]) -> pa.Array:
    if name in defaults:
        return pc.fill_null(array, pa.scalar(defaults[name], array.type))
    if array.null_count:
        told = "a text input knows no null, so Quern puts the column's `default` there"
        help = 'declare one (`default: ""`) and pull the set anew, or say by `defaults={...}` what is declared'
        raise ExportError(f"column `{name}` has {array.null_count} nulls: {told}; {help}")
    return array


def _sized(name: str, array: pa.Array) -> pa.Array:
    """Give lists of one length."""
    lengths = pc.unique(pc.list_value_length(array)).drop_null().to_pylist()
    if len(lengths) > 1:
        told = "an input takes as many of each row: declare a length, as in `list<float32, 8>`"
        raise ExportError(f"column `{name}` has lists of {min(lengths)} to {max(lengths)} items; {told}")
    return array.cast(pa.list_(array.type.value_type, lengths[0] if lengths else 0))


def _numbers(array: pa.Array) -> Matrix:
    """Give numbers, NaN for null."""
    whole = array.cast(pa.int8()) if pa.types.is_boolean(array.type) else array
    return whole.to_numpy(zero_copy_only=False)


def _is_written(value: Any) -> bool:
    """Whether a definition has a word for it."""
    if isinstance(value, list):
        return all(map(_is_written, value))
    return value is not None and not (isinstance(value, float) and not abs(value) < float("inf"))


def _written(value: Any) -> Any:
    """Give a whole number without a fraction, as both kinds of columns take it: pandas may have made it a float."""
    if isinstance(value, list):
        return [_written(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
