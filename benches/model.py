"""A model for the benches: `model.py FILE WIDTH [TREES]` trains 100 trees on made-up rows and writes them as ONNX."""

from __future__ import annotations

import sys

import lightgbm as lgb
import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

TREES = 100
ROWS = 20_000


def main(path: str, width: int, trees: int = TREES) -> None:
    """Fit noise with a trend in it, so that every tree grows to its 31 leaves."""
    random = np.random.default_rng(7)
    x = random.normal(size=(ROWS, width)).astype(np.float32)
    y = x @ random.normal(size=width) + random.normal(size=ROWS) > 0
    parameters = {"objective": "binary", "num_leaves": 31, "seed": 7, "num_threads": 1, "verbose": -1}
    model = lgb.train(parameters, lgb.Dataset(x, y), num_boost_round=trees)
    inputs = [("features", FloatTensorType([None, width]))]
    converted = convert_lightgbm(model, initial_types=inputs, zipmap=False, target_opset=15)
    graph = converted.graph
    graph.initializer.append(helper.make_tensor("column", TensorProto.INT64, [], [1]))
    graph.node.append(helper.make_node("Gather", ["probabilities", "column"], ["score"], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("score", TensorProto.FLOAT, [None]))
    onnx.save(converted, path)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
