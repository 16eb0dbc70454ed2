"""Which tables go up and come down over Arrow Flight? Training sets, predictions, pushed rows, labels."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pyarrow import flight

from quern import arguments, tables
from quern.address import Address
from quern.connection import Connection
from quern.credentials import Credentials
from quern.download import Download
from quern.exchange import Exchange
from quern.push import Command, Upload
from quern.results import PushResult

DEFAULT_BATCH_ROWS = 65_536


class Flights:
    """Arrow Flight to one server, which threads may share."""

    def __init__(self, address: Address, headers: Mapping[str, str], credentials: Credentials) -> None:
        self._address, self._headers, self._credentials = address, dict(headers), credentials
        self._lock = threading.Lock()
        self._opened: Connection | None = None

    def close(self) -> None:
        """Drop the connection; the next call opens a new one."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened.client.close()

    def exchange(self, command: Mapping[str, Any], table: Any, batch_rows: int) -> pa.RecordBatchReader:
        """Send a table up and give what comes down; the schema is known before the first batch."""
        exchange = self._exchange(command, table, batch_rows)
        return pa.RecordBatchReader.from_batches(exchange.schema, exchange.batches())

    def exchange_all(self, command: Mapping[str, Any], table: Any, batch_rows: int) -> pa.Table:
        """Send a table up and give all that comes down."""
        return self._exchange(command, table, batch_rows).read_all()

    def _exchange(self, command: Mapping[str, Any], table: Any, batch_rows: int) -> Exchange:
        arguments.count("batch_rows", batch_rows)
        return Exchange(self._connection(), json.dumps(command).encode(), tables.to_reader(table), batch_rows)

    def push(self, command: Command, table: Any, batch_rows: int) -> PushResult:
        """Send rows up until each batch is acknowledged."""
        arguments.count("batch_rows", batch_rows)
        reader = tables.to_reader(table)
        batches = list(tables.messages(reader, batch_rows))
        return Upload(self._connection(), command, reader.schema, batches).run()

    def pull(self, ticket: Mapping[str, Any]) -> pa.Table:
        """Pull a table."""
        connection = self._connection()
        try:
            return connection.client.do_get(flight.Ticket(json.dumps(ticket).encode())).read_all()
        except (pa.ArrowException, OSError) as error:
            raise connection.error(error) from error

    def stream(self, ticket: Mapping[str, Any]) -> pa.RecordBatchReader:
        """Stream a table; the schema is known before the first batch."""
        download = Download(self._connection(), json.dumps(ticket).encode())
        return pa.RecordBatchReader.from_batches(download.schema, download.batches())

    def label(self, model: str, labels: Any) -> int:
        """Send labels up, batch by batch, each once the one before is durable."""
        arguments.text("model", model, "the name of a model")
        reader = tables.to_reader(labels)
        batches = list(tables.messages(reader, DEFAULT_BATCH_ROWS))
        descriptor = flight.FlightDescriptor.for_command(json.dumps({"labels": model}).encode())
        accepted = 0
        connection = self._connection()
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

    def _connection(self) -> Connection:
        with self._lock:
            if self._opened is None:
                self._opened = Connection(self._address, self._headers, self._credentials)
            return self._opened
