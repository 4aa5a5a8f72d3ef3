"""RFC 6455 on the real stack: what a raw client says to the echo route, frame by frame, and what it must hear.

The cases that need no fuzzing client of others; a path of its own lets such a client run all of its cases.
"""

from __future__ import annotations

import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from trio_websocket import open_websocket_url

from market_depth.server.conformance import ECHO_PATH
from protocol.errors import MessageTooBig
from protocol.session import Limits, error_frame
from tests.depth_server import DepthServer
from tests.market_depth.server.local_server import complaints, local_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

LIMIT = 100_000
MASK = b"\x37\xfa\x21\x3d"
HANDSHAKE = (
    f"GET {ECHO_PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    form: int = 0,
) -> bytes:
    """A client's frame. `form` is the number of bytes that tell the length, by default as few as possible."""
    length = len(payload)
    form = form or (1 if length < 126 else 3 if length < 65_536 else 9)
    masked = 0x80 if mask else 0
    head = {
        1: lambda: bytes((masked | length,)),
        3: lambda: struct.pack("!BH", masked | 126, length),
        9: lambda: struct.pack("!BQ", masked | 127, length),
    }[form]()
    first = bytes((fin << 7 | rsv << 4 | opcode,))
    if mask is None:
        return first + head + payload
    repeated = (mask * (length // 4 + 1))[:length]
    hidden = int.from_bytes(payload) ^ int.from_bytes(repeated)
    return first + head + mask + hidden.to_bytes(length)


def in_pieces(said: bytes, way: str) -> list[bytes]:
    """Bytes as they are said: at once, or one by one."""
    return [bytes((byte,)) for byte in said] if way == "byte by byte" else [said]


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def told(code: int, reason: bytes = b"") -> Heard:
    return Heard(CLOSE, struct.pack("!H", code) + reason)


class Heard(NamedTuple):
    """A frame of the server."""

    opcode: int
    payload: bytes


class RawClient:
    """A connection to the echo route, after the handshake, that speaks in bytes and hears in frames."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def say(self, *pieces: bytes) -> None:
        """Send each piece by itself, and let the server read it."""
        for piece in pieces:
            await self._stream.send_all(piece)

    async def hear(self) -> Heard | None:
        """The server's next frame: whole, final, unmasked, without reserved bits, its length told in as few bytes as possible.

        Returns: None at the end of the connection.
        """
        head = await self._take(2)
        if not head:
            return None
        first, length = head
        assert first & 0xF0 == 0x80
        assert length < 128
        if length > 125:
            size = 2 if length == 126 else 8
            length = int.from_bytes(await self._take(size))
            assert length > (125 if size == 2 else 65_535)
        payload = await self._take(length)
        assert len(payload) == length, "torn frame"
        return Heard(first & 0x0F, payload)

    async def hear_all(self) -> list[Heard]:
        """The frames that still come, up to the end of the connection."""
        heard = []
        while (frame := await self.hear()) is not None:
            heard.append(frame)
        return heard

    async def _take(self, count: int) -> bytes:
        while len(self._received) < count:
            data = await self._stream.receive_some()
            if not data:
                assert not self._received, "torn frame"
                return b""
            self._received += data
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken


@asynccontextmanager
async def echo_client(
    limit: int = Limits().max_message_bytes, *, echoes: bool = True
) -> AsyncIterator[RawClient]:
    """A client of a server with an echo route that reads messages of so many bytes."""
    async with (
        local_server(limits=Limits(max_message_bytes=limit), echoes=echoes) as server,
        await server.connect() as stream,
    ):
        await stream.send_all(HANDSHAKE)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        yield RawClient(stream)


BYE = close(1000)
GOOD_BYE = told(1000)
ALL_BYTES = bytes(range(256))

HEARD = {
    "text": ([frame(TEXT, b"hello")], [Heard(TEXT, b"hello")]),
    "empty text": ([frame(TEXT)], [Heard(TEXT, b"")]),
    "empty binary": ([frame(BINARY)], [Heard(BINARY, b"")]),
    "every byte": ([frame(BINARY, ALL_BYTES)], [Heard(BINARY, ALL_BYTES)]),
    "mask of zeros": ([frame(TEXT, b"hello", mask=bytes(4))], [Heard(TEXT, b"hello")]),
    "letters of all lengths": ([frame(TEXT, "κόσμε 𝄞€é\0\U0010ffff".encode())], [Heard(TEXT, "κόσμε 𝄞€é\0\U0010ffff".encode())]),
    "non-characters": ([frame(TEXT, "\ufffe\uffff\U0001ffff".encode())], [Heard(TEXT, "\ufffe\uffff\U0001ffff".encode())]),
    "two messages": ([frame(TEXT, b"a") + frame(BINARY, b"b")], [Heard(TEXT, b"a"), Heard(BINARY, b"b")]),
    "two fragments": ([frame(TEXT, b"he", fin=False), frame(CONTINUATION, b"llo")], [Heard(TEXT, b"hello")]),
    "binary fragments": ([frame(BINARY, b"\xff", fin=False), frame(CONTINUATION, b"\xfe")], [Heard(BINARY, b"\xff\xfe")]),
    "empty fragments": (
        [
            frame(TEXT, fin=False),
            frame(CONTINUATION, fin=False),
            frame(CONTINUATION, b"x", fin=False),
            frame(CONTINUATION),
        ],
        [Heard(TEXT, b"x")],
    ),
    "nothing in fragments": ([frame(TEXT, fin=False), frame(CONTINUATION)], [Heard(TEXT, b"")]),
    "a letter over two fragments": (
        [frame(TEXT, "€".encode()[:1], fin=False), frame(CONTINUATION, "€".encode()[1:])],
        [Heard(TEXT, "€".encode())],
    ),
    "control frames between fragments": (
        [
            frame(TEXT, b"a", fin=False),
            frame(PING, b"1"),
            frame(CONTINUATION, b"b", fin=False),
            frame(PONG, b"2"),
            frame(PING, b"3"),
            frame(CONTINUATION, b"c"),
        ],
        [Heard(PONG, b"1"), Heard(PONG, b"3"), Heard(TEXT, b"abc")],
    ),
    "ping": ([frame(PING)], [Heard(PONG, b"")]),
    "ping with 125 bytes": ([frame(PING, ALL_BYTES[-125:])], [Heard(PONG, ALL_BYTES[-125:])]),
    "ten pings": ([b"".join(frame(PING, bytes((n,))) for n in range(10))], [Heard(PONG, bytes((n,))) for n in range(10)]),
    "pong unasked": ([frame(PONG), frame(PONG, b"x" * 125), frame(TEXT, b"a")], [Heard(TEXT, b"a")]),
}  # fmt: skip


@pytest.mark.parametrize("way", ["at once", "frame by frame", "byte by byte"])
@pytest.mark.parametrize("case", HEARD)
async def test_messages_come_back_and_pings_are_answered(
    case: str, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    said, expected = HEARD[case]
    async with echo_client() as client:
        await client.say(*in_pieces(b"".join(said), way) if way != "frame by frame" else said)
        assert [await client.hear() for _ in expected] == expected
        await client.say(*in_pieces(BYE, way))
        assert await client.hear_all() == [GOOD_BYE]
    assert complaints(caplog.records) == []


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("length", [124, 125, 126, 127, 128, 65_535, 65_536, LIMIT])
@pytest.mark.parametrize("cut", [None, 1, 997, 50_000])
async def test_messages_of_every_form_of_length_come_back(length: int, opcode: int, cut: int | None) -> None:
    payload = (b"0123456789" * (length // 10 + 1))[:length]
    sent = frame(opcode, payload)
    if cut == 1:
        pieces = [sent[:1], sent[1:2], sent[2:5], sent[5:10], sent[10:15], sent[15:-1], sent[-1:]]
    elif cut is not None:
        parts = [payload[at : at + cut] for at in range(0, length, cut)]
        pieces = [
            frame(opcode if number == 0 else CONTINUATION, part, fin=number == len(parts) - 1)
            for number, part in enumerate(parts)
        ]
    else:
        pieces = [sent]
    async with echo_client(LIMIT) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.say, *pieces)
        assert await client.hear() == Heard(opcode, payload)
        await client.say(BYE)
        assert await client.hear_all() == [GOOD_BYE]


async def test_a_message_as_long_as_can_be_configured_comes_back_in_fragments() -> None:
    limit = 16 * 1024 * 1024
    part = bytes(limit // 8)
    pieces = [frame(BINARY if n == 0 else CONTINUATION, part, fin=n == 7, mask=bytes(4)) for n in range(8)]
    async with echo_client(limit) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.say, *pieces)
        echoed = await client.hear()
        assert echoed is not None
        assert (echoed.opcode, len(echoed.payload)) == (BINARY, limit)
        await client.say(BYE)
        assert await client.hear_all() == [GOOD_BYE]


# Closing


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        # Not 1009: in front of one of these stands the error that belongs to a message too big.
        *(
            struct.pack("!H", code)
            for code in (1000, 1001, 1002, 1003, 1007, 1008, 1010, 1011, 3000, 3999, 4000, 4999)
        ),
        struct.pack("!H", 1000) + b"bye",
        struct.pack("!H", 1000) + b"x" * 123,
        struct.pack("!H", 4001) + "κόσμε".encode(),
    ],
)
@pytest.mark.parametrize("follows", [b"", frame(TEXT, b"late") + frame(PING) + close(1001), b"\xff\xff\xff"])
async def test_a_close_is_answered_by_its_like_and_nothing_after_it(
    payload: bytes, follows: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with echo_client() as client:
        await client.say(frame(CLOSE, payload) + follows)
        assert await client.hear_all() == [Heard(CLOSE, payload)]
    assert complaints(caplog.records) == []


# What must fail the connection, with 1002, 1007 or 1009: RFC 6455, sections 5.1 to 5.5, 7.4, 8.1, 10.4

PROTOCOL_ERRORS = {
    **{f"reserved bits {rsv:03b} on text": frame(TEXT, b"a", rsv=rsv) for rsv in (1, 2, 4, 7)},
    "reserved bit on a ping": frame(PING, b"a", rsv=4),
    "reserved bit on a close": frame(CLOSE, b"\x03\xe8", rsv=2),
    "reserved bit on a continuation": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=4),
    **{f"opcode {opcode}": frame(opcode, b"a") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "opcode 3 between fragments": frame(TEXT, b"a", fin=False) + frame(3) + frame(CONTINUATION, b"b"),
    **{f"opcode {opcode} in fragments": frame(opcode, fin=False) for opcode in (CLOSE, PING, PONG)},
    **{f"opcode {opcode} with 126 bytes": frame(opcode, b"\x03\xe8" + b"x" * 124) for opcode in (CLOSE, PING, PONG)},
    "continuation of nothing": frame(CONTINUATION, b"a"),
    "continuation of nothing, to be continued": frame(CONTINUATION, b"a", fin=False),
    "text in a text": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "binary in a text": frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"),
    "text not masked": frame(TEXT, b"a", mask=None),
    "ping not masked": frame(PING, mask=None),
    "close not masked": frame(CLOSE, b"\x03\xe8", mask=None),
    "length of 125 in three bytes": frame(BINARY, bytes(125), form=3),
    "length of 65,535 in nine bytes": frame(BINARY, bytes(65_535), form=9)[:100],
    "length of 2 ** 63": b"\x82\xff\x80" + bytes(7) + MASK,
    "close with one byte": frame(CLOSE, b"\x03"),
    **{
        f"close code {code}": close(code)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}  # fmt: skip

BAD_TEXTS = {
    "no first byte": b"\x80",
    "impossible byte": b"hello \xfe",
    "overlong slash": b"\xc0\xaf",
    "overlong NUL": b"\xe0\x80\x80",
    "overlong four bytes": b"\xf0\x80\x80\xaf",
    "half a surrogate pair": b"\xed\xa0\x80",
    "a surrogate pair": b"\xed\xa0\x80\xed\xb0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "broken off": b"\xce\xba\xe1\xbd",
    "broken inside": b"\xe2\x82x",
}

BAD_DATA = {
    **{f"text, {name}": frame(TEXT, text) for name, text in BAD_TEXTS.items()},
    **{f"reason, {name}": close(1000, text) for name, text in BAD_TEXTS.items()},
    "second fragment": frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"\xff"),
    "broken off in the last fragment": frame(TEXT, b"a\xe2", fin=False) + frame(CONTINUATION, b"\x82"),
    "a letter that the next fragment does not end": frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION, b"a"),
    # At once, although more is to come: section 8.1, as early as possible.
    "first of several fragments": frame(TEXT, b"a\xff", fin=False),
    "first bytes of a long frame": frame(TEXT, b"a\xffxxxxxxxx" * 1000)[:50],
}  # fmt: skip


@pytest.mark.parametrize("way", ["at once", "byte by byte"])
@pytest.mark.parametrize(
    ("said", "code"),
    [
        *(pytest.param(said, 1002, id=name) for name, said in PROTOCOL_ERRORS.items()),
        *(pytest.param(said, 1007, id=name) for name, said in BAD_DATA.items()),
    ],
)
async def test_what_breaks_the_rules_is_answered_by_a_close_that_says_so(
    said: bytes, code: int, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with echo_client() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.say, *in_pieces(frame(TEXT, b"before") + said, way))
        [before, end] = await client.hear_all()
        nursery.cancel_scope.cancel()
    assert before == Heard(TEXT, b"before")
    assert end.opcode == CLOSE
    assert int.from_bytes(end.payload[:2]) == code
    end.payload[2:].decode()
    assert complaints(caplog.records) == []


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("cut", [None, 10_000])
async def test_a_message_over_the_limit_is_answered_by_1009(
    opcode: int, cut: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "market_depth.server.websocket.CLOSE_TIMEOUT_S", 0.01
    )  # our part of the close is all we want
    payload = b"x" * (LIMIT + 1)
    pieces = (
        [frame(opcode, payload)]
        if cut is None
        else [frame(opcode, payload[:cut], fin=False)] + [frame(CONTINUATION, payload[:cut], fin=False)] * 10
    )
    async with echo_client(LIMIT) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.say, *pieces)
        [error, end] = await client.hear_all()
        nursery.cancel_scope.cancel()
    assert error == Heard(TEXT, error_frame(MessageTooBig(LIMIT)).model_dump_json().encode())
    assert int.from_bytes(end.payload[:2]) == 1009


async def test_without_the_option_the_path_is_like_any_other() -> None:
    async with echo_client(echoes=False) as client:
        greeting = await client.hear()
    assert greeting is not None
    assert b"HeartBeat" in greeting.payload


async def test_the_option_opens_the_path() -> None:
    server = DepthServer("--symbols", "BTCUSD", "--conformance-echo")
    try:
        async with open_websocket_url(f"ws://{server.addr}{ECHO_PATH}") as connection:
            for message in ("text", b"binary"):
                await connection.send_message(message)
                assert await connection.get_message() == message
    finally:
        server.stop()
