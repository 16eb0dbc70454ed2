"""Models with the rows that they are asked about, in a repository of their own, and what ONNX Runtime says of them.

A case is a file, a service whose request columns carry the rows, and a map that leads these into the file's inputs: the
first dimension of an input is the row, and what is left of it a value or a list. So a case says what a repository looks
like for a model that was exported elsewhere, and nothing of the file is changed.
"""

from __future__ import annotations

import http.client
import json
import re
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnxruntime

from conftest import binary, environment

SECONDS_MAX = 1200
# A service reads at least one view.
SHARED = """
kind: Entity
name: thing
join_keys: [{name: k, type: int64}]
---
kind: Source
name: pushed
push: true
event_timestamp: at
columns: [{name: k, type: int64}, {name: at, type: timestamp}, {name: seen, type: float32}]
---
kind: FeatureView
name: view
entities: [thing]
source: pushed
features: [seen]
"""
# The type of a column that carries such elements, and of an answer that holds them: a wider one where need be.
CARRIED = {
    "float16": "float32",
    "bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
    "int8": "int32",
    "int16": "int32",
    "int32": "int32",
    "uint8": "int32",
    "uint16": "int32",
    "int64": "int64",
    "uint32": "int64",
    "uint64": "int64",
    "bool": "bool",
    "object": "string",
}
DEFAULTS: dict[str, Any] = {"int32": 0, "int64": 0, "bool": False, "string": ""}
DATATYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int32": "INT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "bool": "BOOL",
    "object": "BYTES",
}


@dataclass
class Case:
    """A file, what goes into it, and what ONNX Runtime says of that: its outputs, by their names."""

    name: str
    file: bytes
    inputs: dict[str, np.ndarray]
    expected: dict[str, Any]

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass
class Said:
    """One tensor of a reply."""

    datatype: str
    shape: tuple[int, ...]
    cells: bytes


