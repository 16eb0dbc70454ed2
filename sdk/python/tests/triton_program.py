"""A program for Triton, with Triton's own client: run by test_triton.py in that client's environment.

Its arguments are the server's address, `host:port`, and what it asks about, an array for each column, in JSON. It
prints what it saw as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from tritonclient.utils import InferenceServerException


def inputs(kind: ModuleType, columns: dict[str, tuple[str, np.ndarray]], **how: Any) -> list[Any]:
    made = []
    for name, (datatype, values) in columns.items():
        tensor = kind.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, **how)
        made.append(tensor)
    return made


def refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    return "no error"


def hex_of(result: Any, name: str) -> list[str]:
    values = result.as_numpy(name)
    assert values.dtype == np.float32, values.dtype
    return ["nan" if np.isnan(value) else value.tobytes().hex() for value in values.ravel()]


def main(address: str, asked_about: dict[str, list[Any]]) -> dict[str, Any]:
    http, grpc = over_http.InferenceServerClient(address), over_grpc.InferenceServerClient(address)
    entities = {
        "tailnum": ("BYTES", np.array(asked_about["tailnum"], dtype=np.object_)),
        "distance": ("FP64", np.array(asked_about["distance"])),
        "event_timestamp": ("INT64", np.array(asked_about["event_timestamp"])),
    }
    upright = {name: (datatype, values.reshape(-1, 1)) for name, (datatype, values) in entities.items()}
    only_score = over_http.InferRequestedOutput("score", binary_data=False)

    scores = {
        "http binary": hex_of(http.infer("delay", inputs(over_http, entities)), "score"),
        "http json": hex_of(
            http.infer("delay", inputs(over_http, entities, binary_data=False), outputs=[only_score]), "score"
        ),
        "http json in, binary out": hex_of(
            http.infer("delay", inputs(over_http, entities, binary_data=False), model_version="1"), "score"
        ),
        "http, columns upright": hex_of(http.infer("delay", inputs(over_http, upright)), "score"),
        "grpc": hex_of(grpc.infer("delay", inputs(over_grpc, entities)), "score"),
        "grpc, columns upright": hex_of(grpc.infer("delay", inputs(over_grpc, upright), model_version="1"), "score"),
    }
    for compression in ("gzip", "deflate"):
        scores[f"http, by {compression}"] = hex_of(
            http.infer("delay", inputs(over_http, entities), request_compression_algorithm=compression), "score"
        )
        scores[f"grpc, by {compression}"] = hex_of(
            grpc.infer("delay", inputs(over_grpc, entities), compression_algorithm=compression), "score"
        )

    streamed: list[Any] = []
    grpc.start_stream(callback=lambda result, error: streamed.append(error or hex_of(result, "score")))
    grpc.async_stream_infer("delay", inputs(over_grpc, entities), request_id="s1")
    grpc.async_stream_infer("delay", inputs(over_grpc, entities), request_id="s2")
    grpc.stop_stream()
    for i, got in enumerate(streamed):
        scores[f"grpc stream {i}"] = got

    # A whole feature vector, as the service has it and as the model takes it; NaN is what is missing.
    vectors = np.array([[1, 2, 3, 4], [0.5, np.nan, 7, 0.1]])
    by_column = {
        name: ("FP64", vectors[:, i].copy())
        for i, name in enumerate(["distance", "last_delay", "legs", "delay_by_mile"])
    }
    by_tensor = {"features": ("FP32", vectors.astype(np.float32))}
    whole = {}
    for kind, client in (("http", http), ("grpc", grpc)):
        module = over_http if kind == "http" else over_grpc
        for form, columns in (("columns", by_column), ("tensor", by_tensor)):
            whole[f"{kind} {form}"] = hex_of(client.infer("delay", inputs(module, columns)), "score")

    answered = grpc.infer("delay", inputs(over_grpc, entities), request_id="r7", priority=2, timeout=9_000_000)
    answered = answered.get_response()
    over_rest = http.infer(
        "delay", inputs(over_http, entities), request_id="r8", priority=1, timeout=9_000_000
    ).get_response()

    fractional = {"features": ("FP32", np.array([[1, 2, 3.5, 4]], dtype=np.float32))}
    mixed = {"tailnum": entities["tailnum"], "legs": ("INT64", np.array([1, 2, 3, 4]))}
    texts = {**entities, "distance": ("BYTES", np.array(["far"] * 4, dtype=np.object_))}
    refusals = {}
    for kind, client in (("http", http), ("grpc", grpc)):
        module = over_http if kind == "http" else over_grpc
        asked = inputs(module, entities)
        cases = {
            "unknown model": lambda client=client, asked=asked: client.infer("delays", asked),
            "unknown version": lambda client=client, asked=asked: client.infer("delay", asked, model_version="9"),
            "unknown output": lambda client=client, asked=asked, module=module: client.infer(
                "delay", asked, outputs=[module.InferRequestedOutput("scores")]
            ),
            "missing": lambda client=client, asked=asked: client.infer("delay", asked[:1]),
            "mixed": lambda client=client, module=module: client.infer("delay", inputs(module, mixed)),
            "texts": lambda client=client, module=module: client.infer("delay", inputs(module, texts)),
            "fraction": lambda client=client, module=module: client.infer("delay", inputs(module, fractional)),
            "classes": lambda client=client, asked=asked, module=module: client.infer(
                "delay", asked, outputs=[module.InferRequestedOutput("score", class_count=2)]
            ),
            "load": lambda client=client: client.load_model("delay"),
            "unload": lambda client=client: client.unload_model("delay"),
        }
        refusals[kind] = {name: refusal(case) for name, case in cases.items()}

    halves = {**entities, "distance": ("FP16", np.array([100.5, 3.0, 0.1, 60000], dtype=np.float16))}
    widened = {**entities, "distance": ("FP32", halves["distance"][1].astype(np.float32))}
    by_halves = {}
    for kind, client in (("http", http), ("grpc", grpc)):
        module = over_http if kind == "http" else over_grpc
        answers = [client.infer("delay", inputs(module, columns)) for columns in (halves, widened)]
        by_halves[kind] = [hex_of(answer, "score") for answer in answers]

    return {
        "halves": by_halves,
        "statistics": [
            [http.get_inference_statistics(*asked), grpc.get_inference_statistics(*asked, as_json=True)]
            for asked in (("delay",), ("delay", "1"), ())
        ],
        "scores": scores,
        "whole": whole,
        "answered": {
            "grpc": [answered.model_name, answered.model_version, answered.id],
            "http": [over_rest["model_name"], over_rest["model_version"], over_rest["id"]],
        },
        "refusals": refusals,
        "health": [client.is_server_live() and client.is_server_ready() for client in (http, grpc)],
        "ready": [
            [client.is_model_ready("delay"), client.is_model_ready("delay", "1"), client.is_model_ready("delay", "2")]
            for client in (http, grpc)
        ],
        "server": [http.get_server_metadata(), grpc.get_server_metadata(as_json=True)],
        "model": [http.get_model_metadata("delay"), grpc.get_model_metadata("delay", as_json=True)],
        "config": [http.get_model_config("delay"), grpc.get_model_config("delay", as_json=True)],
        "index": [http.get_model_repository_index(), grpc.get_model_repository_index(as_json=True)],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
