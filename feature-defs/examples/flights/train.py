"""How late will it be? Trains the flights example's model on a training set and writes it as ONNX.

Nothing here knows Quern: a training set is a table, and a model is a file.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path

import lightgbm as lgb
import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.metrics import roc_auc_score

from quern.onnx.lightgbm import with_float32_thresholds

LATE_MINUTES = 15
TEST_FROM = dt.datetime(2013, 10, 1, 4, tzinfo=dt.timezone.utc)  # midnight in New York
ONNX_OPSET = 15
ONNX_DIFFERENCE_MAX = 1e-5  # the learner adds in float64, ONNX Runtime in float32

TREES = 200
PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.08,
    "num_leaves": 31,
    "num_threads": os.cpu_count(),
    "seed": 7,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Trained:
    """A model and how well it does on months that it has not seen."""

    model: lgb.Booster
    features: list[str]
    auc: float
    train_rows: int
    test_rows: int


def matrix(table: pa.Table, features: list[str]) -> Matrix:
    """Stack columns as a model's input, by the rule that the server follows: cast to float32, null becomes NaN."""
    columns = [pc.cast(table[name], pa.float32()).to_numpy(zero_copy_only=False) for name in features]
    return np.column_stack([column.astype(np.float32) for column in columns])


def train(table: pa.Table, features: list[str]) -> Trained:
    """Fit gradient-boosted trees on January to September, judge them on October to December."""
    arrived = table.filter(pc.is_valid(table["arr_delay"]))  # a cancelled flight was neither late nor on time
    late = pc.greater(arrived["arr_delay"], LATE_MINUTES).to_numpy()
    test = pc.greater_equal(arrived["departs_at"], pa.scalar(TEST_FROM)).to_numpy()
    x = matrix(arrived, features)
    model = lgb.train(PARAMETERS, lgb.Dataset(x[~test], late[~test]), num_boost_round=TREES)
    auc = float(roc_auc_score(late[test], model.predict(x[test])))
    return Trained(model, features, auc, int((~test).sum()), int(test.sum()))


def export(trained: Trained, path: Path) -> None:
    """Write the model as ONNX: a float tensor [rows, features] goes in, the probability of being late comes out."""
    width = len(trained.features)
    converted = convert_lightgbm(
        with_float32_thresholds(trained.model),
        initial_types=[("features", FloatTensorType([None, width]))],
        zipmap=False,
        target_opset=ONNX_OPSET,
    )
    graph = converted.graph
    graph.initializer.append(helper.make_tensor("late_column", TensorProto.INT64, [], [1]))
    graph.node.append(helper.make_node("Gather", ["probabilities", "late_column"], ["late_probability"], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("late_probability", TensorProto.FLOAT, [None]))
    onnx.checker.check_model(converted)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(converted, path)


def session(path: Path) -> ort.InferenceSession:
    """Open an ONNX file as the server does: one thread for a model this small."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def scores(model: ort.InferenceSession, x: Matrix) -> NDArray[np.float32]:
    """Run the model."""
    (result,) = model.run(["late_probability"], {"features": x})
    return np.asarray(result)


def export_difference(trained: Trained, path: Path, table: pa.Table) -> float:
    """By how much the ONNX file and the learner differ at most; stops when they are not the same model."""
    x = matrix(table, trained.features)
    difference = float(np.abs(scores(session(path), x) - trained.model.predict(x)).max())
    if difference > ONNX_DIFFERENCE_MAX:
        raise SystemExit(f"the ONNX file is not the model that was trained: scores differ by up to {difference:g}")
    return difference
