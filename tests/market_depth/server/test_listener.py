from __future__ import annotations

import errno
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
from trio_websocket import wrap_client_stream

from market_depth.metrics import Refusal
from market_depth.server import listener as listener_module
from market_depth.server.gate import Gate
from market_depth.server.listener import open_listeners
from protocol.messages import HeartBeat, Subscribed
from protocol.session import Limits
from tests.market_depth.server.local_server import (
    Client,
    LocalServer,
    WrittenMarket,
    complaints,
    local_server,
    reset,
)

if TYPE_CHECKING:
    from market_depth.server.asgi import Receive, Scope, Send


async def test_port_0_takes_a_free_port_and_all_addresses_share_it() -> None:
    listeners = await open_listeners("localhost", 0)
    ports = {listener.getsockname()[1] for listener in listeners}
    families = [listener.family for listener in listeners]
    for listener in listeners:
        listener.close()
    assert len(ports) == 1
    assert len(set(families)) == len(families)


async def test_a_port_in_use_is_an_error_and_leaves_no_socket_behind() -> None:
    [taken] = await open_listeners("127.0.0.1", 0)
    with taken, pytest.raises(OSError, match="in use") as caught:
        await open_listeners("127.0.0.1", taken.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE


async def test_an_unknown_host_is_an_error() -> None:
    with pytest.raises(OSError, match=r"\w"):
        await open_listeners("no-such-host.invalid", 0)


async def test_one_port_speaks_http_and_websocket() -> None:
    async with local_server() as server, server.client() as client:
        assert (await server.exchange(b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert isinstance(await client.subscribe("a"), Subscribed)


async def test_a_connection_that_has_asked_for_pages_may_become_a_websocket() -> None:
    async with local_server() as server, await server.connect() as stream:
        for _ in range(2):
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await stream.receive_some()).endswith(b'{"hello": "world"}')
        async with trio.open_nursery() as nursery:
            client = Client(await wrap_client_stream(nursery, stream, "localhost", "/"))
            assert isinstance(await client.receive(), HeartBeat)
            assert isinstance(await client.subscribe("a"), Subscribed)
            nursery.cancel_scope.cancel()


CLOSE_FRAMES = b"\x88\x02\x03\xf1" * 50_000
"""A download that is nothing but what a WebSocket would end with: code 1009, wherever it is cut."""


async def test_a_download_may_look_like_the_end_of_a_websocket() -> None:
    async def download(_: Scope, __: Receive, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"800000")]}
        )
        for number in range(4):
            await send({"type": "http.response.body", "body": CLOSE_FRAMES, "more_body": number < 3})

    async with local_server(application=download) as server:
        received = await server.exchange(b"GET / HTTP/1.0\r\n\r\n")
    assert received.partition(b"\r\n\r\n")[2] == 4 * CLOSE_FRAMES


async def test_whom_there_is_no_room_for_is_told_so_until_somebody_leaves() -> None:
    request = b"GET / HTTP/1.0\r\n\r\n"
    async with local_server(gate=Gate(max_connections=1)) as server:
        async with await server.connect() as first:
            await first.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await first.receive_some()
            async with await server.connect() as second:
                answer = await second.receive_some()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in answer
        while not (answer := await server.exchange(request)).startswith(b"HTTP/1.1 200 "):
            assert answer == b"" or answer.startswith(b"HTTP/1.1 503 ")
    assert server.counts.connections_refused[Refusal.SERVER_FULL] >= 1


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
async def test_a_connection_that_cannot_be_begun_ends_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise MemoryError("for TLS")

    async with local_server(gate=Gate(max_connections=1)) as server:
        with monkeypatch.context() as failing:
            failing.setattr(server.listener, "_make_stream", fail)
            async with await server.connect() as stream:
                assert await stream.receive_some() == b""
        assert (await server.exchange(b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
    [complaint] = complaints(caplog.records)
    assert complaint.startswith("connection failed peer=127.0.0.1:")


async def test_connections_that_come_and_go_leave_the_server_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate(max_connections=1000)
    async with local_server(gate=gate) as server, server.client() as client:
        tasks, open_before = trio.lowlevel.current_statistics().tasks_living, descriptors()

        async def come_and_go(number: int) -> None:
            stream = await server.connect()
            if number % 3:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n" if number % 2 else b"\x00")
            if number % 2:
                reset(stream)
            else:
                await stream.aclose()

        async with trio.open_nursery() as nursery:
            for number in range(300):
                nursery.start_soon(come_and_go, number)
        await client.send('{"type": "Ping", "timestamp": "2026-11-20T16:41:03Z"}')
        assert isinstance(await client.answer(), HeartBeat)
        with trio.fail_after(10):
            while trio.lowlevel.current_statistics().tasks_living > tasks or descriptors() > open_before:
                await trio.lowlevel.checkpoint()
        assert gate._connection_count == 1
    assert complaints(caplog.records) == []


class UnluckyListener(socket.socket):
    """A listener whose first accepts fail."""

    def __init__(self, opened: socket.socket, errors: list[int]) -> None:
        super().__init__(opened.family, opened.type, opened.proto, opened.detach())
        self.setblocking(False)
        self.errors = errors

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            raise OSError(self.errors.pop(0), "no luck")
        return super().accept()


@pytest.mark.parametrize(
    ("errors", "warnings"),
    [([errno.EMFILE, errno.ENFILE], 1), ([errno.ECONNABORTED, errno.EPROTO], 0)],
    ids=["out of descriptors", "gone before we had it"],
)
async def test_accepting_goes_on_after_a_failure_and_tells_it_once(
    errors: list[int], warnings: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener_module, "OUT_OF_DESCRIPTORS_PAUSE_S", 0.001)
    server = LocalServer(WrittenMarket(), Limits(), 1)
    [opened] = await open_listeners("127.0.0.1", 0)
    server.port = opened.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.listener.run, UnluckyListener(opened, errors), nursery)
        assert b"200 OK" in await server.exchange(b"GET / HTTP/1.0\r\n\r\n")
        nursery.cancel_scope.cancel()
    assert not errors
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings
