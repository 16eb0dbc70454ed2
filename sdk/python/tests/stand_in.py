"""A server that only says what a test wrote, and notes what it was asked."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import quern

Reply = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]


class Recorder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        asked = json.loads(body) if body else None
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((self.path, asked, self.client_address))
        self.server.headers.append(headers)
        reply = self.server.answer(asked, headers) if self.server.answer else self.server.replies.pop(0)
        status, content = reply[:2]
        self.send_response(status)
        for name, value in (reply[2] if len(reply) == 3 else {}).items():
            self.send_header(name, value)
        if self.server.chunked:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(content), 7):
                piece = content[start : start + 7]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        self.close_connection = self.server.hang_up  # without a word, as a server does to an idle connection

    do_GET = do_POST

    def log_message(self, *args: Any) -> None:
        pass


class StandIn(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Recorder)
        self.seen: list[tuple[str, Any, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.replies: list[Reply] = []
        self.answer: Callable[[Any, dict[str, str]], Reply] | None = None
        self.hang_up = False
        self.chunked = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def standing_in() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Awaited:
    """An `AsyncClient` for a test that blocks: every call is awaited to its end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = quern.AsyncClient(*args, **options)
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)
        return lambda *args, **options: self._loop.run_until_complete(call(*args, **options))

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.run_until_complete(asyncio.sleep(0))  # what was closed says so in the next turn
        self._loop.close()


KINDS = {"blocking": quern.Client, "awaiting": Awaited}


def said(reply: Any, **headers: str) -> Reply:
    return 200, json.dumps(reply).encode(), {name.replace("_", "-"): value for name, value in headers.items()}


def echo(stand_in: StandIn, rows_max: int = 10**9) -> None:
    """Answer each instance by its own `n`; refuse requests of more than so many rows."""

    def answer(body: Any, headers: dict[str, str]) -> Reply:
        if "instances" in body:
            numbers = [instance["n"] for instance in body["instances"]]
            reply: Any = {"predictions": numbers, "served_by": [str(n % 2) for n in numbers], "failed": {"f": 1}}
            if body["instances"]:
                reply["fallbacks"] = [{"instances": [0], "served_by": "expr", "cause": "stale", "detail": "old"}]
        else:
            numbers = body["entities"]["n"]
            column = {"values": numbers, "statuses": ["PRESENT"] * len(numbers), "event_timestamps": []}
            reply = {"metadata": {"feature_names": ["n"]}, "results": [column]}
        if len(numbers) > rows_max:
            return 413, b'{"error": "too many", "code": "too_large"}'
        return said(reply, x_request_id=headers.get("x-request-id", "made-up"))

    stand_in.answer = answer
