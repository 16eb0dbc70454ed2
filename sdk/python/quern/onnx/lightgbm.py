"""How does a model of LightGBM become ONNX? By onnxmltools, with thresholds that float32 inputs do not cross."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from quern.onnx.columns import Columns
from quern.onnx.errors import ExportError, need
from quern.onnx.learner import Converted, Learner, floats, matrix_input

OPSET_MAX = 15  # of onnxmltools


class LightGbm(Learner):
    """A Booster, or a model with scikit-learn's calls."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.is_booster = hasattr(model, "model_to_string")
        self.booster = model if self.is_booster else model.booster_
        names = self.booster.feature_name()
        self.names = None if names == [f"Column_{at}" for at in range(len(names))] else names
        self.cells = len(names)

    def convert(self, columns: Columns) -> Converted:
        """Write it as ONNX: a matrix goes in."""
        check_categories(self.booster)
        taken = matrix_input(columns, "LightGBM")
        converted = need("onnxmltools").convert_lightgbm(
            with_float32_thresholds(self.model),
            name="LightGBM",  # else it is another one each time, and so are the bytes
            initial_types=floats(columns.width()),
            zipmap=False,
            target_opset=OPSET_MAX,
        )
        return Converted(converted.SerializeToString(), [taken])

    def says(self, columns: Columns) -> Sequence[Any]:
        """Give labels and probabilities, or numbers."""
        np = need("numpy")
        if not self.is_booster:
            x = columns.matrix() if self.names is None else columns.frame()
            answers = [self.model.predict(x)]
            return answers + ([self.model.predict_proba(x)] if hasattr(self.model, "predict_proba") else [])
        said = self.booster.predict(columns.matrix())
        objective = re.search(r"^objective=(\w+)", self.booster.model_to_string(num_iteration=1), re.MULTILINE)
        if objective is not None and objective[1] in ("binary", "cross_entropy"):
            return [(said > 0.5).astype(int), np.column_stack([1 - said, said])]
        return [said.argmax(axis=1), said] if said.ndim == 2 else [said]


def check_categories(booster: Any) -> None:
    """Refuse what the file would not be told: which number pandas gave to which category."""
    if booster.pandas_categorical:
        told = "ONNX gets numbers, and pandas numbered the categories; use scikit-learn's OrdinalEncoder"
        raise ExportError(f"LightGBM was trained on pandas categories: {told} in a Pipeline, and `categorical_feature`")


def with_float32_thresholds(model: Any) -> Any:
    """Give the same model with each threshold rounded down to a float32, which is what ONNX holds.

    The inputs are float32 as well, so every row still goes the same way at every split. Left to the converter,
    thresholds are rounded to the nearest, and a row that lies between the two goes astray.
    """
    if hasattr(model, "model_to_string"):
        return _rounded(model)
    rounded = copy.copy(model)
    rounded._Booster = _rounded(model.booster_)
    return rounded


def _rounded(booster: Any) -> Any:
    np = need("numpy")
    largest = float(np.finfo(np.float32).max)

    def down(threshold: str) -> str:
        exact = float(threshold)
        nearest = np.float32(np.clip(exact, -largest, largest))
        return repr(float(nearest if float(nearest) <= exact else np.nextafter(nearest, np.float32(-np.inf))))

    def line(found: re.Match[str]) -> str:
        return "threshold=" + " ".join(map(down, found[1].split()))

    text = re.sub(r"^threshold=(.*)$", line, booster.model_to_string(), flags=re.MULTILINE)
    # The text also tells the length of each tree's text, which is no longer so; it is read without, too.
    return need("lightgbm").Booster(model_str=re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE))
