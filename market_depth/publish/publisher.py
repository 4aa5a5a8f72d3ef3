"""Serves one recorded file to any number of clients; each gets it from its beginning, at the chosen pace.

A client of its own playback has whole books whenever it comes, and is sent every record however slow it is: its
playback waits for it, and for nobody else's (a recording loses nothing by waiting). It takes a few batches of memory.
One that takes less than SEND_BYTES in SEND_TIMEOUT_S is let go.

Only those who have proved that they know the key count as clients. There is room for MAX_STRANGERS others, and when
one too many comes, the one that has been there longest goes: silent connections keep nobody out.
"""

import logging
import math
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import trio

from market_depth.clock import Clock
from market_depth.feeds.base import FeedError
from market_depth.feeds.dbn import DbnFile
from market_depth.feeds.gateway_text import END_OF_RECORDING
from market_depth.feeds.pacing import Pacing
from market_depth.publish.playback import OpenRecords, Playback, Records
from market_depth.publish.session import (
    INTERNAL_ERROR,
    REPLAY_COMPLETED,
    Catalog,
    GatewaySession,
    SessionState,
)

logger = logging.getLogger(__name__)

AUTHENTICATION_TIMEOUT_S = 10.0
START_TIMEOUT_S = 300.0
"""From there to the session's start, which a person may type."""

SEND_TIMEOUT_S = 30.0
SEND_BYTES = 64 * 1024
"""The timeout is for so much: who takes 2 kB/s is slow, and served."""

CLOSE_TIMEOUT_S = 2.0
SHUTDOWN_TIMEOUT_S = 3.0

MAX_STRANGERS = 128
"""Connections of which nobody knows yet whose they are; whoever has the key is none of them after a round trip."""

RECEIVE_BYTES = 16 * 1024
DEFAULT_MAX_CLIENTS = 64


