"""Which family of learners is a model of, what does it say of rows, and how does it become an ONNX file?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quern.onnx.columns import Columns, Matrix
from quern.onnx.errors import ExportError, need

# The operators that files are written with: old enough for each ONNX Runtime that Quern runs with.
OPSET = 17
ML_OPSET = 3


@dataclass(frozen=True)
class Input:
    """An input of a file, and the columns that fill it."""

    name: str
    columns: list[str]
    dtype: str = "float32"
    """`float32`, `int64`, or `object` for text."""
    flat: bool = False
    """Whether it is [N] instead of [N, cells]."""

    def tensor(self, columns: Columns) -> Matrix:
        """Give what Quern puts in for rows."""
        cells = columns.matrix(self.columns, self.dtype)
        return cells[:, 0] if self.flat else cells


@dataclass(frozen=True)
class Converted:
    """An ONNX file and what its inputs take."""

    file: bytes
    inputs: list[Input]


class Learner(ABC):
    """A trained model of one family."""

    names: list[str] | None = None
    """The columns that it was trained on, in its order, where it knows their names."""
    cells: int | None = None
    """How many numbers a row has, where it knows."""
    takes_whole = False
    """Whether its file may have inputs of whole numbers."""

    @abstractmethod
    def convert(self, columns: Columns) -> Converted:
        """Write it as ONNX."""

    @abstractmethod
    def says(self, columns: Columns) -> Sequence[Any]:
        """Give its own answer for each output of the file, in their order; None where it has no such answer."""


def learner_of(model: Any) -> Learner:
    """Take a model by the package that its class, or one that it derives from, is of."""
    for kind in type(model).__mro__:
        package = kind.__module__.partition(".")[0]
        if package == "lightgbm":
            from quern.onnx.lightgbm import LightGbm

            return LightGbm(model)
        if package == "xgboost":
            from quern.onnx.xgboost import XgBoost

            return XgBoost(model)
        if package == "catboost":
            from quern.onnx.catboost import CatBoost

            return CatBoost(model)
        if package == "torch":
            from quern.onnx.torch import Torch

            return Torch(model)
        if package == "keras":
            from quern.onnx.keras import Keras

            return Keras(model)
        if package == "sklearn":
            from quern.onnx.sklearn import ScikitLearn

            return ScikitLearn(model)
    known = "scikit-learn, LightGBM, XGBoost, CatBoost, PyTorch or Keras"
    raise TypeError(
        f"model: expected a trained model of {known}, found a {type(model).__module__}.{type(model).__name__}"
    )


def matrix_input(columns: Columns, family: str) -> Input:
    """Take all columns side by side, as a learner does that knows numbers alone."""
    if columns.texts:
        told = "encode them before, in a scikit-learn Pipeline that ends with the model, or leave them out"
        raise ExportError(f"{family} as ONNX takes numbers alone, and {sorted(columns.texts)} are text: {told}")
    return Input("features", columns.names)


def floats(width: int) -> list[tuple[str, Any]]:
    """Name that input in the words of onnxmltools."""
    kinds = need("onnxmltools.convert.common.data_types")
    return [("features", kinds.FloatTensorType([None, width]))]
