"""A real server over a tiny repository, for the tests that need one, or over one that a test brings (`serve`)."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import quern
from stand_in import StandIn, standing_in

READY_SECONDS_MAX = 60
DEFINITIONS = """
kind: Entity
name: plane
join_keys: [{name: tailnum, type: string}]
---
kind: Source
name: landings
batch: {format: csv, path: data/landings.csv}
event_timestamp: landed_at
created_timestamp: loaded_at
columns:
  - {name: tailnum, type: string}
  - {name: landed_at, type: timestamp}
  - {name: loaded_at, type: timestamp}
  - {name: arr_delay, type: float64}
  - {name: legs, type: int64}
---
kind: FeatureView
name: plane_history
entities: [plane]
source: landings
ttl: 30d
features:
  - {name: last_delay, expr: arr_delay}
  - {name: legs}
---
kind: FeatureService
name: delays
request: [{name: distance, type: float64}]
features: [{view: plane_history}]
derived: [{name: delay_by_mile, expr: "last_delay / distance"}]
outputs: [distance, last_delay, legs, delay_by_mile]
---
kind: FeatureService
name: delays_otherwise
request: [{name: distance, type: float64}]
features: [{view: plane_history}]
outputs: [legs, last_delay, distance]
---
kind: FeatureService
name: as_given
request: [{name: x, type: float64}, {name: raw, type: bytes}, {name: text, type: string}]
features: [{view: plane_history, features: [legs]}]
outputs: [x, raw, text, legs]
---
kind: Model
name: delay
log: {sample: 1}
versions: [{version: "1", path: models/delay.onnx, service: delays}]
---
kind: Model
name: canary
log: {sample: 1}
versions:
  - {version: "1", path: models/delay.onnx, service: delays}
  - {version: "2", path: models/three.onnx, service: delays_otherwise}
route: {weights: {"1": 1, "2": 1}}
"""
# N2's delay is null; N3 was last seen long ago; N1's second landing was recorded late.
LANDINGS = """tailnum,landed_at,loaded_at,arr_delay,legs
N1,2013-01-01T10:00:00,2013-01-01T10:00:00,30.5,1
N1,2013-01-03T10:00:00,2013-01-05T00:00:00,0.1,2
N2,2013-01-02T10:00:00,2013-01-02T10:00:00,,7
N3,2012-06-01T00:00:00,2012-06-01T00:00:00,12,3
"""
WEIGHTS = (0.0, 2.0, 0.5, 0.0)
BIAS = 1.0


def binary() -> Path:
    """Where the server is: what QUERN_BIN says, or where cargo puts it."""
    target = os.environ.get("CARGO_TARGET_DIR") or Path.home() / ".cache/quern/target"
    found = Path(os.environ.get("QUERN_BIN") or Path(target) / "debug/quern")
    if not found.is_file():
        pytest.fail(f"{found} is missing: run `make compile`, or set QUERN_BIN", pytrace=False)
    return found


def run(*args: str | Path) -> str:
    """Run one command of the binary and give its answer; its own words are the failure."""
    done = subprocess.run([binary(), *args], capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == 0, f"quern {' '.join(map(str, args))}\n{done.stdout}{done.stderr}"
    return done.stdout


def refused(*args: str | Path) -> str:
    """Run one command of the binary that says no, and give its words."""
    done = subprocess.run([binary(), *args], capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == 1, f"quern {' '.join(map(str, args))}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def environment() -> dict[str, str]:
    """Ours, without settings that would override the repository's, and with ONNX Runtime, which Python has."""
    library = {"ORT_DYLIB_PATH": str(Path(onnxruntime.__file__).parent / "capi")}
    return {name: value for name, value in (library | os.environ).items() if not name.startswith("QUERN_")}


def write_model(path: Path, weights_of: tuple[float, ...] = WEIGHTS) -> None:
    """score = features . weights + BIAS"""
    weights = numpy_helper.from_array(np.array([[w] for w in weights_of], dtype=np.float32), "weights")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["products"]),
            helper.make_node("Add", ["products", "bias"], ["score"]),
        ],
        "delay",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(weights_of)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        [weights, numpy_helper.from_array(np.array([BIAS], dtype=np.float32), "bias")],
    )
    path.parent.mkdir(exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_ready(port: int, tls: ssl.SSLContext | None = None) -> bool:
    """Whether the server says so itself."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    if tls is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=1, context=tls)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def repository_at(root: Path, settings: str = "data: .quern\n") -> Path:
    """A repository, nothing applied yet."""
    (root / "quern.yaml").write_text(settings)
    (root / "definitions.yaml").write_text(DEFINITIONS)
    (root / "data").mkdir()
    (root / "data/landings.csv").write_text(LANDINGS)
    write_model(root / "models/delay.onnx")
    write_model(root / "models/three.onnx", WEIGHTS[:3])
    return root


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository, applied and materialized."""
    root = repository_at(tmp_path_factory.mktemp("repository"))
    run("apply", root)
    run("materialize", root, "--to", "2013-01-10T00:00:00Z")
    return root


@contextmanager
def serve(repository: Path, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of a server over a repository; it ends as an operator would end it. `tls` believes it."""
    port = free_port()
    log = repository / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [binary(), "serve", repository, "--listen", f"127.0.0.1:{port}"],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
    try:
        give_up = time.monotonic() + READY_SECONDS_MAX
        while not is_ready(port, tls):
            assert process.poll() is None, f"the server ended with {process.returncode}:\n{log.read_text()}"
            assert time.monotonic() < give_up, f"not ready after {READY_SECONDS_MAX} s:\n{log.read_text()}"
            time.sleep(0.02)
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, f"SIGTERM is an orderly end:\n{log.read_text()}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[str]:
    """The address of a server over the repository."""
    with serve(repository) as url:
        yield url


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """A server that says what the test writes."""
    with standing_in() as server:
        yield server


@pytest.fixture
def client(server: str) -> Iterator[quern.Client]:
    """A client of the server."""
    with quern.Client(server) as client:
        yield client
