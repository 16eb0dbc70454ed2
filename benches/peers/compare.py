"""How do Quern, DuckDB and Polars fare at one point-in-time join, on the same Parquet, on the same machine?

    compare.py [DATASET ...] [--runs N] [--engines E ...] [--folder DIR] [--json FILE]

Each join runs in a process of its own, engines in turn, so that what disturbs the machine disturbs all. Of N runs the
one of the median wall time is shown. The checksum must be the known one for every engine: a wrong answer ends with exit
code 1, since its speed means nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import make_data
from checksum import checksum
from datasets import DATASETS, DEFAULT_FOLDER, Dataset

HERE = Path(__file__).resolve().parent
ENGINES = ("quern", "duckdb", "polars")
DEFAULT_DATASETS = ("nyc", "syn1m")  # syn10m takes minutes, and 9 GB of memory for DuckDB
SERVICE = "everything"


@dataclass(frozen=True)
class Run:
    """One join by one engine."""

    dataset: str
    engine: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    rows: int
    checksum: str
    right: bool


def main() -> int:
    """Measure and print; the result is the exit code."""
    parser = argparse.ArgumentParser(description="Compare point-in-time joins.")
    parser.add_argument("datasets", nargs="*", metavar="DATASET", help=f"of {', '.join(DATASETS)}; default: nyc syn1m")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="for the data, the results and the rest")
    parser.add_argument("--json", type=Path, help="append every run to this file, a line for each")
    args = parser.parse_args()
    unknown = set(args.datasets) - set(DATASETS)
    if unknown:
        parser.error(f"no data set {', '.join(sorted(unknown))}; there are {', '.join(DATASETS)}")

    everything_right = True
    for name in args.datasets or DEFAULT_DATASETS:
        make_data.make(name, args.folder)
        runs: list[Run] = []
        for _ in range(args.runs):
            runs += [measure(engine, DATASETS[name], args.folder) for engine in args.engines]
        if args.json:
            with args.json.open("a") as file:
                file.writelines(json.dumps(asdict(run)) + "\n" for run in runs)
        show(name, runs, args.engines)
        everything_right &= all(run.right for run in runs)
    return 0 if everything_right else 1


def measure(engine: str, dataset: Dataset, folder: Path) -> Run:
    """Run one engine once."""
    out = folder / "results" / f"{dataset.name}_{engine}.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    if engine == "quern":
        repository = write_repository(dataset, folder)
        subprocess.run([binary(), "apply", repository], check=True, stdout=subprocess.DEVNULL)
        spine = dataset.path(folder, "spine")
        command = [binary(), "train", repository, SERVICE, "--spine", spine, "--out", out]
    else:
        command = [sys.executable, HERE / "engines.py", engine, dataset.name, out, "--folder", folder]

    log = out.with_suffix(".log")
    started = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=subprocess.STDOUT)
    # wait4 tells what this one child used; RUSAGE_CHILDREN would be the most that any child used so far.
    _, status, used = os.wait4(process.pid, 0)
    wall, cpu = time.perf_counter() - started, used.ru_utime + used.ru_stime
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{engine} on {dataset.name} ended with {process.returncode}:\n{log.read_text()}")
    if engine != "quern":
        told = json.loads(log.read_text().splitlines()[-1])
        wall, cpu = told["wall_s"], told["cpu_s"]
    rows, found = checksum(out, dataset.features)
    out.unlink()
    right = found == dataset.checksum
    return Run(dataset.name, engine, wall, cpu, used.ru_maxrss / 1024, rows, found, right)


def show(name: str, runs: list[Run], engines: list[str]) -> None:
    """Print the median of each engine's runs."""
    print(f"\n{name}")
    print(f"{'engine':<10}{'wall s':>8}{'CPU s':>8}{'peak MiB':>10}{'rows':>12}  {'checksum':<18}fastest to slowest, s")
    for engine in engines:
        own = sorted((run for run in runs if run.engine == engine), key=lambda run: run.wall_s)
        run = own[(len(own) - 1) // 2]
        peak = statistics.median(r.peak_mib for r in own)
        note = "" if all(r.right for r in own) else "  WRONG"
        print(f"{engine:<10}{run.wall_s:>8.2f}{run.cpu_s:>8.2f}{peak:>10,.0f}{run.rows:>12,}  {run.checksum:<18}"
              f"{own[0].wall_s:.2f} to {own[-1].wall_s:.2f}{note}", flush=True)  # fmt: skip


# --- Quern -------------------------------------------------------------------------------------------------------


def binary() -> Path:
    """Where cargo puts the server, unless QUERN_BIN says otherwise."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or Path.home() / ".cache/quern/target")
    found = Path(os.environ.get("QUERN_BIN") or target / "debug/quern")
    if not found.is_file():
        raise SystemExit(f"{found} is missing: run `make build`, or set QUERN_BIN")
    return found


def write_repository(dataset: Dataset, folder: Path) -> Path:
    """Write a repository that defines the data set for Quern."""
    root = folder / "repositories" / dataset.name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "quern.yaml").write_text(f"data: .quern\nroots: [{json.dumps(str(folder))}]\n")
    (root / "definitions.yaml").write_text(definitions(dataset, folder))
    return root


def definitions(dataset: Dataset, folder: Path) -> str:
    """Define an entity, a source and a view for each file, and a service of all views."""
    documents = []
    for view in dataset.views:
        key_type = "int64" if view.keys == ("user_id",) else "string"
        keys = ", ".join(f"{{name: {key}, type: {key_type}}}" for key in view.keys)
        documents += [
            f"kind: Entity\nname: {view.name}_key\njoin_keys: [{keys}]\n",
            f"kind: Source\nname: {view.name}_rows\nevent_timestamp: event_timestamp\n"
            f"batch: {{format: parquet, path: {json.dumps(str(dataset.path(folder, view.name)))}}}\n",
            f"kind: FeatureView\nname: {view.name}\nentities: [{view.name}_key]\nsource: {view.name}_rows\n"
            f"ttl: {view.ttl_hours}h\nfeatures:\n" + "".join(f"  - {{name: {name}}}\n" for name in view.features),
        ]
    views = "".join(f"  - {{view: {view.name}}}\n" for view in dataset.views)
    documents.append(f"kind: FeatureService\nname: {SERVICE}\nfeatures:\n{views}")
    return "---\n".join(documents)


if __name__ == "__main__":
    sys.exit(main())
