"""The server's own parts in the test's process, on a free port, with books that tests write down."""

from __future__ import annotations

import logging
import socket
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from market_depth.clock import ManualClock
from market_depth.live_store import LiveStore
from market_depth.metrics import ServerCounts
from market_depth.server.asgi import AsgiServer
from market_depth.server.broadcaster import Broadcaster
from market_depth.server.direct_stream import DirectStream
from market_depth.server.exposition import Measured
from market_depth.server.gate import Gate
from market_depth.server.heartbeats import Heartbeats
from market_depth.server.http_connection import USUAL_TIMEOUTS, Timeouts
from market_depth.server.listener import Listener, open_listeners
from market_depth.server.loop_lag import LoopLag
from market_depth.server.turnstile import Turnstile
from market_depth.server.websocket import WebSocketServer
from market_depth.store.base import Retention
from market_depth.stream.market import Market
from market_depth.stream.publisher import Publisher
from protocol.codecs import decode_answer, encode
from protocol.instrument import SCALE, Instrument
from protocol.messages import Error, HeartBeat, MarketData, Subscribe, Subscribed, Unsubscribe, Unsubscribed
from protocol.session import Limits
from tests.market_depth.server.applications import hello

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

    from market_depth.server.asgi import Application
    from protocol.messages import DataType

WALL_NS = 1_790_000_000_000_000_000
SYMBOLS = ("ADAUSD", "BTCUSD", "ETHUSD")

Answered = HeartBeat | Subscribed | Unsubscribed | MarketData | Error


