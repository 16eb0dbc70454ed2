"""A repository whose training sets models are trained on, exported and served from: parcels that come late or not."""

from __future__ import annotations

import csv
import datetime as dt
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

import quern
from conftest import run, serve

ROWS = 300
START = dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc)
DEFINITIONS = """
kind: Entity
name: parcel
join_keys: [{name: parcel, type: int64}]
---
kind: Source
name: scans
batch: {format: csv, path: data/scans.csv}
event_timestamp: at
columns:
  - {name: parcel, type: int64}
  - {name: at, type: timestamp}
  - {name: city, type: string}
  - {name: note, type: string}
  - {name: weight, type: float64}
  - {name: zone, type: int64}
  - {name: fragile, type: bool}
---
kind: FeatureView
name: scan
entities: [parcel]
source: scans
features:
  - {name: city, default: Ulm}
  - {name: note, default: ""}
  - {name: weight}
  - {name: zone, default: 0}
  - {name: fragile}
---
kind: FeatureService
name: texts
request: [{name: distance, type: float64}]
features: [{view: scan}]
outputs: [note, city, weight, distance, zone]
---
kind: FeatureService
name: numbers
request: [{name: distance, type: float64}]
features: [{view: scan}]
outputs: [distance, zone, weight, fragile]
---
kind: FeatureService
name: words
features: [{view: scan, features: [note]}]
---
kind: FeatureService
name: cities
features: [{view: scan, features: [city]}]
---
kind: FeatureService
name: zones
features: [{view: scan, features: [zone]}]
"""
DEFAULTS = {"city": "Ulm", "note": ""}
ZONES = {"zone": 0}
NOTES = ["late again", "on time", "no van", "van late", "again no time", "Bell broken"]


def scans() -> Iterator[list[Any]]:
    """Some cells are empty, which is null."""
    chance = random.Random(7)
    for parcel in range(ROWS):
        row = [
            chance.choice(["Ulm", "Bonn", "Rom"]),
            chance.choice(NOTES),
            chance.uniform(0.05, 30),
            chance.randrange(9),
            chance.choice(["true", "false"]),
        ]
        yield [parcel, START.isoformat(), *("" if chance.random() < 0.05 else cell for cell in row)]


def repository_at(root: Path) -> Path:
    """A repository, applied."""
    (root / "data").mkdir()
    (root / "quern.yaml").write_text("data: .quern\n")
    (root / "definitions.yaml").write_text(DEFINITIONS)
    with (root / "data/scans.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["parcel", "at", "city", "note", "weight", "zone", "fragile"], *scans()])
    run("apply", root)
    return root


def spine() -> pd.DataFrame:
    """A row for each parcel, and whether it was late."""
    chance = random.Random(8)
    return pd.DataFrame(
        {
            "parcel": range(ROWS),
            "distance": [chance.uniform(1, 900) for _ in range(ROWS)],
            "late": [chance.random() < 0.4 for _ in range(ROWS)],
            "event_timestamp": START + dt.timedelta(hours=1),
        }
    )


def training_sets(root: Path) -> dict[str, pa.Table]:
    """By the names of the feature services."""
    with serve(root) as url, quern.Client(url) as client:
        return {
            service: client.training_set(service, spine())
            for service in ("texts", "numbers", "words", "cities", "zones")
        }


@contextmanager
def live(root: Path) -> Iterator[quern.Client]:
    """What was exported, applied and served."""
    run("apply", root)
    run("materialize", root)
    with serve(root) as url, quern.Client(url) as client:
        yield client
