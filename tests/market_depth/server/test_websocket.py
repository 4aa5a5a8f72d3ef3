import json
import logging
from contextlib import suppress

import pytest
import trio
from wsproto.frame_protocol import FrameProtocol

from market_depth.metrics import Cut
from market_depth.server import websocket as websocket_module
from market_depth.server.direct_stream import MAX_POSTED
from protocol.messages import Error, HeartBeat, MarketData, Subscribed, Unsubscribed
from protocol.session import Limits
from tests.market_depth.server.local_server import (
    LocalServer,
    WrittenMarket,
    complaints,
    local_server,
    reset,
)
from tests.market_depth.server.socket_pairs import frame_texts

HOST = b"Host: localhost\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
HANDSHAKE = b"GET / HTTP/1.1\r\n" + HOST + UPGRADE + KEY + VERSION + b"\r\n"
PING = '{"type": "Ping", "timestamp": "2026-11-20T16:41:03Z"}'


def text(content: str) -> bytes:
    return bytes(FrameProtocol(client=True, extensions=[]).send_data(content))


def ping_frame() -> bytes:
    return bytes(FrameProtocol(client=True, extensions=[]).ping(b"?"))


async def shake_hands(server: LocalServer) -> trio.SocketStream:
    """A client that speaks in bytes, after the handshake and the first heartbeat."""
    stream = await server.connect()
    await stream.send_all(HANDSHAKE)
    received = b""
    while b"HeartBeat" not in received:
        received += await stream.receive_some()
    return stream


async def read_to_the_end(stream: trio.SocketStream) -> list[str]:
    """The frames that still come; a close frame as its code."""
    received = b""
    while data := await stream.receive_some():
        received += data
    return frame_texts(received)


# Handshake


