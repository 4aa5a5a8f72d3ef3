"""Who gets in, and who is kept out, at the door of a real port."""

import socket
from base64 import urlsafe_b64encode
from contextlib import AsyncExitStack, suppress

import pytest
import trio

from market_depth.metrics import Refusal
from market_depth.server.gate import Gate
from market_depth.server.http_connection import Timeouts
from protocol.messages import Error, HeartBeat, Subscribed
from tests.market_depth.server.local_server import LocalServer, complaints, local_server
from tests.market_depth.server.test_websocket import HANDSHAKE, PING

TOKEN = "right/token"
TOKEN_NAME = "bearer." + urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def with_header(request: bytes, *lines: str) -> bytes:
    return request[:-2] + b"".join(line.encode() + b"\r\n" for line in lines) + b"\r\n"


async def first_answer(server: LocalServer, request: bytes) -> str:
    """The head of the answer to a request."""
    async with await server.connect() as stream:
        await stream.send_all(request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
    return received.partition(b"\r\n\r\n")[0].decode()


def status_of(head: str) -> int:
    return int(head.split(" ")[1])


# Tokens


@pytest.mark.parametrize(
    ("lines", "http", "websocket"),
    [
        ([], 401, 101),
        ([f"Authorization: Bearer {TOKEN}"], 200, 101),
        (["Authorization: Bearer wrong"], 401, 401),
        ([f"Sec-WebSocket-Protocol: {TOKEN_NAME}"], 200, 101),
        (["Sec-WebSocket-Protocol: bearer.d3Jvbmc"], 401, 401),
    ],
)
async def test_a_token_in_the_head_opens_the_port(lines: list[str], http: int, websocket: int) -> None:
    async with local_server(gate=Gate(token=TOKEN)) as server:
        answers = [await first_answer(server, with_header(request, *lines)) for request in (GET, HANDSHAKE)]
        refused = server.counts.connections_refused[Refusal.UNAUTHORISED]
    assert [status_of(answer) for answer in answers] == [http, websocket]
    assert refused == sum(status == 401 for status in (http, websocket))
    for answer in answers:
        assert ("www-authenticate: Bearer" in answer) is (status_of(answer) == 401)


@pytest.mark.parametrize(
    ("offered", "selected"), [(TOKEN_NAME, TOKEN_NAME), (f"market-depth, {TOKEN_NAME}", "market-depth")]
)
async def test_a_browser_is_told_which_of_its_subprotocols_was_taken(offered: str, selected: str) -> None:
    async with local_server(gate=Gate(token=TOKEN)) as server:
        answer = await first_answer(server, with_header(HANDSHAKE, f"Sec-WebSocket-Protocol: {offered}"))
    assert f"\r\nSec-WebSocket-Protocol: {selected}" in answer


async def test_a_stranger_is_served_when_he_has_said_hello() -> None:
    async with local_server(gate=Gate(token=TOKEN)) as server, server.client() as client:
        refused = await client.subscribe("a")
        assert isinstance(refused, Error)
        assert (refused.code, refused.stream_id) == (401, "a")
        await client.send(f'{{"type": "Hello", "token": "{TOKEN}"}}')
        assert isinstance(await client.answer(), HeartBeat)
        assert isinstance(await client.subscribe("a"), Subscribed)
        assert server.counts.errors == {401: 1}


async def test_a_wrong_hello_ends_the_connection_with_4503() -> None:
    async with local_server(gate=Gate(token=TOKEN)) as server, server.client() as client:
        await client.send('{"type": "Hello", "token": "wrong"}')
        assert await client.answer() == Error(code=401, message="token: is not valid")
        assert await client.close_code() == 4503
        await server.wait_for_clients(0)
        assert server.counts.connections_refused == {Refusal.UNAUTHORISED: 1}


async def test_a_stranger_who_says_no_hello_is_let_go_whatever_else_he_says() -> None:
    gate, timeouts = Gate(token=TOKEN), Timeouts(head_s=0.1)
    async with local_server(gate=gate, timeouts=timeouts) as server, server.client() as client:
        await client.send(PING)
        answers = [await client.answer() for _ in range(2)]
        assert {answer.code for answer in answers if isinstance(answer, Error)} == {401}
        assert await client.close_code() == 4503
        await server.wait_for_clients(0)
        assert server.counts.connections_refused == {Refusal.UNAUTHORISED: 1}


async def test_a_hello_may_ask_for_other_heartbeats() -> None:
    async with local_server() as server, server.client() as client:
        await client.send('{"type": "Hello", "heartbeat_interval_s": 7}')
        await client.answer()
        assert [interval_s for interval_s, _ in server.heartbeats._wishes.values()] == [7]


async def test_where_no_token_is_asked_for_hello_is_answered_all_the_same() -> None:
    async with local_server() as server, server.client() as client:
        await client.send('{"type": "Hello", "token": "any", "client": "a test"}')
        assert isinstance(await client.answer(), HeartBeat)


async def test_the_log_has_the_clients_name_and_no_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with local_server(gate=Gate(token=TOKEN)) as server, server.client() as client:
        await client.send(f'{{"type": "Hello", "token": "{TOKEN}", "client": "my bot"}}')
        await client.answer()
        await first_answer(server, with_header(HANDSHAKE, f"Sec-WebSocket-Protocol: {TOKEN_NAME}"))
        await first_answer(server, with_header(GET, "Authorization: Bearer wrong-token"))
    log = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("market_depth")
    )
    assert "client='my bot'" in log
    assert TOKEN not in log
    assert TOKEN_NAME not in log
    assert "wrong-token" not in log


