"""How does a table come down for which none goes up? The rows of a view or a source."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import flight

from quern.connection import Connection
from quern.received import Received


class Download:
    """One Flight `DoGet`."""

    def __init__(self, connection: Connection, ticket: bytes) -> None:
        self._connection = connection
        self._received = Received()
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
            yield from self._received.batches(self._reader)
        except (pa.ArrowException, OSError) as error:
            raise self._connection.error(error, self._call) from error
        except GeneratorExit:  # the caller has seen enough
            self._reader.cancel()
            raise
        self._received.warn_of_failed()