@pytest.mark.parametrize(
    ("request_bytes", "status_line"),
    [
        (HANDSHAKE, b"HTTP/1.1 101 "),
        (HANDSHAKE.replace(b"Upgrade: websocket", b"UPGRADE:\tWebSocket "), b"HTTP/1.1 101 "),
        (HANDSHAKE.replace(b"GET /", b"GET /any/path?query"), b"HTTP/1.1 101 "),
        (HANDSHAKE.replace(b"GET", b"POST"), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(KEY, b""), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(VERSION, b""), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(b"13", b"12"), b"HTTP/1.1 426 "),
        (HANDSHAKE.replace(HOST, b""), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(HOST, b"Host: \xff\r\n"), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(b"Connection: Upgrade\r\n", b""), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(b"Connection: Upgrade", b"Connection: \xe9"), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(VERSION, VERSION + b"Sec-WebSocket-Protocol: \xff\r\n"), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(VERSION, VERSION + b"Transfer-Encoding: nonsense\r\n"), b"HTTP/1.1 400 "),
        (HANDSHAKE.replace(b"GET", b"\x00"), b"HTTP/1.1 400 "),
    ],
)
async def test_each_handshake_is_answered_at_once(
    request_bytes: bytes, status_line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with local_server() as server:
        async with await server.connect() as stream:
            await stream.send_all(request_bytes)
            assert (await stream.receive_some()).startswith(status_line)
        await server.wait_for_clients(0)
    assert complaints(caplog.records) == []


async def test_a_client_that_leaves_during_the_handshake_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with local_server() as server, server.client():
        for _ in range(50):
            stream = await server.connect()
            await stream.send_all(HANDSHAKE)
            reset(stream)
        await server.wait_for_clients(1)
    assert complaints(caplog.records) == []


# Requests


async def test_a_client_is_greeted_and_gets_its_first_snapshot_behind_the_answer() -> None:
    async with local_server(interval_s=1000) as server, server.client() as client:
        await client.send(
            '{"type": "Subscribe", "stream_id": "a", "symbol": "BTCUSD", "data_type": "MBO", "max_levels": 3}'
        )
        answers = [await client.receive(), await client.receive()]
    assert answers[0] == Subscribed(stream_id="a", symbol="BTCUSD", data_type="MBO")
    assert isinstance(answers[1], MarketData)
    assert (answers[1].stream_id, answers[1].data.format) == ("a", "MBO")


async def test_nothing_of_a_stream_follows_its_end() -> None:
    async with local_server(interval_s=0.001) as server, server.client() as client:
        for number in range(30):
            assert isinstance(await client.subscribe(f"stream {number}"), Subscribed)
            await client.receive()
            assert await client.unsubscribe(f"stream {number}") == Unsubscribed(stream_id=f"stream {number}")
            await client.send(PING)
            assert isinstance(await client.receive(), HeartBeat)


async def test_a_refused_request_costs_the_other_streams_nothing() -> None:
    async with local_server() as server, server.client() as client:
        await client.subscribe("a")
        for request in ("nonsense", b"\x00"):
            await client.send(request)
            answer = await client.answer()
            assert isinstance(answer, Error)
            assert answer.code == 400
        repeated = await client.subscribe("a")
        assert isinstance(repeated, Error)
        assert repeated.code == 409
        assert isinstance(await client.receive(), MarketData)


async def test_a_bug_of_ours_is_a_500_with_a_trace_in_the_log_and_the_streams_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with local_server() as server, server.client() as client:
        await client.subscribe("a")

        def fail(*_: object) -> None:
            raise RuntimeError("secret")

        monkeypatch.setattr(server.broadcaster, "start", fail)
        await client.subscribe("b")
        assert await client.answer() == Error(code=500, message="internal error", stream_id="b")
        assert isinstance(await client.receive(), MarketData)
        assert server.counts.errors == {500: 1}
    assert complaints(caplog.records) == [caplog.records[-1].getMessage()]
    assert caplog.records[-1].exc_info is not None


async def test_a_book_that_cannot_be_shown_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    market = WrittenMarket()
    market.broken = {"BTCUSD"}
    async with local_server(market=market) as server, server.client() as client:
        assert isinstance(await client.subscribe("a", "BTCUSD"), Subscribed)
        await client.subscribe("b", "ETHUSD")
        frames = [await client.receive() for _ in range(6)]
        assert {frame.stream_id for frame in frames if isinstance(frame, MarketData)} == {"b"}
        told = [frame for frame in frames if isinstance(frame, Error)]
        assert told[0] == Error(code=500, message="internal error", stream_id="a")
        assert len(told) <= 2  # when it subscribed, and in the first round that met the fault
        market.broken.clear()
        while not (isinstance(frame := await client.receive(), MarketData) and frame.stream_id == "a"):
            pass
    assert len(complaints(caplog.records)) == 1


# Limits


@pytest.mark.parametrize("letter", ["x", "é", "€"])
async def test_a_message_of_exactly_the_limit_is_read(letter: str) -> None:
    message = letter * (1000 // len(letter.encode()))
    async with (
        local_server(limits=Limits(max_message_bytes=len(message.encode()))) as server,
        server.client() as client,
    ):
        answer = await (await client.send(message)).answer()
    assert isinstance(answer, Error)
    assert answer.code == 400


@pytest.mark.parametrize(
    ("letter", "size"), [("x", 1001), ("é", 1002), ("€", 1002), ("x", 100_000), ("x", 3_000_000)]
)
async def test_a_message_over_the_limit_is_told_once_and_the_connection_closed(
    letter: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    too_big = Error(code=413, message="a message may have at most 1000 bytes")
    async with local_server(limits=Limits(max_message_bytes=1000)) as server:
        stream = await shake_hands(server)

        async def send() -> None:
            await stream.send_all(text(letter * (size // len(letter.encode()))))
            await stream.send_eof()

        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send)
            assert await read_to_the_end(stream) == [too_big.model_dump_json(), "1009"]
        await server.wait_for_clients(0)
        assert server.counts.errors == {413: 1}
        assert server.counts.connections_cut == {Cut.MESSAGE_TOO_BIG: 1}
    assert "code=1009" in caplog.records[-1].getMessage()
    assert complaints(caplog.records) == []


async def test_a_message_too_big_in_pieces_is_refused_as_well() -> None:
    limits = Limits(max_message_bytes=1000)
    async with local_server(limits=limits) as server, await shake_hands(server) as stream:
        writer = FrameProtocol(client=True, extensions=[])
        await stream.send_all(b"".join(writer.send_data("x" * 400, fin=False) for _ in range(3)))
        await stream.send_all(ping_frame() * 3)
        frames = await read_to_the_end(stream)
    assert frames[-1] == "1009"
    assert json.loads(frames[0])["code"] == 413


async def test_a_client_that_goes_on_over_the_rate_is_let_go() -> None:
    limits = Limits(messages_per_s=0, message_burst=3, refusals_per_s=0, refusal_burst=5)
    async with local_server(limits=limits) as server, server.client() as client:
        for _ in range(9):
            await client.send(PING)
        answers = [await client.receive() for _ in range(9)]
        assert [answer.code if isinstance(answer, Error) else 0 for answer in answers] == [0] * 3 + [429] * 6
        assert await client.close_code() == 1008
        await server.wait_for_clients(0)
        assert server.counts.errors == {429: 6}
        assert server.counts.connections_cut == {Cut.FLOOD: 1}


EMPTY_FRAGMENT = b"\x00\x80" + bytes(4)


@pytest.mark.parametrize(
    "frames",
    [b"\x01\x80" + bytes(4) + EMPTY_FRAGMENT * 20_000, ping_frame() * 20_000],
    ids=["empty fragments", "pings"],
)
async def test_who_sends_frames_that_complete_no_message_is_let_go(frames: bytes) -> None:
    async with local_server(limits=Limits(max_message_bytes=1000)) as server, server.client() as other:
        async with await shake_hands(server) as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(frames)
            await server.wait_for_clients(1)
        assert server.counts.connections_cut == {Cut.FLOOD: 1}
        await other.send(PING)
        assert isinstance(await other.receive(), HeartBeat)


async def test_who_completes_messages_may_send_frames_in_between() -> None:
    async with (
        local_server(limits=Limits(max_message_bytes=1000)) as server,
        await shake_hands(server) as stream,
    ):
        writer = FrameProtocol(client=True, extensions=[])
        for _ in range(30):
            await stream.send_all(ping_frame() * 1000 + writer.send_data(PING))
        await stream.send_all(writer.close(1000))
        await read_to_the_end(stream)
        assert server.counts.connections_cut == {}


async def test_a_client_that_asks_without_reading_is_not_read_any_more() -> None:
    limits = Limits(messages_per_s=1e9, message_burst=1_000_000)
    async with (
        local_server(limits=limits) as server,
        server.client() as other,
        await shake_hands(server) as stream,
        trio.open_nursery() as nursery,
    ):
        _, slow = [client.stream for client in server.websocket._connections.values()]

        async def ask_for_ever() -> None:
            while True:
                await stream.send_all(text(PING) * 1000)

        nursery.start_soon(ask_for_ever)
        while not slow.is_backed_up:
            await trio.lowlevel.checkpoint()
        for _ in range(20):
            await other.send(PING)
            assert isinstance(await other.answer(), HeartBeat)
        assert slow._outbox is not None
        assert len(slow._outbox.posted) <= MAX_POSTED + 2
        nursery.cancel_scope.cancel()


async def test_a_client_that_never_reads_holds_only_its_newest_frames_and_disturbs_nobody() -> None:
    async with (
        local_server(market=WrittenMarket(padding=500_000), interval_s=0.005) as server,
        server.client() as other,
        await shake_hands(server) as stream,
    ):
        _, slow = [client.stream for client in server.websocket._connections.values()]
        for symbol in ("ADAUSD", "BTCUSD"):
            request = (
                f'"type": "Subscribe", "stream_id": "{symbol}", "symbol": "{symbol}", "data_type": "MBP"'
            )
            await stream.send_all(text(f"{{{request}}}"))
        await other.subscribe("a")
        sequences = []
        while slow.skipped < 10:
            frame = await other.receive()
            assert isinstance(frame, MarketData)
            sequences.append(frame.sequence)
        assert sequences == sorted(sequences)
        assert slow._outbox is not None
        assert sorted(slow._outbox.due) == ["ADAUSD", "BTCUSD"]


# Closing


async def test_shutting_down_tells_every_client_and_closes_with_1001(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with local_server() as server, server.client() as first, server.client() as second:
        await first.subscribe("a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.websocket.shut_down)
            for client in (first, second):
                assert await client.answer() == Error(code=503, message="the server is shutting down")
                assert await client.close_code() == 1001
        await server.wait_for_clients(0)
    ends = [record.getMessage() for record in caplog.records if "disconnected" in record.getMessage()]
    assert len(ends) == 2
    assert all(" code=1001 " in end for end in ends)


async def test_a_client_that_does_not_answer_the_close_is_closed_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT_S", 0.01)
    caplog.set_level(logging.INFO)
    async with local_server() as server, await shake_hands(server) as stream:
        await server.websocket.shut_down()
        assert (await read_to_the_end(stream))[-1] == "1001"
        await server.wait_for_clients(0)
    assert " code=1001 " in caplog.records[-1].getMessage()


async def test_what_a_client_sends_after_our_close_frame_is_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT_S", 0.05)
    async with local_server() as server, await shake_hands(server) as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.websocket.shut_down)
            received = b""
            while not received.endswith(b"\x88\x0f\x03\xe9shutting down"):
                received += await stream.receive_some()
            await stream.send_all(ping_frame() + text(PING) + ping_frame())
        await server.wait_for_clients(0)
    assert complaints(caplog.records) == []


@pytest.mark.parametrize(
    ("said", "code"),
    [(b"\xc1\x80\0\0\0\0", 1002), (b"\x81\x02hi", 1002), (b"\x81\x81\0\0\0\0\xff", 1007)],
    ids=["reserved bit", "not masked", "not UTF-8"],
)
async def test_a_client_that_breaks_the_rules_is_told_so_and_counted(
    said: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with local_server() as server, await shake_hands(server) as stream:
        await stream.send_all(said + text(PING) * 100)
        assert await read_to_the_end(stream) == [str(code)]
        await server.wait_for_clients(0)
        assert server.counts.connections_cut[Cut.PROTOCOL] == 1
    assert f" code={code} " in caplog.records[-1].getMessage()
    assert complaints(caplog.records) == []


@pytest.mark.parametrize(("code", "logged"), [(1000, 1000), (4321, 4321), (None, 1005)])
async def test_the_log_says_how_a_client_left(
    code: int | None, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with local_server() as server, await shake_hands(server) as stream:
        await stream.send_all(bytes(FrameProtocol(client=True, extensions=[]).close(code)))
        assert await read_to_the_end(stream) == [str(logged)]
        await server.wait_for_clients(0)
    assert f" code={logged} " in caplog.records[-1].getMessage()


@pytest.mark.parametrize("code", [1002, 1007, 1008, 1009, 4503])
async def test_a_client_that_closes_with_one_of_our_codes_is_not_counted_as_cut(code: int) -> None:
    async with local_server() as server, await shake_hands(server) as stream:
        await stream.send_all(bytes(FrameProtocol(client=True, extensions=[]).close(code, "it was me")))
        assert await read_to_the_end(stream) == [str(code)]
        await server.wait_for_clients(0)
        counts = server.counts
    assert (counts.connections_cut, counts.connections_refused, counts.errors) == ({}, {}, {})


async def test_the_log_tells_a_clients_life_in_a_line_for_each_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with local_server() as server:
        stream = await shake_hands(server)
        host, port = stream.socket.getsockname()
        await stream.send_all(
            text('{"type": "Subscribe", "stream_id": "my\u2028id=1", "symbol": "BTCUSD", "data_type": "MBP"}')
            + text('{"type": "Subscribe", "stream_id": "a b", "symbol": "BTCUSD", "data_type": "MBP"}')
            + text('{"type": "Unsubscribe", "stream_id": "a b"}')
        )
        received = b""
        while b"Unsubscribed" not in received:
            received += await stream.receive_some()
        reset(stream)
        await server.wait_for_clients(0)
    peer = f"peer={host}:{port}"
    stream_text = "stream_id='a b' symbol=BTCUSD data_type=MBP max_levels=20"
    assert [record.getMessage() for record in caplog.records] == [
        f"client connected {peer} clients=1",
        f"subscribed {peer} {stream_text}",
        f"unsubscribed {peer} {stream_text}",
        f"client disconnected {peer} code=1006 skipped_frames=0 clients=0",
    ]
