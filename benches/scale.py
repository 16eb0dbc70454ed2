"""What does it cost where there is very much?

`files`: a materialize that finds nothing new among a thousand Parquet files. `keys`: how fast a first materialize of a
million and of ten million keys is, and what the server holds at most meanwhile. `start`: when a server is ready beside
a log of ten million pushed rows. All of them against `quern serve`, over HTTP.

    python benches/scale.py PATH/TO/quern [files] [keys] [start]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

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
features: [%s]
""" % ", ".join(f"f{feature}" for feature in range(FEATURES))


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

    def memory(self, what: str) -> float:
        """MiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(what)[1].split()[0]) / 1024


def write(folder: str, file: int, first: int, count: int, ts_us: int) -> None:
    Path(folder, "rows").mkdir(exist_ok=True)
    ids = np.arange(first, first + count)
    columns = {"id": pa.array(ids), "ts": pa.array(ts_us + np.arange(count), pa.timestamp("us", "UTC"))}
    for feature in range(FEATURES):
        columns[f"f{feature}"] = pa.array((ids * 7919 % 10007 + feature) / 3.0)
    pq.write_table(pa.table(columns), f"{folder}/rows/{file:05}.parquet")


def files(program: str) -> None:
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
    for count in [1_000_000, 10_000_000]:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "definitions.yaml").write_text(DEFINITIONS)
            for file in range(count // FILE_ROWS):
                write(folder, file, file * FILE_ROWS, FILE_ROWS, time.time_ns() // 1000 - HOUR_US)
            with Server(program, folder) as server:
                server.ask("/v1/apply", {})
                before, seconds = server.memory("VmRSS:"), server.materialize()
                print(
                    f"{count:,} keys: {count / seconds:,.0f} rows/s, {before:.0f} MiB before and "
                    f"{server.memory('VmHWM:'):.0f} at most"
                )


def main() -> None:
    program, *asked = sys.argv[1:]
    for part in [files, keys]:
        if not asked or part.__name__ in asked:
            part(program)


if __name__ == "__main__":
    main()
