import errno
import logging
import socket

import pytest
import trio

from market_depth.server import listener as listener_module
from market_depth.server.listener import open_listeners
from protocol.messages import HeartBeat, Subscribed
from protocol.session import Limits
from tests.market_depth.server.local_server import LocalServer, WrittenMarket, complaints, local_server, reset


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


async def test_connections_that_come_and_go_leave_the_server_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with local_server() as server, server.client() as client:

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
