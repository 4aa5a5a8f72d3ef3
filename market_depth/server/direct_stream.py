"""A client's socket with two writers: trio-websocket, which waits, and the broadcaster, which never does.

    open     every write goes to the socket at once. The first that the socket does not take whole makes it
    full     one drain task is the only writer: the rest of the started write, then what must arrive (`post`, and
             trio-websocket's own frames) in its order, then the newest frame of each stream that is due (`offer`)
    closing  a close frame has been written, or the socket has failed: no data follows, writes are dropped

From full back to open when all is written; from either to closing, for good. Frames are never torn: a started write is
finished first, whatever comes in the meantime. A full client keeps names of streams, not frames: what is newest is asked for
when the socket takes bytes again. So it costs the same few bytes whatever it has asked for, and nobody encodes what
it does not take.

Why not `SocketStream.send_all` for each client: a task and a checkpoint a frame cost 57–128 µs of CPU, this way costs
6–8 (a bare `send()` in C: 6), measured at 1,000 to 5,000 clients.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import deque
from typing import TYPE_CHECKING

import trio

from market_depth.server.frames import close_code_of
from protocol.errors import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

STALL_LIMIT_S = 30.0
"""A socket that has taken no byte for so long belongs to nobody: the connection is cut."""

MAX_POSTED = 128
"""So many answers may wait for a client that does not read them before we stop reading from it."""

RECEIVE_BYTES = 16 * 1024


class DirectStream(trio.abc.HalfCloseableStream):
    """A non-blocking stream socket, as a trio Stream and as a place to put frames without waiting."""

    __slots__ = (
        "_drained",
        "_due",
        "_nursery",
        "_posted",
        "_rest",
        "_send",
        "_socket",
        "_too_big",
        "_transport",
        "_unread",
        "close_code",
        "closed",
        "is_broken",
        "is_closing",
        "is_full",
        "newest",
        "peer",
        "skipped",
    )

    def __init__(self, connection: socket.socket, nursery: trio.Nursery, too_big: bytes) -> None:
        """Takes over `connection`, which must not block. `too_big` is the frame that goes before a close 1009.

        `nursery` holds the drain task while there is one; nothing that happens in it reaches other tasks.
        """
        self._socket = connection
        # Fails cleanly after close; a bare descriptor may be somebody else's by then.
        self._send = connection.send
        self._transport = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
        self._nursery = nursery
        self._unread = b""
        self._rest: memoryview | None = None
        self._posted: deque[tuple[bytes, trio.Event | None]] = deque()
        self._due: dict[str, None] = {}  # as an ordered set
        self.newest: Callable[[str], bytes | None] = _nothing
        """Makes the newest frame of a stream, when the socket takes bytes again; None if there is none to send."""
        self._drained = trio.Event()
        self._too_big = too_big
        self.is_full = False
        self.is_closing = False
        self.is_broken = False
        self.close_code: int | None = None
        """What our close frame said, once it is on its way."""
        self.closed = trio.Event()
        self.skipped = 0
        """How many frames were left out because a newer one of the same stream was due before they were written."""
        self.peer = _peer_text(connection)

    # Without waiting: replies and market data

    def post(self, frame: bytes) -> None:
        """Write a frame that must arrive, after those posted before it."""
        if self.is_closing:
            return
        if self.is_full:
            self._posted.append((frame, None))
            return
        try:
            self._write(frame)
        except OSError:
            self._fail()

    def offer(self, payload: bytes, carried: Iterable[str], further: Iterable[str] = ()) -> None:
        """Write `payload`, the joined frames of the streams `carried`, and then the newest frame of each of `further`.

        If the socket is full, all these streams are due: each gets one frame, the newest, when it takes bytes again.
        """
        if self.is_closing:
            return
        if not self.is_full:
            try:
                sent = self._send(payload) if payload else 0
            except (BlockingIOError, InterruptedError):
                self._fill(None)
            except OSError:
                self._fail()
                return
            else:
                if sent == len(payload) and not further:
                    return
                self._fill(memoryview(payload)[sent:] if sent != len(payload) else None)
                carried = ()
        self.remember(carried)
        self.remember(further)

    def remember(self, stream_ids: Iterable[str]) -> None:
        """Send each stream's newest frame when the full socket takes bytes again."""
        due = self._due
        for stream_id in stream_ids:
            # Who is due anew goes to the end, so that no stream is always the last one written.
            if stream_id in due:
                self.skipped += 1
                del due[stream_id]
            due[stream_id] = None

    def withdraw(self, stream_id: str) -> None:
        """Send no frame of the stream that has not been begun."""
        self._due.pop(stream_id, None)

    @property
    def is_backed_up(self) -> bool:
        """Whether so many answers wait that no more questions should be read."""
        return len(self._posted) > MAX_POSTED

    async def wait_posted(self) -> None:
        """Return when all that was posted so far is written, or never will be."""
        if self.is_full:
            await self._queue(b"")

    async def wait_drained(self) -> None:
        """Return when nothing waits to be written any more."""
        while self.is_full:
            await self._drained.wait()

    def _write(self, data: bytes) -> bool:
        """Write now. Returns: whether the socket took it whole; otherwise the rest is on its way."""
        try:
            sent = self._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent == len(data):
            return True
        self._fill(memoryview(data)[sent:])
        return False

    def _fill(self, rest: memoryview | None) -> None:
        """Leave the socket to a drain task, which begins with the rest of a started write."""
        self._rest = rest
        self.is_full = True
        self._drained = trio.Event()
        self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        try:
            await self._finish_write()
            while self._posted or self._due:
                if self._posted:
                    data, written = self._posted[0]
                    self._rest = memoryview(data)
                    await self._finish_write()
                    # Only now: whoever waits for it must be told, too, when the write fails.
                    self._posted.popleft()
                    if written is not None:
                        written.set()
                    continue
                stream_id = next(iter(self._due))
                del self._due[stream_id]
                frame = self.newest(stream_id)
                if frame is not None:
                    self._rest = memoryview(frame)
                    await self._finish_write()
                # A client that reads fast must not keep us encoding for it alone.
                await trio.lowlevel.checkpoint()
        except TimeoutError as error:
            logger.info("client cut peer=%s reason=%s", self.peer, error)
            self._fail()
        except (OSError, trio.ClosedResourceError):
            self._fail()
        except Exception:
            logger.exception("writing failed peer=%s", self.peer)
            self._fail()
        finally:
            self.is_full = False
            self._rest = None
            for _, waiting in self._posted:
                if waiting is not None:
                    waiting.set()
            self._posted.clear()
            self._drained.set()

    async def _finish_write(self) -> None:
        while self._rest:
            try:
                sent = self._send(self._rest)
            except (BlockingIOError, InterruptedError):
                # Never before a `send`: waiting for a socket that was closed meanwhile is an error of its own kind.
                await self._wait_writable()
            else:
                self._rest = self._rest[sent:]
        self._rest = None  # an empty piece of a frame would keep the whole in memory

    async def _wait_writable(self) -> None:
        with trio.move_on_after(STALL_LIMIT_S) as limit:
            await trio.lowlevel.wait_writable(self._socket)
        if limit.cancelled_caught:
            raise TimeoutError(f"no byte taken for {STALL_LIMIT_S:g} s")

    def _close_to_data(self) -> None:
        self.is_closing = True
        self._due.clear()

    def _fail(self) -> None:
        self.is_broken = True
        self._close_to_data()
        # The reader may wait on a socket that will never say anything: this wakes it.
        with contextlib.suppress(OSError):  # it is down already
            self._socket.shutdown(socket.SHUT_RDWR)

    # With waiting: trio-websocket's side

    def unread(self, data: bytes) -> None:
        """Put back bytes that were received, to be received again."""
        self._unread = data + self._unread

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._unread:
            await trio.lowlevel.checkpoint()
            size = max_bytes or len(self._unread)
            data, self._unread = self._unread[:size], self._unread[size:]
            return data
        return bytes(await self._transport.receive_some(max_bytes or RECEIVE_BYTES))

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        close_code = close_code_of(data)
        if close_code == CloseCode.MESSAGE_TOO_BIG:
            # trio-websocket closes by itself when a message is too big; the client is told why first.
            data = self._too_big + data
        if close_code is not None:
            self.close_code = close_code
            self._close_to_data()
        if self.is_broken:
            raise trio.BrokenResourceError
        if self.is_full:
            await self._written(data)
            return
        try:
            is_written = self._write(data)
        except OSError as error:
            self._fail()
            raise trio.BrokenResourceError from error
        if is_written:
            await trio.lowlevel.checkpoint()
        else:
            await self._written(b"")

    async def _written(self, data: bytes) -> None:
        """Return when `data` is written. Raises: trio.BrokenResourceError when it never will be."""
        await self._queue(data)
        if self.is_broken:
            raise trio.BrokenResourceError

    async def _queue(self, data: bytes) -> None:
        """Put `data` behind what waits; return when it is written, or never will be."""
        written = trio.Event()
        self._posted.append((data, written))
        await written.wait()

    async def wait_send_all_might_not_block(self) -> None:
        await self.wait_drained()

    async def send_eof(self) -> None:
        await self.wait_drained()
        await self._transport.send_eof()

    async def aclose(self) -> None:
        self._close_to_data()
        self.closed.set()
        await self._transport.aclose()


def _nothing(_stream_id: str) -> None:
    """No stream has begun yet."""


def _peer_text(connection: socket.socket) -> str:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return "local"
    try:
        host, port, *_ = connection.getpeername()
    except OSError:  # gone already
        return "unknown"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
