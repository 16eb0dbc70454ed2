"""Who asks, and whom does the client believe? With keys and certificates, over HTTP and over Flight."""

from __future__ import annotations

import json
import pickle
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

import quern
from conftest import DEFINITIONS, repository_at, run, serve
from quern.address import Address
from quern.credentials import Credentials
from secured import SETTINGS, Authority
from stand_in import KINDS, StandIn, said
from test_triton import triton_python

ROLES = """
---
kind: Role
name: team
members: [{key: team}, {spiffe: "spiffe://corp/team"}]
allow:
  - {read: [{service: delays}, {service: delays_otherwise}], train: [delays], predict: [delay]}
  - {push: [landings], label: [delay], read_log: [delay]}
---
kind: Role
name: screens
members: [{key: screens}]
allow: [{predict: [delay]}]
"""
SPINE = pa.table(
    {
        "tailnum": ["N1"],
        "distance": [100.5],
        "event_timestamp": pa.array([1_357_776_000_000_000], pa.timestamp("us", "UTC")),
    }
)
ROW = {"tailnum": ["N8"], "landed_at": ["2013-01-09T00:00:00Z"], "loaded_at": [None], "arr_delay": [1.5], "legs": [1]}
TENTH = "2013-01-10T00:00:00Z"
ENTITIES = {"tailnum": ["N1"], "distance": [100.5], "event_timestamp": [TENTH]}
INSTANCE = {"tailnum": "N1", "distance": 100.5}
SERVER = "https://quern.corp:7400"
OTHER = f"quern_2f8Kq0TzLw_{'0' * 49}"


@dataclass(frozen=True)
class Secured:
    """A server that asks who one is."""

    url: str
    authority: Authority
    keys: dict[str, str]
    shown: tuple[Path, Path]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    root = repository_at(tmp_path_factory.mktemp("secured"), SETTINGS)
    definitions = DEFINITIONS.replace("event_timestamp: landed_at", "push: true\nevent_timestamp: landed_at")
    definitions = definitions.replace("kind: Model\n", "kind: Model\nowner: team\n")
    (root / "definitions.yaml").write_text(definitions + ROLES)
    authority = Authority.at(root)
    shown = authority.sign("team", "URI:spiffe://corp/team")
    run("apply", root)
    run("materialize", root, "--to", "2013-01-10T00:00:00Z")
    keys = {name: run("key", "new", root, name).strip() for name in ("team", "screens")}
    with serve(root, authority.tls) as url:
        yield Secured(url, authority, keys, shown)