class WrittenMarket(Market):
    """A market whose books are text: empty, but as long as the test wants them. Each look is a change."""

    def __init__(self, *, is_open: bool = True, padding: int = 0) -> None:
        super().__init__(
            [Instrument(symbol, "SIM", number, SCALE // 100) for number, symbol in enumerate(SYMBOLS, 1)],
            lambda: WALL_NS,
        )
        self.is_open = is_open
        self.padding = padding
        self.encoded: list[tuple[str, DataType, int]] = []
        self.broken: set[str] = set()

    def sequence(self, symbol: str) -> int:  # noqa: ARG002
        return len(self.encoded)

    def book_text(self, symbol: str, data_type: DataType, depth: int) -> str:
        if symbol in self.broken:
            raise RuntimeError("this book cannot be shown")
        self.encoded.append((symbol, data_type, depth))
        return f'{{"format":"{data_type}","bids":[],"asks":[]{" " * self.padding}}}'


class LocalServer:
    """A server that listens, and what tests do with it."""

    def __init__(
        self,
        market: Market,
        limits: Limits,
        interval_s: float,
        application: Application = hello,
        gate: Gate | None = None,
        timeouts: Timeouts = USUAL_TIMEOUTS,
        tls: ssl.SSLContext | None = None,
        *,
        compresses: bool = False,
        echoes: bool = False,
    ) -> None:
        clock = ManualClock(WALL_NS)
        self.market = market
        self.counts = ServerCounts()
        self.publisher = Publisher([market])
        self.broadcaster = Broadcaster(self.publisher, interval_s, self.counts)
        self.heartbeats = Heartbeats(clock, 30)
        served: Mapping[str, tuple[DataType, ...]] = dict.fromkeys(market.instruments, ("MBO", "MBP"))
        gate = gate or Gate()
        self.websocket = WebSocketServer(
            served,
            limits,
            self.broadcaster,
            self.heartbeats,
            clock,
            gate,
            self.counts,
            timeouts.head_s,
            compresses=compresses,
            echoes=echoes,
        )
        self.http = AsgiServer(application, gate, self.counts, clock, timeouts)
        make_stream = partial(DirectStream, counts=self.counts, turnstile=Turnstile(), tls=tls)
        scheme: Literal["http", "https"] = "http" if tls is None else "https"
        self.listener = Listener(make_stream, self.websocket, self.http, gate, self.counts, scheme)
        self.port = 0

    @property
    def measured(self) -> Measured:
        """Where its figures are."""
        return Measured(self.counts, self.websocket, self.broadcaster, LoopLag(), no_store())

    async def connect(self) -> trio.SocketStream:
        """A bare TCP connection."""
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def exchange(self, request: bytes) -> bytes:
        """What the server answers to some bytes, up to its end of the connection."""
        received = b""
        async with await self.connect() as stream:
            await stream.send_all(request)
            with suppress(trio.BrokenResourceError):
                while data := await stream.receive_some():
                    received += data
        return received

    def client(self) -> AbstractAsyncContextManager[Client]:
        """A WebSocket client that has read its first heartbeat."""
        return websocket_client(self.port)

    async def wait_for_clients(self, count: int) -> None:
        """Return when the server has exactly so many."""
        while self.websocket.client_count != count:
            await trio.lowlevel.checkpoint()


class Client:
    """A WebSocket client that speaks in messages."""

    def __init__(self, connection: WebSocketConnection) -> None:
        self.connection = connection

    async def send(self, text: str | bytes) -> Self:
        """Send a frame as it is."""
        await self.connection.send_message(text)
        return self

    async def close_code(self) -> int:
        """The code that the server closes with; what comes before is dropped."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed as closed:
            return closed.reason.code if closed.reason is not None else 0

    async def receive(self) -> Answered:
        """The next message of any kind."""
        return decode_answer(await self.connection.get_message())

    async def answer(self) -> Answered:
        """The next message that is no market data."""
        while isinstance(message := await self.receive(), MarketData):
            pass
        return message

    async def subscribe(
        self, stream_id: str, symbol: str = "BTCUSD", data_type: DataType = "MBP", max_levels: int = 20
    ) -> Answered:
        """Ask for a stream. Returns: the answer."""
        request = Subscribe(stream_id=stream_id, symbol=symbol, data_type=data_type, max_levels=max_levels)
        await self.send(encode(request).decode())
        return await self.answer()

    async def unsubscribe(self, stream_id: str) -> Answered:
        """End a stream. Returns: the answer."""
        await self.send(encode(Unsubscribe(stream_id=stream_id)).decode())
        return await self.answer()


@asynccontextmanager
async def websocket_client(port: int) -> AsyncIterator[Client]:
    """A client of the server at `port` of this machine that has read its first heartbeat."""
    async with trio.open_nursery() as nursery:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        connection = await wrap_client_stream(nursery, stream, "localhost", "/", message_queue_size=1000)
        client = Client(connection)
        try:
            assert isinstance(await client.receive(), HeartBeat)
            yield client
        finally:
            with trio.move_on_after(0.5):
                await connection.aclose()
            await trio.aclose_forcefully(stream)  # trio-websocket leaves it open when the server closes first
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def local_server(
    *,
    market: Market | None = None,
    limits: Limits | None = None,
    interval_s: float = 0.02,
    application: Application = hello,
    gate: Gate | None = None,
    timeouts: Timeouts = USUAL_TIMEOUTS,
    tls: ssl.SSLContext | None = None,
    compresses: bool = False,
    echoes: bool = False,
) -> AsyncIterator[LocalServer]:
    """A server that runs until the end of the block."""
    server = LocalServer(
        market or WrittenMarket(),
        limits or Limits(),
        interval_s,
        application,
        gate,
        timeouts,
        tls,
        compresses=compresses,
        echoes=echoes,
    )
    [opened] = await open_listeners("127.0.0.1", 0)
    server.port = opened.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.listener.run, opened, nursery)
        nursery.start_soon(server.broadcaster.run)
        nursery.start_soon(server.heartbeats.run)
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


def no_store() -> LiveStore:
    """What a server has that stores nothing."""
    return LiveStore("none", Path(), Retention(), ManualClock(WALL_NS))


def measured() -> Measured:
    """A server that nobody connects to, as the HTTP application is told of it."""
    server = LocalServer(WrittenMarket(), Limits(), 1)
    return server.measured


def complaints(records: list[logging.LogRecord]) -> list[str]:
    """What the log holds that no operator should have to read: traces, and lines at error level."""
    return [record.getMessage() for record in records if record.levelno >= logging.ERROR or record.exc_info]


def reset(stream: trio.SocketStream) -> None:
    """Close a connection the rude way."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.socket.close()
