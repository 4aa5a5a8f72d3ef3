"""Compressed messages between a real server and a client that speaks in bytes."""

from __future__ import annotations

import random
import socket
import zlib
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol

from market_depth.metrics import Cut
from market_depth.server.deflate import AGREED, EXTENSION, deflated_frames
from market_depth.server.deflate_socket import DeflateSocket, SharedDeflater
from market_depth.server.frames import text_frame
from market_depth.server.gate import Welcome
from protocol.codecs import decode_answer
from protocol.messages import Error, HeartBeat, MarketData, Subscribed
from protocol.session import Limits
from tests.market_depth.server.certificates import make_tls
from tests.market_depth.server.local_server import LocalServer, WrittenMarket, local_server
from tests.market_depth.server.socket_pairs import direct_pair
from tests.market_depth.server.test_websocket import HANDSHAKE, PING, text

if TYPE_CHECKING:
    from pathlib import Path

    from protocol.messages import DataType

OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
OFFERING = HANDSHAKE[:-2] + OFFER + b"\r\n"
SUBSCRIBE = '{"type": "Subscribe", "stream_id": "a", "symbol": "BTCUSD", "data_type": "MBP"}'


def agreed_extension() -> PerMessageDeflate:
    extension = PerMessageDeflate()
    extension.finalize(AGREED.decode())
    return extension


def packed(message: str) -> bytes:
    return bytes(FrameProtocol(client=True, extensions=[agreed_extension()]).send_data(message))


class Talk:
    """A client after its handshake."""

    def __init__(self, stream: trio.abc.Stream, *, is_agreed: bool) -> None:
        self.stream = stream
        self.received = b""
        self._protocol = Connection(ConnectionType.CLIENT, [agreed_extension()] if is_agreed else [])
        self._text = ""
        self._messages: list[str | int] = []

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    def take(self, data: bytes) -> None:
        self.received += data
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            match event:
                case TextMessage():
                    self._text += event.data
                    if event.message_finished:
                        self._messages.append(self._text)
                        self._text = ""
                case CloseConnection(code=code):
                    self._messages.append(int(code))
                case Ping():
                    pass

    async def hear(self) -> object:
        """The next message, or the code of a close frame."""
        while not self._messages:
            data = await self.stream.receive_some()
            assert data, "the server ended without a close frame"
            self.take(bytes(data))
        message = self._messages.pop(0)
        return message if isinstance(message, int) else decode_answer(message)


async def shake_hands(server: LocalServer, request: bytes = OFFERING, *, is_agreed: bool = True) -> Talk:
    return await begin(await server.connect(), request, is_agreed=is_agreed)


