"""Does an answer keep the shape that the model gives it, also where its width hangs on the data?"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from conftest import DEFINITIONS, LANDINGS, run, serve

SERVICE = """
---
kind: FeatureService
name: pair
request: [{name: a, type: float32}, {name: b, type: float32}]
features: [{view: plane_history, features: [legs]}]
outputs: [a, b]
---
kind: Model
name: positive
versions: [{version: "1", path: models/positive.onnx, service: pair}]
"""


def write_model(path: Path) -> None:
    """Keeps the columns of a matrix that are positive in all rows; and says the first column, as one that is [N, 1]."""
    nodes = [
        helper.make_node("ReduceMin", ["x"], ["least"], axes=[0], keepdims=0),
        helper.make_node("Greater", ["least", "zero"], ["keeps"]),
        helper.make_node("Compress", ["x", "keeps"], ["kept"], axis=1),
        helper.make_node("Gather", ["x", "first"], ["left"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "positive",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, [None, None]),
            helper.make_tensor_value_info("left", TensorProto.FLOAT, [None, 1]),
        ],
        [
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("first", TensorProto.INT64, [1], [0]),
        ],
    )
    path.parent.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_an_answer_keeps_its_shape(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/landings.csv").write_text(LANDINGS)
    (tmp_path / "definitions.yaml").write_text(DEFINITIONS.split("---\nkind: FeatureService")[0].rstrip() + SERVICE)
    write_model(tmp_path / "models/positive.onnx")
    run("apply", tmp_path)
    with serve(tmp_path) as address:
        for rows, kept in [
            ([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]),
            ([[1.0, -2.0], [3.0, 4.0]], [[1.0], [3.0]]),
            ([[-1.0, -2.0], [3.0, -4.0], [5.0, 6.0]], [[], [], []]),
        ]:
            instances = [{"tailnum": "N1", "a": a, "b": b} for a, b in rows]
            said = post(f"{address}/v1/models/positive:predict", {"instances": instances})["predictions"]
            assert said == [{"kept": row, "left": a} for row, (a, _) in zip(kept, rows, strict=True)]
            cells = [x for row in rows for x in row]
            tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 2], "data": cells}
            outputs = post(f"{address}/v2/models/positive/infer", {"inputs": [tensor]})["outputs"]
            assert [(output["name"], output["shape"]) for output in outputs] == [
                ("kept", [len(rows), len(kept[0])]),
                ("left", [len(rows), 1]),
            ]


def post(url: str, body: Any) -> Any:
    """The reply to some JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)
