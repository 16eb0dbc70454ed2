"""The Python client of Quern, a feature store that serves models.

>>> client = quern.Client("http://127.0.0.1:7400")
>>> table = client.training_set("arrival_delay_v1", spine)
>>> online = client.get_online_features("arrival_delay_v1", {"tailnum": ["N14228"], "distance": [1400.0]})
>>> scores = client.predict("arrival_delay", [{"tailnum": "N14228", "distance": 1400.0}])
>>> client.label("arrival_delay", scores.labels(label=[12.0]))
>>> scored = client.predict_batch("arrival_delay", table)
>>> pushed = client.push("landings", [{"tailnum": "N14228", "landed_at": now, "arr_delay": 12.0}])
"""

from quern.aio import AsyncClient
from quern.catalogue import (
    Column,
    Definitions,
    Entity,
    FeatureService,
    FeatureView,
    Health,
    Materialized,
    MaterializedView,
    Model,
    ModelVersion,
)
from quern.client import Client
from quern.errors import PushError, QuernError
from quern.protocol import FeatureStore
from quern.results import Fallback, OnlineFeatures, Part, Prediction, PushResult, Rejected
from quern.route import Ramp, RampStatus, Route
from quern.status import Run, SourceStatus, Status, Trouble, ViewStatus
from quern.version import __version__

__all__ = [
    "AsyncClient",
    "Client",
    "Column",
    "Definitions",
    "Entity",
    "Fallback",
    "FeatureService",
    "FeatureStore",
    "FeatureView",
    "Health",
    "Materialized",
    "MaterializedView",
    "Model",
    "ModelVersion",
    "OnlineFeatures",
    "Part",
    "Prediction",
    "PushError",
    "PushResult",
    "QuernError",
    "Ramp",
    "RampStatus",
    "Rejected",
    "Route",
    "Run",
    "SourceStatus",
    "Status",
    "Trouble",
    "ViewStatus",
    "__version__",
]
