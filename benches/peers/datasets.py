"""What is joined with what? The data sets that every engine is given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_FOLDER = Path(os.environ.get("QUERN_CACHE") or Path.home() / ".cache/quern") / "peers"


@dataclass(frozen=True)
class View:
    """A file of feature rows: for a spine row the latest one counts, if it is not older than `ttl_hours`."""

    name: str
    keys: tuple[str, ...]
    features: tuple[str, ...]
    ttl_hours: int


@dataclass(frozen=True)
class Dataset:
    """A spine and the views that are joined to it; `checksum` is that of the true result."""

    name: str
    views: tuple[View, ...]
    checksum: str

    @property
    def features(self) -> list[str]:
        """Every feature, in the order of the views."""
        return [feature for view in self.views for feature in view.features]

    def path(self, folder: Path, table: str) -> Path:
        """Where a table of this data set lies: `spine`, or a view by name."""
        return folder / self.name / f"{table}.parquet"


FLOATS = tuple(f"f{i:02d}" for i in range(12))
INTEGERS = tuple(f"i{i:02d}" for i in range(8))
STRINGS = {"s0": 50, "s1": 5_000}  # how many different ones

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
PLANE = (
    "p_last_arr_delay", "p_last_dep_delay", "p_last_air_time", "p_last_distance", "p_mean_arr_delay_10",
    "p_mean_dep_delay_10", "p_max_arr_delay_10", "p_ontime_rate_10", "p_speed", "p_flights",
)  # fmt: skip
ROUTE = (
    "r_last_arr_delay", "r_mean_arr_delay_20", "r_std_arr_delay_20", "r_max_arr_delay_20", "r_ontime_rate_20",
    "r_mean_air_time_20", "r_mean_dep_delay_20", "r_flights",
)  # fmt: skip


def synthetic(name: str, checksum: str) -> Dataset:
    """Describe three views of one key with 22 features each; `make_data.py` knows how many rows."""
    columns = (*FLOATS, *INTEGERS, *STRINGS)
    views = (View(v, ("user_id",), tuple(f"{v}_{column}" for column in columns), 24 * 30) for v in "abc")
    return Dataset(name, tuple(views), checksum)


# DuckDB and Polars agree on these checksums.
DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "nyc",
            (
                View("weather", ("origin",), WEATHER, 6),
                View("plane_stats", ("tailnum",), PLANE, 24 * 14),
                View("route_stats", ("origin", "dest"), ROUTE, 24 * 7),
            ),
            "c81ba64486b9b1d0",
        ),
        synthetic("syn1m", "747e8b833eaf3c53"),
        synthetic("syn10m", "81ca10a790b927c4"),
    )
}
