"""Is Quern's point-in-time join right? Joins the same data in DuckDB's SQL and compares value for value.

    check_asof.py TRAINING_SET.parquet [--data DIR] [--spine FILE]

The SQL below was written from the definitions and from the rules of time in the documentation. It shares no code with
Quern. Exit code 0: every value of every row is the same, bit for bit, and the rows are in the spine's order.
Exit code 1: they are not; the first differences are printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import duckdb

HERE = Path(__file__).resolve().parent

# The latest row of a key is the one with the greatest (event timestamp, file name, row number); rows of equal time are
# common here, since airlines land several flights in one minute. So ties go first, and ASOF joins what is left.
LATEST = "QUALIFY row_number() OVER (PARTITION BY {keys}, known ORDER BY filename DESC, file_row_number DESC) = 1"
READ = "read_parquet('{path}', filename = true, file_row_number = true)"

VIEWS = """
CREATE TEMP VIEW landed AS SELECT * FROM {landings} WHERE arr_delay IS NOT NULL;
CREATE TEMP VIEW departed AS SELECT * FROM {departures};
CREATE TEMP TABLE plane_history AS
    SELECT tailnum, landed_at AS known, arr_delay, dep_delay, distance / nullif(air_time, 0) * 60 AS speed
    FROM landed {latest_plane};
CREATE TEMP TABLE carrier_history AS
    SELECT carrier, landed_at AS known, arr_delay FROM landed {latest_carrier};
CREATE TEMP TABLE route_history AS
    SELECT origin, dest, landed_at AS known, arr_delay, air_time FROM landed {latest_route};
CREATE TEMP TABLE airport_departures AS
    SELECT origin, departed_at AS known, dep_delay FROM {departures} {latest_origin};
CREATE TEMP TABLE airport_weather AS
    SELECT *, hour_start + INTERVAL 1 HOUR AS known FROM {weather} {latest_origin};
CREATE TEMP TABLE planes AS
    SELECT tailnum, year, seats, timezone('UTC', known_at) AS known
    FROM read_csv('{planes}', header = true, nullstr = '',
                  types = {{'known_at': 'TIMESTAMP', 'year': 'BIGINT', 'seats': 'BIGINT'}});
"""

# A window holds what happened from floor(q - window, hop) to q. Events and spine rows stand in one table, and the frame
# of each spine row says how far back it reaches.
WINDOWS = """
CREATE TEMP TABLE {view} AS SELECT row, {aggregates} FROM (
    SELECT row, {keys}, event_timestamp AS moment, NULL::{dtype} AS x FROM spine
    UNION ALL SELECT NULL, {keys}, {time}, {column} FROM {events})
