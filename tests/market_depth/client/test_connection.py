import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from market_depth.client.connection import (
    Connect,
    Connecting,
    ConnectionLost,
    Denied,
    Live,
    Socket,
    Update,
    Waiting,
    follow,
    open_socket,
    pause_s,
    websocket_url,
)
from protocol.codecs import encode
from protocol.messages import Error, HeartBeat, MarketData, Subscribe, Subscribed
from protocol.session import Subscription
from tests.market_depth.client.fake_server import fake_depth_server, frame
from tests.market_depth.server.certificates import make_tls
from tests.market_depth.server.local_server import local_server

STREAM = Subscribe(stream_id="a", symbol="BTCUSD", data_type="MBP", max_levels=2)
FRAME = frame(Subscription("a", "BTCUSD", "MBP", 2), 0)

NO_TOKEN = Denied("the server requires a valid token", "give it with --token or as MARKET_DEPTH_TOKEN")


class FakeSocket:
    """Gives these messages, then breaks, or is silent for good."""

    def __init__(self, messages: Iterable[str], then_silent: bool = False) -> None:
        self._messages = iter(messages)
        self._then_silent = then_silent
        self.sent: list[str] = []

    async def send_message(self, message: str) -> None:
        self.sent.append(message)

    async def get_message(self) -> str:
        for message in self._messages:
            return message
        if self._then_silent:
            await trio.sleep_forever()
        raise ConnectionLost("broken")


def connect_to(*attempts: FakeSocket | None) -> Connect:
    """Each attempt in turn: a socket, or None where nobody listens. After the last one nobody listens any more."""
    remaining = iter(attempts)

    @asynccontextmanager
    async def connect(_url: str) -> AsyncIterator[Socket]:
        socket = next(remaining, None)
        if socket is None:
            raise ConnectionLost("nobody listens")
        yield socket

    return connect


async def updates_until(connect: Connect, is_last: Callable[[Update], bool]) -> list[Update]:
    seen = []
    async with follow("ws://fake/", [STREAM], connect=connect, jitter=random.Random(1)) as updates:
        async for update in updates:
            seen.append(update)
            if is_last(update):
                break
    return seen


async def test_each_connection_asks_for_the_streams_again(autojump_clock: MockClock) -> None:
    first, second = FakeSocket([FRAME]), FakeSocket([FRAME])
    frames = 0

    def is_second_frame(update: Update) -> bool:
        nonlocal frames
        frames += isinstance(update, MarketData)
        return frames == 2

    seen = await updates_until(connect_to(first, None, second), is_second_frame)
    kinds = [Connecting, Live, MarketData, Waiting, Connecting, Waiting, Connecting, Live, MarketData]
    assert [type(update) for update in seen] == kinds
    assert first.sent == second.sent == [STREAM.model_dump_json()]


async def test_pauses_are_kept_and_reported(autojump_clock: MockClock) -> None:
    entered: list[tuple[Update, float]] = []
    async with follow("ws://fake/", [STREAM], connect=connect_to(), jitter=random.Random(7)) as updates:
        async for update in updates:
            entered.append((update, trio.current_time()))
            if len(entered) == 12:
                break
    for (waiting, since), (connecting, now) in zip(entered[1:-1:2], entered[2::2], strict=True):
        assert isinstance(waiting, Waiting)
        assert isinstance(connecting, Connecting)
        assert since < waiting.until == now


def test_pauses_grow_to_half_a_minute_and_scatter() -> None:
    jitter = random.Random(3)
    for failures in range(1, 2000):
        assert 0.5 <= pause_s(failures, jitter) <= min(30, 0.5 * 2 ** min(failures, 10))
    assert len({pause_s(20, jitter) for _ in range(100)}) == 100
    assert max(pause_s(20, jitter) for _ in range(100)) > 25


async def test_a_frame_received_makes_the_next_pause_short_again(autojump_clock: MockClock) -> None:
    attempts = [None] * 8 + [FakeSocket([FRAME])]
    entered: list[tuple[Update, float]] = []
    async with follow(
        "ws://fake/", [STREAM], connect=connect_to(*attempts), jitter=random.Random(5)
    ) as updates:
        async for update in updates:
            entered.append((update, trio.current_time()))
            if len(entered) == 20:
                break
    assert isinstance(entered[-2][0], MarketData)
    last, now = entered[-1]
    assert isinstance(last, Waiting)
    assert last.until - now <= 1


@pytest.mark.parametrize(
    ("socket", "reason"),
    [
        (FakeSocket([]), "broken"),
        (FakeSocket([], then_silent=True), "the server was silent for 45 s"),
        (FakeSocket(["{}"]), "the server does not speak this protocol"),
        (FakeSocket(["\ud800"]), "the server does not speak this protocol"),
        (FakeSocket([encode(Error(code=503, message="shutting down")).decode()]), "shutting down"),
    ],
)
async def test_why_a_connection_was_left(socket: FakeSocket, reason: str, autojump_clock: MockClock) -> None:
    seen = await updates_until(connect_to(socket), lambda update: isinstance(update, Waiting))
    assert isinstance(seen[-1], Waiting)
    assert seen[-1].reason == reason


