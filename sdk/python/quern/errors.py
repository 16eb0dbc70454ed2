"""What went wrong, in the server's words?"""

from __future__ import annotations

import json
import re

import pyarrow as pa
from pyarrow import flight


class QuernError(Exception):
    """A request that the server refused, or that never reached it.

    `status` is an HTTP status, over Flight too; `code` is the server's name for the kind of error; `message` says what
    is wrong and what to do about it.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[QuernError], tuple[int, str, str]]:
        # Exceptions cross process borders in pools; the default would call us with the message alone.
        return (QuernError, (self.status, self.code, self.message))


def from_http(status: int, reason: str, body: bytes) -> QuernError:
    """Read the server's error body, `{"error": message, "code": code}`; whatever a proxy sent is shown as it is."""
    try:
        told = json.loads(body)
        return QuernError(status, str(told["code"]), str(told["error"]))
    except (ValueError, KeyError, TypeError):
        return QuernError(status, "unknown", body.decode("utf-8", "replace").strip() or reason)


# pyarrow turns gRPC codes into exception classes, some of which derive from others: the first that fits is the one.
_FLIGHT_ERRORS: list[tuple[type[Exception], int, str]] = [
    (flight.FlightUnauthenticatedError, 401, "unauthenticated"),
    (flight.FlightUnauthorizedError, 403, "permission_denied"),
    (flight.FlightUnavailableError, 503, "unavailable"),
    (flight.FlightTimedOutError, 504, "deadline_exceeded"),
    (flight.FlightCancelledError, 499, "cancelled"),
    (pa.ArrowNotImplementedError, 501, "unimplemented"),
    (pa.ArrowKeyError, 404, "not_found"),
    (pa.ArrowInvalid, 400, "invalid_argument"),
    (pa.ArrowMemoryError, 413, "resource_exhausted"),
]

# pyarrow shows "Flight returned invalid argument error, with message: <the server's words>. gRPC client debug context:
# <the same again>. Client context: <what broke here because of that>".
_BEFORE = re.compile(r"\AFlight returned [a-z ]+(?:\(\d+\))?, with message: ")
_AFTER = re.compile(r"(?:\. Detail: \w+)?\. (?:gRPC client debug context|Client context): .*\Z", re.S)


def from_flight(error: Exception, url: str) -> QuernError:
    """Undo what gRPC and pyarrow wrap around the server's words."""
    status, code = next(((s, c) for kind, s, c in _FLIGHT_ERRORS if isinstance(error, kind)), (500, "internal"))
    message = _AFTER.sub("", _BEFORE.sub("", str(error.args[0]) if error.args else str(error)))
    if message.startswith("failed to connect"):
        message = f"no answer from {url}: {message}"
    return QuernError(status, code, message)
