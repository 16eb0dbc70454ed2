"""What do both sides of `serving.py` hold and answer? Features, models and requests, the same on every machine.

As in the other benches: three views of twenty features, twelve float64 and eight int64. `all` takes the sixty;
`scoring` takes nine of each view and three columns of the request, thirty in all, into trees or an MLP. `towers` takes
a stored vector of a user and one of an item.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
VIEWS, FEATURES, FLOATS = 3, 20, 12
PICKED = (0, 1, 2, 3, 4, 5, 12, 13, 14)
REQUEST = ("amount", "hour", "age")
COLUMNS = [f"v{view}_{place}" for view in range(VIEWS) for place in PICKED] + list(REQUEST)
VECTORS, LENGTH = 10_000, 64
# A model's name is that of its ONNX file; it says which service feeds it.
MODELS = {"trees100": "scoring", "trees500": "scoring", "mlp": "scoring", "towers": "towers"}
SEED = 7


def features(view: int) -> list[str]:
    """The features of one of the three views."""
    return [f"v{view}_{place}" for place in range(FEATURES)]


# --- rows --------------------------------------------------------------------------------------------------------


def write_rows(folder: Path, entities: int) -> None:
    """Write `rows.parquet`, `users.parquet` and `items.parquet`: one row for each key, an hour old."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    random = np.random.default_rng(SEED)
    hour_ago = int(time.time() - 3_600) * 1_000_000

    def keyed(key: str, rows: int) -> dict[str, pa.Array]:
        times = pa.array(np.full(rows, hour_ago), pa.timestamp("us", "UTC"))
        return {"ts": times, key: pa.array(np.arange(rows))}

    columns = keyed("id", entities)
    for view in range(VIEWS):
        for place, name in enumerate(features(view)):
            floats = place < FLOATS
            columns[name] = random.uniform(-2, 2, entities) if floats else random.integers(0, 10, entities)
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    for key, name in (("id", "user"), ("item", "item")):
        numbers = pa.array(random.normal(size=VECTORS * LENGTH).astype(np.float32))
        offsets = pa.array(np.arange(VECTORS + 1, dtype=np.int32) * LENGTH)
        columns = keyed(key, VECTORS) | {f"{name}_vector": pa.ListArray.from_arrays(offsets, numbers)}
        pq.write_table(pa.table(columns), folder / f"{name}s.parquet")


# --- models ------------------------------------------------------------------------------------------------------


def write_models(folder: Path) -> None:
    """Write an ONNX file for each model, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for trees in (100, 500):
        path = folder / f"trees{trees}.onnx"
        if not path.exists():
            command = [sys.executable, HERE.parent / "model.py", path, len(COLUMNS), trees]
            subprocess.run(list(map(str, command)), check=True, stderr=subprocess.DEVNULL)
    write_mlp(folder / "mlp.onnx")
    write_towers(folder / "towers.onnx")


def write_mlp(path: Path) -> None:
    """Thirty columns, layers of 64 and 32, one number between 0 and 1."""
    write_network(path, {"features": len(COLUMNS)}, [("features", (len(COLUMNS), 64, 32, 1))], "features")


def write_towers(path: Path) -> None:
    """Two towers of 64, 64 and 32, and the product of what they give."""
    layers = (LENGTH, 64, 32)
    inputs = {"user_vector": LENGTH, "item_vector": LENGTH}
    write_network(path, inputs, [(name, layers) for name in inputs], None)


def write_network(
    path: Path, inputs: dict[str, int], towers: list[tuple[str, tuple[int, ...]]], only: str | None
) -> None:
    """Write dense layers on each input, from random weights; without `only`, the rows' products of two towers."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(SEED)
    nodes, weights = [], []

    def constant(name: str, values: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(values, name))
        return name

    for tower, widths in towers:
        last = tower
        for layer, (wide, narrow) in enumerate(pairwise(widths)):
            name = f"{tower}_{layer}"
            matrix = constant(f"{name}_w", (random.normal(size=(wide, narrow)) / wide**0.5).astype(np.float32))
            bias = constant(f"{name}_b", random.normal(size=narrow).astype(np.float32) / 10)
            nodes.append(helper.make_node("Gemm", [last, matrix, bias], [f"{name}_sum"]))
            last = f"{name}_sum"
            if layer < len(widths) - 2:
                nodes.append(helper.make_node("Relu", [last], [name]))
                last = name
        nodes.append(helper.make_node("Identity", [last], [f"{tower}_out"]))
    if only is None:
        user, item = (f"{tower}_out" for tower, _ in towers)
        nodes.append(helper.make_node("Mul", [user, item], ["products"]))
        nodes.append(helper.make_node("ReduceSum", ["products", constant("last", np.array([1]))], ["sum"], keepdims=0))
    else:
        nodes.append(helper.make_node("Squeeze", [f"{only}_out", constant("last", np.array([1]))], ["sum"]))
    nodes.append(helper.make_node("Sigmoid", ["sum"], ["score"]))
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width]) for name, width in inputs.items()],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


