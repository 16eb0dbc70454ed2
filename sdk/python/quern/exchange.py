"""How does one table go up while another comes down?"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import flight

from quern import tables
from quern.connection import Connection
from quern.received import Received

FAILED = b"quern.failed"
TRAINING_SET = b"quern.training_set"


class Exchange:
    """One Flight `DoExchange`.

    The upload has a thread of its own: a server that answers as it goes would else wait for us to read, and we for it
    to take what we write.
    """

    def __init__(self, connection: Connection, command: bytes, source: pa.RecordBatchReader, batch_rows: int) -> None:
        self._connection, self._source, self._batch_rows = connection, source, batch_rows
        self._upload_error: Exception | None = None
        self._received = Received()
        self._upload = threading.Thread(target=self._send, name="quern-upload", daemon=True)
        try:
            descriptor = flight.FlightDescriptor.for_command(command)
            self._writer, self._reader = connection.client.do_exchange(descriptor)
            self._call = connection.last_call()
        except (pa.ArrowException, OSError) as error:
            raise connection.error(error) from error
        self._upload.start()
        try:
            self.schema: pa.Schema = self._reader.schema
            """Of what comes down; known before the first batch."""
        except (pa.ArrowException, OSError) as error:
            raise self._failed(error) from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Give what comes down."""
        try:
            yield from self._received.batches(self._reader)
        except (pa.ArrowException, OSError) as error:
            raise self._failed(error) from error
        except GeneratorExit:  # the caller has seen enough
            self._reader.cancel()
            self._close()
            raise
        self._close()
        if self._upload_error is not None:
            raise self._upload_error
        self._received.warn_of_failed()

    def read_all(self) -> pa.Table:
        """Give all that comes down.

        In the schema's metadata `quern.failed` counts what could not be computed, and `quern.training_set` says what a
        training set was made of.
        """
        table = pa.Table.from_batches(self.batches(), self.schema)
        told = {FAILED: self._received.failed, TRAINING_SET: self._received.pin}
        said = {key: json.dumps(what, sort_keys=True).encode() for key, what in told.items() if what}
        return table.replace_schema_metadata({**(table.schema.metadata or {}), **said}) if said else table

    def _send(self) -> None:
        # What ends the call early is told to whoever reads.
        with contextlib.suppress(Exception):
            self._writer.begin(self._source.schema)
            for batch in self._to_send():
                self._writer.write_batch(batch)
            self._writer.done_writing()

    def _to_send(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from tables.messages(self._source, self._batch_rows)
        except Exception as error:  # a stream of the caller's fails with any error it likes
            self._upload_error = error
            self._reader.cancel()
            raise

    def _close(self) -> None:
        self._upload.join()
        # Not sooner: closing reads what is left, which would be ours. It repeats errors that are told already.
        with contextlib.suppress(Exception):
            self._writer.close()

    def _failed(self, error: Exception) -> Exception:
        self._close()
        # The caller's own stream comes first: the call failed because of it.
        return self._upload_error or self._connection.error(error, self._call)
