"""How does a trained model go live? It is converted, proved on its training set, and written beside its definition."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quern import arguments
from quern.catalogue import FeatureService
from quern.onnx import files
from quern.onnx.columns import Columns, TrainingSet
from quern.onnx.errors import ExportError
from quern.onnx.files import Place
from quern.onnx.learner import Converted, Input, Learner, learner_of
from quern.onnx.proof import Proof, prove

_EXAMPLES = 3
_TOLD_MAX = 1_000  # exporters tell whole trees


@dataclass(frozen=True, repr=False)
class Export:
    """What was written, and the proof."""

    model: str
    version: str
    onnx: Path
    definition: Path
    yaml: str
    """The model, as a file of definitions."""
    to_add: str | None
    """The version, where the definition is a file that was there: it is yours, and lacks this."""
    proof: Proof

    def __repr__(self) -> str:
        rows = f"{self.proof.rows:,} rows, tolerance {self.proof.tolerance:g}"
        lines = [f"model `{self.model}`, version `{self.version}`: proved on {rows}"]
        lines += [f"  {line}" for line in str(self.proof).splitlines()]
        lines += [f"  {path}" for path in (self.onnx, *([] if self.to_add else [self.definition]))]
        if self.to_add:
            lines += [f"  add to {self.definition}, under `versions`:", self.to_add]
        return "\n".join(lines)


def export(
    model: Any,
    table: Any,
    service: str | FeatureService,
    *,
    name: str | None = None,
    version: str | int = "1",
    folder: str | os.PathLike[str] = "models",
    columns: Sequence[str] | None = None,
    defaults: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
    overwrite: bool = False,
) -> Export:
    """Write a trained model as ONNX, prove it on its training set, and write its definition, for `quern apply`.

    `table` is what `client.training_set(service, …)` gave; a frame of pandas or polars has no metadata, so name the
    columns of the service in `columns`, or give the `FeatureService` of `client.service(…)`. A model that knows the
    names of its columns gets them in its own order. Text that is null is what the service declares as `default`, as it
    is when the model is served. `defaults` says which: of a frame, and of whole numbers that an encoder must have as
    int64.

    The file and the model are asked about every row. Where they differ by more than `tolerance`, in parts of what the
    model says, or of its greatest answer below 1, `ProofError` says where, and nothing is written. So it is where a
    file with other bytes lies there already, which `overwrite` replaces, and where the version is declared otherwise. A
    model that the repository declares is yours, and never changed: `to_add` has the version that it lacks.

    `folder`, in the repository, gets `NAME-VERSION.onnx` and `NAME.yaml`, which remembers of what the table was made
    (`trained_on`) where that says so. `name` is that of the service if unset.
    """
    if not (isinstance(tolerance, (int, float)) and 0 <= tolerance < float("inf")):
        raise ExportError(f"tolerance: expected a number of 0 or more, found {tolerance!r}")
    training = TrainingSet.read(table, service)
    asked = arguments.version(version)
    place = Place.of(name or training.service.rpartition(".")[2], asked or "1", folder)
    learner = learner_of(model)
    chosen = training.choose(learner.names, columns)
    taken = Columns.of(chosen, training.defaults(defaults or {}), learner.takes_whole)
    converted = convert(learner, taken)
    proof, outputs = prove(converted, taken, learner.says(taken), tolerance)
    proof.check()

    proved = [difference.output for difference in proof.differences]
    more = {
        **({} if is_plain(converted.inputs, training.outputs) else {"inputs": input_map(converted.inputs)}),
        **({} if proved == outputs else {"outputs": proved}),
        **({} if training.pin is None else {"trained_on": training.pin}),
    }
    text = files.version_yaml(place, training.service, more, taken.examples(_EXAMPLES))
    written = {place.onnx: converted.file}
    # It would say of another file how it is fed.
    place.check_version(text)
    if not overwrite:
        files.check_new(written)
    # The definition last: it never names a file that is not there.
    to_add = missing_version(place, text)
    yaml = files.model_yaml(place, text)
    files.write(written if place.definition.is_file() else written | {place.definition: yaml.encode()})
    return Export(place.model, place.version, place.onnx, place.definition, yaml, to_add, proof)


def convert(learner: Learner, columns: Columns) -> Converted:
    """Write it as ONNX, unless columns are more or fewer than it was trained on."""
    if learner.cells is not None and learner.cells != columns.width():
        told = f"the model takes {learner.cells} numbers a row, and the columns have {columns.width()}"
        raise ExportError(f"{told}: {columns.names}. Say which it was trained on, in order, by `columns=[...]`")
    try:
        return learner.convert(columns)
    except (ExportError, ModuleNotFoundError):
        raise
    # Whatever is raised there, of whatever kind, says what this model has that its exporter has no words for.
    except Exception as error:
        told = f"the exporter does not take this model of {type(learner).__name__}: {type(error).__name__}: {error}"
        raise ExportError(told[:_TOLD_MAX]) from error


def is_plain(inputs: Sequence[Input], outputs: Sequence[str] | None) -> bool:
    """Whether each input finds its columns without being told: see docs/models.md."""
    if outputs is None:
        return False
    if len(inputs) == 1:
        return inputs[0].columns == outputs
    return all(taken.columns == [taken.name] for taken in inputs) and {taken.name for taken in inputs} == set(outputs)


def input_map(inputs: Sequence[Input]) -> dict[str, Any]:
    """Say which columns fill which input."""
    return {taken.name: taken.columns[0] if len(taken.columns) == 1 else taken.columns for taken in inputs}


def missing_version(place: Place, text: str) -> str | None:
    """Give what a definition lacks that is there already, and warn of it."""
    if not place.definition.is_file() or place.is_declared:
        return None
    told = f"{place.definition} is there and is left as it is; add this under `versions`:\n{text}"
    warnings.warn(told, stacklevel=3)
    return text
