"""What can be asked of Quern, wherever it runs?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pyarrow as pa

from quern.calls import OnProgress
from quern.catalogue import Definitions, FeatureService, Health, Materialized
from quern.flights import DEFAULT_BATCH_ROWS
from quern.push import To
from quern.request import Deadline, Priority
from quern.results import OnlineFeatures, Prediction, PushResult
from quern.route import Ramp, Route
from quern.status import Status

if TYPE_CHECKING:
    from quern.client import Client


@runtime_checkable
class FeatureStore(Protocol):
    """The calls of `Client`, which says what each does, for programs that do not care where the answers come from."""

    def get_online_features(
        self,
        features: str | Sequence[str],
        entities: Any,
        full_feature_names: bool = False,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> OnlineFeatures:
        """Look up the features of entities."""

    def predict(
        self,
        model: str,
        instances: Any,
        version: str | None = None,
        with_features: bool = False,
        *,
        request_id: str | None = None,
        deadline: Deadline = None,
        priority: Priority | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Prediction:
        """Predict by join keys and request columns."""

    def predict_batch(
        self,
        model: str,
        table: Any,
        version: str | None = None,
        as_of: bool = False,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> pa.Table:
        """Predict for every row of a table."""

    def training_set(
        self, service: str, spine: Any, as_known: bool = False, batch_rows: int = DEFAULT_BATCH_ROWS
    ) -> pa.Table:
        """Join a spine with what was known at each of its times."""

    def push(
        self,
        source: str,
        table: Any,
        to: To = "online_and_offline",
        idempotency_key: str | None = None,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> PushResult:
        """Push rows to a source."""

    def predictions(
        self,
        model: str,
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        labelled: bool = False,
    ) -> pa.Table:
        """Pull what was logged of a model's predictions, with what came true of them."""

    def export(
        self,
        view: str,
        features: Sequence[str] | None = None,
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        latest: bool = False,
        at: dt.datetime | str | None = None,
    ) -> pa.RecordBatchReader:
        """Stream the rows of a feature view."""

    def export_source(
        self, source: str, from_: dt.datetime | str | None = None, to: dt.datetime | str | None = None
    ) -> pa.RecordBatchReader:
        """Stream the history of a source."""

    def label(self, model: str, labels: Any) -> int:
        """Tell what came true of predictions."""

    def definitions(self) -> Definitions:
        """Tell what is live."""

    def service(self, name: str) -> FeatureService:
        """Tell which columns a feature service takes and gives."""

    def route(
        self,
        model: str,
        weights: Mapping[str, int | str] | None = None,
        ramp: Ramp | None = None,
        *,
        reset: bool = False,
    ) -> Route:
        """Change which version of a model answers whom."""

    def materialize(
        self,
        views: str | Sequence[str] = (),
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        look_back: dt.timedelta | None = None,
        on_progress: OnProgress | None = None,
    ) -> Materialized:
        """Bring what look-ups read up to date with the sources."""

    def status(self) -> Status:
        """Tell what is wrong and how far everything is."""

    def health(self) -> Health:
        """Tell how it is."""

    def close(self) -> None:
        """Give back what it holds."""


if TYPE_CHECKING:

    def _is_one(client: Client) -> FeatureStore:
        return client
