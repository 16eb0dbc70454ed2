"""What is asked over HTTP, and what comes back? Plain values, which any kind of connection can carry."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal, TypeAlias, TypeVar

from quern import arguments, errors
from quern.version import __version__

T = TypeVar("T")
Priority = Literal["interactive", "batch"]
Deadline: TypeAlias = "float | dt.timedelta | None"

REQUEST_ID_CHARS_MAX = 100
"""The server takes 128; the rest is for the number of a part."""
LARGE_BODY_BYTES = 1 << 16
"""A server may answer before it has read all of a larger one."""
_GRACE_SECONDS = 1.0
UNTIL_DONE = math.inf
"""A wait that ends with the reply."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_VALUE = re.compile(r"[\x20-\x7e\t]*\Z")


@dataclass(frozen=True)
class Request:
    """One HTTP request."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float | None = None
    """For how many seconds, where it is not the client's `timeout`; `UNTIL_DONE` is for as long as it takes."""
    on_line: Callable[[bytes], None] | None = None
    """Gets every line of a success as it comes; the reply's body is the last one."""


@dataclass(frozen=True)
class Reply:
    """One HTTP reply; the names of headers are in lower case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def success(self) -> bytes:
        """Give the body of a success; anything else is an error."""
        if self.status != 200:
            raise errors.from_http(self.status, self.reason, self.headers, self.body)
        return self.body


class Unsent(ConnectionError):
    """The server hung up before all of a body was sent, and what it said did not arrive."""


Steps: TypeAlias = Generator[Request, Reply, T]
"""One call: it yields requests, is sent their replies, and returns its result. It knows no sockets, so the client that
blocks and the one that awaits make the same call."""


@dataclass(frozen=True)
class Terms:
    """On what terms a prediction is asked for."""

    request_id: str | None = None
    deadline: Deadline = None
    priority: Priority | None = None
    headers: Mapping[str, str] | None = None

    def start(self) -> Clock:
        """Begin to count the time, and see that the terms can be said."""
        if self.request_id is not None and not isinstance(self.request_id, str):
            raise arguments.wrong("request_id", "a text", self.request_id)
        if self.request_id is not None and not 0 < len(self.request_id) <= REQUEST_ID_CHARS_MAX:
            raise ValueError(f"a request ID has 1 to {REQUEST_ID_CHARS_MAX} characters, not {len(self.request_id)}")
        if self.priority is not None:
            arguments.one_of("priority", self.priority, ("interactive", "batch"))
        # It is the time that somebody waits, from now on.
        seconds = None if self.deadline is None else arguments.seconds("deadline", self.deadline)
        return Clock(self, None if seconds is None else monotonic() + seconds)


@dataclass(frozen=True)
class Clock:
    """The terms of a call that has begun."""

    terms: Terms
    until: float | None

    def headers(self, part: int) -> dict[str, str]:
        """Say the terms of a part of the call. Parts have names of their own: a row counts within its request."""
        said = checked(self.terms.headers)
        if self.terms.request_id is not None:
            said["x-request-id"] = self.terms.request_id if part == 0 else f"{self.terms.request_id}.{part}"
        if self.terms.priority is not None:
            said["x-priority"] = self.terms.priority
        if self.until is not None:
            said["x-request-timeout-ms"] = str(max(1, math.ceil(self._left() * 1_000)))
        return checked(said)

    def wait(self) -> float | None:
        """For how long to wait for a reply: the server's own "too late" is the better answer, and comes first."""
        return None if self.until is None else self._left() + _GRACE_SECONDS

    def _left(self) -> float:
        assert self.until is not None
        left = self.until - monotonic()
        if left <= 0:
            raise errors.QuernError(504, "late", "the deadline passed before all of the instances were asked about")
        return left


def checked(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Give headers by their names in lower case; what would be more than a header is refused."""
    said: dict[str, str] = {}
    if headers is not None and not isinstance(headers, Mapping):
        raise arguments.wrong("headers", "a dict of names and texts", headers)
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise arguments.wrong(f"header {name}", "a text", value if isinstance(name, str) else name)
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if not _VALUE.match(value):
            raise ValueError(f"header {name}: its value has characters that no header can carry")
        said[name.lower()] = value
    return said


def headers_of(said: Mapping[str, str]) -> dict[str, str]:
    """Give the headers of every request: what the client says of itself, and what the caller does."""
    own = {
        "content-type": "application/json",
        "accept": "application/json",
        "user-agent": f"quern-python/{__version__}",
    }
    return {**own, **said}
