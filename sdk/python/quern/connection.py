"""What do the headers of a Flight call say, which pyarrow keeps to itself? Who asks, and when to come again."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from pyarrow import flight

from quern import errors
from quern.address import Address
from quern.credentials import Credentials

_RETRY_PUSHBACK_MS = "grpc-retry-pushback-ms"


class Call(flight.ClientMiddleware):  # type: ignore[misc] # pyarrow has no types
    """One call, and what its metadata said."""

    retry_after: float | None = None
    """In seconds, where the server named a time."""
    request_id: str | None = None

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._headers = dict(headers or {})

    def sending_headers(self) -> dict[str, str]:
        """Called by pyarrow."""
        return self._headers

    def received_headers(self, headers: dict[str, list[Any]]) -> None:
        """Called by pyarrow, for the trailers as well."""
        for value in headers.get(_RETRY_PUSHBACK_MS, []):
            self.retry_after = int(value) / 1_000
        for value in headers.get("x-request-id", []):
            self.request_id = str(value)


class _Calls(flight.ClientMiddlewareFactory):  # type: ignore[misc]
    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__()
        self._headers = headers
        self._thread = threading.local()

    def start_call(self, info: flight.CallInfo) -> Call:
        call = Call(self._headers)
        self._thread.call = call
        return call

    def last(self) -> Call:
        return getattr(self._thread, "call", None) or Call()


class Connection:
    """A Flight client to one server, which threads may share."""

    def __init__(self, address: Address, headers: Mapping[str, str], credentials: Credentials) -> None:
        self.url = address.url
        self._calls = _Calls(headers)
        location = f"{'grpc+tls' if address.tls else 'grpc'}://{address.authority}"
        options = credentials.of_flight() if address.tls else {}
        self.client = flight.FlightClient(location, middleware=[self._calls], **options)

    def last_call(self) -> Call:
        """Give the call that this thread began last."""
        return self._calls.last()

    def error(self, cause: Exception, call: Call | None = None) -> errors.QuernError:
        """Say what ended `call`, or the last one of this thread."""
        call = call or self.last_call()
        error = errors.from_flight(cause, self.url, call.retry_after)
        error.request_id = call.request_id
        return error
