"""Does a model that was trained on a training set go live by one call, and say there what it said in Python?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from onnx import TensorProto, helper
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

import quern.onnx
from export_repository import DEFAULTS, START, ZONES, live, repository_at, spine, training_sets
from quern.onnx.columns import Columns
from quern.onnx.errors import need
from quern.onnx.learner import Converted, Input
from quern.onnx.proof import prove

Sets = dict[str, pa.Table]
# Each with the feature service that it was trained on.
Learners = dict[str, tuple[Any, str]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Learners this small spend more on threads than on learning."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository_at(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def sets(root: Path) -> Sets:
    return training_sets(root)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a repository with nothing in it."""
    (tmp_path / "quern.yaml").write_text("")
    return tmp_path / "models"


def frame_of(table: pa.Table) -> pd.DataFrame:
    """What a model is trained on, with the service's defaults for texts."""
    frame = table.to_pandas()[json.loads(table.schema.metadata[b"quern.outputs"])]
    return frame.fillna({name: value for name, value in DEFAULTS.items() if name in frame})


def late(table: pa.Table) -> np.ndarray:
    return table["late"].to_numpy().astype(int)


def numbers_of(table: pa.Table) -> np.ndarray:
    return frame_of(table).to_numpy(np.float64)


def texts_and_numbers(model: Any) -> Pipeline:
    numeric = make_pipeline(SimpleImputer(), StandardScaler())
    # The one locale that every machine has is asked for by vectorizers that leave case alone.
    steps = [
        ("note", TfidfVectorizer(lowercase=False), "note"),
        ("city", OneHotEncoder(), ["city"]),
        ("numbers", numeric, ["weight", "distance", "zone"]),
    ]
    return make_pipeline(ColumnTransformer(steps), model)


@pytest.fixture(scope="module")
def learners(sets: Sets) -> Learners:
    """Learners, and the feature services that they were trained on."""
    texts, numbers = frame_of(sets["texts"]), sets["numbers"]
    target = late(numbers)
    trees = {"n_estimators": 20, "verbose": -1, "n_jobs": 1}
    swapped = numbers.to_pandas()[["weight", "zone", "distance"]]
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(numbers_of(numbers), target), 20
    )
    notes = sets["words"]["note"].to_pandas().fillna("")
    several = make_pipeline(SimpleImputer(), StandardScaler(), MultiOutputClassifier(LogisticRegression()))
    targets = np.column_stack([target, np.arange(len(target)) % 3])
    return {
        "logistic": (texts_and_numbers(LogisticRegression()).fit(texts, target), "texts"),
        "mixed": (texts_and_numbers(lightgbm.LGBMClassifier(**trees)).fit(texts, target), "texts"),
        "trees": (
            lightgbm.LGBMClassifier(**trees).fit(numbers_of(numbers), np.array(["no", "yes"])[target]),
            "numbers",
        ),
        "swapped": (lightgbm.LGBMRegressor(**trees).fit(swapped, target * 100.0), "numbers"),
        "booster": (booster, "numbers"),
        "histograms": (HistGradientBoostingRegressor(max_iter=5).fit(numbers_of(numbers), target), "numbers"),
        "words": (make_pipeline(TfidfVectorizer(lowercase=False), LogisticRegression()).fit(notes, target), "words"),
        "strict": (make_pipeline(OneHotEncoder(), LinearRegression()).fit(frame_of(sets["cities"]), target), "cities"),
        "zones": (
            make_pipeline(OneHotEncoder(), LinearRegression()).fit(frame_of(sets["zones"]).fillna(ZONES), target),
            "zones",
        ),
        "targets": (several.fit(numbers_of(numbers), targets), "numbers"),
    }


def answers(name: str, model: Any, table: pa.Table) -> np.ndarray:
    """What the learner says, as the last output of the file has it: [rows, cells]."""
    frame = frame_of(table)
    if name == "booster":
        said = model.predict(numbers_of(table))
        return np.column_stack([1 - said, said])
    if name == "zones":
        x = frame.fillna(ZONES)
    elif name == "words":
        x = frame["note"]
    elif name == "swapped":
        x = frame[["weight", "zone", "distance"]]
    else:
        x = frame if name in ("logistic", "mixed", "strict") else numbers_of(table)
    said = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)
    return np.hstack(said) if isinstance(said, list) else said.reshape(len(frame), -1)


