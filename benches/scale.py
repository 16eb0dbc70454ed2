"""What does it cost where there is very much?

`files`: a materialize that finds nothing new among a thousand Parquet files. `keys`: how fast a first materialize of a
million and of ten million keys is, and what the server holds at most meanwhile. `start`: when a server is ready beside
a log of ten million pushed rows. All of them against `quern serve`, over HTTP.

    PYTHONPATH=sdk/python python benches/scale.py PATH/TO/quern [files] [keys] [start]
"""

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import quern

FEATURES = 20
HOUR_US = 3_600_000_000
FILE_ROWS = 500_000
TURNS = 15

DEFINITIONS = """
kind: Entity
name: user
join_keys: [{name: id, type: int64}]
---
kind: Source
name: rows
batch: {format: parquet, path: "rows/*.parquet"}
event_timestamp: ts
---
kind: FeatureView
name: latest
entities: [user]
source: rows
features: [FEATURES]
""".replace("FEATURES", ", ".join(f"f{feature}" for feature in range(FEATURES)))

PUSHED = """
kind: Entity
name: user
join_keys: [{name: id, type: int64}]
---
kind: Source
name: events
push: true
event_timestamp: ts
columns:
  - {name: id, type: int64}
  - {name: ts, type: timestamp}
  - {name: f0, type: float64}
  - {name: f1, type: float64}
---
kind: FeatureView
name: latest
entities: [user]
source: events
features: [f0, f1]
---
kind: FeatureService
name: all
features: [latest]
"""
PUSHED_ROWS = 10_000_000
PUSHED_AT_ONCE = 100_000
ENTITIES = 1_000_000
NOBODY = 65534


class Server:
    """`quern serve` of a folder, until it is left."""

    def __init__(self, program: str, folder: str, **environment: str) -> None:
        self.environment = {**os.environ, "QUERN_LOG": "warn", **environment}
        self.command = [program, "serve", folder, "--listen", "127.0.0.1:0"]

    def __enter__(self) -> "Server":
        self.began = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, env=self.environment, text=True)
        self.url = self.process.stdout.readline().split()[-1]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, path: str, body: object = None) -> str:
        """The reply, where it is one."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return reply.read().decode()

    def materialize(self) -> float:
        """Seconds."""
        began = time.monotonic()
        last = json.loads(self.ask("/v1/materialize", {}).strip().splitlines()[-1])
        assert "views" in json.dumps(last), last
        return time.monotonic() - began

    def opened(self) -> float:
        """How many files were opened so far; 0 where that is not counted."""
        series = "quern_history_files_opened_total "
        lines = [line for line in self.ask("/metrics").splitlines() if line.startswith(series)]
        return float(lines[0].split()[1]) if lines else 0

    def is_ready(self) -> bool:
        """Whether it says so."""
        try:
            self.ask("/v2/health/ready")
        except urllib.error.HTTPError:
            return False
        return True

    def until_ready(self) -> float:
        """Seconds since the process began; says now and then how far it is."""
        said = 0.0
        while not self.is_ready():
            if time.monotonic() > said + 1:
                print("  not ready:", json.loads(self.ask("/v1/status"))["server"].get("not_ready"))
                said = time.monotonic()
            time.sleep(0.02)
        return time.monotonic() - self.began

    def cpu(self) -> float:
        """Seconds of all cores so far: on a busy machine they say more than the clock."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")")[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory(self, what: str) -> float:
        """MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(what)[1].split()[0]) / 1024


def write(folder: str, file: int, first: int, count: int, ts_us: int) -> None:
    """One file of rows."""
    Path(folder, "rows").mkdir(exist_ok=True)
    ids = np.arange(first, first + count)
    columns = {"id": pa.array(ids), "ts": pa.array(ts_us + np.arange(count), pa.timestamp("us", "UTC"))}
    for feature in range(FEATURES):
        columns[f"f{feature}"] = pa.array((ids * 7919 % 10007 + feature) / 3.0)
    pq.write_table(pa.table(columns), f"{folder}/rows/{file:05}.parquet")


def files(program: str) -> None:
    """What does a run cost that finds nothing new?"""
    for what, apart_us in [("of an hour each", HOUR_US), ("all of the last hour", HOUR_US // 1000)]:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "definitions.yaml").write_text(DEFINITIONS)
            begin_us = time.time_ns() // 1000 - 1000 * apart_us - HOUR_US // 60
            for file in range(1000):
                write(folder, file, file * 1000, 1000, begin_us + file * apart_us)
            with Server(program, folder) as server:
                server.ask("/v1/apply", {})
                first, opened = server.materialize(), server.opened()
                turns = [server.materialize() * 1e3 for _ in range(TURNS)]
                print(
                    f"1000 files {what}: the first run {first:.2f} s; one that finds nothing new "
                    f"{statistics.median(turns):.1f} ms, at most {max(turns):.1f}, and opens "
                    f"{(server.opened() - opened) / TURNS:.0f} files"
                )


def keys(program: str) -> None:
    """What does a first run of many keys hold?"""
    for count in [1_000_000, 10_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "definitions.yaml").write_text(DEFINITIONS)
            for file in range(count // FILE_ROWS):
                write(folder, file, file * FILE_ROWS, FILE_ROWS, time.time_ns() // 1000 - HOUR_US)
            with Server(program, folder) as server:
                server.ask("/v1/apply", {})
                before, cpu = server.memory("VmRSS:"), server.cpu()
                seconds = server.materialize()
                used = (server.cpu() - cpu) / count * 1e6
                print(
                    f"{count:,} keys: {count / seconds:,.0f} rows/s, {used:.2f} µs of CPU a row, "
                    f"{before:.0f} MiB before and {server.memory('VmHWM:'):.0f} at most"
                )


def free_port() -> str:
    """One that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