class Publisher:
    """The clients of one file."""

    def __init__(
        self,
        open_records: OpenRecords,
        catalog: Catalog,
        pacing: Pacing,
        clock: Clock,
        *,
        loop: bool = False,
        key: str | None = None,
        max_clients: int = DEFAULT_MAX_CLIENTS,
    ) -> None:
        """`open_records` is called for each playback; `loop`: start again at the end, else close; `key`: what clients must
        know, None for anything; `max_clients`: how many who know it are served at a time."""
        self.catalog = catalog
        self._open_records = open_records
        self._clock = clock
        self._pacing = pacing
        self._loop = loop
        self._key = key
        self._max_clients = max_clients
        self._clients: dict[_Client, None] = {}  # oldest first
        self._sessions = 0

    @classmethod
    async def open(
        cls,
        path: Path,
        pacing: Pacing,
        clock: Clock,
        *,
        loop: bool = False,
        key: str | None = None,
        max_clients: int = DEFAULT_MAX_CLIENTS,
    ) -> Self:
        """A publisher of the DBN file at `path`. Raises: FeedError when it cannot be published."""
        catalog = await trio.to_thread.run_sync(_catalog_of, path)

        async def open_records() -> Records:
            return await trio.to_thread.run_sync(DbnFile, path)

        return cls(open_records, catalog, pacing, clock, loop=loop, key=key, max_clients=max_clients)

    async def run(self, listeners: Sequence[trio.SocketListener]) -> None:
        """Serve those who come to `listeners`, until cancelled."""
        async with trio.open_nursery() as nursery:
            try:
                await trio.serve_listeners(self.serve, list(listeners), handler_nursery=nursery)
            finally:
                for client in self._clients:
                    client.hurry()

    async def serve(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Serve one client until it leaves, or until there is no more."""
        self._sessions += 1
        session_id = str(self._sessions)
        try:
            await self._serve_session(stream, session_id)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.info("client lost session=%s", session_id)
        except* _TooSlowError:
            logger.warning("client takes nothing session=%s after_s=%g", session_id, SEND_TIMEOUT_S)
        except* Exception:
            logger.exception("session failed session=%s", session_id)
        finally:
            await trio.aclose_forcefully(stream)

    async def _serve_session(self, stream: trio.abc.HalfCloseableStream, session_id: str) -> None:
        challenge = secrets.token_urlsafe(24)
        session = GatewaySession(self.catalog, key=self._key, challenge=challenge, session_id=session_id)
        client = _Client(stream, session, session_id, self._clock, self._is_full)
        self._let_a_stranger_go()
        self._clients[client] = None
        try:
            await client.run(self._playback)
        finally:
            del self._clients[client]

    def _is_full(self) -> bool:
        return sum(client.is_authenticated for client in self._clients) >= self._max_clients

    def _let_a_stranger_go(self) -> None:
        """Make room for another connection."""
        strangers = [client for client in self._clients if not client.is_authenticated]
        if len(strangers) >= MAX_STRANGERS:
            logger.info("too many strangers max=%d", MAX_STRANGERS)
            strangers[0].leave()

    def _playback(self, from_ns: int) -> Playback:
        return Playback(self._open_records, self._pacing, loop=self._loop, from_ns=from_ns)


class _TooSlowError(Exception):
    """A client takes nothing."""


class _Client:
    """One connection: what arrives goes into its session, what the session says goes out."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        session: GatewaySession,
        session_id: str,
        clock: Clock,
        is_full: Callable[[], bool],
    ) -> None:
        self._stream = stream
        self._session = session
        self._session_id = session_id
        self._clock = clock
        self._is_full = is_full
        self._staying = trio.CancelScope()
        self._lock = trio.Lock()  # two tasks send: one answers, one plays
        self._sending = trio.CancelScope()
        self._send_until = math.inf
        self._sent_at = trio.current_time()

    @property
    def is_authenticated(self) -> bool:
        """Whether the client was let in."""
        return self._session.is_authenticated

    async def run(self, playback_from: Callable[[int], Playback]) -> None:
        """Converse until the client leaves, `leave` is called, or there is no more."""
        with self._staying:
            await self._run(playback_from)

    def leave(self) -> None:
        """Close the connection as it is."""
        self._staying.cancel()

    async def _run(self, playback_from: Callable[[int], Playback]) -> None:
        session = self._session
        await self._send(session.greeting())
        await self._converse(SessionState.AUTHENTICATING, AUTHENTICATION_TIMEOUT_S)
        await self._converse(SessionState.SUBSCRIBING, START_TIMEOUT_S)
        if session.state is SessionState.STREAMING:
            logger.info(
                "session started session=%s client=%s instruments=%d",
                self._session_id,
                session.client,
                len(session.wanted),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, nursery.cancel_scope)
                await self._play(playback_from(session.start_ns))
                nursery.cancel_scope.cancel()
        if session.problem is not None:
            logger.warning("session refused session=%s problem=%r", self._session_id, session.problem)
        await _close(self._stream)
        logger.info("session closed session=%s", self._session_id)

    def hurry(self) -> None:
        """Give a send that is under way little more time."""
        self._send_until = trio.current_time() + SHUTDOWN_TIMEOUT_S
        self._sending.deadline = min(self._sending.deadline, self._send_until)

    async def _converse(self, state: SessionState, timeout_s: float) -> None:
        """Hear and answer the client for as long as its session is in `state`."""
        with trio.move_on_after(timeout_s) as limit:
            while self._session.state is state:
                await self._hear()
        if limit.cancelled_caught:
            await self._send(self._session.fail(f"Nothing came for {timeout_s:g} s", self._clock.wall_ns()))

    async def _listen(self, playing: trio.CancelScope) -> None:
        """Hear and answer the client while its records are sent; end that when it leaves or errs."""
        try:
            while self._session.state is SessionState.STREAMING:
                await self._hear()
        finally:
            playing.cancel()

    async def _hear(self) -> None:
        data = await self._stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise trio.BrokenResourceError("the client closed the connection")
        now_ns = self._clock.wall_ns()
        await self._send(self._session.receive(bytes(data), now_ns, is_full=self._is_full()))

    async def _play(self, playback: Playback) -> None:
        """Send what is asked for when it is due, and a heartbeat when nothing was for a while."""
        session = self._session
        try:
            while True:
                with trio.move_on_at(self._sent_at + session.heartbeat_interval_s) as quiet:
                    batch = await anext(playback)
                now_ns = self._clock.wall_ns()
                await self._send(
                    session.heartbeat(now_ns) if quiet.cancelled_caught else session.records(batch, now_ns)
                )
        except StopAsyncIteration:
            await self._send(session.notice(END_OF_RECORDING, REPLAY_COMPLETED, self._clock.wall_ns()))
        except FeedError as error:
            logger.error("playback failed session=%s error=%s", self._session_id, error)
            await self._send(session.fail(str(error), self._clock.wall_ns(), INTERNAL_ERROR))
        finally:
            playback.close()

    async def _send(self, data: bytes) -> None:
        """Send all of `data`, even when cancelled meanwhile: half a record would be of no use."""
        if not data:
            return
        async with self._lock:
            for start in range(0, len(data), SEND_BYTES):
                deadline = min(trio.current_time() + SEND_TIMEOUT_S, self._send_until)
                with trio.CancelScope(shield=True, deadline=deadline) as self._sending:
                    await self._stream.send_all(data[start : start + SEND_BYTES])
                if self._sending.cancelled_caught:
                    raise _TooSlowError
            self._sent_at = trio.current_time()


async def _close(stream: trio.abc.HalfCloseableStream) -> None:
    """Say that nothing follows, and let the client take what is on its way."""
    with trio.move_on_after(CLOSE_TIMEOUT_S):
        await stream.send_eof()
        while await stream.receive_some(RECEIVE_BYTES):
            pass


def _catalog_of(path: Path) -> Catalog:
    with DbnFile(path) as recording:
        instruments = recording.instruments
    if not instruments:
        raise FeedError(path.name, "holds nothing to publish", "give a file with records")
    return Catalog(instruments[0].venue, {i.instrument_id: i.symbol for i in instruments})
