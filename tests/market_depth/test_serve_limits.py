"""Every option about access and limits bites in the server as users start it."""

from __future__ import annotations

import ssl
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from trio_websocket import wrap_client_stream

from protocol.messages import Error, HeartBeat, Subscribed
from tests.depth_server import DepthServer
from tests.market_depth.server.certificates import HOST, authority, write_certificate
from tests.market_depth.server.local_server import Client
from tests.market_depth.server.test_websocket import HANDSHAKE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

TOKEN = "right"
ORIGIN = "https://depth.example.org"
OPTIONS = {
    "--token": TOKEN,
    "--allow-origin": ORIGIN,
    "--max-connections": 6,
    "--max-connections-per-host": 5,
    "--handshake-timeout-s": 0.5,
    "--max-message-bytes": 1024,
    "--max-streams": 2,
    "--messages-per-second": 0.001,
    "--message-burst": 5,
}
PING = '{"type": "Ping", "timestamp": "2026-11-20T16:41:03Z"}'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DepthServer]:
    """A strict server that tests leave as it is."""
    certificate, key = write_certificate(tmp_path_factory.mktemp("tls"))
    options = OPTIONS | {"--tls-cert": certificate, "--tls-key": key}
    server = DepthServer(*[str(part) for option in options.items() for part in option])
    yield server
    server.stop()


async def connect(server: DepthServer, host: str = "127.0.0.1") -> trio.SocketStream:
    """A connection from an address of this machine."""
    connection = trio.socket.socket()
    await connection.bind((host, 0))
    await connection.connect(("127.0.0.1", int(server.addr.rpartition(":")[2])))
    return trio.SocketStream(connection)


async def encrypted(stream: trio.SocketStream) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return trio.SSLStream(stream, context, server_hostname=HOST, https_compatible=True)


async def is_closed_by_server(stream: trio.abc.ReceiveStream) -> bool:
    """Waits until the server closes; whatever it says before is dropped."""
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
    return True


@asynccontextmanager
async def websocket_client(
    server: DepthServer, host: str = "127.0.0.1", token: str | None = TOKEN
) -> AsyncIterator[Client]:
    """A WebSocket client that has been greeted."""
    async with trio.open_nursery() as nursery, await encrypted(await connect(server, host)) as stream:
        await stream.do_handshake()
        connection = await wrap_client_stream(
            nursery,
            stream,
            HOST,
            "/",
            message_queue_size=100,
            extra_headers=[] if token is None else [(b"Authorization", f"Bearer {token}".encode())],
        )
        client = Client(connection)
        assert isinstance(await client.receive(), HeartBeat)
        yield client
        await connection.aclose()
        nursery.cancel_scope.cancel()


async def ask(server: DepthServer, *lines: str, method: str = "GET", path: str = "/api/health") -> str:
    """The head of an answer."""
    request = [f"{method} {path} HTTP/1.1", f"Host: {HOST}", "Connection: close", *lines, "", ""]
    async with await encrypted(await connect(server)) as stream:
        await stream.send_all("\r\n".join(request).encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
    return received.partition(b"\r\n\r\n")[0].decode()


async def get(server: DepthServer, *lines: str) -> int:
    """The status of a page."""
    return int((await ask(server, *lines)).split()[1])


async def test_requests_are_asked_for_the_token_and_their_origin(server: DepthServer) -> None:
    right = f"Authorization: Bearer {TOKEN}"
    assert await get(server) == 401
    assert await get(server, "Authorization: Bearer wrong") == 401
    assert await get(server, right) == 200
    assert await get(server, right, f"Origin: {ORIGIN}") == 200
    assert await get(server, right, "Origin: https://evil.example") == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/web/page.js", 200),
        ("/docs", 200),
        ("/healthz", 200),
        ("/openapi.json", 401),
        ("/metrics", 401),
        ("/api/status", 401),
        ("/api/symbols", 401),
        ("/api/control/replay/status", 401),
    ],
)
async def test_what_tells_nothing_of_the_markets_needs_no_token(
    server: DepthServer, path: str, status: int
) -> None:
    assert f"HTTP/1.1 {status} " in await ask(server, path=path)