# Pages


@pytest.mark.parametrize(
    ("origin", "http", "websocket"),
    [
        ("http://localhost", 200, 101),
        ("http://localhost:3000", 403, 101),
        ("http://evil.example", 403, 403),
        ("https://depth.example.org", 200, 101),
    ],
)
async def test_pages_from_elsewhere_are_kept_out_unless_they_are_on_the_list(
    origin: str, http: int, websocket: int
) -> None:
    async with local_server(gate=Gate(allowed_origins=["https://depth.example.org"])) as server:
        statuses = [
            status_of(await first_answer(server, with_header(request, f"Origin: {origin}")))
            for request in (GET, HANDSHAKE)
        ]
        refused = server.counts.connections_refused[Refusal.ORIGIN]
    assert statuses == [http, websocket]
    assert refused == sum(status == 403 for status in statuses)


# Names


async def test_a_strangers_name_for_this_machine_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with local_server(gate=Gate(is_local=True)) as server:
        for request in (GET, HANDSHAKE):
            assert status_of(await first_answer(server, request)) in (200, 101)
            answer = await server.exchange(request.replace(b"localhost", b"evil.example"))
            assert answer.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
            assert b"`serve --allow-origin http://NAME` adds a name" in answer
        assert server.counts.connections_refused == {Refusal.STRANGE_NAME: 2}
    denials = [line for line in messages(caplog) if line.startswith("denied")]
    assert [line.partition(" status=")[2] for line in denials] == ["421 reason=strange_name"] * 2
    assert all(" peer=127.0.0.1:" in line for line in denials)


# Room


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def connect_from(server: LocalServer, host: str) -> trio.SocketStream:
    """A connection from another address of this machine."""
    connection = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    await connection.bind((host, 0))
    await connection.connect(("127.0.0.1", server.port))
    return trio.SocketStream(connection)


async def ask_from(server: LocalServer, host: str, request: bytes = GET) -> bytes:
    """What a request from an address is answered."""
    async with await connect_from(server, host) as stream:
        await stream.send_all(request)
        return bytes(await stream.receive_some())


@pytest.mark.parametrize(
    ("gate", "reason", "of_another_host"),
    [
        (Gate(max_connections=3), Refusal.SERVER_FULL, b"HTTP/1.1 503 "),
        (Gate(max_connections_per_host=3), Refusal.HOST_FULL, b"HTTP/1.1 200 "),
    ],
    ids=["in all", "for each host"],
)
async def test_without_room_a_newcomer_gets_503_and_the_others_notice_nothing(
    gate: Gate, reason: Refusal, of_another_host: bytes
) -> None:
    async with local_server(gate=gate) as server, server.client() as client, AsyncExitStack() as others:
        await client.subscribe("a")
        idle = [await others.enter_async_context(await server.connect()) for _ in range(2)]
        answer = await ask_from(server, "127.0.0.1")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 10\r\n" in answer
        assert server.counts.connections_refused == {reason: 1}
        assert (await ask_from(server, "127.0.0.2")).startswith(of_another_host)
        await client.send(PING)
        assert isinstance(await client.answer(), HeartBeat)
        await idle[0].aclose()
        while not (answer := await ask_from(server, "127.0.0.1")).startswith(b"HTTP/1.1 200 "):
            assert answer.startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    ("gate", "reason"),
    [(Gate(max_connections=8), "server_full"), (Gate(max_connections_per_host=8), "host_full")],
)
async def test_the_log_says_once_that_there_is_no_room(
    gate: Gate, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with local_server(gate=gate) as server:
        for _ in range(2):
            async with AsyncExitStack() as idle:
                for _ in range(8):
                    await idle.enter_async_context(await server.connect())
                for _ in range(5):
                    assert (await ask_from(server, "127.0.0.1")).startswith(b"HTTP/1.1 503 ")
            while gate._connection_count:
                await trio.lowlevel.checkpoint()
    line = f"newcomers are refused reason={reason} host=127.0.0.1"
    assert [said for said in messages(caplog) if "refused" in said] == [line] * 2


async def test_every_way_to_end_a_connection_makes_room_again(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate(max_connections=4)
    async with local_server(gate=gate, timeouts=Timeouts(head_s=0.05)) as server:
        for request in (GET, HANDSHAKE, b"", b"GET", b"\x00\r\n\r\n", b"x" * 100_000):
            for _ in range(4):
                stream = await server.connect()
                await stream.send_all(request)
                await stream.aclose()
            while gate._connection_count:
                await trio.lowlevel.checkpoint()
    assert complaints(caplog.records) == []


async def test_slow_handshakes_are_cut_and_keep_nobody_else_out() -> None:
    cut = 0

    async def drip(server: LocalServer) -> None:
        """A client that sends a header byte by byte and comes to no end, until it is cut."""
        nonlocal cut
        async with await connect_from(server, "127.0.0.2") as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(HANDSHAKE[:-2] + b"X: ")
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(0.01)
            cut += 1

    gate = Gate(max_connections=30, max_connections_per_host=20)
    async with local_server(gate=gate, timeouts=Timeouts(head_s=0.3)) as server:
        async with trio.open_nursery() as slow:
            for _ in range(40):
                slow.start_soon(drip, server)
            # The slow host takes what it may, 20, and is refused 20 more; there is room for others all the time.
            for _ in range(10):
                async with server.client() as client:
                    assert isinstance(await client.subscribe("a"), Subscribed)
        assert cut == 40
        refused = server.counts.connections_refused
        assert (refused[Refusal.HOST_FULL], refused[Refusal.HEAD_TIMEOUT]) == (20, 20)
