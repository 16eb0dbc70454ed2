"""Does a model of MLServer answer with features inside, and does the fallback where it does not, as KServe asks?

What is served is `deploy/kserve/definitions.yaml` itself. The model is one that Python alone has (`topics.py`).
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import quern
from conftest import free_port, is_ready, refused, run, serve
from topics import HANG, topic_of

SECONDS_MAX = 60
TESTS = Path(__file__).parent
KSERVE = TESTS.parents[2] / "deploy/kserve"
# Beside the model of KServe one without a fallback, of which all leaves that MLServer says.
MORE = """
---
kind: Model
name: topics
versions:
  - version: 1
    service: tickets_v1
    steps:
      - name: says
        remote: {url: "grpc://127.0.0.1:9000", model: topics, timeout: 1s}
        inputs: {memo: memo, seats: seats, spend: spend_known}
"""
# The last one's cells are null; nobody knows `nobody`.
ACCOUNTS = {"acme": (250, 1234.5), "bob": (3, 0.1), "new": (None, None)}
MEMOS = ["the app krashes", "where is my invoise", "pasword, please", "refund", "Größe?", ""]
ROWS = [{"customer": customer, "memo": memo} for memo in MEMOS for customer in [*ACCOUNTS, "nobody"]]


@dataclass(frozen=True)
class Predictor:
    """MLServer in a folder, over one model."""

    folder: Path
    rest: int
    grpc: int

    @contextmanager
    def running(self, wide: bool = False) -> Iterator[None]:
        """Serve the model; `wide`, it gives another shape."""
        self._configure(wide)
        log = self.folder / "server.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [mlserver("mlserver"), "start", self.folder],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(TESTS)},
                cwd=self.folder,
            )
        try:
            until(f"MLServer is ready; {log} has what it said", lambda: self._is_ready(process, log))
            yield
        finally:
            process.kill()
            process.wait()

    def _is_ready(self, process: subprocess.Popen[bytes], log: Path) -> bool:
        assert process.poll() is None, f"MLServer ended with {process.returncode}:\n{log.read_text()}"
        return is_ready(self.rest) and is_open(self.grpc)

    def _configure(self, wide: bool) -> None:
        server = {"host": "127.0.0.1", "http_port": self.rest, "grpc_port": self.grpc, "metrics_endpoint": None}
        inputs = {"memo": "BYTES", "seats": "INT64", "spend": "FP64"}
        model = {
            "name": "topics",
            "implementation": "topics_runtime.Topics",
            "inputs": [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in inputs.items()],
            "outputs": [
                {"name": "topic", "datatype": "BYTES", "shape": [-1, 1]},
                {"name": "score", "datatype": "FP64", "shape": [-1, 2 if wide else 1]},
            ],
            "parameters": {"version": "1", "extra": {"wide": wide}},
        }
        (self.folder / "settings.json").write_text(json.dumps(server | {"parallel_workers": 0}))
        (self.folder / "model-settings.json").write_text(json.dumps(model))


@dataclass(frozen=True)
class Tickets:
    """A Quern beside a predictor, as in KServe's pod."""

    root: Path
    url: str
    predictor: Predictor

    def asked(self, rows: list[dict[str, str]], model: str = "tickets") -> quern.Prediction:
        with quern.Client(self.url) as client:
            return client.predict(model, rows)


def mlserver(program: str) -> Path:
    """A program of the environment that `setup.sh all` makes."""
    cache = os.environ.get("QUERN_CACHE") or Path.home() / ".cache/quern"
    found = Path(cache) / "mlserver/bin" / program
    if not found.is_file():
        pytest.fail(f"{found} is missing: run ./setup.sh all", pytrace=False)
    return found


def is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def until(what: str, holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < give_up, f"not after {SECONDS_MAX} s: {what}"
        time.sleep(0.02)


def repository_at(root: Path, port: int) -> Path:
    """The definitions of `deploy/kserve`, which ask at this port."""
    (root / "data").mkdir()
    (root / "quern.yaml").write_text("data: .quern\n")
    definitions = (KSERVE / "definitions.yaml").read_text() + MORE
    (root / "definitions.yaml").write_text(definitions.replace(":9000", f":{port}"))
    with (root / "data/customers.csv").open("w", newline="") as out:
        rows = [[customer, "2024-01-01T00:00:00Z", *account] for customer, account in ACCOUNTS.items()]
        csv.writer(out).writerows([["customer", "at", "seats", "spend"], *rows])
    return root


@pytest.fixture(scope="module")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tickets]:
    """Applied while the predictor was there; each test starts it as it wants it."""
    predictor = Predictor(tmp_path_factory.mktemp("predictor"), free_port(), free_port())
    root = repository_at(tmp_path_factory.mktemp("repository"), predictor.grpc)
    with predictor.running():
        told = run("apply", root)
        assert "memo   string [N]   memo" in told, told
    run("materialize", root)
    with serve(root) as url:
        yield Tickets(root, url, predictor)


