"""What does a well-behaved client see of a server that strangers attack in every way at once?

    siege.py [--seconds N] [--only ATTACK ...]

One client asks for a prediction a hundred times a second over one connection: alone for N seconds (10), then beside
two processes that compute and leave the server alone, then while all attacks go on, and alone again. These others run
at the lowest priority, as they would on machines of their own; what the server does for them it does at its own. What
the two that compute cost is what sharing the cores costs. Printed are the client's latencies and failures, and the
server's memory beside the budget of requests.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.flight
from compare import binary

HERE = Path(__file__).resolve().parent
RATE = 100
DEFINITIONS = """
{kind: Entity, name: e, join_keys: [{name: id, type: int64}]}
---
{kind: Source, name: s, batch: {format: csv, path: rows.csv}, event_timestamp: at,
 columns: [{name: id, type: int64}, {name: at, type: timestamp}, {name: x, type: float64}]}
---
{kind: FeatureView, name: v, entities: [e], source: s, features: [{name: a, expr: x}, {name: b, expr: x}]}
---
{kind: FeatureService, name: f, request: [{name: rounds, type: float64}], features: [v], outputs: [rounds, a, b]}
---
{kind: Model, name: fast, versions: [{version: 1, path: linear.onnx, service: f}]}
---
{kind: Model, name: slow, versions: [{version: 1, path: slow.onnx, service: f}]}
"""
BOMB = gzip.compress(bytes(512 << 20))
JSON = {"content-type": "application/json"}


def main() -> int:
    """Measure, and print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    seconds, only = args.seconds, args.only
    with tempfile.TemporaryDirectory() as folder:
        port, process = serve(Path(folder))
        try:
            ask(port, 2)
            alone = ask(port, seconds)
            show("alone", alone, process.pid)
            neighbours = [multiprocessing.Process(target=attack, args=(computing, port), daemon=True) for _ in range(2)]
            for neighbour in neighbours:
                neighbour.start()
            beside = ask(port, seconds)
            show("beside", beside, process.pid)
            for neighbour in neighbours:
                neighbour.kill()
            kinds = [kind for kind in ATTACKS if not only or kind.__name__ in only]
            attackers = [multiprocessing.Process(target=attack, args=(kind, port), daemon=True) for kind in kinds]
            for attacker in attackers:
                attacker.start()
            time.sleep(2)
            attacked = ask(port, seconds)
            show("attacked", attacked, process.pid)
            for attacker in attackers:
                attacker.kill()
            time.sleep(2)
            show("afterwards", ask(port, seconds), process.pid)
            budget = metric(port, "quern_requests_bytes_max")
            usual, neighbour, now = (percentile(samples, 99) for samples in (alone, beside, attacked))
            print(f"p99 {now / usual:.2f} times that alone, {now / neighbour:.2f} times that beside")
            print(f"budget {budget / 2**20:.0f} MiB")
        finally:
            process.terminate()
            process.wait()
    return 0


def serve(folder: Path) -> tuple[int, subprocess.Popen]:
    """Serve the two models, of a row whose key is 1."""
    (folder / "definitions.yaml").write_text(DEFINITIONS)
    (folder / "rows.csv").write_text("id,at,x\n1,2026-01-01T00:00:00Z,0.5\n")
    for name in ("linear.onnx", "slow.onnx"):
        (folder / name).write_bytes((HERE.parent.parent / "tests" / "fixtures" / name).read_bytes())
    for command in ("apply", "materialize"):
        subprocess.run([binary(), command, folder], check=True, stdout=subprocess.DEVNULL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "server.log").open("w")
    process = subprocess.Popen(
        [binary(), "serve", folder, "--listen", f"127.0.0.1:{port}"],
        stdout=log,
        stderr=log,
    )
    while True:
        try:
            if call(port, "GET", "/v2/health/ready", b"")[0] == 200:
                return port, process
        except OSError:
            time.sleep(0.05)


def call(
    port: int,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """Status and body of a reply, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {**JSON, **(headers or {})})
    reply = connection.getresponse()
    status, said = reply.status, reply.read()
    connection.close()
    return status, said


def instance(rounds: float) -> bytes:
    """A request for one row."""
    return json.dumps({"instances": [{"id": 1, "rounds": rounds}]}).encode()


def ask(port: int, seconds: float) -> list[float]:
    """Milliseconds of each request of the well-behaved client; infinite where it failed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    seen, start = [], time.perf_counter()
    for number in range(int(seconds * RATE)):
        time.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        begun = time.perf_counter()
        try:
            connection.request("POST", "/v1/models/fast:predict", instance(3.0), JSON)
            reply = connection.getresponse()
            failed = reply.status != 200 or not reply.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            failed = True
        seen.append(float("inf") if failed else (time.perf_counter() - begun) * 1e3)
    return seen


def percentile(samples: list[float], percent: float) -> float:
    """The sample that so many percent are not above."""
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * percent / 100))]