async def test_heartbeats_keep_a_quiet_connection(autojump_clock: MockClock) -> None:
    class Quiet(FakeSocket):
        async def get_message(self) -> str:
            await trio.sleep(30)
            return await super().get_message()

    heartbeat = encode(HeartBeat(timestamp="2026-11-20T16:41:03.000000Z")).decode()
    seen = await updates_until(connect_to(Quiet([heartbeat] * 5)), lambda update: isinstance(update, Waiting))
    assert [type(update) for update in seen[2:-1]] == [HeartBeat] * 5


async def test_a_refusal_is_handed_on_and_leaves_the_other_streams_alone(autojump_clock: MockClock) -> None:
    refusal = Error(code=404, message="unknown", stream_id="a")
    socket = FakeSocket([encode(refusal).decode(), FRAME])
    seen = await updates_until(connect_to(socket), lambda update: isinstance(update, MarketData))
    assert seen[2] == refusal


async def test_streams_of_a_server_arrive() -> None:
    orders = Subscribe(stream_id="b", symbol="ADAUSD", data_type="MBO", max_levels=3)
    formats: dict[str, str] = {}
    answered = set()
    async with (
        fake_depth_server() as addr,
        follow(websocket_url(addr), [STREAM, orders]) as updates,
    ):
        async for update in updates:
            match update:
                case Subscribed():
                    answered.add(update.stream_id)
                case MarketData():
                    formats[update.stream_id] = update.data.format
            if len(formats) == 2:
                break
    assert formats == {"a": "MBP", "b": "MBO"}
    assert answered == {"a", "b"}


@pytest.mark.parametrize(
    ("addr", "url"),
    [
        ("127.0.0.1:8080", "ws://127.0.0.1:8080/"),
        ("[::1]:8080", "ws://[::1]:8080/"),
        ("wss://example.org/feed", "wss://example.org/feed"),
    ],
)
def test_addresses(addr: str, url: str) -> None:
    assert websocket_url(addr) == url


@pytest.mark.parametrize(
    "addr", ["", "8080", "localhost", ":8080", "127.0.0.1:x", "127.0.0.1:99999", "http://a:1/"]
)
def test_what_is_no_address(addr: str) -> None:
    with pytest.raises(ValueError, match="no address of a server"):
        websocket_url(addr)


async def reason_of_first_failure(url: str) -> str:
    async with follow(url, [STREAM]) as updates:
        async for update in updates:
            if isinstance(update, Waiting):
                return update.reason
    raise AssertionError("the updates ended")


@asynccontextmanager
async def refusing_server(status_line: bytes, heard: list[bytes]) -> AsyncIterator[str]:
    """The address of a server that answers every handshake with this status."""

    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            heard.append(bytes(await stream.receive_some()))
            await stream.send_all(b"HTTP/1.1 " + status_line + b"\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, refuse, 0)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_server_that_refuses_websockets() -> None:
    async with refusing_server(b"403 Forbidden", []) as addr:
        reason = await reason_of_first_failure(websocket_url(addr))
    assert reason == "the server refused the WebSocket (HTTP status 403)"


async def test_a_token_goes_into_the_handshake_and_a_wrong_one_is_the_end() -> None:
    heard: list[bytes] = []
    async with (
        refusing_server(b"401 Unauthorized", heard) as addr,
        follow(websocket_url(addr), [STREAM], connect=partial(open_socket, token="guess")) as updates,
    ):
        seen = [update async for update in updates]
    assert seen == [Connecting(), NO_TOKEN]
    assert b"\r\nAuthorization: Bearer guess\r\n" in heard[0]


async def test_a_server_that_asks_for_a_token_is_the_end_too(autojump_clock: MockClock) -> None:
    socket = FakeSocket([encode(Error(code=401, message="a token is required", stream_id="a")).decode()])
    seen = await updates_until(connect_to(socket), lambda _: False)
    assert seen == [Connecting(), Live(), NO_TOKEN]


async def test_a_certificate_that_is_not_trusted_is_the_end_too(tmp_path: Path) -> None:
    tls = make_tls(tmp_path)
    async with (
        local_server(tls=tls.server) as server,
        follow(f"wss://{tls.host}:{server.port}/", [STREAM]) as updates,
    ):
        connecting, denied = [update async for update in updates]
    assert connecting == Connecting()
    assert isinstance(denied, Denied)
    assert denied.message.startswith("the server's certificate is not trusted: ")
    assert "SSL_CERT_FILE" in denied.remedy


async def test_a_server_without_tls_is_told_at_once() -> None:
    async with local_server() as server:
        reason = await reason_of_first_failure(f"wss://127.0.0.1:{server.port}/")
    assert reason == "the server speaks no TLS: ws:// may be meant"


async def test_a_trusted_server_is_spoken_to_in_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = make_tls(tmp_path)
    monkeypatch.setattr(ssl, "create_default_context", lambda: tls.client)
    async with local_server(tls=tls.server) as server:
        url = f"wss://{tls.host}:{server.port}/"
        async with follow(url, [STREAM]) as updates:
            seen = [type(await anext(updates)) for _ in range(5)]
    assert seen == [Connecting, Live, HeartBeat, Subscribed, MarketData]


async def test_a_server_that_says_nothing_is_not_waited_for_long(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> trio.SocketStream:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio, "open_tcp_stream", hang)
    assert await reason_of_first_failure("ws://nowhere:1/") == "the server does not answer"
    assert trio.current_time() == 5


async def test_a_port_where_nobody_listens(unused_port: int) -> None:
    assert await reason_of_first_failure(f"ws://127.0.0.1:{unused_port}/") == "connection refused"