def rows_of(column: pa.ChunkedArray) -> np.ndarray:
    """What the server says: [rows, cells]."""
    return np.stack([np.hstack(row if isinstance(row, list) else [row]) for row in column.to_pylist()])


def test_from_training_set_to_live(root: Path, sets: Sets, learners: Learners) -> None:
    for name, (model, service) in learners.items():
        # Whole numbers of an encoder have a default of their own; of the others, null is NaN.
        defaults = ZONES if name == "zones" else None
        done = quern.onnx.export(model, sets[service], service, name=name, folder=root / "models", defaults=defaults)
        assert done.proof.holds
        assert done.proof.rows == sets[service].num_rows
    with live(root) as client:
        models = client.definitions().models
        for name, (_, service) in learners.items():
            pin = json.loads(sets[service].schema.metadata[b"quern.training_set"])
            assert models[name].versions[0].trained_on == pin["digest"]
        asked = pa.Table.from_pandas(spine().drop(columns="late"), preserve_index=False)
        for name, (model, service) in learners.items():
            # The last output is the probability of each class, or the number that a regressor gives.
            said = client.predict_batch(name, asked, as_of=True)
            got, expected = rows_of(said.column(said.num_columns - 1)), answers(name, model, sets[service])
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_the_definition(sets: Sets, learners: Learners, folder: Path) -> None:
    swapped, service = learners["swapped"]
    done = quern.onnx.export(swapped, sets[service], service, name="late", version=2, folder=folder)
    assert done.definition.read_text() == done.yaml
    lines = done.yaml.splitlines()
    assert lines[:7] == [
        "kind: Model",
        'name: "late"',
        "versions:",
        '  - version: "2"',
        '    path: "models/late-2.onnx"',
        '    service: "numbers"',
        '    inputs: {"features": ["weight", "zone", "distance"]}',
    ]
    examples = [json.loads(line.strip().removeprefix("- ")) for line in lines[8:11]]
    rows = sets[service].select(["weight", "zone", "distance"]).to_pylist()
    assert len(examples) == 3
    assert all(example in rows for example in examples)
    assert repr(done).startswith(
        "model `late`, version `2`: proved on 300 rows, tolerance 0.0001\n  output    differs by"
    )


def test_what_it_was_trained_on(sets: Sets, learners: Learners, folder: Path) -> None:
    pin = json.loads(sets["numbers"].schema.metadata[b"quern.training_set"])
    done = quern.onnx.export(learners["trees"][0], sets["numbers"], "numbers", folder=folder)
    assert '    trained_on:\n      "as_known": false\n      "columns":\n        "distance": "xxh3:' in done.yaml
    assert f'      "digest": "{pin["digest"]}"\n' in done.yaml
    assert "inputs" not in done.yaml, "all columns of the service, in its order"


def test_files_that_are_there(sets: Sets, learners: Learners, folder: Path) -> None:
    table = sets["numbers"]
    first = quern.onnx.export(learners["trees"][0], table, "numbers", folder=folder)
    before = first.onnx.read_bytes()
    again = quern.onnx.export(learners["trees"][0], table, "numbers", folder=folder)
    assert again.to_add is None
    # Its definition says how another file is fed, whatever becomes of the file.
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match=r"numbers\.yaml declares version `1` of the model otherwise"):
            quern.onnx.export(learners["swapped"][0], table, "numbers", folder=folder, overwrite=overwrite)
    assert first.onnx.read_bytes() == before
    with pytest.warns(UserWarning, match="is left as it is; add this under `versions`"):
        second = quern.onnx.export(learners["swapped"][0], table, "numbers", version="2", folder=folder)
    assert second.onnx.is_file()
    assert second.to_add in repr(second)
    assert second.definition.read_text() == first.yaml
    second.definition.write_text(first.yaml + second.to_add)
    quern.onnx.export(learners["swapped"][0], table, "numbers", version="2", folder=folder)
    # A file that is fed alike may take its place.
    alike = learners["histograms"][0]
    with pytest.raises(
        FileExistsError, match=r"numbers-1\.onnx is there and holds something else: give another `version`"
    ):
        quern.onnx.export(alike, table, "numbers", folder=folder)
    quern.onnx.export(alike, table, "numbers", folder=folder, overwrite=True)
    assert first.onnx.read_bytes() != before


