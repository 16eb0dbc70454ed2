"""How do Quern, DuckDB and Polars fare at windowed aggregates as of each spine row, on the same Parquet?

    windows.py [--events N ...] [--spine N] [--cards N] [--engines E ...] [--runs N] [--plot FILE.svg]

Count, sum, minimum, maximum and average of a card's amounts over the hour, day, 7 and 30 days before each spine row,
both ends in. Events are in order of time, as a log has them. Each engine reads Parquet and writes Parquet, in a process
of its own, engines in turn; of N runs the one of the median wall time is shown. All results are compared value by value
with those of the first engine: counts, minima and maxima must be equal, sums and averages within 1e-9, since only
Quern's are exact. With several --events, how each engine grows is shown, and drawn with --plot.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from compare import binary

from datasets import DEFAULT_FOLDER
from make_data import SEED, START_MS, microseconds, write

HERE = Path(__file__).resolve().parent
EVENT_DAYS, SPINE_DAYS = 60, 65
WINDOWS = {"1h": "1 hour", "1d": "1 day", "7d": "7 days", "30d": "30 days"}
FUNCTIONS = ("count", "sum", "min", "max", "avg")
FEATURES = [f"{function}_{window}" for function in FUNCTIONS for window in WINDOWS]
TOLERANCE = 1e-9
T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """The events and the spine of one size."""

    folder: Path
    events_count: int
    spine_count: int
    cards: int

    @property
    def events(self) -> Path:
        """The file of events."""
        return self.folder / "windows" / f"events_{self.events_count}_{self.cards}.parquet"

    @property
    def spine(self) -> Path:
        """The file of the spine."""
        return self.folder / "windows" / f"spine_{self.spine_count}_{self.cards}.parquet"

    def make(self) -> None:
        """Make both files, unless they are there."""
        self.events.parent.mkdir(parents=True, exist_ok=True)
        if not self.events.exists():
            random = np.random.default_rng([SEED, self.events_count, self.cards])
            times = np.sort(random.integers(0, EVENT_DAYS * 86_400_000, self.events_count))
            cards = random.integers(0, self.cards, self.events_count)
            amounts = random.integers(0, 1_000_000, self.events_count) / 100
            columns = {"card_id": cards, "ts": microseconds(START_MS + times), "amount": amounts}
            write(pa.table(columns), self.events)
        if not self.spine.exists():
            random = np.random.default_rng([SEED, self.spine_count, self.cards, 1])
            times = random.integers(0, SPINE_DAYS * 86_400_000, self.spine_count)
            columns = {
                "row_id": np.arange(self.spine_count),
                "card_id": random.integers(0, self.cards, self.spine_count),
                "event_timestamp": microseconds(START_MS + times),
            }
            write(pa.table(columns), self.spine)


# --- the engines: each gives what is to be measured --------------------------------------------------------------


def duckdb_join(data: Data, out: Path) -> Callable[[], object]:
    """A range join of the longest window; the shorter ones are filters of its aggregates."""
    called = {"count": "count(*)", **{f: f"{f}(e.amount)" for f in FUNCTIONS[1:]}}
    columns = [
        f"{called[function]} FILTER (e.ts >= s.event_timestamp - INTERVAL {length}) AS {function}_{window}"
        for function in FUNCTIONS
        for window, length in WINDOWS.items()
    ]
    query = f"""
        SELECT s.row_id, {", ".join(columns)} FROM '{data.spine}' s LEFT JOIN '{data.events}' e
        ON e.card_id = s.card_id AND e.ts <= s.event_timestamp AND e.ts >= s.event_timestamp - INTERVAL 30 DAYS
        GROUP BY s.row_id"""
    return duckdb_query(query, out)


def duckdb_frames(data: Data, out: Path) -> Callable[[], object]:
    """Window frames over events and spine rows together."""
    frames = [
        f"w_{window} AS (PARTITION BY card_id ORDER BY ts RANGE BETWEEN INTERVAL {length} PRECEDING AND CURRENT ROW)"
        for window, length in WINDOWS.items()
    ]
    columns = [
        f"{function}(amount) OVER w_{window} AS {function}_{window}" for function in FUNCTIONS for window in WINDOWS
    ]
    query = f"""
        SELECT * FROM (
            SELECT row_id, {", ".join(columns)} FROM (
                SELECT NULL::BIGINT AS row_id, card_id, ts, amount FROM '{data.events}'
                UNION ALL SELECT row_id, card_id, event_timestamp, NULL FROM '{data.spine}')
            WINDOW {", ".join(frames)})
        WHERE row_id IS NOT NULL"""
    return duckdb_query(query, out)


def duckdb_query(query: str, out: Path) -> Callable[[], object]:
    """Run a query from Parquet to Parquet."""
    import duckdb

    con = duckdb.connect()
    con.execute("SET timezone = 'UTC'; SET preserve_insertion_order = false")
    con.execute(f"SET temp_directory = '{out.parent / 'duckdb_spill'}'")
    return lambda: con.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION zstd)")


def polars(data: Data, out: Path) -> Callable[[], object]:
    """Rolling functions over events and spine rows together, card by card."""
    import polars as pl

    def rolling(function: str, window: str) -> pl.Expr:
        if function == "count":
            value = pl.col("amount").is_not_null().cast(pl.Int64).rolling_sum_by("ts", window, closed="both")
        else:
            called = {"avg": "mean"}.get(function, function)
            value = getattr(pl.col("amount"), f"rolling_{called}_by")("ts", window, closed="both")
        return value.over("card_id").alias(f"{function}_{window}")

    spine = pl.scan_parquet(data.spine).select("row_id", "card_id", pl.col("event_timestamp").alias("ts"))
    events = pl.scan_parquet(data.events)
    rows = pl.concat([events, spine], how="diagonal").sort("card_id", "ts")
    answers = rows.with_columns(rolling(f, w) for f in FUNCTIONS for w in WINDOWS)
    result = answers.filter(pl.col("row_id").is_not_null()).select("row_id", *FEATURES)
    return lambda: result.sink_parquet(out, compression="zstd", engine="in-memory")


PEERS = {"duckdb-join": duckdb_join, "duckdb-frames": duckdb_frames, "polars": polars}


def repository(data: Data) -> Path:
    """Write a repository that defines the same for Quern."""
    root = data.folder / "repositories" / data.events.stem
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "quern.yaml").write_text(f"data: .quern\nroots: [{json.dumps(str(data.folder))}]\n")
    windows = ", ".join(WINDOWS)
    aggregations = "".join(
        f"  - {{name: {function}, function: {function}, of: amount, windows: [{windows}], hop: exact}}\n"
        for function in FUNCTIONS
    )
    (root / "definitions.yaml").write_text(f"""\
