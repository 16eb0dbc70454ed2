"""Does a server do what its description says? Asked by Schemathesis, in whose environment test_openapi.py runs this.

`QUERN_TEST_URL` is the server. What is asked in `SOUND` must succeed, and look as it is described; what is made up out
of the description, with the model that is there or any other, must never be a fault of the server.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

URL = os.environ["QUERN_TEST_URL"]
CASES_MAX = int(os.environ["QUERN_TEST_CASES"])


def not_a_fault(context: Any, response: Any, case: schemathesis.Case) -> None:
    """A deadline that has passed is what a caller asked for who waits for no time."""
    assert response.status_code < 500 or response.status_code == 504, response.text


CHECKS = [
    not_a_fault,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
INSTANCE = {"tailnum": "N1", "distance": 100}
TENSORS = [
    {"name": "tailnum", "datatype": "BYTES", "shape": [1], "data": ["N1"]},
    {"name": "distance", "datatype": "FP64", "shape": [1], "data": [100]},
]
ROWS = {
    "tailnum": ["N1"],
    "landed_at": ["2013-01-09T00:00:00Z"],
    "loaded_at": ["2013-01-09T00:00:00Z"],
    "arr_delay": [1.5],
    "legs": [3],
}
SOUND: list[tuple[str, str, dict[str, str], Any]] = [
    ("GET", "/", {}, None),
    ("GET", "/openapi.json", {}, None),
    ("GET", "/health", {}, None),
    ("GET", "/v2/health/live", {}, None),
    ("GET", "/v2/health/ready", {}, None),
    ("GET", "/v1/me", {}, None),
    ("GET", "/v1/status", {}, None),
    ("GET", "/metrics", {}, None),
    ("GET", "/v1/definitions", {}, None),
    ("GET", "/v2", {}, None),
    ("GET", "/v2/", {}, None),
    ("GET", "/v2/models/stats", {}, None),
    *(
        ("GET", f"/v2/models/{{model}}{version}{rest}", {"model": "delay", "version": "1"}, None)
        for version in ("", "/versions/{version}")
        for rest in ("", "/ready", "/config", "/stats")
    ),
    ("GET", "/v1/models/{model}", {"model": "canary"}, None),
    ("GET", "/v1/models/{model}/versions/{version}", {"model": "canary", "version": "2"}, None),
    ("GET", "/v1/models/{model}/metadata", {"model": "delay"}, None),
    ("GET", "/v1/models/{model}/versions/{version}/metadata", {"model": "delay", "version": "1"}, None),
    ("POST", "/v2/repository/index", {}, {}),
    ("POST", "/v2/models/{model}/infer", {"model": "delay"}, {"inputs": TENSORS, "id": "7"}),
    ("POST", "/v1/models/{model}:predict", {"model": "delay"}, {"instances": [INSTANCE], "with_features": True}),
    ("POST", "/v1/models/{model}:predict", {"model": "canary"}, {"instances": [INSTANCE] * 3, "with_features": True}),
    ("POST", "/v1/models/{model}:predict", {"model": "delay"}, {"inputs": {"tailnum": ["N1"], "distance": [1]}}),
    (
        "POST",
        "/v1/models/{model}/versions/{version}:predict",
        {"model": "delay", "version": "1"},
        {"instances": [INSTANCE]},
    ),
    ("POST", "/v1/models/{model}:route", {"model": "canary"}, {"weights": {"2": "10%"}}),
    ("POST", "/get-online-features", {}, {"features": ["plane_history:legs"], "entities": {"tailnum": ["N1", "N9"]}}),
    ("POST", "/push", {}, {"push_source_name": "landings", "df": ROWS}),
    ("POST", "/write-to-online-store", {}, {"feature_view_name": "plane_history", "df": ROWS}),
    ("POST", "/v1/labels", {}, {"model": "delay", "labels": [{"request_id": "r", "label": 1.5}]}),
    ("POST", "/v1/verify", {}, {"model": "delay"}),
    ("POST", "/v1/check", {}, None),
    ("POST", "/v1/plan", {}, None),
    ("POST", "/v1/apply", {}, {}),
    ("POST", "/v1/can", {}, {"who": "key:ann", "action": "predict", "what": "delay"}),
    ("POST", "/v1/materialize", {}, {}),
    ("POST", "/v1/seal", {}, {}),
    ("POST", "/v1/scrub", {}, {}),
    ("POST", "/v1/keys", {}, {"name": "ann"}),
    ("GET", "/v1/keys", {}, None),
    ("POST", "/v1/keys/revoke", {}, {"key": "ann"}),
]
# A backup writes where it is told, and no case is to make up where that is.
UNASKED = ["/v1/backup"]
# Nobody signs in at this server.
NOT_THERE = ["/login", "/login/callback", "/logout"]

schema = schemathesis.openapi.from_url(f"{URL}/openapi.json")


@pytest.mark.parametrize(("method", "path", "names", "body"), SOUND)
def test_what_is_sound_succeeds_and_looks_as_described(
    method: str, path: str, names: dict[str, str], body: Any
) -> None:
    response = requests.request(method, URL + path.format(**names), json=body, timeout=10)
    assert response.status_code == requests.codes.ok, response.text
    if "ndjson" not in response.headers["content-type"]:
        schema[path][method].validate_response(response)


def test_every_operation_is_asked() -> None:
    asked = {(method, path) for method, path, *_ in SOUND}
    for operation in schema.get_all_operations():
        method, path = operation.ok().method.upper(), operation.ok().path
        is_refused = path.startswith("/v2/repository/models/") or path in [*UNASKED, *NOT_THERE]
        is_of_a_version = path == "/v2/models/{model}/versions/{version}/infer"
        assert (method, path) in asked or is_refused or is_of_a_version, f"{method} {path}"


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Half of the made-up requests are about what is there."""
    names = path_parameters or {}
    if len(str(names.get("model", ""))) % 2:
        names["model"] = "delay"
        if "version" in names:
            names["version"] = "1"
    return path_parameters


@schema.exclude(path=UNASKED).parametrize()
@settings(
    max_examples=CASES_MAX, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
def test_nothing_made_up_is_a_fault_of_the_server(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS, timeout=10)
