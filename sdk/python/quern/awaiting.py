"""How does a request reach the server, for a caller that awaits? HTTP/1.1 over asyncio's streams, connections kept."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from quern.address import Address
from quern.blocking import hung_up, unreachable
from quern.credentials import Credentials
from quern.request import LARGE_BODY_BYTES, Reply, Request, Unsent

CONNECTIONS_MAX = 100
"""At a time; a call that finds so many at work waits for one of them."""
_PIECE_BYTES = 1 << 16

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_Head = tuple[int, str, dict[str, str]]


@dataclass
class _Pool:
    """What belongs to one event loop."""

    loop: asyncio.AbstractEventLoop
    idle: list[_Connection] = field(default_factory=list)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONNECTIONS_MAX))


class AsyncHttp:
    """HTTP connections to one server, for the tasks of an event loop."""

    def __init__(self, address: Address, timeout: float, headers: Mapping[str, str], credentials: Credentials) -> None:
        self._address, self._timeout, self._headers = address, timeout, dict(headers)
        self._tls = credentials.context() if address.tls else None
        self._pool: _Pool | None = None

    def close(self) -> None:
        """Drop every idle connection; the next request opens a new one."""
        pool, self._pool = self._pool, None
        if pool is not None and not pool.loop.is_closed():
            for _, writer in pool.idle:
                writer.close()

    async def ask(self, request: Request) -> Reply:
        """Send a request and await its reply. Who is cancelled closes the connection, which tells the server."""
        wait = self._timeout if request.wait is None else request.wait
        try:
            return await asyncio.wait_for(self._in_turn(request), None if wait == math.inf else wait)
        except Unsent:
            return hung_up(self._address, request)
        except asyncio.TimeoutError as error:
            raise unreachable(self._address, TimeoutError(), wait) from error
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise unreachable(self._address, error, wait) from error

    async def _in_turn(self, request: Request) -> Reply:
        pool = self._pool_of_this_loop()
        async with pool.room:
            return await self._answered(pool, request)

    def _pool_of_this_loop(self) -> _Pool:
        loop = asyncio.get_running_loop()
        if self._pool is None or self._pool.loop is not loop:
            self.close()
            self._pool = _Pool(loop)
        return self._pool

    async def _answered(self, pool: _Pool, request: Request) -> Reply:
        while pool.idle:
            # One that the server closed while it lay idle never saw the request.
            with contextlib.suppress(ConnectionError):
                return await self._round_trip(pool, pool.idle.pop(), request)
        return await self._round_trip(pool, await self._open(), request)

    async def _open(self) -> _Connection:
        address = self._address
        return await asyncio.open_connection(address.host, address.port, ssl=self._tls, limit=_PIECE_BYTES)

    async def _round_trip(self, pool: _Pool, connection: _Connection, request: Request) -> Reply:
        reader, writer = connection
        reusable = False
        try:
            writer.write(self._head(request) + request.body[:LARGE_BODY_BYTES])
            if len(request.body) <= LARGE_BODY_BYTES:
                whole, (status, reason, headers) = True, await _read_head(reader)
            else:
                whole, (status, reason, headers) = await _send(reader, writer, request.body[LARGE_BODY_BYTES:])
            try:
                body = await _read_body(reader, headers, request if status == 200 else None)
            except (ConnectionError, EOFError) as error:
                raise error if whole else Unsent() from error
            # What is told by the end of the connection ends it, too.
            told = "content-length" in headers or "transfer-encoding" in headers
            reusable = whole and told and headers.get("connection", "").lower() != "close"
            return Reply(status, reason, headers, body)
        finally:
            if reusable and self._pool is pool:
                pool.idle.append(connection)
            else:
                writer.close()

    def _head(self, request: Request) -> bytes:
        said = {"host": self._address.authority, "content-length": str(len(request.body))}
        lines = [f"{request.method} {request.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**self._headers, **request.headers, **said}.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[bool, _Head]:
    """Send a large body while looking out for a reply: a server that will not read all of it says why, and hangs up."""
    head, is_whole = asyncio.ensure_future(_read_head(reader)), True
    try:
        for start in range(0, len(body), _PIECE_BYTES):
            writer.write(body[start : start + _PIECE_BYTES])
            drained = asyncio.ensure_future(_is_drained(writer))
            await asyncio.wait({drained, head}, return_when=asyncio.FIRST_COMPLETED)
            if head.done() or not drained.result():
                drained.cancel()
                is_whole = False
                break
        return is_whole, await head
    except (ConnectionError, EOFError) as error:
        # Of what lay in our buffers when it hung up nobody knows whether it was sent.
        raise error if is_whole and not isinstance(error, ConnectionResetError) else Unsent() from error
    finally:
        head.cancel()


async def _is_drained(writer: asyncio.StreamWriter) -> bool:
    try:
        await writer.drain()
    except ConnectionError:
        return False
    return True


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    while True:
        try:
            text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            raise ConnectionAbortedError("the connection was closed without a reply") from error
        first, *lines = text.rstrip().split("\r\n")
        version, _, rest = first.partition(" ")
        code, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not code.isdigit():
            raise ValueError(f"what answers there does not speak HTTP/1.1: {first[:80]!r}")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if int(code) >= 200:  # what comes before is no reply yet
            return int(code), reason, headers


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str], lines_of: Request | None) -> bytes:
    """Read the body; where lines are wanted, each as it comes, and give the last one."""
    on_line = None if lines_of is None else lines_of.on_line
    body, last = bytearray(), b""
    async for piece in _pieces(reader, headers):
        body += piece
        while on_line is not None and (end := body.find(b"\n") + 1):
            last = bytes(body[:end])
            del body[:end]
            on_line(last)
    if on_line is not None and body:
        on_line(bytes(body))
    return bytes(body) or last


async def _pieces(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        while (await reader.readuntil(b"\r\n")).strip():
            pass  # trailers
    elif "content-length" in headers:
        yield await reader.readexactly(int(headers["content-length"]))
    else:
        while piece := await reader.read(_PIECE_BYTES):
            yield piece