def test_a_model_that_is_declared_elsewhere(sets: Sets, learners: Learners, folder: Path) -> None:
    declared = folder.parent / "all.yaml"
    declared.write_text("kind: Entity\nname: late\n---\n{name: 'late', \"kind\": Model, versions: []} # the model\n")
    with pytest.warns(UserWarning, match=r"all\.yaml is there and is left as it is"):
        done = quern.onnx.export(learners["trees"][0], sets["numbers"], "numbers", name="late", folder=folder)
    assert done.definition == declared
    assert [path.name for path in folder.iterdir()] == ["late-1.onnx"]


def test_a_model_that_float32_leads_astray(folder: Path) -> None:
    """Seconds since 1970, which float32 has in steps of two minutes."""
    second = 1_700_000_000 + np.arange(400.0)
    x = pd.DataFrame({"second": second, "weight": np.arange(400.0) % 7})
    model = lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1).fit(x, second > second[200])
    with pytest.raises(
        quern.onnx.ProofError, match="does not say what the model says: output `variable` differs"
    ) as error:
        quern.onnx.export(model, x, "s", folder=folder)
    assert not folder.exists()
    proof = error.value.proof
    at = proof.greatest
    assert 0 < at.beyond < 400
    assert at.values == x.iloc[at.row].to_dict()
    assert at.learner == model.predict(x.iloc[[at.row]])[0]
    assert at.absolute == pytest.approx(abs(at.learner - at.file))
    assert f"in {at.beyond} of 400 rows, most in row {at.row}" in str(error.value)
    loose = quern.onnx.export(model, x, "s", folder=folder, tolerance=1)
    assert loose.proof.differences[0].absolute == at.absolute
    assert "inputs" in loose.yaml, "which the service has, in which order, is not known of a frame"


def test_differences() -> None:
    """The greatest one, wherever it is; NaN is like NaN alone, and an infinity like itself."""
    columns = Columns.of(pa.table({"x": pa.array([1.0, None, 3.0, 4.0, float("inf")])}), {})
    node = helper.make_node("Identity", ["features"], ["y"])
    port = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("features", "y")]
    graph = helper.make_graph([node], "same", port[:1], port[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    converted = Converted(model.SerializeToString(), [Input("features", ["x"])])

    def differs(*learner: float) -> tuple[float, int, int]:
        proof, outputs = prove(converted, columns, [np.array(learner)], 1e-4)
        assert outputs == ["y"]
        return proof.greatest.absolute, proof.greatest.row, proof.greatest.beyond

    nan, inf = float("nan"), float("inf")
    assert differs(1, nan, 3, 4, inf) == (0, 0, 0)
    assert differs(1, nan, 3.25, 4, inf) == (0.25, 2, 1)
    assert differs(1, nan, 3.25, 3.5, inf) == (0.5, 3, 2)
    assert differs(1, 2, 3, 4, inf) == (inf, 1, 1)
    assert differs(1, nan, 3, nan, inf) == (inf, 3, 1)
    assert differs(1, nan, 3, 4, -inf) == (inf, 4, 1)
    proof, _ = prove(converted, columns, [np.array([1, 0, 3, 4, inf])], 1e-4)
    with pytest.raises(quern.onnx.ProofError, match=r"derive a value in the feature service, as in `coalesce\(x, 0\)`"):
        proof.check()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": object()}, "expected a trained model of scikit-learn, LightGBM"),
        ({"service": "texts"}, "a training set of feature service `numbers`, not of `texts`"),
        (
            {"columns": ["zone", "wieght"]},
            "to take column `wieght`, which the training set lacks; did you mean `weight`?",
        ),
        (
            {"columns": ["zone", "weight"]},
            "the model takes 4 numbers a row, and the columns have 2: ['zone', 'weight']",
        ),
        ({"tolerance": float("nan")}, "tolerance: expected a number of 0 or more, found nan"),
        ({"columns": ["zone", "zone"]}, "column `zone` is named twice"),
        ({"name": "../late"}, "name: expected letters, digits, `_`, `-` and `.`, found '../late'"),
        ({"folder": "/"}, "no quern.yaml is there or above: give a folder of the repository"),
        ({"table": {"distance": [1.0]}, "columns": None}, "which columns does the model take, in which order?"),
        ({"table": {"distance": [[1.0], [1.0, 2.0]]}, "columns": ["distance"]}, "has lists of 1 to 2 items"),
        (
            {"table": {"at": [START]}, "columns": ["at"]},
            "column `at` is timestamp[us, tz=UTC]: no input of a model takes",
        ),
        ({"table": {"city": ["Ulm", None]}, "columns": ["city"]}, "or say by `defaults={...}` what is declared"),
        ({"defaults": {"zoen": 0}}, "`defaults` has `zoen`, which is no column of the table; did you mean `zone`?"),
        ({"defaults": {"zone": 1}}, "`defaults` has 1 for `zone`, and the service declares 0"),
        ({"defaults": {"weight": 1}}, "`defaults` has 1 for `weight`, and the service declares none"),
        ({"table": pa.table({"zone": pa.array([], pa.int64())})}, "the table has no rows"),
    ],
)
def test_refusals(sets: Sets, learners: Learners, folder: Path, change: dict[str, Any], told: str) -> None:
    given = {"model": learners["trees"][0], "table": sets["numbers"], "service": "numbers", "folder": folder}
    given |= change
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=re.escape(told)):
        quern.onnx.export(**given)
    assert not folder.exists()


