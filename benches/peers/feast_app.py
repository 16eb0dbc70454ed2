"""What people build today, run by uvicorn in Feast's Python: FastAPI, Feast and onnxruntime in one app, in two ways.

Requests and replies are those of Quern's `POST /v1/models/{model}:predict`. BENCH_FOLDER holds the Feast repository,
BENCH_MODELS the ONNX files.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI
from feast import FeatureStore
from serving_data import COLUMNS, MODELS, REQUEST

KEYS = {"scoring": ("id",), "towers": ("id", "item")}


def session(model: str) -> onnxruntime.InferenceSession:
    """Open a model as Quern does: one thread for each call."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(Path(os.environ["BENCH_MODELS"]) / f"{model}.onnx", options)


store = FeatureStore(repo_path=str(Path(os.environ["BENCH_FOLDER"]) / "feast"))
services = {name: store.get_feature_service(name) for name in KEYS}
sessions = {model: session(model) for model in MODELS}
PATH = "/v1/models/{model}:predict"
in_loop, in_threads = FastAPI(), FastAPI()


@in_loop.post(PATH)
async def predict(model: str, body: dict) -> dict:
    """Ask Feast on the event loop, as its own server does."""
    reply = await store.get_online_features_async(features=services[MODELS[model]], entity_rows=keys(model, body))
    return answer(model, body, reply.to_dict())


@in_threads.post(PATH)
def predict_in_thread(model: str, body: dict) -> dict:
    """Ask Feast on one of FastAPI's threads."""
    reply = store.get_online_features(features=services[MODELS[model]], entity_rows=keys(model, body))
    return answer(model, body, reply.to_dict())


def keys(model: str, body: dict) -> dict[str, list]:
    """The join keys of all instances."""
    return {key: [instance[key] for instance in body["instances"]] for key in KEYS[MODELS[model]]}


def answer(model: str, body: dict, found: dict[str, list]) -> dict:
    """Join what was found with the request's columns, and ask the model."""
    if MODELS[model] == "towers":
        inputs = {name: np.array(found[name], dtype=np.float32) for name in ("user_vector", "item_vector")}
    else:
        asked = {name: [instance[name] for instance in body["instances"]] for name in REQUEST}
        columns = [asked[name] if name in asked else found[name] for name in COLUMNS]
        inputs = {"features": np.ascontiguousarray(np.array(columns, dtype=np.float32).T)}
    return {"predictions": sessions[model].run(["score"], inputs)[0].tolist()}
