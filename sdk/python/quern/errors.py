"""What went wrong, in the server's words?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa
from pyarrow import flight

if TYPE_CHECKING:
    from quern.results import PushResult


class QuernError(Exception):
    """A request that the server refused, or that never reached it.

    `status` is an HTTP status, over Flight too; `code` is the server's name for the kind of error; `message` says what
    is wrong and what to do about it. `retry_after`, in seconds, is when a server that cannot take the request now wants
    it again. `request_id` is what the server's log calls it, where the server told.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.request_id = request_id

    def __reduce__(self) -> tuple[type[QuernError], tuple[object, ...]]:
        # Exceptions cross process borders in pools; the default would call us with the message alone.
        return (QuernError, (self.status, self.code, self.message, self.retry_after, self.request_id))


class PushError(QuernError):
    """A push that ended before all rows were up. `result` says what became of those that were: they are durable."""

    def __init__(self, cause: QuernError, result: PushResult) -> None:
        taken = result.accepted + result.repeated
        told = f" ({taken} rows had been taken before)" if taken else ""
        super().__init__(cause.status, cause.code, cause.message + told, cause.retry_after, cause.request_id)
        self.cause = cause
        self.result = result

    def __reduce__(self) -> tuple[type[QuernError], tuple[object, ...]]:
        return (PushError, (self.cause, self.result))


def from_http(status: int, reason: str, headers: Mapping[str, str], body: bytes) -> QuernError:
    """Read the server's error body, `{"error": message, "code": code, ...}`; what a proxy sent is shown as it is."""
    request_id, told = headers.get("x-request-id"), headers.get("retry-after", "")
    # A proxy's, in whole seconds; a date is of a clock that may not be ours.
    retry_after = float(told) if told.isdecimal() else None
    try:
        reply = json.loads(body)
        code, message = str(reply["code"]), str(reply["error"])
        if (millis := reply.get("retry_after_ms")) is not None:
            retry_after = float(millis) / 1_000
        return QuernError(status, code, message, retry_after, request_id or reply.get("request_id"))
    except (ValueError, KeyError, TypeError):
        message = body.decode("utf-8", "replace").strip() or reason
        return QuernError(status, "unknown", message, retry_after, request_id)


# What is told in the middle of a reply has no status of its own.
_STATUS = {
    "invalid_argument": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "refused": 409,
    "too_large": 413,
    "definitions": 422,
    "overloaded": 429,
    "internal": 500,
    "unavailable": 503,
    "late": 504,
}


def from_line(reply: Mapping[str, object], headers: Mapping[str, str]) -> QuernError:
    """Read an error that ends a reply of several lines."""
    code = reply.get("code")
    return from_http(_STATUS.get(str(code), 500), "", headers, json.dumps(reply).encode())


# pyarrow turns gRPC codes into exception classes, some of which derive from others: the first that fits is the one.
_FLIGHT_ERRORS: list[tuple[type[Exception], int, str]] = [
    (flight.FlightUnauthenticatedError, 401, "unauthenticated"),
    (flight.FlightUnauthorizedError, 403, "forbidden"),
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
