"""WebSocket clients that decode and check every frame, in one loop.

Such a client costs as much as thirty that only count, so they are few; `fleet` has the thousands.
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
    from collections.abc import Sequence

    from market_depth.config import Address
    from protocol.messages import Subscribe

SHAKING_AT_ONCE = 16
ACCEPT_TIMEOUT_S = 10.0

RECEIVE_BYTES = 256 * 1024
MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Longer ones are not waited for."""

_FIN_TEXT = 0x81
_FIN_CLOSE = 0x88
_FIN_PING = 0x89
_FIN_PONG = 0x8A
_HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    # The key of RFC 6455's example: the yardstick knows no other.
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_LINGER_NOT = struct.pack("ii", 1, 0)


class Load:
    """Clients of one server that subscribe to the same streams, and what they have received together."""

    def __init__(self, server: Address, subscriptions: Sequence[Subscribe]) -> None:
        self.frames = 0
        """`MarketData` frames, each counted when it is there as a whole."""
        self.bytes = 0
        """The same in bytes, headers included."""
        self.lost = 0
        """Clients that the server has left."""
        self._server = server
        self._requests = b"".join(
            masked_text(request.model_dump_json().encode()) for request in subscriptions
        )
        self._streams = len(subscriptions)
        self._clients: dict[int, _Client] = {}
        self._shaking: set[int] = set()
        self._epoll = select.epoll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()
        for client in self._clients.values():
            client.connection.close()

    @property
    def clients(self) -> int:
        """How many clients are connected."""
        return len(self._clients)

    @property
    def messages(self) -> list[bytes]:
        """The newest message of each stream as the oldest client got it: what one round sends to one client.

        Empty before that client has had them all.
        """
        newest = next((client.newest for client in self._clients.values()), {})
        return list(newest.values()) if len(newest) == self._streams else []

    def connect(self, count: int, timeout_s: float) -> None:
        """Connect so many more clients, who subscribe at once. Returns when the last handshake was answered.

        Raises: BenchError when the server refuses one or takes longer.
        """
        deadline = time.monotonic() + timeout_s
        left = count
        while left or self._shaking:
            while left and len(self._shaking) < SHAKING_AT_ONCE:
                self.begin()
                left -= 1
            self.receive(0.1)
            if self.lost:
                raise BenchError(f"the server has left {self.lost} clients while they came")
            if time.monotonic() > deadline:
                late = left + len(self._shaking)
                raise BenchError(f"{late} of {count} clients not connected in {timeout_s:g} s")

    def begin(self) -> None:
        """Let one more client connect and say its handshake; the rest goes on while reading.

        Raises: BenchError when the server does not accept.
        """
        try:
            connection = socket.create_connection(self._server, timeout=ACCEPT_TIMEOUT_S)
        except OSError as error:
            raise BenchError(f"no connection to {self._server}: {error}") from None
        connection.setblocking(False)
        # Closing resets the connection: thousands of them waiting out their TIME_WAIT would starve the next run of ports.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        connection.send(_HANDSHAKE.format(server=self._server).encode())
        descriptor = connection.fileno()
        self._clients[descriptor] = _Client(self, connection, self._requests)
        self._shaking.add(descriptor)
        self._epoll.register(descriptor, select.EPOLLIN)

    def disconnect_oldest(self) -> None:
        """Let the client leave that has been there longest, without a word."""
        self._drop(next(iter(self._clients)))

    def receive(self, timeout_s: float) -> bool:
        """Read what has come; wait so long for the first of it. Returns: whether anything came.

        Raises: BenchError when it is not what a server may send.
        """
        ready = self._epoll.poll(timeout_s)
        for descriptor, _ in ready:
            client = self._clients[descriptor]
            try:
                client.receive()
            except ConnectionError:
                self.lost += 1
                self._drop(descriptor)
            else:
                if client.is_open:
                    self._shaking.discard(descriptor)
        return bool(ready)

    def receive_for(self, duration_s: float, quiet_s: float) -> None:
        """Read for so long and on to the end of the round, which is when nothing has come for `quiet_s`.

        So two calls in a row end at the same point of a round. A server that is never quiet is read from for twice the
        duration.
        """
        end = time.monotonic() + duration_s
        while (now := time.monotonic()) < end:
            self.receive(end - now)
        self.receive(duration_s)
        while time.monotonic() < end + duration_s and self.receive(quiet_s):
            pass

    def wait_for_messages(self, timeout_s: float) -> None:
        """Read until the first client has a frame of each stream. Raises: BenchError when that takes longer."""
        deadline = time.monotonic() + timeout_s
        while not self.messages:
            if time.monotonic() > deadline:
                raise BenchError(f"no market data in {timeout_s:g} s")
            self.receive(0.1)

    def _drop(self, descriptor: int) -> None:
        self._shaking.discard(descriptor)
        self._clients.pop(descriptor).connection.close()


