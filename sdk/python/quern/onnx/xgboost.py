"""How does a model of XGBoost become ONNX? By onnxmltools."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from quern.onnx.columns import Columns
from quern.onnx.errors import ExportError, need
from quern.onnx.learner import Converted, Learner, floats, matrix_input

OPSET_MAX = 15  # of onnxmltools


class XgBoost(Learner):
    """A Booster, or a model with scikit-learn's calls."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.is_booster = hasattr(model, "get_dump")
        booster = model if self.is_booster else model.get_booster()
        self.names = booster.feature_names
        self.cells = booster.num_features()

    def convert(self, columns: Columns) -> Converted:
        """Write it as ONNX: a matrix goes in."""
        plain = nameless(self.model)
        taken = matrix_input(columns, "XGBoost")
        converted = need("onnxmltools").convert_xgboost(
            plain,
            name="XGBoost",  # else it is another one each time, and so are the bytes
            initial_types=floats(columns.width()),
            target_opset=OPSET_MAX,
        )
        return Converted(converted.SerializeToString(), [taken])

    def says(self, columns: Columns) -> Sequence[Any]:
        """Give labels and probabilities, or numbers."""
        np, xgboost = need("numpy"), need("xgboost")
        if not self.is_booster:
            x = columns.matrix() if self.names is None else columns.frame()
            answers = [self.model.predict(x)]
            return answers + ([self.model.predict_proba(x)] if hasattr(self.model, "predict_proba") else [])
        said = self.model.predict(xgboost.DMatrix(columns.matrix(), feature_names=self.names))
        if '"binary:logistic"' in self.model.save_config():
            return [(said > 0.5).astype(int), np.column_stack([1 - said, said])]
        return [said.argmax(axis=1), said] if said.ndim == 2 else [said]


def nameless(model: Any) -> Any:
    """Give the same model without names of features, which the converter takes for numbers, and no trees to spare."""
    is_booster = hasattr(model, "get_dump")
    booster = (model if is_booster else model.get_booster()).copy()
    if booster.feature_types is not None and "c" in booster.feature_types:
        told = "ONNX gets numbers, and pandas numbered the categories; use scikit-learn's OrdinalEncoder in a Pipeline"
        raise ExportError(f"XGBoost was trained on categories: {told}")
    if not is_booster and getattr(model, "early_stopping_rounds", None) is not None:
        booster = booster[: model.best_iteration + 1]  # what it predicts with
    booster.feature_names = booster.feature_types = None
    if is_booster:
        return booster
    plain = copy.copy(model)
    plain._Booster = booster
    return plain
