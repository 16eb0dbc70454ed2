"""Which connections do requests go over, and what is said where one breaks?"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import quern
from stand_in import KINDS, StandIn, echo, said


@pytest.fixture(params=sorted(KINDS))
def client(request: pytest.FixtureRequest, stand_in: StandIn) -> Iterator[Any]:
    with KINDS[request.param](stand_in.url, timeout=10) as client:
        yield client


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_nobody_there_is_not_well(kind: str) -> None:
    with KINDS[kind]("127.0.0.1:1") as client:
        well = client.health()
        assert not well and "no answer from http://127.0.0.1:1" in well.message
        with pytest.raises(quern.QuernError, match=r"no answer from http://127\.0\.0\.1:1") as caught:
            client.predict("m", [{}])
    assert (caught.value.status, caught.value.code) == (503, "unavailable")


def test_connections_are_kept_and_replaced(stand_in: StandIn, client: Any) -> None:
    stand_in.replies = [said({"predictions": [n]}) for n in range(4)]
    assert [client.predict("m", [{}])[0] for _ in range(2)] == [0, 1]
    stand_in.hang_up = True
    assert [client.predict("m", [{}])[0] for _ in range(2)] == [2, 3]
    ports = [port for _, _, (_, port) in stand_in.seen]
    assert ports[0] == ports[1] and ports[2] != ports[3]


def test_tasks_ask_at_the_same_time(stand_in: StandIn) -> None:
    echo(stand_in)

    async def ask() -> list[Any]:
        async with quern.AsyncClient(stand_in.url) as client:
            return await asyncio.gather(*(client.predict("m", [{"n": n}]) for n in range(150)))

    assert asyncio.run(ask()) == [[n] for n in range(150)]
    assert 1 < len({port for _, _, (_, port) in stand_in.seen}) <= 100


def test_a_task_that_is_cancelled_hangs_up(stand_in: StandIn) -> None:
    async def ask() -> tuple[bytes, list[float]]:
        asked, gone = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()  # to the end: until the client hangs up
            gone.set_result(b"gone")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, quern.AsyncClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
            task = asyncio.create_task(client.predict("m", [{}]))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            hung_up = await asyncio.wait_for(gone, 10)
        # What is not cancelled goes on, over another connection.
        stand_in.replies = [said({"predictions": [1.0]})]
        async with quern.AsyncClient(stand_in.url) as client:
            return hung_up, await client.predict("m", [{}])

    assert asyncio.run(ask()) == (b"gone", [1.0])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_server_that_hangs_up_on_a_large_body_is_sent_less(kind: str) -> None:
    sizes: list[int] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as reader:
                head = b"".join(iter(reader.readline, b"\r\n")).lower()
                size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                sizes.append(size)
                if size > 100_000:
                    # Not orderly: what the client sent is not read, and nothing arrives of what would be said.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    continue
                reply = json.dumps(
                    {"predictions": [i["n"] for i in json.loads(reader.read(size))["instances"]]}
                ).encode()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(reply) + reply
                )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with KINDS[kind](f"127.0.0.1:{listener.getsockname()[1]}") as client:
                assert client.predict("m", [{"n": n, "x": "y" * 1_000} for n in range(300)]) == list(range(300))
                with pytest.raises(quern.QuernError, match="they may be more than it takes") as caught:
                    client.predict("m", [{"n": 0, "x": "y" * 10_000_000}])
                assert (caught.value.status, caught.value.code) == (413, "too_large")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert sorted(sizes)[-2] > 300_000 and len([size for size in sizes if size < 100_000]) == 4


def test_an_answer_that_is_none() -> None:
    async def ask(answer: bytes) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server, quern.AsyncClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
            with pytest.raises(quern.QuernError) as caught:
                await client.predict("m", [{}])
        return caught.value.message

    for answer in (
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n",
    ):
        assert "no answer from http://127.0.0.1" in asyncio.run(ask(answer))
