"""Does a step ask a server over TLS (`grpcs://`), and whose certificate does it believe?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import quern
from conftest import DEFINITIONS, LANDINGS, refused, repository_at, run, serve
from secured import Authority

SETTINGS = "tls_certificate: server.crt\ntls_key: server.key\n"
ASKS = """
kind: FeatureService
name: whom
request: [{{name: distance, type: float64, default: 0}}]
features: [{{view: plane_history, features: [legs]}}]
outputs: [tailnum, distance]
---
kind: Connection
name: other
url: "{url}"
---
kind: Model
name: twice
versions:
  - version: 1
    service: whom
    steps:
      - {{name: delay, remote: {{url: "{url}", model: delay}}}}
      - {{name: twice, expr: "2 * delay"}}
"""


@dataclass(frozen=True)
class Other:
    """A server over TLS that has the model `delay`."""

    url: str
    authority: Authority


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    root = repository_at(tmp_path_factory.mktemp("other"), SETTINGS)
    authority = Authority.at(root)
    run("apply", root)
    run("materialize", root, "--to", "2013-01-10T00:00:00Z")
    with serve(root, authority.tls) as url:
        yield Other(url, authority)


def asking(root: Path, other: Other) -> Path:
    """A repository whose model asks the other one's."""
    own = DEFINITIONS[: DEFINITIONS.index("kind: FeatureService")]
    (root / "quern.yaml").write_text("")
    (root / "definitions.yaml").write_text(own + ASKS.format(url=other.url.replace("https", "grpcs")))
    (root / "data").mkdir()
    (root / "data/landings.csv").write_text(LANDINGS)
    return root


def test_it_is_asked_over_tls(tmp_path: Path, other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(other.authority.ca))
    root = asking(tmp_path, other)
    run("apply", root)
    run("materialize", root, "--to", "2013-01-10T00:00:00Z")
    rows = [{"tailnum": name, "distance": 100.5} for name in ("N1", "N2", "N3")]
    with quern.Client(other.url, ca=other.authority.ca) as client:
        expected = [None if score is None else 2 * score for score in client.predict("delay", rows)]
    with serve(root) as url, quern.Client(url) as client:
        assert list(client.predict("twice", rows)) == expected


def test_another_authority_is_not_believed(tmp_path: Path, other: Other, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority.at(tmp_path / "elsewhere").ca))
    told = refused("apply", asking(tmp_path, other))
    asked = other.url.replace("https", "grpcs")
    assert f"step `delay`: {asked} does not tell about model `delay`: invalid peer certificate" in told


def test_who_speaks_no_tls_is_told_from_who_does(
    tmp_path: Path, server: str, other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(other.authority.ca))
    root = asking(tmp_path, other)
    text = (root / "definitions.yaml").read_text()
    (root / "definitions.yaml").write_text(text.replace("grpcs://", "grpc://"))
    assert "if it speaks TLS, name it as `grpcs://`" in refused("apply", root)
    address = server.removeprefix("http://")
    (root / "definitions.yaml").write_text(text.replace(other.url.removeprefix("https://"), address))
    assert "it does not speak TLS" in refused("apply", root)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    (root / "definitions.yaml").write_text(text)
    told = refused("apply", root)
    assert "whom to trust (SSL_CERT_FILE) cannot be read" in told
    assert "nowhere.pem" in told