@pytest.fixture(autouse=True)
def no_credentials_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TOKEN", "CA", "CERTIFICATE", "KEY"):
        monkeypatch.delenv(f"QUERN_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def ask_everything(client: Any) -> None:
    assert client.get_online_features("delays", ENTITIES).to_dict()["last_delay"] == [pytest.approx(0.1)]
    scores = client.predict("delay", [{**INSTANCE, "event_timestamp": TENTH}])
    assert client.label("delay", scores.labels(label=[1.0])) == 1
    assert client.predict_batch("delay", SPINE, as_of=True)["score"].to_pylist() == list(scores)
    assert client.training_set("delays", SPINE)["legs"].to_pylist() == [2]
    assert client.push("landings", ROW, to="offline").accepted == 1
    assert isinstance(client.predictions("delay", labelled=True), pa.Table)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("shows", ["key", "certificate"])
def test_who_may_asks_everything(secured: Secured, kind: str, shows: str) -> None:
    certificate, key = secured.shown
    mine: dict[str, Any] = {"token": secured.keys["team"]}
    if shows == "certificate":
        mine = {"certificate": certificate, "key": key}
    with KINDS[kind](secured.url, ca=secured.authority.ca, **mine) as client:
        ask_everything(client)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_over_http_on_this_machine(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    repository_at(root, "auth: required\nadmins: key:team\n")
    run("apply", root)
    key = run("key", "new", root, "team").strip()
    with serve(root) as url, KINDS[kind](url, token=key) as client:
        assert client.training_set("delays", SPINE).num_rows == 1
        assert set(client.definitions().models) == {"delay", "canary"}


CALLS = {
    "http": lambda client: client.get_online_features("delays", ENTITIES),
    "definitions": lambda client: client.definitions(),
    "batch": lambda client: client.predict_batch("delay", SPINE),
    "training": lambda client: client.training_set("delays", SPINE),
    "push": lambda client: client.push("landings", ROW),
    "label": lambda client: client.label("delay", [{"request_id": "r", "row": 0, "label": 1.0}]),
    "pull": lambda client: client.predictions("delay"),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_who_is_nobody_is_told_so(secured: Secured, kind: str) -> None:
    for mine in ({}, {"token": OTHER}):
        with KINDS[kind](secured.url, ca=secured.authority.ca, **mine) as client:
            for name, call in CALLS.items():
                with pytest.raises(quern.QuernError) as caught:
                    call(client)
                error = caught.value
                assert (error.status, error.code) == (401, "unauthenticated"), f"{name}: {error!r}"
                assert error.message.startswith("the key is not valid here" if mine else "say who asks"), name
                assert error.request_id, name


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_who_may_not_is_told_so(secured: Secured, kind: str) -> None:
    with KINDS[kind](secured.url, ca=secured.authority.ca, token=secured.keys["screens"]) as client:
        assert len(client.predict("delay", [INSTANCE])) == 1
        for name, call in {
            "http": lambda client: client.predict("delay", [INSTANCE], with_features=True),
            "as of": lambda client: client.predict_batch("delay", SPINE, as_of=True),
            "label": CALLS["label"],
            "pull": CALLS["pull"],
        }.items():
            with pytest.raises(quern.QuernError) as caught:
                call(client)
            assert (caught.value.status, caught.value.code) == (403, "forbidden"), f"{name}: {caught.value!r}"
        # What one may do nothing with is not there.
        with pytest.raises(quern.QuernError) as caught:
            client.training_set("delays", SPINE)
        assert (caught.value.status, caught.value.code) == (404, "not_found"), repr(caught.value)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_server_of_another_authority_is_not_believed(secured: Secured, kind: str) -> None:
    with KINDS[kind](secured.url, token=secured.keys["team"]) as client:
        for call in (CALLS["http"], CALLS["training"]):
            with pytest.raises(quern.QuernError) as caught:
                call(client)
            assert (caught.value.status, caught.value.code) == (503, "unavailable"), repr(caught.value)


def test_pyarrow_alone(secured: Secured) -> None:
    location = secured.url.replace("https", "grpc+tls")
    options = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {secured.keys['team']}".encode())])
    with flight.FlightClient(location, tls_root_certs=secured.authority.ca.read_bytes()) as client:
        descriptor = flight.FlightDescriptor.for_command(json.dumps({"feature_service": "delays"}).encode())
        writer, reader = client.do_exchange(descriptor, options)
        with writer:
            writer.begin(SPINE.schema)
            writer.write_table(SPINE)
            writer.done_writing()
            assert reader.read_all()["legs"].to_pylist() == [2]
        with pytest.raises(flight.FlightUnauthenticatedError, match="say who asks"):
            list(client.list_flights())


def test_tritons_client(secured: Secured) -> None:
    program = Path(__file__).with_name("triton_keyed_program.py")
    address = secured.url.removeprefix("https://").replace("127.0.0.1", "localhost")
    arguments = [address, secured.authority.ca, secured.keys["team"], *secured.shown]
    done = subprocess.run([triton_python(), program, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    heard = json.loads(done.stdout)
    with quern.Client(secured.url, ca=secured.authority.ca, token=secured.keys["team"]) as client:
        score = pytest.approx(client.predict("delay", [{**INSTANCE, "event_timestamp": TENTH}])[0])
    for way, status in (("http", "401"), ("grpc", "StatusCode.UNAUTHENTICATED")):
        by_key, by_certificate, by_nobody = heard[way]
        assert (by_key, by_certificate) == (score, score)
        assert by_nobody.startswith(f"{status}: say who asks"), by_nobody


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_token_goes_out_with_every_request(stand_in: StandIn, kind: str) -> None:
    stand_in.replies = [said({"predictions": [n]}) for n in range(2)]
    with KINDS[kind](stand_in.url, token="quern_a") as client:
        client.predict("m", [{}])
        client.predict("m", [{}], headers={"Authorization": "Bearer other"})
        copy = pickle.loads(pickle.dumps(client if kind == "blocking" else client._client))
    assert [headers["authorization"] for headers in stand_in.headers] == ["Bearer quern_a", "Bearer other"]
    assert "quern_a" not in repr(copy) and "quern_a" not in repr(Credentials(token="quern_a"))


def test_a_pickled_client_asks_as_before(secured: Secured) -> None:
    certificate, key = secured.shown
    mine: list[dict[str, Any]] = [{"token": secured.keys["team"]}, {"certificate": certificate, "key": key}]
    for given in mine:
        with quern.Client(secured.url, ca=secured.authority.ca, **given) as client:
            copy = pickle.loads(pickle.dumps(client))
        with copy:
            assert copy.training_set("delays", SPINE).num_rows == 1
            assert len(copy.predict("delay", [INSTANCE])) == 1


@pytest.mark.parametrize("kind", [quern.Client, quern.AsyncClient])
@pytest.mark.parametrize("url", ["http://quern.corp:7400", "http://192.0.2.1", "http://127.0.0.1.quern.corp", "quern"])
def test_no_token_goes_out_in_the_clear(kind: Any, url: str) -> None:
    with pytest.raises(ValueError, match="in the clear") as caught:
        kind(url, token="secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost", "127.0.0.2:1", "http://[::1]:7400", SERVER])
def test_a_token_goes_to_this_machine_and_over_tls(url: str) -> None:
    quern.Client(url, token="secret")


@pytest.mark.parametrize("token", ["", "two words", "secret\r\nx-admin: 1", "secret\n", "sécret"])
def test_a_token_that_no_header_can_carry(token: str) -> None:
    with pytest.raises(ValueError, match="the token is empty, or has blanks") as caught:
        quern.Client(SERVER, token=token)
    assert "cret" not in str(caught.value)


def found(url: str = SERVER, **given: Any) -> list[str | None]:
    credentials = Credentials.find(Address.parse(url), given)
    return [credentials.token, credentials.ca, credentials.certificate, credentials.key]


def credentials_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "quern/credentials.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_arguments_before_the_environment_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found() == [None, None, None, None]
    of_file = {"token": "c", "ca": "c.pem", "certificate": "c.crt", "key": "c.key"}
    credentials_file(tmp_path, json.dumps({"https://QUERN.corp:7400/": of_file, "localhost": {"token": "d"}}))
    assert found() == ["c", "c.pem", "c.crt", "c.key"]
    monkeypatch.setenv("QUERN_TOKEN", "b")
    monkeypatch.setenv("QUERN_CA", "")
    monkeypatch.setenv("QUERN_CERTIFICATE", "b.crt")
    monkeypatch.setenv("QUERN_KEY", "b.key")
    assert found() == ["b", "c.pem", "b.crt", "b.key"]
    assert found(token="a", ca=Path("a.pem")) == ["a", "a.pem", "b.crt", "b.key"]
    # Certificate and key are of one place.
    with pytest.raises(ValueError, match="certificate and key belong together"):
        found(certificate="a.crt")
    for name in ("TOKEN", "CERTIFICATE", "KEY"):
        monkeypatch.delenv(f"QUERN_{name}")
    # Another port is another server; an address without a scheme is one over HTTP.
    assert found("https://quern.corp")[0] is None
    assert found("http://localhost:7400") == ["d", None, None, None]
    with pytest.raises(ValueError, match="over TLS alone"):
        found("http://localhost:1", certificate="a.crt", key="a.key")
    # The home of another user, or none, has nothing for us.
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "quern/credentials.json"))
    assert found() == [None, None, None, None]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_open(tmp_path: Path, mode: int) -> None:
    path = credentials_file(tmp_path, "{}", mode)
    with pytest.raises(PermissionError, match=f"chmod 600 {path}"):
        quern.Client(SERVER)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "is no JSON"),
        ("\udcff", "is no JSON"),
        ("[]", "it is no object of servers"),
        ('{"https://quern.corp:7400": "secret"}', "https://quern.corp:7400 has something else"),
        ('{"https://quern.corp:7400": {"tokn": "secret"}}', "has something else"),
        ('{"https://quern.corp:7400": {"token": 5}}', "has something else"),
        ('{"ftp://quern.corp": {}}', "is not the address of a server"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, told: str) -> None:
    path = credentials_file(tmp_path, "")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=told) as caught:
        quern.Client(SERVER)
    assert str(path) in str(caught.value) and "secret" not in str(caught.value)


def test_files_that_are_no_certificates(tmp_path: Path) -> None:
    authority = Authority.at(tmp_path)
    certificate, key = authority.sign("a", "URI:spiffe://corp/a")
    _, other = authority.sign("b", "URI:spiffe://corp/b")
    locked = tmp_path / "locked.key"
    authority._openssl("ec", "-in", str(key), "-aes256", "-passout", "pass:x", "-out", str(locked))
    (tmp_path / "empty.pem").write_text("")
    for given in (
        {"ca": tmp_path / "missing.pem"},
        {"ca": tmp_path / "empty.pem"},
        {"certificate": tmp_path / "missing.crt", "key": key},
        {"certificate": certificate, "key": other},
        {"certificate": certificate, "key": locked},
    ):
        with pytest.raises(ValueError, match="expected PEM files") as caught:
            quern.Client(SERVER, **given)
        assert str(next(iter(given.values()))) in str(caught.value)


def test_the_environment_is_believed(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = secured.shown
    monkeypatch.setenv("QUERN_CA", str(secured.authority.ca))
    monkeypatch.setenv("QUERN_CERTIFICATE", str(certificate))
    monkeypatch.setenv("QUERN_KEY", str(key))
    with quern.Client(secured.url) as client:
        ask_everything(client)