def test_columns_that_a_model_names(sets: Sets, folder: Path) -> None:
    frame = frame_of(sets["numbers"]).fillna(0.0).rename(columns={"weight": "wieght"}).astype(float)
    model = LinearRegression().fit(frame, late(sets["numbers"]))
    told = "the model was trained on column `wieght`, which the training set lacks; did you mean `weight`?"
    with pytest.raises(quern.onnx.ExportError, match=re.escape(told)):
        quern.onnx.export(model, sets["numbers"], "numbers", folder=folder)


def test_categories_of_pandas(sets: Sets, folder: Path) -> None:
    frame = frame_of(sets["texts"])[["city", "weight"]].astype({"city": "category"})
    model = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(frame, late(sets["texts"]))
    with pytest.raises(quern.onnx.ExportError, match="use scikit-learn's OrdinalEncoder"):
        quern.onnx.export(model, sets["texts"], "texts", folder=folder)


def test_tables_of_other_libraries(sets: Sets, folder: Path) -> None:
    """Lists stand side by side; whole numbers that pandas made floats of are written as such again."""
    rows = 50
    lists = pa.array([[i, i % 7, i % 3] for i in range(rows)], pa.list_(pa.float32()))
    table = pa.table({"zone": pa.array(range(rows), pa.int64()), "embedding": lists})
    x = np.column_stack([np.arange(rows), np.stack(lists.to_numpy(zero_copy_only=False))])
    model = LinearRegression().fit(x, x.sum(axis=1))
    for number, frame in enumerate((table, table.to_pandas().astype({"zone": float}), pl.from_arrow(table))):
        done = quern.onnx.export(
            model, frame, "s", columns=["zone", "embedding"], version=f"v{number}", name=f"m{number}", folder=folder
        )
        assert done.yaml.endswith('- {"zone": 2, "embedding": [2, 2, 2]}\n')
        assert 'inputs: {"features": ["zone", "embedding"]}' in done.yaml
    outputs = [quern.Column("zone", "int64"), quern.Column("embedding", "list<float32, 3>")]
    service = quern.FeatureService("known", "", [], [], outputs)
    done = quern.onnx.export(model, table.to_pandas(), service, folder=folder)
    assert "inputs" not in done.yaml, "they are the service's, in its order"


def test_an_exporter_that_errs(folder: Path) -> None:
    """skl2onnx takes raw scores of LightGBM for probabilities; what it has no words for, it says."""
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 2)), columns=["a", "b"])
    trees = CalibratedClassifierCV(lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1), cv=2)
    with pytest.raises(quern.onnx.ProofError, match="Where many do, the exporter misreads the model"):
        quern.onnx.export(trees.fit(x, x["a"] > 0), x, "s", folder=folder)
    doubled = make_pipeline(FunctionTransformer(np.abs), LinearRegression()).fit(x, x["a"])
    with pytest.raises(
        quern.onnx.ExportError, match=r"does not take this model of ScikitLearn: RuntimeError: FunctionTransformer"
    ):
        quern.onnx.export(doubled, x, "s", folder=folder)
    assert not folder.exists()


def test_the_client_alone_needs_none_of_it() -> None:
    program = """
import sys, pyarrow.flight
before = set(sys.modules)
import quern
print({"numpy", "pandas", "onnx", "quern.onnx"} & (set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr
    told = "quern.onnx needs not_there, which is not installed: pip install 'quern[onnx]'"
    with pytest.raises(ModuleNotFoundError, match=re.escape(told)):
        need("not_there.at_all")
