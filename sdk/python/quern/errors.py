"""What went wrong, in the server's words?"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import flight

if TYPE_CHECKING:
    from quern.results import PushResult


class QuernError(Exception):
    """A request that the server refused, or that never reached it.

    `status` is an HTTP status, over Flight too; `code` is the server's name for the kind of error; `message` says what
    is wrong and what to do about it. `retry_after`, in seconds, is when an overloaded server wants the same request
    again.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[QuernError], tuple[object, ...]]:
        # Exceptions cross process borders in pools; the default would call us with the message alone.
        return (QuernError, (self.status, self.code, self.message, self.retry_after))


class PushError(QuernError):
    """A push that ended before all rows were up. `result` says what became of those that were: they are durable."""

    def __init__(self, cause: QuernError, result: PushResult) -> None:
        taken = result.accepted + result.repeated
        told = f" ({taken} rows had been taken before)" if taken else ""
        super().__init__(cause.status, cause.code, cause.message + told, cause.retry_after)
        self.cause = cause
        self.result = result

    def __reduce__(self) -> tuple[type[QuernError], tuple[object, ...]]:
        return (PushError, (self.cause, self.result))


def from_http(status: int, reason: str, body: bytes) -> QuernError:
    """Read the server's error body, `{"error": message, "code": code, ...}`; what a proxy sent is shown as it is."""
    try:
        told = json.loads(body)
        code, message = str(told["code"]), str(told["error"])
        retry_after_ms = told.get("retry_after_ms")
        return QuernError(status, code, message, None if retry_after_ms is None else retry_after_ms / 1_000)
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
# <the same again>. Client context: <what broke here because of that>". gRPC codes that Flight has no class for are
# `pa.ArrowInvalid`, and "gRPC returned precondition failed error, with message: ...".
_BEFORE = re.compile(r"\A(?:Flight|gRPC) returned ([a-z ]+?)(?: error)?(?:\(\d+\))?, with message: ")
_AFTER = re.compile(r"(?:\. Detail: \w+)?\. (?:gRPC client debug context|Client context): .*\Z", re.S)


def from_flight(error: Exception, url: str, retry_after: float | None = None) -> QuernError:
    """Undo what gRPC and pyarrow wrap around the server's words; `retry_after` is what its metadata said."""
    status, code = next(((s, c) for kind, s, c in _FLIGHT_ERRORS if isinstance(error, kind)), (500, "internal"))
    shown = str(error.args[0]) if error.args else str(error)
    message = _AFTER.sub("", _BEFORE.sub("", shown))
    before = _BEFORE.match(shown)
    if before is not None and before[1] == "precondition failed":
        status, code = 409, "refused"
    if before is not None and before[1] == "resource exhausted":
        # Both "too much at once" and "not now" have this code; only the latter says when.
        status, code = (413, "too_large") if retry_after is None else (429, "overloaded")
    if message.startswith("failed to connect"):
        message = f"no answer from {url}: {message}"
    return QuernError(status, code, message, retry_after)