class _Client:
    """A client that decodes every frame. A stream's sequence must never fall."""

    def __init__(self, load: Load, connection: socket.socket, requests: bytes) -> None:
        self.connection = connection
        self.is_open = False
        """Whether the server has answered the handshake."""
        self.newest: dict[str, bytes] = {}
        """The last message of each stream."""
        self._load = load
        self._requests = requests
        self._received = bytearray()
        self._sequences: dict[str, int] = {}

    def receive(self) -> None:
        data = self.connection.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError
        self._received += data
        if not self.is_open and not self._shake_hands():
            return
        at = 0
        while (end := _frame_end(self._received, at)) is not None:
            self._take(bytes(self._received[at:end]))
            at = end
        del self._received[:at]

    def _shake_hands(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        if not self._received.startswith(b"HTTP/1.1 101 "):
            first_line = self._received.decode(errors="replace").partition("\r\n")[0]
            raise BenchError(f"the handshake was answered {first_line!r}")
        del self._received[: end + 4]
        self.connection.send(self._requests)
        self.is_open = True
        return True

    def _take(self, frame: bytes) -> None:
        payload = frame[_header_size(frame[1]) :]
        if frame[0] == _FIN_CLOSE:
            raise ConnectionResetError
        if frame[0] == _FIN_PING:
            self.connection.send(bytes((_FIN_PONG, 0x80 | len(payload))) + bytes(4) + payload)
        else:
            self._check(payload, len(frame))

    def _check(self, text: bytes, frame_size: int) -> None:
        try:
            message = json.loads(text)
        except ValueError as error:
            raise BenchError(f"a frame that is not JSON: {error}") from None
        match message["type"]:
            case "MarketData":
                stream_id, sequence = message["stream_id"], message["sequence"]
                before = self._sequences.get(stream_id, 0)
                if sequence < before:
                    raise BenchError(f"stream {stream_id}: sequence {sequence} after {before}")
                self._sequences[stream_id] = sequence
                self.newest[stream_id] = text
                self._load.frames += 1
                self._load.bytes += frame_size
            case "Error":
                raise BenchError(f"the server answered {message['code']}: {message['message']}")


def masked_text(text: bytes) -> bytes:
    """A short text message from a client as a frame; the mask is zero, which leaves the text as it is."""
    head = (
        bytes((_FIN_TEXT, 0x80 | len(text)))
        if len(text) < 126
        else struct.pack("!BBH", _FIN_TEXT, 0xFE, len(text))
    )
    return head + bytes(4) + text


def _frame_end(data: bytearray, at: int) -> int | None:
    """Where the frame that begins at `at` ends; None when it is not there as a whole.

    Raises: BenchError when no frame of a server of ours begins so.
    """
    size = len(data)
    if size - at < 2:
        return None
    first, length = data[at], data[at + 1]
    if first not in (_FIN_TEXT, _FIN_CLOSE, _FIN_PING) or length > 127:
        raise BenchError(f"bytes {first:#04x} {length:#04x} where an unmasked frame must begin")
    header = _header_size(length)
    if size - at < header:
        return None
    if header > 2:
        length = int.from_bytes(data[at + 2 : at + header])
    if length > MAX_FRAME_BYTES:
        raise BenchError(f"a frame of {length:,} bytes")
    end = at + header + length
    return end if end <= size else None


def _header_size(length: int) -> int:
    return {126: 4, 127: 10}.get(length, 2)