def known(row: dict[str, str]) -> tuple[int, float]:
    """Seats and spend, with what stands in for null."""
    seats, spend = ACCOUNTS.get(row["customer"], (None, None))
    return 1 if seats is None else seats, 0.0 if spend is None else spend


def priority(row: dict[str, str]) -> float:
    topic, score = topic_of(row["memo"], *known(row))
    return score * (3.0 if topic == "outage" else 1.0)


def substitute(row: dict[str, str]) -> float:
    return known(row)[1] / 1000


def causes(said: quern.Prediction) -> set[str]:
    """Why the fallback answered."""
    return {fallback.cause for fallback in said.fallbacks}


def falls_back(tickets: Tickets, rows: list[dict[str, str]], cause: str) -> None:
    said = tickets.asked(rows)
    assert list(said) == [substitute(row) for row in rows]
    assert causes(said) == {cause}, said.fallbacks


@pytest.mark.heavy
def test_it_says_what_python_says(tickets: Tickets) -> None:
    with tickets.predictor.running():
        assert list(tickets.asked(ROWS)) == [priority(row) for row in ROWS]
        for row in ROWS:
            assert list(tickets.asked([row])) == [priority(row)], row
        topics = [topic_of(row["memo"], *known(row)) for row in ROWS]
        expected = [{"says__topic": topic, "says__score": score} for topic, score in topics]
        assert list(tickets.asked(ROWS, "topics")) == expected


@pytest.mark.heavy
def test_the_fallback_answers_where_it_is_slow_or_away(tickets: Tickets) -> None:
    slow = [*ROWS[:3], {"customer": "bob", "memo": HANG}]
    with tickets.predictor.running():
        falls_back(tickets, slow, "timeout")
        with pytest.raises(quern.QuernError) as caught:
            tickets.asked(slow, "topics")
        assert (caught.value.status, caught.value.code) == (504, "late"), repr(caught.value)
        assert list(tickets.asked(ROWS)) == [priority(row) for row in ROWS]
    falls_back(tickets, ROWS, "unavailable")
    with tickets.predictor.running():
        until("it is asked again", lambda: list(tickets.asked(ROWS)) == [priority(row) for row in ROWS])


@pytest.mark.heavy
def test_another_shape_is_no_answer(tickets: Tickets) -> None:
    with tickets.predictor.running(wide=True):
        until("it is asked again", lambda: causes(tickets.asked(ROWS)) != {"unavailable"})
        falls_back(tickets, ROWS, "error")
        assert "Cannot coerce arithmetic expression FixedSizeList(2 x float64) * float64" in refused(
            "apply", tickets.root
        )
        # Where all steps fit, it is another model under the version's name.
        definitions = tickets.root / "definitions.yaml"
        text = definitions.read_text()
        definitions.write_text(text.replace("topics__score *", "topics__score[1] *"))
        told = refused("apply", tickets.root)
        definitions.write_text(text)
        assert "model `topics`, version `1`: its files, and what goes in and comes out, are not those of" in told


@pytest.mark.heavy
def test_clients_of_kserve_ask_by_entity(tickets: Tickets) -> None:
    expected = [priority(row) for row in ROWS]
    tensors = [
        {"name": name, "datatype": "BYTES", "shape": [len(ROWS)], "data": [row[name] for row in ROWS]}
        for name in ROWS[0]
    ]
    with tickets.predictor.running():
        v1 = rest(tickets, "/v1/models/tickets:predict", {"instances": ROWS})
        assert v1["predictions"] == expected
        v2 = rest(tickets, "/v2/models/tickets/infer", {"inputs": tensors})
        assert [output["data"] for output in v2["outputs"]] == [expected]
        address = tickets.url.removeprefix("http://")
        program = [mlserver("python"), TESTS / "topics_program.py", address, json.dumps(ROWS)]
        done = subprocess.run(program, capture_output=True, text=True, timeout=SECONDS_MAX)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout) == expected


def rest(tickets: Tickets, path: str, body: dict[str, Any]) -> Any:
    with urllib.request.urlopen(tickets.url + path, json.dumps(body).encode(), timeout=SECONDS_MAX) as reply:
        return json.load(reply)
