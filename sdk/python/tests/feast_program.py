"""An ordinary Feast program, run by Feast's own Python: it knows Quern's address and what Quern asks of everybody.

Prints what it read, as JSON, before and after it pushed.
"""

import datetime as dt
import json
import sys
from pathlib import Path

import pandas as pd
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RepoConfig,
    ValueType,
)
from feast.types import Float64, Int64

NOON = pd.Timestamp("2013-01-10T12:00", tz="UTC")


def main(url: str, cert: str, folder: Path) -> None:
    """Read, push and read again; the environment has what says who asks."""
    landings = pd.DataFrame(
        {
            "tailnum": ["N2", "N9"],
            "landed_at": [NOON, NOON],
            "loaded_at": [NOON + pd.Timedelta(minutes=1), pd.NaT],
            "arr_delay": [0.1, None],
            "legs": [8, 1],
        }
    )
    landings.to_parquet(folder / "landings.parquet")
    config = RepoConfig(
        project="landings",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "remote", "path": url, "cert": cert},
        auth={"type": "oidc", "token_env_var": "QUERN_TOKEN"},
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    plane = Entity(name="plane", join_keys=["tailnum"], value_type=ValueType.STRING)
    files = FileSource(
        name="landings_files",
        path=str(folder / "landings.parquet"),
        timestamp_field="landed_at",
        created_timestamp_column="loaded_at",
    )
    source = PushSource(name="landings", batch_source=files)
    view = FeatureView(
        name="plane_history",
        entities=[plane],
        schema=[Field(name="arr_delay", dtype=Float64), Field(name="legs", dtype=Int64)],
        ttl=dt.timedelta(days=36500),
        source=source,
    )
    service = FeatureService(name="delays", features=[view])
    store.apply([plane, source, view, service])

    rows = [{"tailnum": tailnum} for tailnum in ("N1", "N2", "N9")]
    named = ["plane_history:legs"]
    read = {"service": store.get_online_features(store.get_feature_service("delays"), rows).to_dict()}
    read["features"] = store.get_online_features(named, rows, full_feature_names=True).to_dict()
    store.push("landings", landings)
    read["pushed"] = store.get_online_features(store.get_feature_service("delays"), rows).to_dict()
    late = landings.assign(landed_at=NOON - pd.Timedelta(days=5), arr_delay=99.0)
    store.write_to_online_store("plane_history", late)
    read["late"] = store.get_online_features(store.get_feature_service("delays"), rows).to_dict()
    json.dump(read, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
