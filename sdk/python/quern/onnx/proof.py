"""Does the file say what the learner says? Both are asked about every row of the training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from quern.onnx.columns import Columns
from quern.onnx.errors import ExportError, ProofError, need
from quern.onnx.learner import Converted, Input

_ROWS_AT_ONCE = 4_096  # a text that is many words is a row of many floats


@dataclass(frozen=True)
class Difference:
    """By how much an output of the file differs from the learner, and where most."""

    output: str
    absolute: float
    """The greatest. A label that differs counts by how much the learner prefers its own to the next one."""
    relative: float
    """The greatest, in parts of what the learner says."""
    beyond: int
    """How many rows differ by more than the tolerance."""
    row: int
    learner: Any
    """What it says of that row."""
    file: Any
    values: dict[str, Any]
    """That row's columns."""


@dataclass(frozen=True)
class Proof:
    """What came of asking both about each row."""

    rows: int
    tolerance: float
    differences: list[Difference]
    """One for each output that the learner has an answer for."""

    @property
    def holds(self) -> bool:
        """Whether no row differs by more than the tolerance."""
        return not any(difference.beyond for difference in self.differences)

    @property
    def greatest(self) -> Difference:
        """The output that differs most."""
        return max(self.differences, key=lambda difference: (difference.beyond > 0, difference.absolute))

    def __str__(self) -> str:
        rows = [("output", "differs by", "relative", "at row", "learner", "file")]
        for found in self.differences:
            numbers = (f"{found.absolute:.3g}", f"{found.relative:.3g}", f"{found.row:,}")
            rows.append((found.output, *numbers, _shown(found.learner), _shown(found.file)))
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
        return "\n".join(lines)

    def check(self) -> None:
        """Raise where it does not hold, and say where."""
        if self.holds:
            return
        at = self.greatest
        told = (
            f"the ONNX file does not say what the model says: output `{at.output}` differs by more than "
            f"{self.tolerance:g} in {at.beyond:,} of {self.rows:,} rows, most in row {at.row:,}: the model says "
            f"{_shown(at.learner)}, the file {_shown(at.file)}, of {at.values}. {_advice(at)}"
        )
        raise ProofError(told, self)


def _advice(at: Difference) -> str:
    """Say what it may come of, and what to do."""
    nulls = [name for name, value in at.values.items() if value is None]
    if nulls and at.absolute == float("inf"):
        told = f"The model has its own answer to NaN, which null becomes there, in {nulls}"
        return f"{told}: derive a value in the feature service, as in `coalesce({nulls[0]}, 0)`, and train on that"
    return (
        "Where few rows differ, ONNX computes in float32 what the model computes in float64, and a number next to a "
        "threshold of a tree falls on its other side: train on columns that were rounded to float32, put no scaler "
        "before trees, or allow it by `tolerance=...`. Where many do, the exporter misreads the model: try another"
    )


def prove(converted: Converted, columns: Columns, answers: Sequence[Any], tolerance: float) -> tuple[Proof, list[str]]:
    """Compare, and name the outputs of the file in their order."""
    outputs = run(converted.file, converted.inputs, columns)
    flat = [_rows(answer, columns.rows) for answer in answers]
    differences = []
    for (name, said), expected in zip_longest(outputs.items(), flat[: len(outputs)]):
        got = _rows(said, columns.rows)
        if expected is None or got is None or got.shape != expected.shape:
            continue
        differences.append(_difference(name, got, expected, flat, columns, tolerance))
    if not differences:
        told = {name: getattr(said, "shape", "a sequence") for name, said in outputs.items()}
        raise ExportError(f"no output of the file has the shape of what the model says: {told}")
    return Proof(columns.rows, tolerance, differences), list(outputs)


def run(file: bytes, inputs: Sequence[Input], columns: Columns) -> dict[str, Any]:
    """Ask the file about all rows, as Quern does: by ONNX Runtime, on one thread."""
    np, onnxruntime = need("numpy"), need("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    # Of several kinds, which ONNX Runtime does not say. Of a locale that lacks, docs/models.md says what to install.
    except Exception as error:
        raise ExportError(f"ONNX Runtime does not load the file, and so Quern would not: {error}") from error
    parts = []
    for start in range(0, columns.rows, _ROWS_AT_ONCE):
        part = columns.slice(start, _ROWS_AT_ONCE)
        said = session.run(None, {taken.name: taken.tensor(part) for taken in inputs})
        parts.append([_rows(output, part.rows) for output in said])
    names = [output.name for output in session.get_outputs()]
    by_output = zip(*parts, strict=True)
    whole = [None if any(part is None for part in output) else np.concatenate(output) for output in by_output]
    return dict(zip(names, whole, strict=True))


def _rows(said: Any, rows: int) -> Any:
    """Give an answer as [rows, cells]; several targets stand side by side. None where it does not count rows."""
    np = need("numpy")
    if said is None:
        return None
    if isinstance(said, list):
        parts = [_rows(np.asarray(part), rows) for part in said]
        return None if any(part is None for part in parts) else np.hstack(parts)
    dense = np.asarray(said.toarray() if hasattr(said, "toarray") else said)
    return dense.reshape(rows, -1) if dense.ndim > 0 and dense.shape[0] == rows else None


def _difference(
    name: str, got: Any, expected: Any, answers: Sequence[Any], columns: Columns, tolerance: float
) -> Difference:
    np = need("numpy")
    if got.dtype.kind == "f" and expected.dtype.kind in "fiub":
        exact = expected.astype("float64")
        with np.errstate(invalid="ignore", divide="ignore"):
            absolute = np.abs(got - exact)
            absolute[(got == exact) | (np.isnan(got) & np.isnan(exact))] = 0
            absolute[np.isnan(absolute)] = np.inf
            relative = np.where(absolute == 0, 0, absolute / np.abs(exact))
        sizes = np.nan_to_num(np.abs(exact), posinf=1)
        # Of answers that are all small, a difference that is small beside 1 is none beside them.
        scaled = absolute / np.maximum(min(1, sizes.max()) or 1, sizes)
    else:
        alike = got == expected if got.dtype.kind in "iub" else got.astype(str) == expected.astype(str)
        absolute = np.where(alike, 0, _preference(answers, got.shape))
        relative = scaled = absolute
    worst = scaled.max(axis=1)
    row = int(worst.argmax())
    return Difference(
        name,
        float(absolute.max()),
        float(relative.max()),
        int((worst > tolerance).sum()),
        row,
        _plain(expected[row]),
        _plain(got[row]),
        columns.row(row),
    )


def _preference(answers: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Give by how much a learner prefers each row's class to the next one; 1 where it does not say."""
    np = need("numpy")
    for answer in answers:
        if shape[1] == 1 and answer is not None and answer.dtype.kind == "f" and answer.shape[1] > 1:
            first = np.sort(answer, axis=1)
            return (first[:, -1] - first[:, -2]).reshape(-1, 1)
    return np.ones(shape)


def _plain(cells: Any) -> Any:
    return cells[0].item() if len(cells) == 1 and hasattr(cells[0], "item") else cells.tolist()


def _shown(value: Any) -> str:
    cells = value if isinstance(value, list) else [value]
    shown = [f"{cell:.7g}" if isinstance(cell, float) else str(cell) for cell in cells[:4]]
    text = ", ".join(shown) + (", …" if len(cells) > 4 else "")
    return f"[{text}]" if len(cells) > 1 else text
