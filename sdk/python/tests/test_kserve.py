"""Do the files of `deploy/kserve` agree with each other, and with `deploy/kubernetes`, whose things they use?

That they work beside a predictor, test_mlserver.py tries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import free_port, refused

DEPLOY = Path(__file__).parents[3] / "deploy"
Document = dict[str, Any]


def documents(path: str) -> dict[str, Document]:
    """By their kinds."""
    return {document["kind"]: document for document in yaml.safe_load_all((DEPLOY / path).read_text())}


@pytest.fixture(scope="module")
def service() -> Document:
    return documents("kserve/inferenceservice.yaml")["InferenceService"]


@pytest.fixture(scope="module")
def definitions() -> dict[str, Document]:
    return documents("kserve/definitions.yaml")


def variables(container: Document) -> dict[str, str]:
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def probed(container: Document) -> set[int]:
    """The ports that its probes ask."""
    probes = [probe for name, probe in container.items() if name.endswith("Probe")]
    return {(probe.get("httpGet") or probe["tcpSocket"])["port"] for probe in probes}


def secured(pod: Document, container: Document) -> Document:
    return pod["securityContext"] | container["securityContext"]


def test_the_model_asks_the_predictor(service: Document, definitions: dict[str, Document]) -> None:
    # By these names, in this order, KServe knows them.
    predictor, transformer = service["spec"]["predictor"]["containers"]
    assert (predictor["name"], transformer["name"]) == ("kserve-container", "transformer-container")
    assert service["metadata"]["name"] == definitions["Model"]["name"]
    port = variables(predictor)["MLSERVER_GRPC_PORT"]
    remote = definitions["Model"]["versions"][0]["steps"][0]["remote"]
    assert remote["url"] == definitions["Connection"]["url"] == f"grpc://127.0.0.1:{port}"
    assert f"--grpc-port={port}," in (DEPLOY / "kserve/inferenceservice.yaml").read_text()
    assert "STORAGE_URI" not in variables(transformer), "KServe refuses it beside the predictor's"


def test_the_transformer_is_the_server_of_kubernetes(service: Document) -> None:
    kubernetes = documents("kubernetes/servers.yaml")
    pod = kubernetes["Deployment"]["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    predictor, transformer = service["spec"]["predictor"]["containers"]
    port = int(kubernetes["ConfigMap"]["data"]["QUERN_LISTEN"].split(":")[1])
    assert [place["containerPort"] for place in transformer["ports"]] == [port]
    assert probed(transformer) == {port}
    assert probed(predictor) == {port, int(variables(predictor)["MLSERVER_HTTP_PORT"])}
    for key in ("image", "args", "envFrom", "env", "resources", "lifecycle", "volumeMounts"):
        assert transformer[key] == server[key], key
    for key in ("volumes", "serviceAccountName", "terminationGracePeriodSeconds"):
        assert service["spec"]["predictor"][key] == pod[key], key
    assert secured(service["spec"]["predictor"], transformer) == secured(pod, server)


def test_the_definitions_lack_the_predictor_alone(tmp_path: Path) -> None:
    (tmp_path / "quern.yaml").write_text("data: .quern\n")
    text = (DEPLOY / "kserve/definitions.yaml").read_text()
    (tmp_path / "definitions.yaml").write_text(text.replace(":9000", f":{free_port()}"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/customers.csv").write_text("customer,at,seats,spend\nacme,2024-01-01T00:00:00Z,3,1.5\n")
    told = refused("check", tmp_path)
    assert "does not tell about model `topics`: Connection refused" in told
    assert told.endswith("\n1 mistake\n"), told
