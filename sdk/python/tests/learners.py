"""Models as frameworks export them, trained on a few made-up rows, with the columns that fill their inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import lightgbm
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType as LightGbmFloats
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROWS = 12
RANDOM = np.random.default_rng(7)
NUMBERS = RANDOM.normal(size=(ROWS, 3)).astype(np.float32)
CLASSES = np.arange(ROWS) % 3
CITIES = np.array(["Ulm", "Bonn", "Rom"] * (ROWS // 3), object)
OPSET = {"": 17, "ai.onnx.ml": 3}


@dataclass
class Column:
    """What a request brings."""

    dtype: str
    values: list[Any]
    default: Any = None


@dataclass
class Learner:
    """A file, the columns that fill it, and the tensors that these make."""

    file: bytes
    columns: dict[str, Column]
    tensors: dict[str, np.ndarray]
    inputs: Any = None
    more: dict[str, Any] = field(default_factory=dict)


LEARNERS: dict[str, Callable[[], Learner]] = {}


def learner(make: Callable[[], Learner]) -> Callable[[], Learner]:
    LEARNERS[make.__name__] = make
    return make


def numbers(values: np.ndarray = NUMBERS) -> dict[str, Column]:
    """A column of floats for each of a matrix; NaN is null."""
    rows = np.where(np.isnan(values), None, values.astype(object))
    return {f"x{i}": Column("float32", rows[:, i].tolist()) for i in range(values.shape[1])}


def matrix(model: Any, targets: np.ndarray, options: Any = None) -> Learner:
    """A learner of scikit-learn that takes one matrix."""
    model.fit(NUMBERS, targets)
    file = to_onnx(model, NUMBERS[:1], target_opset=OPSET, options=options)
    return Learner(file.SerializeToString(), numbers(), {"X": NUMBERS}, {"X": ["x0", "x1", "x2"]})


def built(
    nodes: list[onnx.NodeProto], inputs: list[Any], outputs: list[Any], constants: dict[str, np.ndarray]
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*port) for port in inputs],
        [helper.make_tensor_value_info(*port) for port in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSET.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


@learner
def logistic_regression() -> Learner:
    plain = {LogisticRegression: {"zipmap": False}}
    return matrix(LogisticRegression(), CLASSES, plain)


@learner
def text_and_numbers() -> Learner:
    """A column for each input, some of them null."""
    frame = np.column_stack([CITIES, NUMBERS[:, 0].astype(object)])
    steps = ColumnTransformer([("city", OneHotEncoder(handle_unknown="ignore"), [0]), ("x", StandardScaler(), [1])])
    model = make_pipeline(steps, LogisticRegression()).fit(frame, CLASSES)
    kinds = [("city", StringTensorType([None, 1])), ("x", FloatTensorType([None, 1]))]
    file = to_onnx(model, initial_types=kinds, target_opset=OPSET, options={"zipmap": True})
    cities, given = CITIES.tolist(), NUMBERS[:, 0].copy()
    cities[1], cities[2], given[3] = None, "Oslo", np.nan
    columns = {"town": Column("string", cities, "Bonn"), "x": numbers(given[:, None])["x0"]}
    text = np.array([city or "Bonn" for city in cities], object)[:, None]
    return Learner(file.SerializeToString(), columns, {"city": text, "x": given[:, None]}, {"city": "town", "x": "x"})


@learner
def strict_encoder() -> Learner:
    """It knows nothing of what it was not trained on, and so has to be tried on what it was."""
    model = make_pipeline(OneHotEncoder(), LinearRegression()).fit(CITIES[:, None], CLASSES.astype(np.float32))
    file = to_onnx(model, initial_types=[("city", StringTensorType([None, 1]))], target_opset=OPSET)
    examples = [{"city": "Ulm"}, {"city": "Rom"}]
    column = Column("string", CITIES.tolist(), "")
    tensors = {"city": CITIES[:, None]}
    return Learner(file.SerializeToString(), {"city": column}, tensors, more={"examples": examples})


@learner
def lightgbm_with_zipmap() -> Learner:
    values = NUMBERS.copy()
    values[4, 1] = np.nan
    model = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=1, verbose=-1).fit(values, CLASSES)
    kinds = [("input", LightGbmFloats([None, 3]))]
    file = convert_lightgbm(model, initial_types=kinds, target_opset=15, zipmap=True)
    return Learner(file.SerializeToString(), numbers(values), {"input": values}, {"input": ["x0", "x1", "x2"]})


@learner
def random_forest() -> Learner:
    return matrix(RandomForestClassifier(n_estimators=7, random_state=1), CITIES)


@learner
def gradient_boosting() -> Learner:
    return matrix(GradientBoostingClassifier(n_estimators=5, random_state=1), CLASSES)


@learner
def perceptron() -> Learner:
    return matrix(MLPClassifier((8,), max_iter=50, random_state=1), CLASSES, {"zipmap": False})


@learner
def clusters() -> Learner:
    return matrix(KMeans(3, n_init=1, random_state=1), CLASSES)


@learner
def isolation_forest() -> Learner:
    return matrix(IsolationForest(n_estimators=7, random_state=1), CLASSES)


@learner
def several_targets() -> Learner:
    return matrix(LinearRegression(), np.column_stack([CLASSES, CLASSES * 2.5]))


@learner
def several_classes() -> Learner:
    """Of two targets with different numbers of classes: a sequence of tensors."""
    targets = np.column_stack([CLASSES, CLASSES > 0])
    return matrix(MultiOutputClassifier(LogisticRegression()), targets, {"zipmap": False})


def words(vectorizer: TfidfVectorizer, **options: Any) -> Learner:
    """A learner of texts, one of which is null."""
    notes = np.array(["late again", "late late", "on time", "no Plane", "plane on time", "again"] * 2, object)
    classifier = LogisticRegression()
    model = make_pipeline(vectorizer, classifier).fit(notes, CLASSES)
    kinds = [("note", StringTensorType([None]))]
    all_options = {id(classifier): {"zipmap": False}, id(vectorizer): options}
    file = to_onnx(model, initial_types=kinds, target_opset=OPSET, options=all_options)
    given = [None, *notes[1:].tolist()]
    tensor = np.array([note or "" for note in given], object)
    return Learner(file.SerializeToString(), {"note": Column("string", given, "")}, {"note": tensor})


@learner
def text() -> Learner:
    return words(TfidfVectorizer(lowercase=False))


@learner
def text_in_lower_case() -> Learner:
    # The one locale that every machine has: ONNX Runtime asks the system for it.
    return words(TfidfVectorizer(), locale="C")


@learner
def numbers_and_texts() -> Learner:
    """As CatBoost exports: numbers in one tensor, each text in one of its own."""
    known = {"keys_strings": ["Ulm", "Bonn"], "values_floats": [1.0, 2.0], "default_float": -1.0}
    file = built(
        [
            helper.make_node("LabelEncoder", ["city"], ["code"], domain="ai.onnx.ml", **known),
            helper.make_node("Concat", ["features", "code"], ["all"], axis=1),
            helper.make_node("MatMul", ["all", "w"], ["score"]),
        ],
        [("features", TensorProto.FLOAT, ["N", 3]), ("city", TensorProto.STRING, ["N", 1])],
        [("score", TensorProto.FLOAT, ["N", 1])],
        {"w": np.array([[0.1], [0.3], [0.7], [1.3]], np.float32)},
    )
    columns = {"place": Column("string", CITIES.tolist(), ""), **numbers()}
    inputs = {"features": ["x2", "x0", "x1"], "city": "place"}
    return Learner(file, columns, {"features": NUMBERS[:, [2, 0, 1]], "city": CITIES[:, None]}, inputs)


@learner
def names_of_frameworks() -> Learner:
    """As Keras and PyTorch name inputs, which no column is called."""
    file = built(
        [
            helper.make_node("Gemm", ["serving_default_x:0", "w"], ["left"]),
            helper.make_node("Gemm", ["onnx::Gemm_0", "w"], ["right"]),
            helper.make_node("Sub", ["left", "right"], ["StatefulPartitionedCall:0"]),
        ],
        [("serving_default_x:0", TensorProto.FLOAT, ["N", 2]), ("onnx::Gemm_0", TensorProto.FLOAT, ["N", 2])],
        [("StatefulPartitionedCall:0", TensorProto.FLOAT, ["N", 2])],
        {"w": np.array([[0.1, 0.2], [0.3, 0.7]], np.float32)},
    )
    inputs = {"serving_default_x:0": ["x0", "x1"], "onnx::Gemm_0": ["x2", "x1"]}
    tensors = {"serving_default_x:0": NUMBERS[:, :2], "onnx::Gemm_0": NUMBERS[:, [2, 1]]}
    return Learner(file, numbers(), tensors, inputs)


@learner
def groups_of_types() -> Learner:
    """Numbers in one tensor, the places of embeddings in another, of whole numbers that may be null."""
    ids = np.column_stack([CLASSES, CLASSES[::-1]]).astype(np.int64)
    file = built(
        [
            helper.make_node("Gather", ["embeddings", "ids"], ["found"]),
            helper.make_node("Flatten", ["found"], ["flat"]),
            helper.make_node("Concat", ["numeric", "flat"], ["all"], axis=1),
            helper.make_node("ReduceMean", ["all"], ["mean"], axes=[1], keepdims=0),
        ],
        [("numeric", TensorProto.FLOAT, ["N", 3]), ("ids", TensorProto.INT64, ["N", 2])],
        [("all", TensorProto.FLOAT, ["N", 7]), ("mean", TensorProto.FLOAT, ["N"])],
        {"embeddings": np.array([[0.5, 0.25], [0.1, 0.7], [1.5, -3.0]], np.float32)},
    )
    first: list[Any] = ids[:, 0].tolist()
    first[5], ids[5, 0] = None, 2
    columns = numbers() | {"a": Column("int64", first, 2), "b": Column("int32", ids[:, 1].tolist(), 0)}
    inputs = {"numeric": ["x0", "x1", "x2"], "ids": ["a", "b"]}
    return Learner(file, columns, {"numeric": NUMBERS, "ids": ids}, inputs)


@learner
def lstm() -> Learner:
    """Steps of time, of which some are missing: a null list is NaN throughout."""
    steps = RANDOM.normal(size=(ROWS, 4, 3)).astype(np.float32)
    steps[2] = np.nan
    weights = {
        "w": RANDOM.normal(size=(1, 20, 3)).astype(np.float32),
        "r": RANDOM.normal(size=(1, 20, 5)).astype(np.float32),
    }
    file = built(
        [
            helper.make_node("Transpose", ["steps"], ["by_time"], perm=[1, 0, 2]),
            helper.make_node("LSTM", ["by_time", "w", "r"], ["all", "last"], hidden_size=5),
            helper.make_node("Squeeze", ["last", "first"], ["state"]),
        ],
        [("steps", TensorProto.FLOAT, ["N", "T", 3])],
        [("state", TensorProto.FLOAT, ["N", 5])],
        weights | {"first": np.array([0])},
    )
    flat: list[Any] = steps.reshape(ROWS, 12).tolist()
    flat[2] = None
    column = Column("list<float32, 12>", flat)
    return Learner(file, {"flat": column}, {"steps": steps}, {"steps": {"columns": "flat", "shape": [4, 3]}})


@learner
def whole_numbers() -> Learner:
    """An encoder of whole numbers, which know no null."""
    zones = np.array([3, 4, 5] * (ROWS // 3), np.int64)
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LinearRegression()).fit(zones[:, None], CLASSES)
    file = to_onnx(model, initial_types=[("zone", Int64TensorType([None, 1]))], target_opset=OPSET)
    given: list[Any] = zones.tolist()
    given[0], zones[0] = None, 77
    return Learner(file.SerializeToString(), {"zone": Column("int64", given, 77)}, {"zone": zones[:, None]})