async def test_a_page_of_the_list_may_show_the_token_and_read_the_answer(server: DepthServer) -> None:
    asked = ("Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")
    allowed = f"access-control-allow-origin: {ORIGIN}"
    beforehand = await ask(server, f"Origin: {ORIGIN}", *asked, method="OPTIONS")
    assert "HTTP/1.1 200 " in beforehand
    assert allowed in beforehand
    assert "access-control-allow-headers: Accept, Accept-Language, Authorization, " in beforehand
    assert allowed in await ask(server, f"Origin: {ORIGIN}", f"Authorization: Bearer {TOKEN}")
    assert "HTTP/1.1 403 " in await ask(server, "Origin: https://evil.example", *asked, method="OPTIONS")


async def test_a_stranger_has_as_long_as_a_handshake_to_show_the_token(server: DepthServer) -> None:
    async with websocket_client(server, token=None) as client:
        answer = await client.receive()
        assert isinstance(answer, Error)
        assert answer.code == 401
        assert await client.close_code() == 4503


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n"], ids=["nothing", "no TLS"])
async def test_who_takes_too_long_for_a_handshake_is_cut(said: bytes, server: DepthServer) -> None:
    async with await connect(server) as stream:
        await stream.send_all(said)
        assert await is_closed_by_server(stream)


async def test_who_takes_too_long_for_a_head_is_cut(server: DepthServer) -> None:
    async with await encrypted(await connect(server)) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\n")
        assert await is_closed_by_server(stream)


async def test_there_is_room_for_so_many_connections_from_one_address_and_in_all(server: DepthServer) -> None:
    async with AsyncExitStack() as opened:

        async def come_in(host: str) -> Client:
            return await opened.enter_async_context(websocket_client(server, host))

        clients = [await come_in("127.0.0.7") for _ in range(5)]
        with pytest.RaisesGroup(trio.BrokenResourceError):
            await come_in("127.0.0.7")
        await come_in("127.0.0.8")
        with pytest.RaisesGroup(trio.BrokenResourceError):
            await come_in("127.0.0.9")
        assert isinstance(await clients[0].subscribe("a"), Subscribed)


async def test_a_message_over_the_size_closes_the_connection(server: DepthServer) -> None:
    async with websocket_client(server) as client:
        await client.send(" " * 1025)
        answer = await client.answer()
        assert isinstance(answer, Error)
        assert answer.code == 413
        assert await client.close_code() == 1009


async def test_a_connection_has_so_many_streams(server: DepthServer) -> None:
    async with websocket_client(server) as client:
        answers = [await client.subscribe(name) for name in ("a", "b", "c")]
    assert [answer.type for answer in answers] == ["Subscribed", "Subscribed", "Error"]


async def test_a_connection_has_so_many_messages(server: DepthServer) -> None:
    async with websocket_client(server) as client:
        for _ in range(6):
            await client.send(PING)
        answers = [await client.answer() for _ in range(6)]
    assert answers[-1] == Error(code=429, message="over the rate of 0.001 messages a second (burst 5)")


async def test_who_answers_no_ping_is_cut() -> None:
    server = DepthServer("--heartbeat-interval-s", "1", "--max-unanswered-pings", "1")
    try:
        async with await connect(server) as silent:
            await silent.send_all(HANDSHAKE)
            received = b""
            while data := await silent.receive_some():
                received += data
        beats = received.count(b'"HeartBeat"')
        assert beats == 2  # the greeting, and one with the ping
        assert b"\x89\x00" in received
        assert received.endswith(b"\x0f\xacno pong")
    finally:
        await trio.to_thread.run_sync(server.stop)
