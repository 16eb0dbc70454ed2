"""How does a request reach the server, for a caller that waits? A kept connection for each thread."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import ssl
import threading
from collections.abc import Mapping

from quern import errors
from quern.address import Address
from quern.credentials import Credentials
from quern.request import LARGE_BODY_BYTES, Reply, Request, Unsent

# Over TLS, a write to a connection that the other side has closed.
_HUNG_UP = (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_DROPPED = (Unsent, http.client.RemoteDisconnected, ConnectionResetError, ConnectionAbortedError)


class Http:
    """HTTP connections to one server, which threads may share."""

    def __init__(self, address: Address, timeout: float, headers: Mapping[str, str], credentials: Credentials) -> None:
        self._address, self._timeout, self._headers = address, timeout, dict(headers)
        self._tls = credentials.context() if address.tls else None
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._connections: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Drop every connection; the next request opens a new one."""
        with self._lock:
            connections, self._connections = self._connections, []
            self._thread = threading.local()
        for connection in connections:
            connection.close()

    def ask(self, request: Request) -> Reply:
        """Send a request and wait for its reply."""
        wait = self._timeout if request.wait is None else request.wait
        if request.on_line is not None:
            # A connection of its own: it is busy for as long as lines come.
            with contextlib.closing(self._open(wait)) as connection:
                return self._tried(connection, request, wait)
        connection = self._connection(wait)
        if connection.sock is not None:
            # What the server closed while it lay idle never saw the request, so we send it again.
            with contextlib.suppress(*_DROPPED):
                return self._attempt(connection, request)
        return self._tried(connection, request, wait)

    def _tried(self, connection: http.client.HTTPConnection, request: Request, wait: float) -> Reply:
        try:
            return self._attempt(connection, request)
        except Unsent:
            return hung_up(self._address, request)
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(self._address, error, wait) from error

    def _attempt(self, connection: http.client.HTTPConnection, request: Request) -> Reply:
        try:
            return self._round_trip(connection, request)
        except BaseException:
            connection.close()  # half a reply would answer the next request
            raise

    def _round_trip(self, connection: http.client.HTTPConnection, request: Request) -> Reply:
        is_sent = True
        try:
            connection.request(request.method, request.path, request.body, {**self._headers, **request.headers})
        except _HUNG_UP:
            # A server that does not want to read all of a body says why before it hangs up.
            is_sent = False
        try:
            return self._reply(connection, request)
        except (OSError, http.client.HTTPException) as error:
            # Where that does not arrive: what lay in our buffers when it hung up was sent, and yet was not.
            is_reset = isinstance(error, ConnectionResetError) and not isinstance(error, http.client.RemoteDisconnected)
            if not is_sent or (is_reset and len(request.body) > LARGE_BODY_BYTES):
                raise Unsent() from error
            raise

    def _reply(self, connection: http.client.HTTPConnection, request: Request) -> Reply:
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        if request.on_line is None or response.status != http.client.OK:
            return Reply(response.status, response.reason, headers, response.read())
        last = b""
        while line := response.readline():
            last = line
            request.on_line(line)
        return Reply(response.status, response.reason, headers, last)

    def _connection(self, wait: float) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._thread, "connection", None)
        if connection is None:
            connection = self._open(wait)
            with self._lock:
                self._connections.append(connection)
            self._thread.connection = connection
        connection.timeout = _seconds(wait)
        if connection.sock is not None:
            connection.sock.settimeout(_seconds(wait))
        return connection

    def _open(self, wait: float) -> http.client.HTTPConnection:
        host, port, timeout = self._address.host, self._address.port, _seconds(wait)
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=timeout)


def _seconds(wait: float) -> float | None:
    return None if wait == math.inf else wait


def unreachable(address: Address, error: BaseException, wait: float) -> errors.QuernError:
    """Say that no reply came, and why."""
    if isinstance(error, TimeoutError):
        return errors.QuernError(504, "deadline_exceeded", f"{address.url} did not answer within {wait:g} s")
    return errors.QuernError(503, "unavailable", f"no answer from {address.url}: {error or type(error).__name__}")


def hung_up(address: Address, request: Request) -> Reply:
    """Say that a body could not be sent, in the form that a server says it in: the calls send less of it then."""
    told = f"{address.url} hung up while {len(request.body):,} bytes were sent; they may be more than it takes"
    body = json.dumps({"error": f"{told} (`body_bytes_max`)", "code": "too_large"})
    return Reply(413, "", {}, body.encode())