@contextlib.contextmanager
def running(*command: str, **how: object) -> Iterator[None]:
    """A program, until it is left."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **how)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def stores(folder: str) -> Iterator[dict[str, str]]:
    """A Redis, a PostgreSQL and a folder that servers share, as their environment names them."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path())
    redis_port, postgres_port, data = free_port(), free_port(), f"{folder}/postgres"
    # PostgreSQL refuses to be root.
    how = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    Path(data).mkdir()
    if how:
        os.chown(data, NOBODY, NOBODY)
        Path(folder).chmod(0o755)
    made = [f"{programs}/initdb", "--username=quern", "--auth=trust", "-D", data]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, cwd="/", **how)
    told = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-p", postgres_port]
    with (
        running("redis-server", "--port", redis_port, "--save", "", "--dir", folder),
        running(f"{programs}/postgres", "-D", data, *told, cwd="/", **how),
    ):
        for port in [redis_port, postgres_port]:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port))):
                    break
                time.sleep(0.05)
        yield {
            "QUERN_ONLINE": f"redis://127.0.0.1:{redis_port}",
            "QUERN_ONLINE_TIMEOUT": "30s",
            "QUERN_REGISTRY": f"postgres://quern@127.0.0.1:{postgres_port}/postgres?sslmode=disable",
            "QUERN_STORE": f"{folder}/store",
            "QUERN_STORE_SHARED": "true",
        }


def push_all(server: Server) -> None:
    """Ten million rows."""
    client = quern.Client(server.url)
    began = time.monotonic()
    for first in range(0, PUSHED_ROWS, PUSHED_AT_ONCE):
        ids = np.arange(first, first + PUSHED_AT_ONCE)
        times = pa.array(time.time_ns() // 1000 + np.arange(PUSHED_AT_ONCE), pa.timestamp("us", "UTC"))
        values = pa.array(ids / 3.0)
        client.push("events", pa.table({"id": ids * 7919 % ENTITIES, "ts": times, "f0": values, "f1": values}))
    seconds = time.monotonic() - began
    pushed = json.loads(server.ask("/v1/status"))["sources"][0]["pushed"]
    print(
        f"  pushed {PUSHED_ROWS:,} rows in {seconds:.0f} s; {pushed['files']} files, {pushed['tail_rows']} in the tail"
    )


def start(program: str) -> None:
    """When is a server ready?"""
    with tempfile.TemporaryDirectory() as folder, stores(folder) as environment:
        Path(folder, "repository").mkdir()
        Path(folder, "repository/definitions.yaml").write_text(PUSHED)
        with Server(program, f"{folder}/repository", **environment, QUERN_DATA=f"{folder}/first") as first:
            first.ask("/v1/apply", {})
            push_all(first)
            for turn in range(3):
                data = f"{folder}/data{turn}"
                with Server(program, f"{folder}/repository", **environment, QUERN_DATA=data) as server:
                    print(f"a shared head, an empty data folder: ready after {server.until_ready():.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "definitions.yaml").write_text(PUSHED)
        with Server(program, folder) as server:
            server.ask("/v1/apply", {})
            push_all(server)
        with Server(program, folder) as server:
            print(f"a head of its own: ready after {server.until_ready():.2f} s")
        shutil.rmtree(f"{folder}/.quern/head")
        with Server(program, folder) as server:
            seconds = server.until_ready()
            print(f"a head of its own that is empty: ready after {seconds:.1f} s, {PUSHED_ROWS / seconds:,.0f} rows/s")


def main() -> None:
    """What is asked for, or all."""
    program, *asked = sys.argv[1:]
    for part in [files, keys, start]:
        if not asked or part.__name__ in asked:
            part(program)


if __name__ == "__main__":
    main()
