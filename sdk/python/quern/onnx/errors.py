"""Why was a model not exported?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quern.onnx.proof import Proof


class ExportError(ValueError):
    """A model, or a training set, that cannot be exported as it is. Nothing was written."""


class ProofError(ExportError):
    """A file that says something else than the model did. `proof` says where. Nothing was written."""

    def __init__(self, message: str, proof: Proof) -> None:
        super().__init__(message)
        self.proof = proof

    def __reduce__(self) -> tuple[type[ProofError], tuple[object, ...]]:
        return (ProofError, (str(self), self.proof))


def need(module: str, install: str = "'quern[onnx]'") -> Any:
    """Import what `import quern` does not ask for, and say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        told = f"quern.onnx needs {error.name}, which is not installed: pip install {install}"
        raise ModuleNotFoundError(told, name=error.name) from None
