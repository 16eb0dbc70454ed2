"""How does a program that awaits ask Quern? With the same calls as one that blocks."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa

from quern import calls
from quern.address import DEFAULT_URL, Address
from quern.awaiting import AsyncHttp
from quern.calls import OnProgress
from quern.catalogue import Definitions, FeatureService, Health, Materialized
from quern.client import DEFAULT_TIMEOUT_SECONDS, Client, _again
from quern.credentials import FilePath
from quern.errors import QuernError
from quern.flights import DEFAULT_BATCH_ROWS
from quern.push import To
from quern.request import Deadline, Priority, Steps, Terms, headers_of
from quern.results import OnlineFeatures, Prediction, PushResult
from quern.route import Ramp, Route
from quern.status import Status

T = TypeVar("T")


class AsyncClient:
    """A client of one Quern server for asyncio; its calls, arguments and results are those of `Client`.

    What goes over HTTP (look-ups, predictions, definitions, health, status, materialize) is awaited on the event loop,
    over at most 100 connections at a time; where the caller is cancelled, the server is told. Tables go over Arrow
    Flight in threads: cancelling ends the wait, not the call.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = None,
        ca: FilePath | None = None,
        certificate: FilePath | None = None,
        key: FilePath | None = None,
    ) -> None:
        blocking = Client(url, timeout, headers, token=token, ca=ca, certificate=certificate, key=key)
        self._blocking = blocking
        self.url, self.timeout, self.headers = blocking.url, timeout, blocking.headers
        shown = {**blocking._credentials.headers(), **self.headers}
        self._http = AsyncHttp(Address.parse(url), timeout, headers_of(shown), blocking._credentials)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"quern.AsyncClient({self.url!r})"

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return (_again, (type(self), (self.url, self.timeout, self.headers), self._blocking._given))

    async def close(self) -> None:
        """Drop every connection. The client stays usable: the next request opens a new one."""
        self._http.close()
        self._blocking.close()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(await self._http.ask(request))
        except StopIteration as done:
            result: T = done.value
            return result

    async def get_online_features(
        self,
        features: str | Sequence[str],
        entities: Any,
        full_feature_names: bool = False,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> OnlineFeatures:
        """Look up the features of entities; see `Client.get_online_features`."""
        return await self._run(calls.look_up(features, entities, full_feature_names, headers))

    async def predict(
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
        """Predict by join keys and request columns; see `Client.predict`."""
        terms = Terms(request_id, deadline, priority, headers)
        return await self._run(calls.predict(model, instances, version, with_features, terms))

    async def predict_batch(
        self,
        model: str,
        table: Any,
        version: str | None = None,
        as_of: bool = False,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> pa.Table:
        """Predict for every row of a table; see `Client.predict_batch`."""
        return await asyncio.to_thread(self._blocking.predict_batch, model, table, version, as_of, batch_rows)

    async def predict_batches(
        self,
        model: str,
        table: Any,
        version: str | None = None,
        as_of: bool = False,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> AsyncIterator[pa.RecordBatch]:
        """Stream predictions for a table; see `Client.predict_batches`."""
        opening = asyncio.to_thread(self._blocking.predict_batches, model, table, version, as_of, batch_rows)
        async for batch in _batches(await opening):
            yield batch

    async def training_set(
        self, service: str, spine: Any, as_known: bool = False, batch_rows: int = DEFAULT_BATCH_ROWS
    ) -> pa.Table:
        """Join a spine with what was known at each of its times; see `Client.training_set`."""
        return await asyncio.to_thread(self._blocking.training_set, service, spine, as_known, batch_rows)

    async def training_set_batches(
        self, service: str, spine: Any, as_known: bool = False, batch_rows: int = DEFAULT_BATCH_ROWS
    ) -> AsyncIterator[pa.RecordBatch]:
        """Stream a training set; see `Client.training_set_batches`."""
        opening = asyncio.to_thread(self._blocking.training_set_batches, service, spine, as_known, batch_rows)
        async for batch in _batches(await opening):
            yield batch

    async def push(
        self,
        source: str,
        table: Any,
        to: To = "online_and_offline",
        idempotency_key: str | None = None,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> PushResult:
        """Push rows to a source; see `Client.push`."""
        return await asyncio.to_thread(self._blocking.push, source, table, to, idempotency_key, batch_rows)

    async def predictions(
        self,
        model: str,
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        labelled: bool = False,
    ) -> pa.Table:
        """Pull what was logged of a model's predictions; see `Client.predictions`."""
        return await asyncio.to_thread(self._blocking.predictions, model, from_, to, labelled)

    async def export(
        self,
        view: str,
        features: Sequence[str] | None = None,
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        latest: bool = False,
        at: dt.datetime | str | None = None,
    ) -> AsyncIterator[pa.RecordBatch]:
        """Stream the rows of a feature view; see `Client.export`."""
        opening = asyncio.to_thread(self._blocking.export, view, features, from_, to, latest, at)
        async for batch in _batches(await opening):
            yield batch

    async def export_source(
        self, source: str, from_: dt.datetime | str | None = None, to: dt.datetime | str | None = None
    ) -> AsyncIterator[pa.RecordBatch]:
        """Stream the history of a source; see `Client.export_source`."""
        async for batch in _batches(await asyncio.to_thread(self._blocking.export_source, source, from_, to)):
            yield batch

    async def label(self, model: str, labels: Any) -> int:
        """Tell what came true of predictions; see `Client.label`."""
        return await asyncio.to_thread(self._blocking.label, model, labels)

    async def definitions(self) -> Definitions:
        """Tell what is live; see `Client.definitions`."""
        return await self._run(calls.definitions())

    async def service(self, name: str) -> FeatureService:
        """Tell which columns a feature service takes and gives; see `Client.service`."""
        return await self._run(calls.service(name))

    async def route(
        self,
        model: str,
        weights: Mapping[str, int | str] | None = None,
        ramp: Ramp | None = None,
        *,
        reset: bool = False,
    ) -> Route:
        """Change which version of a model answers whom; see `Client.route`."""
        return await self._run(calls.route(model, weights, ramp, reset))

    async def materialize(
        self,
        views: str | Sequence[str] = (),
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        look_back: dt.timedelta | None = None,
        on_progress: OnProgress | None = None,
    ) -> Materialized:
        """Bring what look-ups read up to date with the sources; see `Client.materialize`."""
        return await self._run(calls.materialize(views, (from_, to), look_back, on_progress))

    async def status(self) -> Status:
        """Tell what is wrong and how far everything is; see `Client.status`."""
        return await self._run(calls.status())

    async def health(self) -> Health:
        """Tell how the server is; see `Client.health`."""
        try:
            return await self._run(calls.health())
        except QuernError as error:
            return Health(False, False, error.message, None)


async def _batches(reader: pa.RecordBatchReader) -> AsyncIterator[pa.RecordBatch]:
    batches = iter(reader)
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        yield batch
