"""Thousands of WebSocket clients in one loop, cheap enough to measure a server on the same machine.

Every client subscribes to the same streams and reads whatever comes. Most clients look at frame headers only, which is
enough to count frames and to notice a torn one: the next header would not be where it must be. A few, the *checked*
clients, decode every frame.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from typing import TYPE_CHECKING, Self

from market_depth.bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocol.messages import Subscribe

CHECKED_CLIENTS = 5
"""The first clients of a load: a frame costs such a client thirty times what it costs the others."""

SHAKING_AT_ONCE = 64
"""So many handshakes are under way at a time; a listener's backlog holds more."""

BUFFER_BYTES = 1 << 20
"""What is read at once, and so the largest frame."""

SMALL_FRAME_BYTES = 126
"""Heartbeats and answers to requests are shorter; `MarketData` frames, even of an empty book, are not."""

_FIN_TEXT = 0x81
_HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    # The key of RFC 6455's example: the yardstick knows no other.
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_LINGER_NOT = struct.pack("ii", 1, 0)


class Load:
    """Clients of one server on 127.0.0.1, and what they have received together."""

    def __init__(self, port: int, subscriptions: Sequence[Subscribe]) -> None:
        self.frames = 0
        """`MarketData` frames, each counted when it is there as a whole."""
        self.bytes = 0
        """The same in bytes, headers included."""
        self.lost = 0
        """Clients that the server has left."""
        self._port = port
        self._requests = b"".join(
            _masked_text(subscription.model_dump_json().encode()) for subscription in subscriptions
        )
        self._streams = len(subscriptions)
        self._buffer = bytearray(BUFFER_BYTES)
        self._sockets: dict[int, socket.socket] = {}
        self._receivers: dict[int, Callable[[], None]] = {}
        self._checked: list[_Checked] = []
        self._epoll = select.epoll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        for connection in self._sockets.values():
            connection.close()

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._sockets)

    @property
    def payload(self) -> bytes:
        """The newest frame of each stream as a client got it, joined: what one tick sends to one client.

        Empty before the first client has had them all.
        """
        newest = self._checked[0].newest if self._checked else {}
        return b"".join(newest.values()) if len(newest) == self._streams else b""

    def connect(self, count: int, timeout_s: float) -> float:
        """Connect so many more clients, who subscribe at once. Returns: seconds until the last handshake was answered.

        Raises: BenchError when the server refuses one or takes longer.
        """
        started = time.monotonic()
        shaking: set[int] = set()
        left = count
        while left or shaking:
            while left and len(shaking) < SHAKING_AT_ONCE:
                shaking.add(self._open(shaking))
                left -= 1
            self.receive(0.1)
            if self.lost:
                raise BenchError(f"the server has left {self.lost} clients while they came")
            if time.monotonic() - started > timeout_s:
                raise BenchError(f"{left + len(shaking)} of {count} clients not connected in {timeout_s:g} s")
        return time.monotonic() - started

    def receive(self, timeout_s: float) -> bool:
        """Read what has come; wait so long for the first of it. Returns: whether anything came.

        Raises: BenchError when it is not what a server may send.
        """
        ready = self._epoll.poll(timeout_s)
        for descriptor, _ in ready:
            try:
                self._receivers[descriptor]()
            except ConnectionError:
                self.lost += 1
                del self._receivers[descriptor]
                self._sockets.pop(descriptor).close()
        return bool(ready)

    def receive_for(self, duration_s: float, quiet_s: float) -> None:
        """Read for so long and on to the end of the next tick, which is when nothing has come for `quiet_s`.

        So two calls in a row end at the same point of a tick. A server that is never quiet is read from for twice the
        duration.
        """
        end = time.monotonic() + duration_s
        while (now := time.monotonic()) < end:
            self.receive(end - now)
        self.receive(duration_s)
        while time.monotonic() < end + duration_s and self.receive(quiet_s):
            pass

    def wait_for_payload(self, timeout_s: float) -> float:
        """Read until the first client has a frame of each stream. Returns: seconds until then.

        Raises: BenchError when that takes longer.
        """
        started = time.monotonic()
        while not self.payload:
            if time.monotonic() - started > timeout_s:
                raise BenchError(f"no market data in {timeout_s:g} s")
            self.receive(0.1)
        return time.monotonic() - started

    def _open(self, shaking: set[int]) -> int:
        connection = socket.create_connection(("127.0.0.1", self._port))
        connection.setblocking(False)
        # Closing resets the connection: thousands of them waiting out their TIME_WAIT would starve the next run of ports.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        connection.send(_HANDSHAKE.format(port=self._port).encode())
        descriptor = connection.fileno()
        self._sockets[descriptor] = connection

        def shake_hands() -> None:
            rest = _after_answer(connection.recv(4096))
            connection.send(self._requests)
            shaking.discard(descriptor)
            client: _Checked | _Skimmed
            if len(self._checked) < CHECKED_CLIENTS:
                client = _Checked(self, connection, rest)
                self._checked.append(client)
            else:
                client = _Skimmed(self, connection, self._buffer, rest)
            self._receivers[descriptor] = client.receive

        self._receivers[descriptor] = shake_hands
        self._epoll.register(descriptor, select.EPOLLIN)
        return descriptor


