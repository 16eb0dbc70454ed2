"""Feast's side of `serving.py`, run by Feast's own Python: the same views and services as Quern's, and materialize.

    feast_repository.py FOLDER VIEW ...

Defines all views over the Parquet files in FOLDER for the store in FOLDER/feast, and materializes VIEW ... Prints the
seconds that it took, as JSON: what the start of Python takes is not in them.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Float64, Int64
from serving_data import FLOATS, PICKED, VIEWS, features


def main(folder: Path, wanted: list[str]) -> None:
    """Apply and materialize."""
    store = FeatureStore(repo_path=str(folder / "feast"))
    user = Entity(name="user", join_keys=["id"], value_type=ValueType.INT64)
    item = Entity(name="item", join_keys=["item"], value_type=ValueType.INT64)

    def view(name: str, entity: Entity, rows: str, schema: list[Field]) -> FeatureView:
        source = FileSource(name=f"{name}_rows", path=str(folder / f"{rows}.parquet"), timestamp_field="ts")
        return FeatureView(name=name, entities=[entity], ttl=timedelta(days=30), schema=schema, source=source)

    views = [
        view(f"v{number}", user, "rows", [Field(name=name, dtype=dtype(place)) for place, name in enumerate(names)])
        for number, names in enumerate(map(features, range(VIEWS)))
    ]
    vectors = [
        view(
            f"{entity.name}_vectors",
            entity,
            f"{entity.name}s",
            [Field(name=f"{entity.name}_vector", dtype=Array(Float32))],
        )
        for entity in (user, item)
    ]
    picked = [view[[f"{view.name}_{place}" for place in PICKED]] for view in views]
    services = [
        FeatureService(name="all", features=views),
        FeatureService(name="scoring", features=picked),
        FeatureService(name="towers", features=vectors),
    ]
    store.apply([user, item, *views, *vectors, *services])

    now, started = datetime.now(timezone.utc), time.perf_counter()
    store.materialize(now - timedelta(days=1), now, feature_views=wanted)
    print("\n" + json.dumps({"seconds": time.perf_counter() - started}))


def dtype(place: int) -> object:
    """The type of a view's feature."""
    return Float64 if place < FLOATS else Int64


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
