"""The Python client of Quern, a feature store that serves models.

>>> client = quern.Client("http://127.0.0.1:7400")
>>> table = client.training_set("arrival_delay_v1", spine)
>>> online = client.get_online_features("arrival_delay_v1", {"tailnum": ["N14228"], "distance": [1400.0]})
>>> scores = client.predict("arrival_delay", [{"tailnum": "N14228", "distance": 1400.0}])
>>> scored = client.predict_batch("arrival_delay", table)
>>> pushed = client.push("landings", [{"tailnum": "N14228", "landed_at": now, "arr_delay": 12.0}])
"""

from quern.client import Client
from quern.errors import PushError, QuernError
from quern.results import OnlineFeatures, Prediction, PushResult, Rejected

__all__ = ["Client", "OnlineFeatures", "Prediction", "PushError", "PushResult", "QuernError", "Rejected"]
