"""A connection whose messages are compressed on their way, below everything that knows of messages.

What is written are whole frames, or what is no text message and stays as it is. The same bytes for several clients are
compressed once: 12 µs for a frame of 20 levels, of which a quarter remains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from market_depth.server.deflate import MIN_BYTES, TEXT_FRAME, Inflater, deflated_frames

if TYPE_CHECKING:
    from market_depth.server.direct_stream import Transport


class SharedDeflater:
    """Compresses for all clients of a server."""

    def __init__(self) -> None:
        self._frames = b""
        self._deflated = b""

    def deflated(self, frames: bytes) -> bytes:
        """The compressed form of whole frames: at once, if these same ones were the last."""
        # The broadcaster writes one object to all clients of a plan. To compare contents would take longer.
        if frames is not self._frames:
            self._deflated = deflated_frames(frames)
            self._frames = frames
        return self._deflated


class DeflateSocket:
    """The server's side of a connection with compressed messages, on top of what carries its bytes."""

    __slots__ = ("_deflater", "_inflater", "_ready", "_transport", "_unsent")

    def __init__(self, transport: Transport, deflater: SharedDeflater, max_message_bytes: int) -> None:
        self._transport = transport
        self._deflater = deflater
        self._inflater = Inflater(max_message_bytes)
        self._ready = b""
        self._unsent = memoryview(b"")

    def send(self, data: bytes | memoryview, /) -> int:
        """Compress and send. Returns: the length of `data` when all is at the socket, else 0; then it is begun, and must come again.

        Raises: as the transport below.
        """
        if not self._unsent:
            self._unsent = memoryview(self._wire(data))
            try:
                sent = self._transport.send(self._unsent)
            except OSError:
                self._unsent = memoryview(b"")  # nothing is begun
                raise
        else:
            sent = self._transport.send(self._unsent)
        self._unsent = self._unsent[sent:]
        return 0 if self._unsent else len(data)

    def recv(self, size: int, /) -> bytes:
        """Receive at most so many bytes, plain; none when the client has ended its side. Raises: as the transport below."""
        if not self._ready:
            received = self._transport.recv(size)
            if not received:
                return b""
            self._ready = self._inflater.receive(received)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def shutdown(self, how: int, /) -> None:
        """Say that nothing more is written. Raises: as the transport below."""
        self._transport.shutdown(how)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def _wire(self, data: bytes | memoryview) -> bytes | memoryview:
        if len(data) < MIN_BYTES or data[0] != TEXT_FRAME:
            return data
        if isinstance(data, bytes):
            return self._deflater.deflated(data)
        return deflated_frames(bytes(data))  # for one client that is slow: nobody else will ask for it