def case(name: str, file: bytes, inputs: dict[str, np.ndarray]) -> Case:
    """A case, answered by ONNX Runtime as the server has it: on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    outputs = session.get_outputs()
    if strange := [output.type for output in outputs if re.search("float[48]|int[24]\\)", output.type)]:
        raise TypeError(f"Numpy has no {strange}")
    names = [output.name for output in outputs]
    return Case(name, file, inputs, dict(zip(names, session.run(names, inputs), strict=True)))


def width(tensor: np.ndarray) -> int:
    """Cells in a row."""
    return int(np.prod(tensor.shape[1:]))


def document(case: Case) -> str:
    """The service and the model of a case."""
    request, fed = [], {}
    for i, (name, tensor) in enumerate(case.inputs.items()):
        item, cells = CARRIED[str(tensor.dtype)], width(tensor)
        column: dict[str, Any] = {"name": f"c{i}", "type": item if cells == 1 else f"list<{item}, {cells}>"}
        if (default := DEFAULTS.get(item)) is not None:
            column["default"] = default if cells == 1 else [default] * cells
        request.append(column)
        fed[name] = {"columns": f"c{i}", "shape": tensor.shape[1:]} if tensor.ndim > 2 else f"c{i}"
    service = {"name": case.name, "request": request, "features": ["view"]}
    service["outputs"] = [column["name"] for column in request]
    version = {"version": 1, "path": f"models/{case.name}.onnx", "service": case.name, "inputs": fed}
    return yaml(kind="FeatureService", **service) + yaml(kind="Model", name=case.name, versions=[version])


def yaml(**document: Any) -> str:
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in document.items())


def write(root: Path, cases: Iterable[Case]) -> None:
    """A repository of the cases, a file of definitions for each."""
    (root / "models").mkdir(parents=True, exist_ok=True)
    (root / "quern.yaml").write_text("data: .quern\n")
    (root / "shared.yaml").write_text(SHARED)
    for case in cases:
        (root / f"{case.name}.yaml").write_text(document(case))
        (root / "models" / f"{case.name}.onnx").write_bytes(case.file)


def mistakes(root: Path, command: str = "check") -> dict[str, str]:
    """What is wrong with a repository, by the name of the case; `apply` makes it live where nothing is."""
    arguments: list[str | Path] = [binary(), command, "--json", root]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=SECONDS_MAX)
    if done.returncode == 0:
        return {}
    found = re.split(r"^(\w+)\.yaml:\d+:\d+: ", json.loads(done.stdout)["error"], flags=re.MULTILINE)
    said: dict[str, str] = {}
    for name, mistake in zip(found[1::2], found[2::2], strict=True):
        said.setdefault(name, mistake)
    assert said, done.stdout + done.stderr
    return said


def carried(tensor: np.ndarray) -> np.ndarray:
    """The same cells as a column carries them."""
    item = CARRIED[str(tensor.dtype)]
    return tensor if item in ("bool", "string") else tensor.astype(item)


def answered(said: Any) -> np.ndarray:
    """The same cells as an answer has them; tensors of several targets stand side by side in each row."""
    tensor = np.stack(said, axis=1) if isinstance(said, list) else np.asarray(said)
    if tensor.dtype.kind in "US":
        return tensor.astype(object)
    return tensor if tensor.dtype == np.uint64 else carried(tensor)


def raw(tensor: np.ndarray) -> bytes:
    """Cells as the Open Inference Protocol has them: little-endian, a text after its length."""
    if tensor.dtype != object:
        return tensor.tobytes()
    texts = [str(text).encode() for text in tensor.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


class Asker:
    """Asks a server over one connection, with raw cells, which keep every bit."""

    def __init__(self, address: str) -> None:
        place = urlsplit(address)
        self.connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)

    def by_columns(self, case: Case) -> dict[str, Said] | str:
        """What a request brings for entities: a column for each input."""
        tensors = {f"c{i}": carried(tensor) for i, tensor in enumerate(case.inputs.values())}
        flat = {
            name: tensor.reshape((case.rows, width(tensor)) if width(tensor) > 1 else case.rows)
            for name, tensor in tensors.items()
        }
        return self.infer(case.name, {"k": np.arange(case.rows), **flat})

    def by_tensors(self, case: Case) -> dict[str, Said] | str:
        """What the file takes, by its own names."""
        halves = {name: tensor for name, tensor in case.inputs.items() if tensor.dtype == np.float16}
        return self.infer(case.name, {name: carried(tensor) for name, tensor in case.inputs.items()} | halves)

    def infer(self, model: str, tensors: dict[str, np.ndarray]) -> dict[str, Said] | str:
        """The tensors of the reply, or why there is none."""
        inputs, cells = [], []
        for name, tensor in tensors.items():
            cells.append(raw(tensor))
            size = {"binary_data_size": len(cells[-1])}
            datatype = DATATYPES[str(tensor.dtype)]
            inputs.append({"name": name, "datatype": datatype, "shape": tensor.shape, "parameters": size})
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        self.connection.request("POST", f"/v2/models/{model}/infer", head + b"".join(cells), headers)
        reply = self.connection.getresponse()
        body = reply.read()
        if reply.status != http.client.OK:
            return f"{reply.status}: {body.decode()}"
        ends = int(reply.headers["Inference-Header-Content-Length"])
        said, rest = {}, body[ends:]
        for output in json.loads(body[:ends])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            said[output["name"]] = Said(output["datatype"], tuple(output["shape"]), rest[:size])
            rest = rest[size:]
        return said


def difference(case: Case, said: dict[str, Said] | str) -> str:
    """What ONNX Runtime says otherwise; empty where it says the same bits, in the same shape."""
    if isinstance(said, str):
        return said
    if list(said) != list(case.expected):
        return f"outputs {list(said)}, not {list(case.expected)}"
    for name, expected in case.expected.items():
        tensor, got = answered(expected), said[name]
        # What does not count rows, where there is one row, is that row's.
        shapes = [tensor.shape] + [(1, *tensor.shape)] * (case.rows == 1)
        if got.datatype != DATATYPES[str(tensor.dtype)] or got.shape not in shapes:
            return f"`{name}` is {got.datatype} {got.shape}, not {tensor.dtype} {tensor.shape}"
        if got.cells == raw(tensor):
            continue
        if tensor.dtype == object:
            return f"`{name}` is {got.cells!r}, not {raw(tensor)!r}"
        cells = np.frombuffer(got.cells, tensor.dtype)
        if not alike(cells, tensor.ravel()):
            return f"`{name}` is {cells}, not {tensor.ravel()}"
    return ""


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether numbers have the same bits, of which NaN has many."""
    if a.dtype.kind != "f" or not np.array_equal(np.isnan(a), np.isnan(b)):
        return False
    return a[~np.isnan(a)].tobytes() == b[~np.isnan(b)].tobytes()
