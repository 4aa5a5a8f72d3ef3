"""A `DirectStream` over a real socket pair with small buffers, and the other end of the pair."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import trio
from wsproto.frame_protocol import FrameProtocol, Opcode

from market_depth.metrics import ServerCounts
from market_depth.server.direct_stream import DirectStream
from market_depth.server.turnstile import Turnstile

if TYPE_CHECKING:
    from tests.market_depth.server.certificates import Tls

BUFFER_BYTES = 8 * 1024


class Pair(NamedTuple):
    """The server's stream and the client's socket."""

    stream: DirectStream
    client: trio.abc.Stream
    client_socket: socket.socket
    counts: ServerCounts

    def read_now(self) -> bytes:
        """What has arrived at the client, without waiting."""
        received = b""
        with suppress(BlockingIOError):
            while data := self.client_socket.recv(65_536):
                received += data
        return received


@asynccontextmanager
async def direct_pair(tls: Tls | None = None) -> AsyncIterator[Pair]:
    """A connected pair, closed at the end; with TLS after its handshake."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    async with trio.open_nursery() as nursery:
        counts = ServerCounts()
        stream = DirectStream(ours, nursery, counts, Turnstile(), tls and tls.server)
        plain = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        client: trio.abc.Stream = plain
        if tls is not None:
            client = trio.SSLStream(plain, tls.client, server_hostname=tls.host)
            async with trio.open_nursery() as shaking:
                shaking.start_soon(client.send_all, b"!")
                assert await stream.receive_some() == b"!"
        pair = Pair(stream, client, theirs, counts)
        try:
            yield pair
        finally:
            await trio.aclose_forcefully(pair.client)
            await trio.aclose_forcefully(pair.stream)
            nursery.cancel_scope.cancel()


def frame_texts(received: bytes | bytearray) -> list[str]:
    """The frames in a byte stream, which must be whole but for the last: texts, the code of a close frame, `ping`."""
    reader = FrameProtocol(client=True, extensions=[])
    reader.receive_bytes(bytes(received))
    texts: list[str] = []
    text = ""
    for frame in reader.received_frames():
        if frame.opcode is Opcode.PING:
            texts.append("ping")
        elif isinstance(frame.payload, tuple):
            texts.append(str(int(frame.payload[0])))
        else:
            text += frame.payload if isinstance(frame.payload, str) else bytes(frame.payload).decode()
            if frame.message_finished:
                texts.append(text)
                text = ""
    return texts
