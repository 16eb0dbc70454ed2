"""How does a program ask Quern? One address: HTTP for single answers, Arrow Flight for tables."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, overload
from urllib.parse import quote, urlsplit

import pyarrow as pa
from pyarrow import flight

from quern import errors, tables
from quern.connection import Connection
from quern.exchange import Exchange
from quern.push import Command, To, Upload
from quern.results import OnlineFeatures, Prediction, PushResult

DEFAULT_URL = "http://127.0.0.1:7400"
DEFAULT_TIMEOUT_SECONDS = 30.0
DEFAULT_BATCH_ROWS = 65_536


class Client:
    """A client of one Quern server. Threads may share it: each keeps a connection of its own.

    `timeout`, in seconds, is for one HTTP request. A training set takes as long as it takes.
    """

    def __init__(self, url: str = DEFAULT_URL, timeout: float = DEFAULT_TIMEOUT_SECONDS) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"{url!r} is not the address of a server; one looks like {DEFAULT_URL}")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._connections: list[http.client.HTTPConnection] = []
        self._flight: Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"quern.Client({self.url!r})"

    def close(self) -> None:
        """Drop every connection. The client stays usable: the next request opens a new one."""
        with self._lock:
            connections, self._connections = self._connections, []
            opened, self._flight = self._flight, None
            self._thread = threading.local()
        for connection in connections:
            connection.close()
        if opened is not None:
            opened.client.close()

    # --- look-up -------------------------------------------------------------------------------------------------

    def get_online_features(
        self, features: str | Sequence[str], entities: Any, full_feature_names: bool = False
    ) -> OnlineFeatures:
        """Look up the features of entities.

        `features` names a feature service, or lists features as `view:feature`. `entities` holds the join keys and
        the request columns: a dict of columns, a list of rows, or a table of pyarrow, pandas or polars. A column
        `event_timestamp` asks for what was known at that time, for each entity.
        """
        asked = {"feature_service": features} if isinstance(features, str) else {"features": list(features)}
        body = {**asked, "entities": tables.json_columns(entities), "full_feature_names": full_feature_names}
        return OnlineFeatures.from_reply(self._post("/get-online-features", body))

    # --- prediction ----------------------------------------------------------------------------------------------

    @overload
    def predict(
        self, model: str, instances: Any, version: str | None = None, with_features: Literal[False] = False
    ) -> list[Any]: ...

    @overload
    def predict(
        self, model: str, instances: Any, version: str | None = None, *, with_features: Literal[True]
    ) -> Prediction: ...

    def predict(
        self, model: str, instances: Any, version: str | None = None, with_features: bool = False
    ) -> list[Any] | Prediction:
        """Predict by join keys and request columns; the server looks up the rest.

        `instances` is a list of rows, or a table of pyarrow, pandas or polars. Each may bring an `event_timestamp`, to
        be answered with what was known then. A model of one output gives a value (or a row) for each instance, one of
        several gives `{output: value}`. `with_features` tells the feature vectors, their times and the version too.
        """
        path = f"/v1/models/{quote(model, safe='')}"
        if version is not None:
            path += f"/versions/{quote(str(version), safe='')}"
        body = {"instances": tables.json_rows(instances), "with_features": with_features}
        reply = self._post(path + ":predict", body)
        if not with_features:
            return list(reply["predictions"])
        return Prediction(
            predictions=reply["predictions"],
            model_version=reply["model_version"],
            feature_service=reply["feature_service"],
            features=OnlineFeatures.from_rows(reply["features"]),
        )

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
        return self.predict_batches(model, table, version, as_of, batch_rows).read_all()

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
        if batch_rows < 1:
            raise ValueError(f"batch_rows is {batch_rows}; it must be at least 1")
        asked = {"model": model, "version": None if version is None else str(version), "as_of": as_of}
        source = tables.to_reader(table)
        exchange = Exchange(self._flight_connection(), json.dumps(asked).encode(), source, batch_rows)
        return pa.RecordBatchReader.from_batches(exchange.schema, exchange.batches())

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        sent = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        status, reason, received = self._exchange("POST", path, sent)
        if status != http.client.OK:
            raise errors.from_http(status, reason, received)
        return json.loads(received)

    def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, str, bytes]:
        connection = self._connection()
        kept = connection.sock is not None
        try:
            return self._round_trip(connection, method, path, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            connection.close()
            if not kept:
                raise self._unreachable(error) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error
        except BaseException:
            connection.close()  # half a reply would answer the next request
            raise
        # The server had closed the connection while it lay idle: it never saw the request, so we send it again.
        try:
            return self._round_trip(connection, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._unreachable(error) from error

    def _round_trip(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: bytes
    ) -> tuple[int, str, bytes]:
        connection.request(method, path, body, {"Content-Type": "application/json", "Accept": "application/json"})
        response = connection.getresponse()
        return response.status, response.reason, response.read()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._thread, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
            connection = kind(self._host, self._port, timeout=self.timeout)
            with self._lock:
                self._connections.append(connection)
            self._thread.connection = connection
        return connection

    def _unreachable(self, error: Exception) -> errors.QuernError:
        if isinstance(error, TimeoutError):
            return errors.QuernError(504, "deadline_exceeded", f"{self.url} did not answer within {self.timeout:g} s")
        return errors.QuernError(503, "unavailable", f"no answer from {self.url}: {error or type(error).__name__}")

    # --- training sets -------------------------------------------------------------------------------------------

    def training_set(
        self, service: str, spine: Any, as_known: bool = False, batch_rows: int = DEFAULT_BATCH_ROWS
    ) -> pa.Table:
        """Join a spine with what was known at each of its times: one row for each of its rows, in its order.

        `spine` is a table of pyarrow, pandas or polars with the join keys, `event_timestamp`, the request columns and
        anything else, such as a label. Its columns come first, then the service's outputs. With `as_known`, rows that
        were recorded after a time are not used for it, even where they tell of an earlier one.
        """
        return self.training_set_batches(service, spine, as_known, batch_rows).read_all()

    def training_set_batches(
        self, service: str, spine: Any, as_known: bool = False, batch_rows: int = DEFAULT_BATCH_ROWS
    ) -> pa.RecordBatchReader:
        """Stream a training set, for one that does not fit into memory; see `training_set`.

        The schema is known before the first batch. `batch_rows` bounds the batches that go up.
        """
        if batch_rows < 1:
            raise ValueError(f"batch_rows is {batch_rows}; it must be at least 1")
        command = json.dumps({"feature_service": service, "as_known": as_known}).encode()
        source = tables.to_reader(spine)
        exchange = Exchange(self._flight_connection(), command, source, batch_rows)
        return pa.RecordBatchReader.from_batches(exchange.schema, exchange.batches())

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
        columns. `batch_rows` bounds the batches that go up; each is taken wholly but for the rows that are rejected.
        An overloaded server is given the time that it asks for, and then the rest, several times.

        With an `idempotency_key`, pushing the same table in the same batches again counts nothing twice, so a lost
        connection is tried again too. A push that fails for good raises `PushError`, whose `result` says what was
        taken.
        """
        if batch_rows < 1:
            raise ValueError(f"batch_rows is {batch_rows}; it must be at least 1")
        reader = tables.to_reader(table)
        batches = list(tables.messages(reader, batch_rows))
        command = Command(source, to, idempotency_key)
        return Upload(self._flight_connection(), command, reader.schema, batches).run()

    # --- what models said, and what came true ----------------------------------------------------------------------

    def predictions(
        self,
        model: str,
        from_: dt.datetime | None = None,
        to: dt.datetime | None = None,
        labelled: bool = False,
    ) -> pa.Table:
        """Pull what was logged of a model's predictions, with what came true of them.

        `from_` and `to` bound the time of arrival: from the first on, before the second. Every logged prediction is a
        row; with `labelled`, those that have a label. Columns are the request's (`request_id`, `row`, `arrived_at`,
        `event_timestamp`, `version`, `reason`, `latency_us`), the training set's by their own names, the model's
        outputs as `prediction.NAME`, and those that came with the labels.
        """
        asked = {"predictions": model, "from_us": _moment(from_), "to_us": _moment(to), "labelled": labelled}
        connection = self._flight_connection()
        try:
            reader = connection.client.do_get(flight.Ticket(json.dumps(asked).encode()))
            return reader.read_all()
        except (pa.ArrowException, OSError) as error:
            raise connection.error(error) from error

    def label(self, model: str, labels: Any) -> int:
        """Tell what came true of predictions; when this returns, all labels are durable. Gives their number.

        `labels` is a list of rows, or a table of pyarrow, pandas or polars: `request_id`, `row` (0 where there is no
        such column), and what came true in any other columns, such as `label`. Of several labels for one request and
        row the last counts.
        """
        reader = tables.to_reader(labels)
        batches = list(tables.messages(reader, DEFAULT_BATCH_ROWS))
        descriptor = flight.FlightDescriptor.for_command(json.dumps({"labels": model}).encode())
        accepted = 0
        connection = self._flight_connection()
        try:
            writer, replies = connection.client.do_put(descriptor, reader.schema)
            with writer:
                for batch in batches:
                    writer.write_batch(batch)
                    reply = replies.read()
                    # The server has ended the call; closing tells why.
                    if reply is None:
                        break
                    accepted += json.loads(reply.to_pybytes())["accepted"]
                writer.done_writing()
        except (pa.ArrowException, OSError) as error:
            raise connection.error(error) from error
        return accepted

    def _flight_connection(self) -> Connection:
        with self._lock:
            if self._flight is None:
                host = f"[{self._host}]" if ":" in self._host else self._host
                location = f"{'grpc+tls' if self._tls else 'grpc'}://{host}:{self._port}"
                self._flight = Connection(location, self.url)
            return self._flight


def _moment(time: dt.datetime | None) -> int | None:
    """Microseconds since the epoch; a naive time is UTC."""
    return None if time is None else tables.microseconds(time)
