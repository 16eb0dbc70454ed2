"""How does a network of Keras become ONNX? By its own export."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quern.onnx.columns import Columns
from quern.onnx.errors import ExportError, need
from quern.onnx.learner import Converted, Input, Learner, matrix_input


class Keras(Learner):
    """A model that takes one float tensor, [rows, cells]."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def convert(self, columns: Columns) -> Converted:
        """Write it as ONNX; the input has the name that Keras gave it."""
        onnx = need("onnx")
        taken = matrix_input(columns, "Keras")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            self.model.export(path, format="onnx", verbose=False)
            file = path.read_bytes()
        names = [port.name for port in onnx.load_from_string(file).graph.input]
        if len(names) > 1:
            raise ExportError(f"the network has the inputs {names}: expected one, a float tensor of all columns")
        return Converted(file, [Input(names[0], taken.columns)])

    def says(self, columns: Columns) -> Sequence[Any]:
        """Give what it computes."""
        said = self.model.predict(columns.matrix(dtype="float32"), verbose=0)
        return list(said) if isinstance(said, (list, tuple)) else [said]
