"""What does a Flight call tell that pyarrow keeps to itself? When the server wants a refused one again."""

from __future__ import annotations

import threading
from typing import Any

from pyarrow import flight

from quern import errors

_RETRY_PUSHBACK_MS = "grpc-retry-pushback-ms"


class Call(flight.ClientMiddleware):  # type: ignore[misc] # pyarrow has no types
    """One call, and what its metadata said."""

    retry_after: float | None = None
    """In seconds, where the server named a time."""

    def received_headers(self, headers: dict[str, list[Any]]) -> None:
        """Called by pyarrow, for the trailers as well."""
        for value in headers.get(_RETRY_PUSHBACK_MS, []):
            self.retry_after = int(value) / 1_000


class _Calls(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.local()

    def start_call(self, info: flight.CallInfo) -> Call:
        call = Call()
        self._thread.call = call
        return call

    def last(self) -> Call:
        return getattr(self._thread, "call", None) or Call()


class Connection:
    """A Flight client to one server, which threads may share."""

    def __init__(self, location: str, url: str) -> None:
        self.url = url
        self._calls = _Calls()
        self.client = flight.FlightClient(location, middleware=[self._calls])

    def last_call(self) -> Call:
        """Give the call that this thread began last."""
        return self._calls.last()

    def error(self, cause: Exception, call: Call | None = None) -> errors.QuernError:
        """Say what ended `call`, or the last one of this thread."""
        return errors.from_flight(cause, self.url, (call or self.last_call()).retry_after)
