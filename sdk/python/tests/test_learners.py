"""Do models that frameworks export answer, over JSON, as ONNX Runtime does of the same rows, to the bit?"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from conftest import run, serve
from learners import LEARNERS, ROWS, Learner
from onnx_cases import SHARED, yaml

# Those that are asked each time.
FIRST = 4


def write(root: Path, learners: dict[str, Learner]) -> None:
    (root / "models").mkdir()
    (root / "quern.yaml").write_text("data: .quern\n")
    (root / "shared.yaml").write_text(SHARED)
    for name, learner in learners.items():
        request = [
            {"name": column, "type": brought.dtype} | ({} if brought.default is None else {"default": brought.default})
            for column, brought in learner.columns.items()
        ]
        service = {"name": name, "request": request, "features": ["view"], "outputs": list(learner.columns)}
        version = {"version": 1, "path": f"models/{name}.onnx", "service": name, **learner.more}
        version |= {} if learner.inputs is None else {"inputs": learner.inputs}
        document = yaml(kind="FeatureService", **service) + yaml(kind="Model", name=name, versions=[version])
        (root / f"{name}.yaml").write_text(document)
        (root / "models" / f"{name}.onnx").write_bytes(learner.file)


def rows_of(learner: Learner) -> list[Any]:
    """What ONNX Runtime says of each row, as JSON has it."""
    session = onnxruntime.InferenceSession(learner.file, providers=["CPUExecutionProvider"])
    ports = session.get_outputs()
    columns = {}
    for port, said in zip(ports, session.run(None, learner.tensors), strict=True):
        if isinstance(said, list) and isinstance(said[0], np.ndarray):
            columns[port.name] = [list(targets) for targets in zip(*said, strict=True)]
        elif isinstance(said, np.ndarray) and list(port.shape[1:]) == [1]:
            columns[port.name] = list(said[:, 0])
        else:
            columns[port.name] = list(said)
    if len(ports) == 1:
        return columns[ports[0].name]
    return [{name: column[row] for name, column in columns.items()} for row in range(ROWS)]


def same(got: Any, expected: Any) -> bool:
    """Whether JSON says the same; it has null for NaN."""
    if isinstance(expected, dict):
        known = {str(key): value for key, value in expected.items()}
        return got.keys() == known.keys() and all(same(got[key], value) for key, value in known.items())
    if isinstance(expected, list) or np.ndim(expected) > 0:
        return len(got) == len(expected) and all(map(same, got, expected))
    if not isinstance(expected, (float, np.floating)):
        return bool(got == expected)
    # ONNX Runtime's Python gives what is in a map as a float of its own, which has 32 bits all the same.
    number = np.asarray(expected)
    return got is None if np.isnan(number) else np.asarray(got, number.dtype).tobytes() == number.tobytes()


def ask(url: str, learner: Learner) -> list[Any]:
    columns = {name: column.values for name, column in learner.columns.items()}
    instances = [{"k": row, **{name: values[row] for name, values in columns.items()}} for row in range(ROWS)]
    body = json.dumps({"instances": instances}, default=float).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=60) as reply:
        predictions: list[Any] = json.load(reply)["predictions"]
    return predictions


def asked(root: Path, makers: list[Callable[[], Learner]]) -> None:
    learners = {make.__name__: make() for make in makers}
    write(root, learners)
    run("apply", root)
    # A server that starts has what the apply kept, not what lies in the repository.
    with serve(root) as address:
        for name, learner in learners.items():
            got, expected = ask(f"{address}/v1/models/{name}:predict", learner), rows_of(learner)
            assert same(got, expected), f"{name}: {got}, not {expected}"


def test_some_learners(tmp_path: Path) -> None:
    asked(tmp_path, list(LEARNERS.values())[:FIRST])


@pytest.mark.heavy
def test_other_learners(tmp_path: Path) -> None:
    asked(tmp_path, list(LEARNERS.values())[FIRST:])