kind: Entity
name: card
join_keys: [{{name: card_id, type: int64}}]
---
kind: Source
name: payments
event_timestamp: ts
batch: {{format: parquet, path: {json.dumps(str(data.events))}}}
---
kind: FeatureView
name: spending
entities: [card]
source: payments
aggregations:
{aggregations}---
kind: FeatureService
name: spending_v1
features: [{{view: spending}}]
""")
    return root


# --- measuring ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One engine, once."""

    engine: str
    wall_s: float
    cpu_s: float
    peak_mib: float


def measure(engine: str, data: Data, out: Path) -> Run:
    """Run one engine once."""
    out.unlink(missing_ok=True)
    if engine == "quern":
        root = repository(data)
        subprocess.run([binary(), "apply", root], check=True, stdout=subprocess.DEVNULL)
        command = [binary(), "train", root, "spending_v1", "--spine", data.spine, "--out", out]
    else:
        size = [data.events_count, data.spine_count, data.cards]
        command = [sys.executable, __file__, "--one", engine, out, *size, "--folder", data.folder]
    log = out.with_suffix(".log")
    started = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT)
    _, status, used = os.wait4(process.pid, 0)
    wall, cpu = time.perf_counter() - started, used.ru_utime + used.ru_stime
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{engine} ended with {process.returncode}:\n{log.read_text()}")
    if engine != "quern":
        told = json.loads(log.read_text().splitlines()[-1])
        wall, cpu = told["wall_s"], told["cpu_s"]
    return Run(engine, wall, cpu, used.ru_maxrss / 1024)


def one(engine: str, out: str, events: str, spine: str, cards: str, folder: Path) -> None:
    """Run a peer in this process and tell how long it took; what it takes to start Python is left out."""
    query = PEERS[engine](Data(folder, int(events), int(spine), int(cards)), Path(out))
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    query()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall_s": wall, "cpu_s": cpu}))


