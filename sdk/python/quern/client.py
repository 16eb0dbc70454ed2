"""How does a program ask Quern? One address: HTTP for single answers, Arrow Flight for tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa

from quern import arguments, calls, tables
from quern.address import DEFAULT_URL, Address
from quern.blocking import Http
from quern.calls import OnProgress
from quern.catalogue import Definitions, FeatureService, Health, Materialized
from quern.credentials import Credentials, FilePath
from quern.errors import QuernError
from quern.flights import DEFAULT_BATCH_ROWS, Flights
from quern.push import Command, To
from quern.request import Deadline, Priority, Steps, Terms, checked, headers_of
from quern.results import OnlineFeatures, Prediction, PushResult
from quern.route import Ramp, Route
from quern.status import Status

T = TypeVar("T")

DEFAULT_TIMEOUT_SECONDS = 30.0


def _again(kind: Any, positional: tuple[Any, ...], given: Mapping[str, Any]) -> Any:
    """Make a client that was pickled. A token that was an argument travels with it."""
    return kind(*positional, **given)


class Client:
    """A client of one Quern server. Threads may share it: each keeps a connection of its own. It can be pickled.

    `url` is the server's, as `http://host:port` or `host:port`. `timeout`, in seconds, is for one HTTP request; what
    works on whole tables takes as long as it takes. `headers` go out with every call. `token` is an API key or a JWT;
    `ca`, `certificate` and `key` are PEM files: whom the server's certificate must be of, and the client's own. What is
    not given is taken from `QUERN_TOKEN`, `QUERN_CA`, `QUERN_CERTIFICATE` and `QUERN_KEY`, else from
    `~/.config/quern/credentials.json`.
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
        address = Address.parse(url)
        arguments.seconds("timeout", timeout)
        self.url = address.url
        self.timeout = timeout
        self.headers = checked(headers)
        self._given = {"token": token, "ca": ca, "certificate": certificate, "key": key}
        self._credentials = Credentials.find(address, self._given)
        shown = {**self._credentials.headers(), **self.headers}
        self._http = Http(address, timeout, headers_of(shown), self._credentials)
        self._flights = Flights(address, shown, self._credentials)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"quern.Client({self.url!r})"

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return (_again, (type(self), (self.url, self.timeout, self.headers), self._given))

    def close(self) -> None:
        """Drop every connection. The client stays usable: the next request opens a new one."""
        self._http.close()
        self._flights.close()

    def _run(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                request = steps.send(self._http.ask(request))
        except StopIteration as done:
            result: T = done.value
            return result

    # --- look-up -------------------------------------------------------------------------------------------------

    def get_online_features(
        self,
        features: str | Sequence[str],
        entities: Any,
        full_feature_names: bool = False,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> OnlineFeatures:
        """Look up the features of entities.

        `features` names a feature service, or lists features as `view:feature`. `entities` holds the join keys and
        the request columns: a dict of columns, a list of rows, or a table of pyarrow, pandas or polars. A column
        `event_timestamp` asks for what was known at that time, for each entity. More entities than the server answers
        at a time are asked about in several requests.
        """
        return self._run(calls.look_up(features, entities, full_feature_names, headers))

    # --- prediction ----------------------------------------------------------------------------------------------

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
        """Predict by join keys and request columns; the server looks up the rest.

        `instances` is a list of rows, or a table of pyarrow, pandas or polars. Each may bring an `event_timestamp`, to
        be answered with what was known then. The result is the list of predictions: for each instance a value (or a
        row), of a model with several outputs `{output: value}`. It also says who answered each, and under which request
        it is logged. `with_features` tells the feature vectors and their times, too.

        `request_id` names the request, in the log of predictions and for `label`. `deadline`, in seconds or as a
        `timedelta`, says how long somebody waits, `priority` whether somebody does (`interactive`) or not (`batch`).
        More instances than the server answers at a time are asked about in several requests, one after the other; the
        second is called `request_id.1`, and so on.
        """
        terms = Terms(request_id, deadline, priority, headers)
        return self._run(calls.predict(model, instances, version, with_features, terms))

    def predict_batch(
        self,
        model: str,
        table: Any,
        version: str | None = None,
        as_of: bool = False,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> pa.Table:
        """Predict for every row of a table: its columns come back as they are, then the model's outputs.

        `table` is a table of pyarrow, pandas or polars with the join keys, the request columns and anything else. All
        rows are answered with what is known now; with `as_of`, each with what was known at its `event_timestamp`, as
        the model's training set has it.
        """
        return self._flights.exchange_all(_batch(model, version, as_of), table, batch_rows)

    def predict_batches(
        self,
        model: str,
        table: Any,
        version: str | None = None,
        as_of: bool = False,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> pa.RecordBatchReader:
        """Stream predictions for a table, or a stream of batches, that does not fit into memory; see `predict_batch`.

        The schema is known before the first batch. Rows go up while others come down; with `as_of` all go up first.
        """
        return self._flights.exchange(_batch(model, version, as_of), table, batch_rows)

    # --- training sets -------------------------------------------------------------------------------------------

    def training_set(
        self, service: str, spine: Any, as_known: bool = False, batch_rows: int = DEFAULT_BATCH_ROWS
    ) -> pa.Table:
        """Join a spine with what was known at each of its times: one row for each of its rows, in its order.

        `spine` is a table of pyarrow, pandas or polars with the join keys, `event_timestamp`, the request columns and
        anything else, such as a label. Its columns come first, then the service's outputs in the service's order, what
        the spine brings of them included; the schema's metadata names them (`quern.outputs`). With `as_known`, rows
        that were recorded after a time are not used for it, even where they tell of an earlier one. Values that could
        not be computed are null and counted by feature: a warning says so, and the metadata (`quern.failed`, JSON), in
        which also stands what the table was made of (`quern.training_set`, for `trained_on` of a model's version).
        """
        return self._flights.exchange_all(_training_set(service, as_known), spine, batch_rows)

    def training_set_batches(
        self, service: str, spine: Any, as_known: bool = False, batch_rows: int = DEFAULT_BATCH_ROWS
    ) -> pa.RecordBatchReader:
        """Stream a training set, for one that does not fit into memory; see `training_set`.

        The schema is known before the first batch. `batch_rows` bounds the batches that go up.
        """
        return self._flights.exchange(_training_set(service, as_known), spine, batch_rows)

    # --- pushed rows ---------------------------------------------------------------------------------------------

    def push(
        self,
        source: str,
        table: Any,
        to: To = "online_and_offline",
        idempotency_key: str | None = None,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> PushResult:
        """Push rows to a source; when this returns, all that it counts are durable.

        `table` is a dict of columns, a list of rows, or a table of pyarrow, pandas or polars, with the source's
        columns; times may be texts as ISO 8601 has them. `batch_rows` bounds the batches that go up; each is taken
        wholly but for the rows that are rejected. An overloaded server is given the time that it asks for, and then the
        rest, several times.

        With an `idempotency_key`, pushing the same table in the same batches again counts nothing twice, so a lost
        connection is tried again too. A push that fails for good raises `PushError`, whose `result` says what was
        taken.
        """
        return self._flights.push(Command(source, to, idempotency_key), table, batch_rows)

    # --- what models said, and what came true ----------------------------------------------------------------------

    def predictions(
        self,
        model: str,
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        labelled: bool = False,
    ) -> pa.Table:
        """Pull what was logged of a model's predictions, with what came true of them.

        `from_` and `to` bound the time of arrival: from the first on, before the second. Every logged prediction is a
        row; with `labelled`, those that have a label. Columns are the request's (`request_id`, `row`, `arrived_at`,
        `event_timestamp`, `version`, `digest`, `reason`, `served_by`, `latency_us`, `principal`), the training set's
        by their own names, the model's outputs as `prediction.NAME`, and those that came with the labels. Rows whose
        `reason` is `shadow` are no answers: leave them out to see what callers were told.
        """
        asked = {
            "predictions": arguments.text("model", model, "the name of a model"),
            "from_us": tables.moment("from_", from_),
            "to_us": tables.moment("to", to),
            "labelled": arguments.flag("labelled", labelled),
        }
        return self._flights.pull(asked)

    def label(self, model: str, labels: Any) -> int:
        """Tell what came true of predictions; when this returns, all labels are durable. Gives their number.

        `labels` is what `Prediction.labels` gives, a list of rows, or a table of pyarrow, pandas or polars:
        `request_id`, `row` (0 where there is no such column), and what came true in any other columns, such as `label`.
        Of several labels for one request and row the last counts, for predictions that this client asked for; for all
        of the model where it may read the model's log.
        """
        return self._flights.label(model, labels)

    # --- rows ------------------------------------------------------------------------------------------------------

    def export(
        self,
        view: str,
        features: Sequence[str] | None = None,
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        latest: bool = False,
        at: dt.datetime | str | None = None,
    ) -> pa.RecordBatchReader:
        """Stream the rows of a feature view, in the order in which they arrived.

        Columns are the join keys, `event_timestamp`, `created_timestamp` where the view's source has one, and the
        features, all or those that are named. `from_` and `to` bound the event timestamp: from the first on, before the
        second. With `latest` there is one row for each entity instead, with what a look-up finds `at` a moment, now
        unless one is named; of a view with windows these are the rows there are.

        The result reads as a stream (`for batch in …`), or whole: `.read_all()`, `.read_pandas()`.
        """
        asked = {
            "view": arguments.text("view", view, "the name of a feature view"),
            "features": [] if features is None else arguments.texts("features", features, "names of features"),
            "from_us": tables.moment("from_", from_),
            "to_us": tables.moment("to", to),
            "latest": arguments.flag("latest", latest),
            "at_us": tables.moment("at", at),
        }
        return self._flights.stream(asked)

    def export_source(
        self, source: str, from_: dt.datetime | str | None = None, to: dt.datetime | str | None = None
    ) -> pa.RecordBatchReader:
        """Stream the history of a source, files and what was pushed, in its own columns; for administrators.

        `from_` and `to` bound the event timestamp: from the first on, before the second.
        """
        asked = {
            "source": arguments.text("source", source, "the name of a source"),
            "from_us": tables.moment("from_", from_),
            "to_us": tables.moment("to", to),
        }
        return self._flights.stream(asked)

    # --- the server itself -----------------------------------------------------------------------------------------

    def definitions(self) -> Definitions:
        """Tell what is live: entities, feature views, feature services, models."""
        return self._run(calls.definitions())

    def service(self, name: str) -> FeatureService:
        """Tell which columns a feature service takes, which it gives, in which order and of which types."""
        return self._run(calls.service(name))

    def route(
        self,
        model: str,
        weights: Mapping[str, int | str] | None = None,
        ramp: Ramp | None = None,
        *,
        reset: bool = False,
    ) -> Route:
        """Change which version of a model answers whom, at once and on all servers.

        `weights` has shares by version: `{"2": 50}` is a weight beside those of the others, which keep theirs, `{"2":
        "10%"}` a part of all. `ramp` has the share of one version go through steps by itself, and stops and goes back
        where the version fails or is slow: `Ramp("2", ["10%", "50%", "100%"], "10m")`. `reset` gives back the weights
        that are declared. Either ends a ramp of the model that goes on.
        """
        return self._run(calls.route(model, weights, ramp, reset))

    def materialize(
        self,
        views: str | Sequence[str] = (),
        from_: dt.datetime | str | None = None,
        to: dt.datetime | str | None = None,
        look_back: dt.timedelta | None = None,
        on_progress: OnProgress | None = None,
    ) -> Materialized:
        """Bring what look-ups read up to date with the sources: of one or more feature views, or of all.

        By default from where the last run stopped up to now. `from_` and `to` bound the query times of a backfill,
        `look_back` says how far before the last run rows are looked for that came late. `on_progress` gets a view, the
        rows passed and the rows to pass, again and again.
        """
        return self._run(calls.materialize(views, (from_, to), look_back, on_progress))

    def status(self) -> Status:
        """Tell what is wrong, how far each feature view is, what came of its last run, and what the stores hold."""
        return self._run(calls.status())

    def health(self) -> Health:
        """Tell how the server is; one that nobody reaches is neither live nor ready, and no error."""
        try:
            return self._run(calls.health())
        except QuernError as error:
            return Health(False, False, error.message, None)


def _batch(model: str, version: str | None, as_of: bool) -> dict[str, Any]:
    return {
        "model": arguments.text("model", model, "the name of a model"),
        "version": arguments.version(version),
        "as_of": arguments.flag("as_of", as_of),
    }


def _training_set(service: str, as_known: bool) -> dict[str, Any]:
    return {"feature_service": service, "as_known": as_known}
