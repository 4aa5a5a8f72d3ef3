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
6–7 (a bare `send()` in C: 6), measured at 1,000 to 5,000 clients.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, NoReturn, Protocol

import trio

from market_depth.metrics import Cut
from market_depth.server.frames import close_code_of
from market_depth.server.tls import TlsSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from market_depth.metrics import ServerCounts
    from market_depth.server.turnstile import Turnstile

logger = logging.getLogger(__name__)

STALL_LIMIT_S = 30.0
"""A socket that has taken no byte for so long belongs to nobody: the connection is cut."""

MAX_POSTED = 128
"""So many answers may wait for a client that does not read them before we stop reading from it."""

MAX_POSTED_BYTES = 1024 * 1024
"""So many bytes of answers may wait for a client; with more it is cut. Of market data no more waits than the rest of one
write."""

RECEIVE_BYTES = 16 * 1024

NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if hasattr(socket, "TCP_QUICKACK") else None)
"""Python 3.11 does not name this option, which on Linux is 25."""

NOTSENT_BYTES = 16 * 1024
"""The kernel takes no more than this beyond what the network takes: what is unsent stays with us, and becomes newer."""


class Transport(Protocol):
    """What carries the bytes without waiting: a socket, or TLS on one.

    `send` says how many bytes of `data` it is done with. Below all, even at 0, they have been begun, and the rest must be the
    next to be sent; if it cannot even begin, it raises BlockingIOError.
    """

    def send(self, data: bytes | memoryview, /) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class DirectStream(trio.abc.HalfCloseableStream):
    """A non-blocking stream socket, as a trio Stream and as a place to put frames without waiting."""

    __slots__ = (
        "_counts",
        "_nursery",
        "_outbox",
        "_socket",
        "_transport",
        "_turnstile",
        "_unread",
        "close_code",
        "is_broken",
        "is_closed",
        "is_closing",
        "is_framed",
        "newest",
        "peer",
        "skipped",
        "unanswered_pings",
        "write",
    )

    def __init__(
        self,
        connection: socket.socket,
        nursery: trio.Nursery,
        counts: ServerCounts,
        turnstile: Turnstile,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Takes over `connection`, which must not block.

        `nursery` holds the drain task while there is one; nothing that happens in it reaches other tasks. All streams of
        a server pass the same turnstile before they receive.
        """
        self._socket = connection
        self._transport: Transport = connection if tls is None else TlsSocket(connection, tls)
        self._nursery = nursery
        self._counts = counts
        self._turnstile = turnstile
        self._unread = b""
        self._outbox: _Outbox | None = None
        # Fails cleanly after close; a bare descriptor may be somebody else's by then.
        self.write: Callable[[bytes], int] = self._transport.send
        """Begins to write frames, and says how many bytes were taken: if not all, `finish` must be called. Raises: OSError,
        with which `refuse` must be called. Bare like this because the broadcaster has no time for more."""
        self.newest: Callable[[DirectStream, str], bytes | None] = _nothing
        """Makes the newest frame of a stream, when the socket takes bytes again; None if there is none to send."""
        self.is_framed = True
        """Whether `send_all` takes WebSocket frames, and so may be given a close frame: no part of a download is one."""
        self.is_closing = False
        self.is_broken = False
        self.is_closed = False
        self.close_code: int | None = None
        """What our close frame said, once it is on its way."""
        self.skipped = 0
        """How many frames were left out because a newer one of the same stream was due before they were written."""
        self.unanswered_pings = 0
        """How often the client was pinged since something came from it."""
        self.peer = _peer_text(connection)
        with contextlib.suppress(OSError):  # not every kind of socket has these
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if NOTSENT_LOWAT is not None:
                connection.setsockopt(socket.IPPROTO_TCP, NOTSENT_LOWAT, NOTSENT_BYTES)

    def put_on(self, layer: Callable[[Transport], Transport]) -> None:
        """Let all bytes pass one more layer from now on. Nothing may wait to be written, or to be received again."""
        assert self._outbox is None, "its started write knows nothing of the layer"
        assert not self._unread, "it has not passed the layer"
        self._transport = layer(self._transport)
        if not self.is_closing:
            self.write = self._transport.send

    # Without waiting: replies and market data

    @property
    def is_full(self) -> bool:
        """Whether something waits to be written."""
        return self._outbox is not None

    def post(self, frame: bytes) -> None:
        """Write a frame that must arrive, after those posted before it."""
        if self.is_closing:
            return
        self._counts.bytes_sent += len(frame)
        if self._outbox is None:
            try:
                self._write(frame)
            except OSError:
                self._fail()
        elif not self._outbox.post(frame):
            self.cut(Cut.BACKLOG)

    def offer(self, payload: bytes, carried: Iterable[str], further: Iterable[str] = ()) -> bool:
        """Write `payload`, the joined frames of the streams `carried`, and then the newest frame of each of `further`.

        If the socket is full, all these streams are due: each gets one frame, the newest, when it takes bytes again.
        Returns: whether the payload was written or begun.
        """
        taken = bool(payload)
        if payload:
            try:
                sent = self.write(payload)
            except OSError as error:
                self.refuse(error, carried)
                taken = False
            else:
                if sent != len(payload):
                    self.finish(payload, sent)
        if further and not self.is_closing:
            if self._outbox is None:
                self._fill(None)
            self.remember(further)
        return taken

    def finish(self, payload: bytes, sent: int) -> None:
        """Write the rest of what `write` has begun."""
        self._fill(memoryview(payload)[sent:])

    def refuse(self, error: OSError, carried: Iterable[str]) -> None:
        """Bear that `write` has not begun the streams' frames: they are due, unless the connection is at an end."""
        if self.is_closing:
            return
        if not isinstance(error, BlockingIOError | InterruptedError):
            self._fail()
            return
        if self._outbox is None:
            self._fill(None)
        self.remember(carried)

    def remember(self, stream_ids: Iterable[str]) -> None:
        """Send each stream's newest frame when the full socket takes bytes again."""
        if self.is_closing:
            return
        assert self._outbox is not None, "an open socket takes frames at once"
        skipped = self._outbox.remember(stream_ids)
        self.skipped += skipped
        self._counts.frames_skipped += skipped

    def withdraw(self, stream_id: str) -> None:
        """Send no frame of the stream that has not been begun."""
        if self._outbox is not None:
            self._outbox.due.pop(stream_id, None)

    def cut(self, reason: Cut, last_words: bytes = b"") -> None:
        """End the connection at once. `last_words`, a close frame, go out if nothing stands in their way."""
        if self.is_broken or self.is_closed:
            return
        logger.info("client cut peer=%s reason=%s", self.peer, reason)
        self._counts.connections_cut[reason] += 1
        if last_words and self._outbox is None and not self.is_closing:
            self.close_code = close_code_of(last_words)
            with contextlib.suppress(OSError):  # then it goes without a word
                self._transport.send(last_words)
        self._fail()

    @property
    def is_backed_up(self) -> bool:
        """Whether so many answers wait that no more questions should be read."""
        return self._outbox is not None and len(self._outbox.posted) > MAX_POSTED

    async def wait_posted(self) -> None:
        """Return when all that was posted so far is written, or never will be."""
        if self._outbox is not None:
            await self._outbox.queue(b"")

    async def wait_drained(self) -> None:
        """Return when nothing waits to be written any more."""
        while self._outbox is not None:
            await self._outbox.drained.wait()

    def _write(self, data: bytes) -> _Outbox | None:
        """Write now. Returns: what has the rest, if the socket did not take it whole."""
        try:
            sent = self._transport.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        return None if sent == len(data) else self._fill(memoryview(data)[sent:])

    def _fill(self, rest: memoryview | None) -> _Outbox:
        """Leave the socket to a drain task, which begins with the rest of a started write."""
        self.write = _refuse
        outbox = self._outbox = _Outbox(rest)
        self._nursery.start_soon(self._drain, outbox)
        return outbox

    async def _drain(self, outbox: _Outbox) -> None:
        try:
            await self._finish_write(outbox)
            while outbox.posted or outbox.due:
                if outbox.posted:
                    data, written = outbox.posted[0]
                    outbox.rest = memoryview(data)
                    await self._finish_write(outbox)
                    # Only now: whoever waits for it must be told, too, when the write fails.
                    outbox.posted.popleft()
                    outbox.posted_bytes -= len(data)
                    if written is not None:
                        written.set()
                    continue
                # Several at a time: when a busy machine has filled thousands of sockets, one by one costs five times what a
                # round does, and the server would not get out of it.
                frames: list[bytes] = []
                size = 0
                while outbox.due and size < NOTSENT_BYTES:
                    stream_id = next(iter(outbox.due))
                    del outbox.due[stream_id]
                    frame = self.newest(self, stream_id)
                    if frame is not None:
                        frames.append(frame)
                        size += len(frame)
                if frames:
                    outbox.rest = memoryview(b"".join(frames))
                    await self._finish_write(outbox)
                # A client that reads fast must not keep us encoding for it alone.
                await trio.lowlevel.checkpoint()
        except TimeoutError:
            self.cut(Cut.STALLED)
        except (OSError, trio.ClosedResourceError):
            self._fail()
        except Exception:
            logger.exception("writing failed peer=%s", self.peer)
            self.cut(Cut.FAILED)
        finally:
            self._outbox = None
            if not self.is_closing:
                self.write = self._transport.send
            outbox.end()

    async def _finish_write(self, outbox: _Outbox) -> None:
        while outbox.rest is not None:
            try:
                sent = self._transport.send(outbox.rest)
            except (BlockingIOError, InterruptedError):
                # Never before a `send`: waiting for a socket that was closed meanwhile is an error of its own kind.
                await self._wait_writable()
            else:
                # An empty piece of a frame would keep the whole in memory.
                outbox.rest = outbox.rest[sent:] if sent != len(outbox.rest) else None

    async def _wait_writable(self) -> None:
        with trio.move_on_after(STALL_LIMIT_S) as limit:
            await trio.lowlevel.wait_writable(self._socket)
        if limit.cancelled_caught:
            raise TimeoutError

    def _close_to_data(self) -> None:
        self.is_closing = True
        self.write = _refuse
        if self._outbox is not None:
            self._outbox.due.clear()

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
        await trio.lowlevel.checkpoint_if_cancelled()
        size = max_bytes or RECEIVE_BYTES
        data = self._receive(size)
        if data is not None:
            # Whoever has always more to say must not keep the others waiting. The data waits where no cancellation loses it.
            self.unread(data)
            await trio.lowlevel.checkpoint()
            await self._turnstile.enter(self._nursery.start_soon)
            data = self._receive(size)
        while data is None:
            if self._outbox is not None and self._outbox.is_read_behind:
                await self.wait_drained()
            else:
                await trio.lowlevel.wait_readable(self._socket)
            await self._turnstile.enter(self._nursery.start_soon)
            data = self._receive(size)
        self.unanswered_pings = 0
        return data

    def _receive(self, size: int) -> bytes | None:
        """What is there; None when that is nothing yet."""
        if self._unread:
            data, self._unread = self._unread[:size], self._unread[size:]
            return data
        try:
            return self._transport.recv(size)
        except (BlockingIOError, InterruptedError):
            return None
        except ssl.SSLWantWriteError:
            # TLS has something to say before it can go on. The drain task is the only one who waits for that.
            outbox = self._outbox or self._fill(memoryview(b""))
            outbox.is_read_behind = True
            return None
        except OSError as error:
            if self.is_closed:
                raise trio.ClosedResourceError from error
            raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        close_code = close_code_of(data) if self.is_framed else None
        if close_code is not None:
            self.close_code = close_code
            self._close_to_data()
        if self.is_broken:
            raise trio.BrokenResourceError
        outbox = self._outbox
        if outbox is None:
            try:
                outbox = self._write(data)
            except OSError as error:
                self._fail()
                raise trio.BrokenResourceError from error
            data = b""
        if outbox is None:
            await trio.lowlevel.checkpoint()
            return
        await outbox.queue(data)
        if self.is_broken:
            raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        await self.wait_drained()

    async def send_eof(self) -> None:
        while not self.is_broken:
            await self.wait_drained()
            try:
                self._transport.shutdown(socket.SHUT_WR)
            except BlockingIOError:
                self._fill(memoryview(b""))
            except OSError as error:
                raise trio.BrokenResourceError from error
            else:
                await trio.lowlevel.checkpoint()
                return
        raise trio.BrokenResourceError

    def close(self) -> None:
        """Close at once: what was not written yet is lost."""
        self._close_to_data()
        if not self.is_closed:
            self.is_closed = True
            trio.lowlevel.notify_closing(self._socket)
            self._transport.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


class _Outbox:
    """What waits for a full socket. It exists while the socket is full: most never are."""

    __slots__ = ("drained", "due", "is_read_behind", "posted", "posted_bytes", "rest")

    def __init__(self, rest: memoryview | None) -> None:
        self.rest = rest
        self.posted: deque[tuple[bytes, trio.Event | None]] = deque()
        self.posted_bytes = 0
        self.due: dict[str, None] = {}  # as an ordered set
        self.is_read_behind = False
        """Whether nothing can be received before it is empty."""
        self.drained = trio.Event()

    def post(self, frame: bytes, written: trio.Event | None = None) -> bool:
        """Put a frame behind those that wait. Returns: whether these are not too many bytes."""
        self.posted.append((frame, written))
        self.posted_bytes += len(frame)
        return self.posted_bytes <= MAX_POSTED_BYTES

    async def queue(self, data: bytes) -> None:
        """Put `data` behind what waits; return when it is written, or never will be."""
        written = trio.Event()
        self.post(data, written)
        await written.wait()

    def remember(self, stream_ids: Iterable[str]) -> int:
        """Make streams due. Returns: how many were already, so that a frame of theirs is left out."""
        due, skipped = self.due, 0
        for stream_id in stream_ids:
            # Who is due already keeps its place: at the end it would be overtaken every round, and never be written to a
            # client that reads too little for all its streams.
            if stream_id in due:
                skipped += 1
            due[stream_id] = None
        return skipped

    def end(self) -> None:
        """Tell everybody who waits."""
        self.rest = None
        for _, written in self.posted:
            if written is not None:
                written.set()
        self.drained.set()


def _refuse(_payload: bytes) -> NoReturn:
    """Begin nothing: the socket is full, or at its end."""
    raise BlockingIOError


def _nothing(_client: DirectStream, _stream_id: str) -> None:
    """No stream has begun yet."""


def _peer_text(connection: socket.socket) -> str:
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return "local"
    try:
        host, port, *_ = connection.getpeername()
    except OSError:  # gone already
        return "unknown"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