def differences(expected: Path, found: Path) -> list[str]:
    """Compare two results, feature by feature."""
    wrong = []
    orders = [np.argsort(pq.read_table(path, columns=["row_id"])["row_id"].to_numpy()) for path in (expected, found)]
    if len(orders[0]) != len(orders[1]):
        return [f"{len(orders[1])} rows, not {len(orders[0])}"]
    for name in FEATURES:
        columns = (pq.read_table(path, columns=[name])[name].cast(pa.float64()) for path in (expected, found))
        a, b = (column.to_numpy()[order] for column, order in zip(columns, orders, strict=True))
        if name.startswith("sum"):  # of nothing: null in SQL and in Quern, zero in Polars
            a, b = np.nan_to_num(a), np.nan_to_num(b)
        if name.startswith(("sum", "avg")):
            same = np.isclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        else:
            same = (a == b) | (np.isnan(a) & np.isnan(b))
        if not same.all():
            row = int(np.argmin(same))
            wrong.append(f"{name}: {int((~same).sum())} rows differ, as row {row}: {a[row]} and {b[row]}")
    return wrong


def apart(call: Callable[..., T], *args: object) -> T:
    """Call in a process of its own: a child's peak memory counts from its parent's, so this one stays small."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *args).result()


def compare(data: Data, engines: list[str], runs: int) -> tuple[dict[str, Run], bool]:
    """Measure all engines on one size; gives the median runs and whether all agree."""
    apart(data.make)
    found: dict[str, list[Run]] = {engine: [] for engine in engines}
    results = {engine: data.folder / "results" / f"{data.events.stem}_{engine}.parquet" for engine in engines}
    results[engines[0]].parent.mkdir(parents=True, exist_ok=True)
    for _ in range(runs):
        for engine in engines:
            found[engine].append(measure(engine, data, results[engine]))
    print(f"\n{data.events_count:,} events, {data.spine_count:,} spine rows, {data.cards:,} cards")
    print(f"{'engine':<15}{'wall s':>8}{'CPU s':>8}{'peak MiB':>10}  fastest to slowest, s")
    medians, agree = {}, True
    for engine, own in found.items():
        own.sort(key=lambda run: run.wall_s)
        run = medians[engine] = own[(len(own) - 1) // 2]
        wrong = apart(differences, results[engines[0]], results[engine])
        agree &= not wrong
        print(f"{engine:<15}{run.wall_s:>8.2f}{run.cpu_s:>8.2f}{run.peak_mib:>10,.0f}  "
              f"{own[0].wall_s:.2f} to {own[-1].wall_s:.2f}{'  WRONG' if wrong else ''}", flush=True)  # fmt: skip
        for difference in wrong:
            print(f"    {difference}")
    for path in results.values():
        path.unlink()
    return medians, agree


def plot(sizes: list[int], medians: list[dict[str, Run]], file: Path) -> None:
    """Draw wall time and peak memory over the number of events, as SVG."""
    series = {e: [(run[e].wall_s, run[e].peak_mib) for run in medians] for e in medians[0]}
    script = ["set terminal svg size 900,360 font 'sans,12'", f"set output '{file}'", "set multiplot layout 1,2"]
    script += ["set logscale xy", "set key top left", "set grid", "set xlabel 'events, millions'"]
    for title, place in (("seconds", 0), ("peak memory, MiB", 1)):
        script += [f"set title '{title}'"]
        script += ["plot " + ", ".join(f"'-' with linespoints lw 2 title '{engine}'" for engine in series)]
        for points in series.values():
            script += [f"{size / 1e6} {point[place]}" for size, point in zip(sizes, points, strict=False)] + ["e"]
    subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)


def main() -> int:
    """Measure and print; the result is the exit code."""
    parser = argparse.ArgumentParser(description="Compare windowed aggregates.")
    parser.add_argument("--events", nargs="+", type=int, default=[10_000_000])
    parser.add_argument("--spine", type=int, default=1_000_000)
    parser.add_argument("--cards", type=int, default=100_000)
    parser.add_argument("--engines", nargs="+", choices=("quern", *PEERS), default=["quern", *PEERS])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--plot", type=Path, help="needs gnuplot")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one(*args.one, folder=args.folder)
        return 0
    medians, all_agree = [], True
    for events in args.events:
        found, agree = compare(Data(args.folder, events, args.spine, args.cards), args.engines, args.runs)
        medians.append(found)
        all_agree &= agree
    if args.plot:
        plot(args.events, medians, args.plot)
    return 0 if all_agree else 1


if __name__ == "__main__":
    sys.exit(main())