WINDOW {frames} QUALIFY row IS NOT NULL;
"""
FRAME = "w_{window} AS (PARTITION BY {keys} ORDER BY moment RANGE BETWEEN (moment - {start}) PRECEDING AND CURRENT ROW)"
STARTS = {
    "1h": "time_bucket(INTERVAL 5 MINUTE, moment - INTERVAL 1 HOUR)",
    "3h": "time_bucket(INTERVAL 5 MINUTE, moment - INTERVAL 3 HOUR)",
    "1d": "date_trunc('hour', moment - INTERVAL 1 DAY)",
    "7d": "date_trunc('hour', moment - INTERVAL 7 DAY)",
    "30d": "date_trunc('day', moment - INTERVAL 30 DAY)",
}
DELAYS = {"time": "landed_at", "column": "arr_delay", "events": "landed"}
DEPARTURES = {"time": "departed_at", "column": "dep_delay", "events": "departed"}
RECENT = {
    "plane_recent": ("tailnum", DELAYS, {"plane_delay_avg": "avg", "plane_legs": "count"}, ("1d", "7d", "30d")),
    "carrier_recent": ("carrier", DELAYS, {"carrier_delay_avg": "avg"}, ("3h", "1d")),
    "route_recent": ("origin, dest", DELAYS, {"route_delay_avg": "avg"}, ("1d", "7d", "30d")),
    "airport_busy": ("origin", DEPARTURES, {"origin_departures": "count"}, ("1h",)),
    "airport_recent": ("origin", DEPARTURES, {"origin_dep_delay_avg": "avg"}, ("1h", "3h")),
}

# A value counts while it is younger than its view's ttl.
TRAINING_SET = """
SELECT
    s.*,
    p.known >= s.event_timestamp - INTERVAL 720 HOUR AS p_counts,
    c.known >= s.event_timestamp - INTERVAL 48 HOUR AS c_counts,
    r.known >= s.event_timestamp - INTERVAL 336 HOUR AS r_counts,
    d.known >= s.event_timestamp - INTERVAL 12 HOUR AS d_counts,
    w.known >= s.event_timestamp - INTERVAL 6 HOUR AS w_counts,
    timezone('America/New_York', s.departs_at) AS local,
    CASE WHEN p_counts THEN (epoch(s.departs_at) - epoch(p.known)) / 3600 END AS plane_idle_hours,
    date_part('hour', local) AS local_hour,
    date_part('dow', local) AS weekday,
    s.origin = 'EWR' AS from_ewr,
    s.origin = 'LGA' AS from_lga,
    CASE WHEN p_counts THEN p.arr_delay END AS plane_arr_delay,
    CASE WHEN p_counts THEN p.dep_delay END AS plane_dep_delay,
    CASE WHEN p_counts THEN p.speed END AS plane_speed,
    plane_arr_delay > 15 AND plane_idle_hours < 8 AS plane_pressed,
    date_part('year', s.departs_at) - a.year AS plane_age,
    a.seats AS seats,
    CASE WHEN c_counts THEN c.arr_delay END AS carrier_arr_delay,
    CASE WHEN r_counts THEN r.arr_delay END AS route_arr_delay,
    CASE WHEN r_counts THEN r.air_time END AS route_air_time,
    CASE WHEN d_counts THEN d.dep_delay END AS origin_dep_delay,
    pr.* EXCLUDE (row),
    cr.* EXCLUDE (row),
    rr.* EXCLUDE (row),
    ab.* EXCLUDE (row),
    ar.* EXCLUDE (row),
    CASE WHEN w_counts THEN w.temp END AS weather__temp,
    CASE WHEN w_counts THEN w.dewp END AS weather__dewp,
    CASE WHEN w_counts THEN w.wind_speed END AS weather__wind_speed,
    CASE WHEN w_counts THEN w.wind_gust END AS weather__wind_gust,
    CASE WHEN w_counts THEN w.wind_speed * cos(radians(w.wind_dir)) END AS wind_north,
    CASE WHEN w_counts THEN w.wind_speed * sin(radians(w.wind_dir)) END AS wind_east,
    CASE WHEN w_counts THEN w.precip END AS weather__precip,
    CASE WHEN w_counts THEN w.pressure END AS weather__pressure,
    CASE WHEN w_counts THEN w.visib END AS weather__visib