class _Skimmed:
    """A client that walks from frame header to frame header."""

    __slots__ = ("_buffer", "_load", "_receive_into", "_rest")

    def __init__(self, load: Load, connection: socket.socket, buffer: bytearray, rest: bytes) -> None:
        self._load = load
        self._receive_into = connection.recv_into
        self._buffer = buffer
        self._rest = rest

    def receive(self) -> None:
        buffer, rest = self._buffer, self._rest
        if rest:
            buffer[: len(rest)] = rest
            with memoryview(buffer) as view:
                received = self._receive_into(view[len(rest) :])
        else:
            received = self._receive_into(buffer)
        if not received:
            raise ConnectionResetError
        size = len(rest) + received
        at = 0
        while (end := _frame_end(buffer, at, size)) is not None:
            if end - at >= SMALL_FRAME_BYTES:
                self._load.frames += 1
                self._load.bytes += end - at
            at = end
        self._rest = bytes(buffer[at:size])


class _Checked:
    """A client that decodes every frame. A stream's sequence must never fall."""

    def __init__(self, load: Load, connection: socket.socket, rest: bytes) -> None:
        self.newest: dict[str, bytes] = {}
        """The last frame of each stream."""
        self._load = load
        self._connection = connection
        self._received = bytearray(rest)
        self._sequences: dict[str, int] = {}

    def receive(self) -> None:
        data = self._connection.recv(BUFFER_BYTES)
        if not data:
            raise ConnectionResetError
        self._received += data
        at = 0
        while (end := _frame_end(self._received, at, len(self._received))) is not None:
            self._check(bytes(self._received[at:end]))
            at = end
        del self._received[:at]

    def _check(self, frame: bytes) -> None:
        try:
            message = json.loads(frame[_header_size(frame[1]) :])
        except ValueError as error:
            raise BenchError(f"a frame that is not JSON: {error}") from None
        match message["type"]:
            case "MarketData":
                stream_id, sequence = message["stream_id"], message["sequence"]
                before = self._sequences.get(stream_id, 0)
                if sequence < before:
                    raise BenchError(f"stream {stream_id}: sequence {sequence} after {before}")
                self._sequences[stream_id] = sequence
                self.newest[stream_id] = frame
                self._load.frames += 1
                self._load.bytes += len(frame)
            case "Error":
                raise BenchError(f"the server answered {message['code']}: {message['message']}")


def _frame_end(data: bytes | bytearray, at: int, size: int) -> int | None:
    """Where the frame that begins at `at` ends; None when it is not there as a whole.

    Raises: BenchError when no frame of ours begins so.
    """
    if size - at < 2:
        return None
    length = data[at + 1]
    if data[at] != _FIN_TEXT or length > 127:
        raise BenchError(f"bytes {data[at]:#04x} {length:#04x} where an unmasked text frame must begin")
    if length < 126:
        end = at + 2 + length
    elif length == 126:
        if size - at < 4:
            return None
        end = at + 4 + (data[at + 2] << 8) + data[at + 3]
    else:
        if size - at < 10:
            return None
        end = at + 10 + int.from_bytes(data[at + 2 : at + 10])
    return end if end <= size else None


def _header_size(length: int) -> int:
    return {126: 4, 127: 10}.get(length, 2)


def _masked_text(text: bytes) -> bytes:
    """A short text message from a client; the mask is zero, which leaves the text as it is."""
    head = (
        bytes((_FIN_TEXT, 0x80 | len(text)))
        if len(text) < 126
        else struct.pack("!BBH", _FIN_TEXT, 0xFE, len(text))
    )
    return head + bytes(4) + text


def _after_answer(data: bytes) -> bytes:
    """What follows the answer to the handshake.

    Raises: ConnectionResetError when there is none, BenchError when it is a refusal.
    """
    if not data:
        raise ConnectionResetError
    answer, _, rest = data.partition(b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 101 "):
        first_line = answer.decode(errors="replace").partition("\r\n")[0]
        raise BenchError(f"the handshake was answered {first_line!r}")
    return rest
