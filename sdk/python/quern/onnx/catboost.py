"""How does a model of CatBoost become ONNX? By its own exporter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quern.onnx.columns import Columns
from quern.onnx.errors import ExportError, need
from quern.onnx.learner import Converted, Learner, matrix_input


class CatBoost(Learner):
    """A CatBoost, a classifier or a regressor."""

    def __init__(self, model: Any) -> None:
        self.model = model
        names = list(model.feature_names_)
        self.names = None if names == [str(at) for at in range(len(names))] else names
        self.cells = len(names)

    def convert(self, columns: Columns) -> Converted:
        """Write it as ONNX: a matrix goes in."""
        others = [*self.model.get_cat_feature_indices(), *self.model.get_text_feature_indices()]
        if others:
            named = [self.model.feature_names_[at] for at in others]
            told = "encode them before: in derived features, or in the table, as numbers"
            raise ExportError(f"CatBoost exports numbers alone, and {named} are categories or texts: {told}")
        taken = matrix_input(columns, "CatBoost")
        converted = need("catboost.utils").convert_to_onnx_object(self.model)
        _side_by_side(converted)
        return Converted(converted.SerializeToString(), [taken])

    def says(self, columns: Columns) -> Sequence[Any]:
        """Give labels and probabilities, or numbers."""
        x = columns.matrix()
        answers = [self.model.predict(x)]
        return answers + ([self.model.predict_proba(x)] if hasattr(self.model, "predict_proba") else [])


def _side_by_side(converted: Any) -> None:
    """Let probabilities leave as they are, without a map, and declare outputs as what they are: [rows, cells]."""
    onnx = need("onnx")
    graph = converted.graph
    for node in [node for node in graph.node if node.op_type == "ZipMap"]:
        graph.node.remove(node)
        graph.node[-1].output[1] = node.output[0]
    for at, output in enumerate(graph.output):
        if output.name in ("probabilities", "predictions"):
            shaped = onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, [None, None])
            graph.output[at].CopyFrom(shaped)
