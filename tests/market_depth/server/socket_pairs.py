"""A `DirectStream` over a real socket pair with small buffers, and the other end of the pair."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import trio
from wsproto.frame_protocol import FrameProtocol, Opcode

from market_depth.metrics import ServerCounts
from market_depth.server.direct_stream import DirectStream
from market_depth.server.frames import text_frame

BUFFER_BYTES = 8 * 1024
TOO_BIG = text_frame(b"too big")


class Pair(NamedTuple):
    """The server's stream and the client's socket."""

    stream: DirectStream
    client: trio.SocketStream
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
async def direct_pair() -> AsyncIterator[Pair]:
    """A connected pair, closed at the end."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    async with trio.open_nursery() as nursery:
        client = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
        counts = ServerCounts()
        pair = Pair(DirectStream(ours, nursery, TOO_BIG, counts), client, theirs, counts)
        try:
            yield pair
        finally:
            await trio.aclose_forcefully(pair.client)
            await trio.aclose_forcefully(pair.stream)
            nursery.cancel_scope.cancel()


def frame_texts(received: bytes) -> list[str]:
    """The frames in a byte stream, which must be whole but for the last: texts, the code of a close frame, `ping`."""
    reader = FrameProtocol(client=True, extensions=[])
    reader.receive_bytes(received)
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
