"""Trains models of XGBoost and CatBoost on training sets, exports them, and says what they say of each row.

usage: exporters_program.py REPOSITORY    with the training sets of feature services beside it, as `SERVICE.arrow`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pyarrow as pa
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import quern.onnx

DEFAULTS = {"city": "Ulm", "note": ""}


def trained(numbers: Any, texts: Any, late: np.ndarray) -> dict[str, tuple[Any, str, Any]]:
    """Models, the feature services that they were trained on, and what they are asked with."""
    x = numbers.to_numpy(np.float64)
    swapped = numbers[["weight", "zone", "distance"]]
    three = np.arange(len(late)) % 3
    trees = {"n_estimators": 10, "max_depth": 4, "n_jobs": 1}
    boosting = {"iterations": 10, "depth": 4, "verbose": 0, "thread_count": 1, "allow_writing_files": False}
    stopping = xgboost.XGBRegressor(n_estimators=200, n_jobs=1, early_stopping_rounds=2)
    stopping.fit(x[:200], late[:200], eval_set=[(x[200:], late[200:])], verbose=False)
    encoded = ColumnTransformer([("city", OneHotEncoder(), ["city"])], remainder="passthrough")
    of_texts = texts[["city", "weight", "distance"]]
    return {
        "xgb": (xgboost.XGBClassifier(**trees).fit(x, late), "numbers", x),
        "xgb-three": (xgboost.XGBClassifier(**trees).fit(x, three), "numbers", x),
        "xgb-swapped": (xgboost.XGBRegressor(**trees).fit(swapped, late * 100.0), "numbers", swapped),
        "xgb-stopped": (stopping, "numbers", x),
        "xgb-inside": (make_pipeline(encoded, xgboost.XGBClassifier(**trees)).fit(of_texts, late), "texts", of_texts),
        "cat": (catboost.CatBoostClassifier(**boosting).fit(x, late), "numbers", x),
        "cat-named": (
            catboost.CatBoostClassifier(**boosting).fit(swapped, np.array(["no", "yes"])[late]),
            "numbers",
            swapped,
        ),
        "cat-three": (catboost.CatBoostClassifier(**boosting).fit(x, three), "numbers", x),
        "cat-number": (catboost.CatBoostRegressor(**boosting).fit(x, late * 100.0), "numbers", x),
    }


def refused(numbers: pa.Table, texts: pa.Table, late: np.ndarray, folder: Path) -> dict[str, str]:
    """What has no way to ONNX, and what is said of it."""
    frame = texts.to_pandas()[["city", "weight"]].fillna(DEFAULTS)
    categories = catboost.CatBoostRegressor(iterations=2, verbose=0, cat_features=["city"], allow_writing_files=False)
    of_pandas = xgboost.XGBRegressor(n_estimators=2, enable_categorical=True)
    models = {
        "cat": categories.fit(frame, late),
        "xgb": of_pandas.fit(frame.astype({"city": "category"}), late),
    }
    said = {}
    for name, model in models.items():
        try:
            quern.onnx.export(model, texts, "texts", name=f"refused-{name}", folder=folder)
        except quern.onnx.ExportError as error:
            said[name] = str(error)
    return said


def main(root: Path) -> None:
    """Export everything and say what each model says."""
    sets = {service: pa.ipc.open_file(root / f"{service}.arrow").read_all() for service in ("numbers", "texts")}
    frames = {
        service: table.to_pandas()[json.loads(table.schema.metadata[b"quern.outputs"])]
        for service, table in sets.items()
    }
    late = sets["numbers"]["late"].to_numpy().astype(int)
    says = {}
    for name, (model, service, x) in trained(frames["numbers"], frames["texts"].fillna(DEFAULTS), late).items():
        quern.onnx.export(model, sets[service], service, name=name, folder=root / "models")
        said = model.predict_proba(x) if hasattr(model, "predict_proba") else model.predict(x)
        says[name] = np.asarray(said, float).reshape(len(late), -1).tolist()
    told = refused(sets["numbers"], sets["texts"], late, root / "models")
    print(json.dumps({"says": says, "refused": told}))


main(Path(sys.argv[1]))