async def begin(stream: trio.abc.Stream, request: bytes = OFFERING, *, is_agreed: bool = True) -> Talk:
    """Shake hands, and read the first heartbeat."""
    await stream.send_all(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some()
    head, _, frames = received.partition(b"\r\n\r\n")
    assert (b"\r\nSec-WebSocket-Extensions: " + AGREED in head) is is_agreed
    talk = Talk(stream, is_agreed=is_agreed)
    talk.take(frames)
    assert isinstance(await talk.hear(), HeartBeat)
    return talk


# When it is agreed on


@pytest.mark.parametrize(
    ("compresses", "request_bytes", "is_agreed"),
    [
        (True, OFFERING, True),
        (True, HANDSHAKE, False),
        (True, OFFERING.replace(b"client_max_window_bits", b"server_max_window_bits=9"), False),
        (True, OFFERING + text(PING), False),
        (False, OFFERING, False),
        (False, HANDSHAKE, False),
    ],
    ids=["asked for", "not offered", "a smaller window", "did not wait", "not asked for", "neither"],
)
async def test_messages_are_compressed_if_both_want_it_and_only_then_may_they_be(
    compresses: bool, request_bytes: bytes, is_agreed: bool
) -> None:
    market = WrittenMarket(padding=1000)
    async with local_server(market=market, compresses=compresses) as server:
        talk = await shake_hands(server, request_bytes, is_agreed=is_agreed)
        async with talk.stream:
            await talk.say(text(SUBSCRIBE))
            while not isinstance(await talk.hear(), MarketData):
                pass
            assert (b"\xc1" in talk.received) is is_agreed
            assert (b'"MarketData"' in talk.received) is not is_agreed
            await talk.say(packed(PING))
            while isinstance(answer := await talk.hear(), MarketData):
                pass
            assert answer == 1002 if not is_agreed else isinstance(answer, HeartBeat)
        await server.wait_for_clients(0)
        assert server.counts.connections_cut[Cut.PROTOCOL] == (not is_agreed)


async def test_what_comes_before_our_answer_is_read_after_it() -> None:
    server = LocalServer(WrittenMarket(), Limits(), 1, compresses=True)
    async with direct_pair() as pair, trio.open_nursery() as nursery:
        pair.stream.unread(OFFERING)
        await pair.client.send_all(packed(PING))
        nursery.start_soon(
            server.websocket.serve, pair.stream, len(OFFERING), Welcome(True, None), [EXTENSION]
        )
        talk = await begin(pair.client, b"")
        assert isinstance(await talk.hear(), HeartBeat)
        nursery.cancel_scope.cancel()


async def test_compressed_requests_are_answered_over_tls_too(tmp_path: Path) -> None:
    tls = make_tls(tmp_path)
    async with local_server(market=WrittenMarket(padding=100_000), tls=tls.server, compresses=True) as server:
        tcp = await server.connect()
        stream = trio.SSLStream(tcp, tls.client, server_hostname=tls.host, https_compatible=True)
        talk = await begin(stream)
        async with stream:
            for _ in range(20):
                await talk.say(packed(PING))
            answers = [await talk.hear() for _ in range(20)]
            assert {type(answer) for answer in answers} == {HeartBeat}
            await talk.say(packed(SUBSCRIBE))
            assert isinstance(await talk.hear(), Subscribed)
            frames = [await talk.hear() for _ in range(5)]
            assert {type(frame) for frame in frames} == {MarketData}


# What goes wrong


@pytest.mark.parametrize("size", [1001, 100_000_000])
async def test_a_bomb_is_refused_as_any_message_too_big(size: int) -> None:
    compressor = zlib.compressobj(wbits=-15)
    bomb = compressor.compress(b"x" * size) + compressor.flush(zlib.Z_SYNC_FLUSH)
    frame = b"\xc1\xff" + len(bomb).to_bytes(8) + bytes(4) + bomb
    async with local_server(limits=Limits(max_message_bytes=1000), compresses=True) as server:
        talk = await shake_hands(server)
        async with talk.stream:
            await talk.say(frame[:8192])
            refused, code = await talk.hear(), await talk.hear()
        assert refused == Error(code=413, message="a message may have at most 1000 bytes")
        assert code == 1009
        await server.wait_for_clients(0)
        assert server.counts.connections_cut == {Cut.MESSAGE_TOO_BIG: 1}


async def test_what_cannot_be_decompressed_ends_the_connection_with_1007() -> None:
    async with local_server(compresses=True) as server:
        talk = await shake_hands(server)
        async with talk.stream:
            await talk.say(b"\xc1\x83\0\0\0\0\xff\xff\xff")
            assert await talk.hear() == 1007


# Slow clients


async def test_a_full_socket_tears_no_compressed_frame() -> None:
    class Noise(WrittenMarket):
        """Books that stay large when they are compressed."""

        def book_text(self, symbol: str, data_type: DataType, depth: int) -> str:
            book = super().book_text(symbol, data_type, depth)
            noise = random.Random(len(self.encoded)).randbytes(100_000).hex()
            return f'{book[:-1]},"noise":"{noise}"}}'

    async with local_server(market=Noise(), interval_s=0.005, compresses=True) as server:
        talk = await shake_hands(server)
        async with talk.stream:
            await talk.say(text(SUBSCRIBE))
            [client] = server.websocket._connections.values()
            while client.stream.skipped < 10:
                await trio.lowlevel.checkpoint()
            assert isinstance(await talk.hear(), Subscribed)
            sequences = []
            for _ in range(10):
                frame = await talk.hear()
                assert isinstance(frame, MarketData)
                sequences.append(frame.sequence)
        assert sequences == sorted(sequences)


class Narrow:
    """A transport that takes what a test lets it take."""

    def __init__(self) -> None:
        self.room = 0
        self.sent = b""
        self.arrived = b""

    def send(self, data: bytes | memoryview, /) -> int:
        if not self.room:
            raise BlockingIOError
        taken = bytes(data[: self.room])
        self.sent += taken
        self.room -= len(taken)
        return len(taken)

    def recv(self, size: int, /) -> bytes:
        data, self.arrived = self.arrived[:size], self.arrived[size:]
        return data

    def shutdown(self, how: int, /) -> None:
        self.sent += b"shutdown" if how == socket.SHUT_WR else b""

    def close(self) -> None:
        self.sent += b"close"


class Pair(NamedTuple):
    above: DeflateSocket
    below: Narrow


@pytest.fixture
def pair() -> Pair:
    below = Narrow()
    return Pair(DeflateSocket(below, SharedDeflater(), 1000), below)


FRAMES = text_frame(b"a" * 300) + text_frame(b"b" * 400)


def test_what_is_begun_is_finished_first(pair: Pair) -> None:
    pair.below.room = 10
    assert pair.above.send(FRAMES) == 0
    with pytest.raises(BlockingIOError):
        pair.above.send(memoryview(FRAMES))
    pair.below.room = 5
    assert pair.above.send(memoryview(FRAMES)) == 0
    pair.below.room = 1000
    assert pair.above.send(memoryview(FRAMES)) == len(FRAMES)
    assert pair.below.sent == deflated_frames(FRAMES)


def test_what_cannot_be_begun_is_forgotten(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pair.above.send(FRAMES)
    pair.below.room = 1000
    other = text_frame(b"c" * 300)
    assert pair.above.send(other) == len(other)
    assert pair.below.sent == deflated_frames(other)


@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 101 " + b"x" * 300, text_frame(b"short"), b"\x82" + b"x" * 300]
)
def test_what_is_no_long_text_stays_as_it_is(pair: Pair, data: bytes) -> None:
    pair.below.room = 1000
    assert pair.above.send(data) == len(data)
    assert pair.below.sent == data


def test_the_same_bytes_are_compressed_once_for_all_clients() -> None:
    deflater = SharedDeflater()
    first = deflater.deflated(FRAMES)
    assert deflater.deflated(FRAMES) is first
    assert deflater.deflated(bytes(bytearray(FRAMES))) is not first


def test_no_more_is_received_than_is_asked_for(pair: Pair) -> None:
    pair.below.arrived = packed("x" * 900)
    received = [pair.above.recv(400) for _ in range(4)]
    assert [len(piece) for piece in received] == [400, 400, 108, 0]


def test_the_end_is_handed_on(pair: Pair) -> None:
    pair.above.shutdown(socket.SHUT_WR)
    pair.above.close()
    assert pair.below.sent == b"shutdownclose"
