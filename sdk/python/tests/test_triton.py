"""Does a program written for Triton run against Quern, with Triton's own client unchanged, over HTTP and over gRPC?

The program is `triton_program.py`. It asks by entity and with whole feature vectors; every way must give the same bits.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

import quern
from conftest import BIAS, WEIGHTS

SECONDS_MAX = 120
TENTH_US = 1_357_776_000_000_000
ENTITIES = {
    "tailnum": ["N1", "N2", "N3", "N4"],
    "distance": [100.5, 3.0, 0.1, 7e9],
    "event_timestamp": [TENTH_US] * 4,
}


def triton_python() -> Path:
    """The Python of the environment that `setup.sh` makes for Triton's client."""
    cache = os.environ.get("QUERN_CACHE") or Path.home() / ".cache/quern"
    found = Path(cache) / "triton/bin/python"
    if not found.is_file():
        pytest.fail(f"{found} is missing: run ./setup.sh", pytrace=False)
    return found


@pytest.fixture(scope="module")
def seen(server: str) -> dict[str, Any]:
    """What the program saw."""
    program = Path(__file__).with_name("triton_program.py")
    done = subprocess.run(
        [triton_python(), program, server.removeprefix("http://"), json.dumps(ENTITIES)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def hex_of(score: float | None) -> str:
    return "nan" if score is None else struct.pack("<f", score).hex()


def test_every_way_gives_the_same_bits(client: quern.Client, seen: dict[str, Any]) -> None:
    instances = [dict(zip(ENTITIES, row, strict=True)) for row in zip(*ENTITIES.values(), strict=True)]
    wanted = [hex_of(score) for score in client.predict("delay", instances)]
    assert len(set(wanted)) > 1
    assert len(seen["scores"]) == 12
    assert seen["scores"] == dict.fromkeys(seen["scores"], wanted)


def test_whole_feature_vectors(seen: dict[str, Any]) -> None:
    first = BIAS + sum(weight * value for weight, value in zip(WEIGHTS, (1, 2, 3, 4), strict=True))
    assert len(seen["whole"]) == 4
    for scores in seen["whole"].values():
        assert scores == [hex_of(first), hex_of(None)]


def test_a_reply_says_who_answered(seen: dict[str, Any]) -> None:
    assert seen["answered"] == {"grpc": ["delay", "1", "r7"], "http": ["delay", "1", "r8"]}


@pytest.mark.parametrize(
    ("case", "http", "grpc", "told"),
    [
        ("unknown model", "404", "StatusCode.NOT_FOUND", "did you mean `delay`?"),
        ("unknown version", "404", "StatusCode.NOT_FOUND", "has no version `9`"),
        ("unknown output", "400", "StatusCode.INVALID_ARGUMENT", "did you mean `score`?"),
        ("missing", "400", "StatusCode.INVALID_ARGUMENT", "input `distance` is missing"),
        ("mixed", "400", "StatusCode.INVALID_ARGUMENT", "`features` FP32 [-1, 4]"),
        ("texts", "400", "StatusCode.INVALID_ARGUMENT", "float64 is FP64 here, found BYTES"),
        ("fraction", "400", "StatusCode.INVALID_ARGUMENT", "feature `legs`: 3.5 is not a whole number"),
        ("classes", "400", "StatusCode.INVALID_ARGUMENT", "`classification` is not built"),
        ("load", "409", "StatusCode.FAILED_PRECONDITION", "`quern apply`"),
        ("unload", "409", "StatusCode.FAILED_PRECONDITION", "`quern apply`"),
    ],
)
def test_errors_tell_the_way_out(seen: dict[str, Any], case: str, http: str, grpc: str, told: str) -> None:
    for kind, status in (("http", http), ("grpc", grpc)):
        refusal = seen["refusals"][kind][case]
        assert refusal.startswith(f"{status}: "), refusal
        assert told in refusal, refusal


def test_halves_are_widened(seen: dict[str, Any]) -> None:
    assert set(seen["halves"]) == {"http", "grpc"}
    for halves, widened in seen["halves"].values():
        assert halves == widened


def test_statistics(seen: dict[str, Any]) -> None:
    for over_rest, over_grpc in seen["statistics"]:
        for stats in (over_rest["model_stats"], over_grpc["model_stats"]):
            delay = next(stat for stat in stats if stat["name"] == "delay")
            assert delay["version"] == "1"
            # Numbers of 64 bits are texts in protobuf's JSON.
            runs, rows, last = (int(delay[key]) for key in ("execution_count", "inference_count", "last_inference"))
            assert rows >= runs > 0
            assert last > TENTH_US / 1000
            for key in ("success", "compute_infer"):
                took = delay["inference_stats"][key]
                assert int(took["count"]) > 0
                assert int(took["ns"]) > 0
    of_all = [{stat["name"] for stat in stats["model_stats"]} for stats in seen["statistics"][2]]
    assert of_all == [{"delay", "canary"}] * 2


def test_what_is_live(seen: dict[str, Any]) -> None:
    assert seen["health"] == [True, True]
    assert seen["ready"] == [[True, True, False]] * 2
    for server in seen["server"]:
        assert server["name"] == "quern"
        assert {"binary_tensor_data", "statistics"} <= set(server["extensions"])
    names = {"tailnum": "BYTES", "distance": "FP64"}
    for model in seen["model"]:
        assert (model["name"], model["versions"], model["platform"]) == ("delay", ["1"], "onnxruntime_onnx")
        assert {tensor["name"]: tensor["datatype"] for tensor in model["inputs"]} == names
        assert [(tensor["name"], tensor["datatype"]) for tensor in model["outputs"]] == [("score", "FP32")]
        assert [int(length) for length in model["outputs"][0]["shape"]] == [-1, 1]
    for config in (seen["config"][0], seen["config"][1]["config"]):
        types = {tensor["name"]: tensor["data_type"] for tensor in config["input"]}
        assert types == {"tailnum": "TYPE_STRING", "distance": "TYPE_FP64", "event_timestamp": "TYPE_INT64"}
        assert [tensor["name"] for tensor in config["input"] if tensor.get("optional")] == ["event_timestamp"]
        assert config["output"][0]["data_type"] == "TYPE_FP32"
    for models in (seen["index"][0], seen["index"][1]["models"]):
        told = [(model["name"], model["version"], model["state"]) for model in models]
        assert told == [("canary", "1", "READY"), ("canary", "2", "READY"), ("delay", "1", "READY")]
