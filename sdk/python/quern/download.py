"""How does a table come down for which none goes up? The rows of a view or a source."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import flight

from quern.connection import Connection
from quern.exchange import warn_of_failed
from quern.results import added


class Download:
    """One Flight `DoGet`."""

    def __init__(self, connection: Connection, ticket: bytes) -> None:
        self._connection = connection
        self.failed: dict[str, int] = {}
        """For each feature whose expression failed, for how many of the rows that came; its value is null there."""
        try:
            self._reader = connection.client.do_get(flight.Ticket(ticket))
            self._call = connection.last_call()
            self.schema: pa.Schema = self._reader.schema
            """Of what comes down; known before the first batch."""
        except (pa.ArrowException, OSError) as error:
            raise connection.error(error) from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Give what comes down."""
        try:
            for chunk in self._reader:
                if chunk.app_metadata is not None:
                    self._note(chunk.app_metadata.to_pybytes())
                if chunk.data is not None:
                    yield chunk.data
        except (pa.ArrowException, OSError) as error:
            raise self._connection.error(error, self._call) from error
        except GeneratorExit:  # the caller has seen enough
            self._reader.cancel()
            raise
        warn_of_failed(self.failed)

    def _note(self, notes: bytes) -> None:
        """Take what the server says besides rows; of other servers it may be anything."""
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            self.failed = added([self.failed, json.loads(notes).get("failed", {})])