FROM spine s
ASOF LEFT JOIN plane_history p ON s.tailnum = p.tailnum AND s.event_timestamp >= p.known
ASOF LEFT JOIN planes a ON s.tailnum = a.tailnum AND s.event_timestamp >= a.known
ASOF LEFT JOIN carrier_history c ON s.carrier = c.carrier AND s.event_timestamp >= c.known
ASOF LEFT JOIN route_history r ON s.origin = r.origin AND s.dest = r.dest AND s.event_timestamp >= r.known
ASOF LEFT JOIN airport_departures d ON s.origin = d.origin AND s.event_timestamp >= d.known
JOIN plane_recent pr ON s.row = pr.row
JOIN carrier_recent cr ON s.row = cr.row
JOIN airport_busy ab ON s.row = ab.row
JOIN route_recent rr ON s.row = rr.row
JOIN airport_recent ar ON s.row = ar.row
ASOF LEFT JOIN airport_weather w ON s.origin = w.origin AND s.event_timestamp >= w.known
"""

NUMBERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE"}
NOT_OUTPUTS = {"p_counts", "c_counts", "r_counts", "d_counts", "w_counts", "local"}


def main() -> int:
    """Compare; the result is the exit code."""
    parser = argparse.ArgumentParser(description="Compare a training set with an independent join in DuckDB.")
    parser.add_argument("training_set", type=Path, help="Parquet, as Quern made it out of the spine")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="what prepare.py wrote (default: data)")
    parser.add_argument("--spine", type=Path, help="the spine (default: spine.parquet in the data)")
    args = parser.parse_args()

    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    own_join(con, args.data, args.spine or args.data / "spine.parquet")
    con.execute(f"CREATE TEMP VIEW got AS SELECT *, file_row_number AS row FROM {read(args.training_set)}")
    return compare(con)


def read(path: Path | str) -> str:
    """Table function that also tells where in which file a row stands."""
    return READ.format(path=str(path).replace("'", "''"))


def own_join(con: duckdb.DuckDBPyConnection, data: Path, spine: Path) -> None:
    """Make the table `want`: the training set as it must be."""
    keys = {"plane": "tailnum", "carrier": "carrier", "route": "origin, dest", "origin": "origin"}
    latest = {f"latest_{name}": LATEST.format(keys=columns) for name, columns in keys.items()}
    con.execute(
        VIEWS.format(
            landings=read(data / "landings" / "*.parquet"),
            departures=read(data / "departures.parquet"),
            weather=read(data / "weather.parquet"),
            planes=str(data / "planes.csv").replace("'", "''"),
            **latest,
        )
    )
    con.execute(f"CREATE TEMP VIEW spine AS SELECT * EXCLUDE (filename), file_row_number AS row FROM {read(spine)}")
    for view, (of, events, functions, windows) in RECENT.items():
        con.execute(
            WINDOWS.format(
                view=view,
                keys=of,
                dtype=columns(con, events["events"])[events["column"]],
                aggregates=", ".join(
                    # Nobody is not an entity: without a key there is not even a count.
                    f"CASE WHEN {of.split(',')[0]} IS NOT NULL THEN {call}(x) OVER w_{window} END AS {name}_{window}"
                    for name, call in functions.items()
                    for window in windows
                ),
                frames=", ".join(FRAME.format(window=window, keys=of, start=STARTS[window]) for window in windows),
                **events,
            )
        )
    con.execute(f"CREATE TEMP TABLE want AS {TRAINING_SET}")


def columns(con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Types of a table's columns, by name."""
    return {name: kind for name, kind, *_ in con.execute(f"DESCRIBE {table}").fetchall()}


def compare(con: duckdb.DuckDBPyConnection) -> int:
    """Print what differs; 0 when nothing does."""
    own = {"row", "filename", "file_row_number"}
    wanted = [c for c in columns(con, "want") if c not in NOT_OUTPUTS | own]
    types = columns(con, "got")
    missing = [c for c in wanted if c not in types]
    further = [c for c in types if c not in wanted and c not in own]
    if missing or further:
        print(f"columns differ: the training set lacks {missing}, and has {further} that are not known here")
        return 1
    rows, got = (con.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in ("want", "got"))
    if rows != got:
        print(f"rows differ: the spine has {rows:,}, the training set {got:,}")
        return 1

    different = 0
    for column in wanted:
        same = f"{bits('want', column, types[column])} IS NOT DISTINCT FROM {bits('got', column, types[column])}"
        joined = f"FROM want JOIN got ON want.row = got.row WHERE NOT ({same})"
        found = con.execute(f"SELECT count(*) {joined}").fetchall()[0][0]
        if found:
            different += found
            print(f"{column}: {found:,} values differ; the first of them:")
            print(
                con.sql(
                    f"SELECT want.row, want.event_timestamp, want.tailnum, want.carrier, want.origin, want.dest, "
                    f'want."{column}" AS duckdb, got."{column}" AS quern {joined} ORDER BY want.row LIMIT 5'
                )
            )
    if different:
        print(f"{different:,} values differ")
        return 1
    print(f"{rows:,} rows x {len(wanted)} columns: every value equals DuckDB's own ASOF join, bit for bit")
    return 0


def bits(table: str, column: str, kind: str) -> str:
    """A cell, such that equal means equal in every bit: numbers as the text of a float64, which tells 0 from -0."""
    cell = f'{table}."{column}"'
    return f"({cell}::DOUBLE::VARCHAR)" if kind in NUMBERS else cell


if __name__ == "__main__":
    sys.exit(main())
