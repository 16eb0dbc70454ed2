"""One point-in-time join by one engine, in a process of its own: `compare.py` starts it and measures it.

    engines.py duckdb|polars DATASET OUT.parquet [--folder DIR]

For each row of the spine and each view: the latest row of the same key that is not later, unless it is older than the
view's ttl. Prints the wall and CPU time of the join as JSON; what it takes to start Python is left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from datasets import DATASETS, DEFAULT_FOLDER, Dataset


def duckdb_asof(dataset: Dataset, folder: Path, out: Path) -> Callable[[], object]:
    """DuckDB's ASOF JOIN, from Parquet to Parquet."""
    import duckdb

    columns, joins = [], []
    for view in dataset.views:
        keys = " AND ".join(f"spine.{key} = {view.name}.{key}" for key in view.keys)
        joins.append(
            f"ASOF LEFT JOIN '{dataset.path(folder, view.name)}' {view.name} "
            f"ON {keys} AND spine.event_timestamp >= {view.name}.event_timestamp"
        )
        counts = f"{view.name}.event_timestamp >= spine.event_timestamp - INTERVAL {view.ttl_hours} HOUR"
        columns += [f"CASE WHEN {counts} THEN {view.name}.{feature} END AS {feature}" for feature in view.features]
    spine = dataset.path(folder, "spine")
    query = f"SELECT spine.*, {', '.join(columns)} FROM '{spine}' spine {' '.join(joins)}"
    con = duckdb.connect()
    con.execute("SET preserve_insertion_order = false")  # it may give rows in any order, which is its faster way
    con.execute(f"SET temp_directory = '{out.parent / 'duckdb_spill'}'")
    return lambda: con.execute(f"COPY ({query}) TO '{out}' (FORMAT parquet, COMPRESSION zstd)")


def polars_asof(dataset: Dataset, folder: Path, out: Path) -> Callable[[], object]:
    """Polars' `join_asof`, from Parquet to Parquet."""
    import polars as pl

    def sorted_scan(table: str) -> pl.LazyFrame:
        return pl.scan_parquet(dataset.path(folder, table)).sort("event_timestamp")

    joined = sorted_scan("spine")
    for view in dataset.views:
        joined = joined.join_asof(
            sorted_scan(view.name).select(*view.keys, "event_timestamp", *view.features),
            on="event_timestamp",
            by=list(view.keys),
            strategy="backward",
            tolerance=timedelta(hours=view.ttl_hours),
            check_sortedness=False,
        )
    return lambda: joined.sink_parquet(out, compression="zstd", engine="in-memory")


ENGINES = {"duckdb": duckdb_asof, "polars": polars_asof}


def main() -> None:
    """Join, and tell how long it took."""
    parser = argparse.ArgumentParser(description="One join by one engine.")
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    args = parser.parse_args()
    join = ENGINES[args.engine](DATASETS[args.dataset], args.folder, args.out)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    join()
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"wall_s": wall, "cpu_s": cpu}))


if __name__ == "__main__":
    main()
