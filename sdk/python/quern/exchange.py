"""How does one table go up while another comes down?"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from pyarrow import flight

from quern import tables
from quern.connection import Connection
from quern.results import added

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
        self.failed: dict[str, int] = {}
        """For each feature whose expression failed, for how many of the rows that came; its value is null there."""
        self.pin: dict[str, Any] | None = None
        """What a training set was made of; known after its last batch."""
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
            for chunk in self._reader:
                if chunk.app_metadata is not None:
                    self._note(chunk.app_metadata.to_pybytes())
                if chunk.data is not None:
                    yield chunk.data
        except (pa.ArrowException, OSError) as error:
            raise self._failed(error) from error
        except GeneratorExit:  # the caller has seen enough
            self._reader.cancel()
            self._close()
            raise
        self._close()
        if self._upload_error is not None:
            raise self._upload_error
        warn_of_failed(self.failed)

    def read_all(self) -> pa.Table:
        """Give all that comes down.

        In the schema's metadata `quern.failed` counts what could not be computed, and `quern.training_set` says what a
        training set was made of.
        """
        table = pa.Table.from_batches(self.batches(), self.schema)
        told = {FAILED: self.failed, TRAINING_SET: self.pin}
        said = {key: json.dumps(what, sort_keys=True).encode() for key, what in told.items() if what}
        return table.replace_schema_metadata({**(table.schema.metadata or {}), **said}) if said else table

    def _note(self, notes: bytes) -> None:
        """Take what the server says besides rows; of other servers it may be anything."""
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            told = json.loads(notes)
            self.failed = added([self.failed, told.get("failed", {})])
            self.pin = told.get("pin", self.pin)
            _warn_of_coinciding(told)

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


def warn_of_failed(failed: Mapping[str, int]) -> None:
    """Say of how many rows each feature is null because it could not be computed."""
    for feature, count in failed.items():
        values = "1 value" if count == 1 else f"{count} values"
        _warn(f"{values} of `{feature}` could not be computed")


def _warn_of_coinciding(told: Mapping[str, Any]) -> None:
    for view, count in told.get("coinciding", {}).items():
        _warn(
            f"{count} of {told.get('rows')} rows of the spine see a row of feature view `{view}` that became "
            "visible at their own `event_timestamp`; where it is the very event that they stand for, say "
            "`at: before` in the view, or name it by `exclude_event` in the feature service"
        )


def _warn(told: str) -> None:
    """Say what the server found odd about a table, where the caller's program is and not where this module is."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("quern."):
        level, frame = level + 1, frame.f_back
    warnings.warn(told, stacklevel=level)