def show(what: str, samples: list[float], pid: int) -> None:
    """One line."""
    p50, p99 = (percentile(samples, percent) for percent in (50, 99))
    failed = sum(sample == float("inf") for sample in samples)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    now, peak = (int(status[key].split()[0]) // 1024 for key in ("VmRSS", "VmHWM"))
    worst = f"worst {max(samples):6.1f} ms"
    print(f"{what:10} p50 {p50:5.2f} ms  p99 {p99:5.2f} ms  {worst}  failed {failed}  {now} MiB, at most {peak}")


def metric(port: int, name: str) -> float:
    """The value of a series."""
    text = call(port, "GET", "/metrics", b"")[1].decode()
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


def attack(kind: Callable[[int], None], port: int) -> None:
    """Attack until this process is ended, whatever the server thinks of it."""
    os.nice(19)
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    while True:
        try:
            kind(port)
        except (OSError, http.client.HTTPException, pa.ArrowException):
            time.sleep(0.01)


def computing(_: int) -> None:
    """No attack: work that has nothing to do with the server."""
    while True:
        sum(range(1_000))


def sockets(port: int, count: int, opening: bytes, then: bytes) -> None:
    """Many connections that begin a request, and go on by a byte a second."""
    held = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for one in held:
        one.sendall(opening)
    for byte in then:
        time.sleep(1)
        for one in held:
            one.send(bytes([byte]))


def half_heads(port: int) -> None:
    """Heads that never end."""
    sockets(port, 300, b"POST /v1/models/fast:predict HTTP/1.1\r\nhost: x\r\n", b"x" * 30)


def slow_bodies(port: int) -> None:
    """Bodies that come by the byte."""
    sockets(
        port,
        200,
        b"POST /v1/models/fast:predict HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n",
        b"[" * 60,
    )


def crowd(port: int) -> None:
    """Connections that ask for nothing."""
    sockets(port, 900, b"", b"")
    time.sleep(20)


def large_json(port: int) -> None:
    """Bodies as large as may be, of as many values as may be."""
    call(
        port,
        "POST",
        "/v1/models/fast:predict",
        b'{"instances":[' + b"0," * ((8 << 20) - 20) + b"0]}",
    )


def many_rows(port: int) -> None:
    """As many rows as a request may have."""
    rows = [{"id": row, "rounds": 1.0} for row in range(10_000)]
    call(
        port,
        "POST",
        "/v1/models/fast:predict",
        json.dumps({"instances": rows, "with_features": True}).encode(),
    )


def gone(port: int) -> None:
    """Clients that do not wait for what they ask."""
    body = instance(100_000.0)
    head = f"POST /v1/models/slow:predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(head.encode() + body)
    time.sleep(0.01)


def overload(port: int) -> None:
    """More runs than there is time for."""
    call(
        port,
        "POST",
        "/v1/models/slow:predict",
        instance(500.0),
        {"x-request-timeout-ms": "50"},
    )


def labels(port: int) -> None:
    """Labels of requests that nobody made, in columns that nobody has."""
    columns = {f"c{random.random()}": 1.0 for _ in range(1_000)}
    call(
        port,
        "POST",
        "/v1/labels",
        json.dumps({"model": "fast", "labels": [{"request_id": "r", **columns}]}).encode(),
    )


def deep(port: int) -> None:
    """Definitions that are deep."""
    expr = "(" * 20_000 + "x" + ")" * 20_000
    text = DEFINITIONS.replace("expr: x", f'expr: "{expr}"', 1)
    call(
        port,
        "POST",
        "/v1/check",
        json.dumps({"files": {"definitions.yaml": text}}).encode(),
    )


def unread(port: int) -> None:
    """Training sets that nobody reads."""
    client = pa.flight.connect(f"grpc://127.0.0.1:{port}")
    rows, at = 100_000, pa.scalar(1_767_225_600_000_000, pa.timestamp("us", "UTC"))
    spine = pa.table({"id": [1] * rows, "rounds": [1.0] * rows, "event_timestamp": [at] * rows})
    command = pa.flight.FlightDescriptor.for_command(b'{"feature_service": "f"}')
    held = []
    for _ in range(50):
        writer, reader = client.do_exchange(command)
        writer.begin(spine.schema)
        writer.write_table(spine)
        writer.done_writing()
        held.append((writer, reader))
    time.sleep(20)


def bombs(port: int) -> None:
    """Half a megabyte that becomes half a gigabyte."""
    call(port, "POST", "/v2/models/fast/infer", BOMB, {"content-encoding": "gzip"})


ATTACKS: list[Callable[[int], None]] = [
    half_heads,
    slow_bodies,
    crowd,
    large_json,
    many_rows,
    gone,
    overload,
    overload,
    overload,
    labels,
    deep,
    unread,
    bombs,
]

if __name__ == "__main__":
    raise SystemExit(main())