# --- requests ----------------------------------------------------------------------------------------------------


def lookups(entities: int, rows: int, count: int) -> Iterator[dict]:
    """Bodies for `POST /get-online-features`."""
    import numpy as np

    random = np.random.default_rng([SEED, rows])
    for _ in range(count):
        yield {"feature_service": "all", "entities": {"id": random.integers(0, entities, rows).tolist()}}


def predictions(service: str, entities: int, rows: int, count: int) -> Iterator[dict]:
    """Bodies for `POST /v1/models/{model}:predict`."""
    import numpy as np

    random = np.random.default_rng([SEED, rows])

    def instance() -> dict:
        if service == "towers":
            return {"id": int(random.integers(VECTORS)), "item": int(random.integers(VECTORS))}
        id_, hour, age = (int(random.integers(end)) for end in (entities, 24, 100))
        return {"id": id_, "amount": round(float(random.uniform(0, 200)), 2), "hour": hour, "age": age}

    for _ in range(count):
        yield {"instances": [instance() for _ in range(rows)]}


# --- Quern's definitions -----------------------------------------------------------------------------------------


def definitions(folder: Path, models: Path) -> str:
    """Define what Feast is given by `feast_repository.py`, and the models."""

    def source(name: str) -> str:
        path = json.dumps(str(folder / f"{name}.parquet"))
        return f"kind: Source\nname: {name}\nbatch: {{format: parquet, path: {path}}}\nevent_timestamp: ts\n"

    def view(name: str, entity: str, rows: str, features: list[str]) -> str:
        head = f"kind: FeatureView\nname: {name}\nentities: [{entity}]\nsource: {rows}\nttl: 30d\n"
        return f"{head}features: [{', '.join(features)}]\n"

    request = "{name: amount, type: float64}, {name: hour, type: int64}, {name: age, type: int64}"
    picked = [(view, [f"v{view}_{place}" for place in PICKED]) for view in range(VIEWS)]
    projections = ", ".join(f"{{view: v{view}, features: [{', '.join(names)}]}}" for view, names in picked)
    documents = [
        "kind: Entity\nname: user\njoin_keys: [{name: id, type: int64}]\n",
        "kind: Entity\nname: item\njoin_keys: [{name: item, type: int64}]\n",
        *map(source, ("rows", "users", "items")),
        *(view(f"v{number}", "user", "rows", features(number)) for number in range(VIEWS)),
        *(
            view(f"{name}_vectors", name, f"{name}s", [f'{{name: {name}_vector, type: "list<float32, {LENGTH}>"}}'])
            for name in ("user", "item")
        ),
        f"kind: FeatureService\nname: all\nfeatures: [{', '.join(f'v{view}' for view in range(VIEWS))}]\n",
        f"kind: FeatureService\nname: scoring\nrequest: [{request}]\nfeatures: [{projections}]\n"
        f"outputs: [{', '.join(COLUMNS)}]\n",
        "kind: FeatureService\nname: towers\nfeatures: [user_vectors, item_vectors]\n",
        *(
            f"kind: Model\nname: {model}\n"
            f"versions: [{{version: 1, path: {json.dumps(str(models / f'{model}.onnx'))}, service: {service}}}]\n"
            for model, service in MODELS.items()
        ),
    ]
    return "---\n".join(documents)
