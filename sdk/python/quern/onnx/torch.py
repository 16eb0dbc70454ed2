"""How does a network of PyTorch become ONNX? By torch.onnx."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from quern.onnx.columns import Columns
from quern.onnx.errors import need
from quern.onnx.learner import Converted, Learner, matrix_input


class Torch(Learner):
    """A module that takes one float tensor, [rows, cells]."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def convert(self, columns: Columns) -> Converted:
        """Write it as ONNX."""
        torch = need("torch", "torch")
        need("onnxscript", "onnxscript")
        taken = matrix_input(columns, "PyTorch")
        rows = columns.slice(0, 2)  # of one row alone, PyTorch would take its number for a constant
        with _evaluated(self.model):
            program = torch.onnx.export(
                self.model,
                (torch.from_numpy(taken.tensor(rows)),),
                input_names=[taken.name],
                dynamic_shapes=({0: torch.export.Dim("rows")},),
                verbose=False,
            )
        return Converted(program.model_proto.SerializeToString(), [taken])

    def says(self, columns: Columns) -> Sequence[Any]:
        """Give what it computes."""
        torch = need("torch")
        with _evaluated(self.model), torch.no_grad():
            said = self.model(torch.from_numpy(columns.matrix(dtype="float32")))
        return [part.numpy() for part in (said if isinstance(said, (list, tuple)) else [said])]


@contextmanager
def _evaluated(model: Any) -> Iterator[None]:
    """Let it answer as it does after training, and be as it was then."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
