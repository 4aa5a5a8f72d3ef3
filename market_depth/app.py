"""The server put together: feeds, books, streams and the port, in one nursery. The only place that wires parts.

    warming ──► serving ──► shutting down

The port is open from `warming` on: clients may subscribe at once, and get their first snapshot when the books are there.
"""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal

import trio

from market_depth.clock import SystemClock
from market_depth.config import Address
from market_depth.feeds.base import FeedError, FeedOptionError
from market_depth.feeds.replay import ReplayFeed
from market_depth.live_market import LiveMarket
from market_depth.live_store import LiveStore
from market_depth.logging import TRACE
from market_depth.metrics import ServerCounts
from market_depth.server.asgi import AsgiServer
from market_depth.server.broadcaster import Broadcaster
from market_depth.server.direct_stream import DirectStream
from market_depth.server.gate import Gate
from market_depth.server.heartbeats import Heartbeats
from market_depth.server.http_connection import Timeouts
from market_depth.server.lifespan import HostedApplication
from market_depth.server.listener import Listener, open_listeners
from market_depth.server.loop_lag import LoopLag
from market_depth.server.turnstile import Turnstile
from market_depth.server.websocket import WebSocketServer
from market_depth.store.base import Retention, StoreError, StoreOptionError
from market_depth.store.opening import check_url, data_directory
from market_depth.store.sampling import parse_sampling
from market_depth.stream.publisher import Publisher
from market_depth.web.files import page_files
from protocol.messages import DATA_TYPES
from protocol.session import Limits

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from market_depth.book.engine import BookEngine
    from market_depth.clock import Clock
    from market_depth.config import ServeConfig
    from market_depth.feeds.base import Feed
    from market_depth.server.asgi import Application
    from market_depth.store.sampling import Sampling

logger = logging.getLogger(__name__)

FEED_KEY_VARIABLE = "MARKET_DEPTH_FEED_KEY"
"""The environment has the key that a live gateway wants proof of: a command line can be read by others."""

SHUTDOWN_TIMEOUT_S = 5.0

DAY_S = 86_400

OPEN_TIMEOUT_S = 10.0
OPEN_CHECK_S = 0.1
"""How long we look for the first books, and how often: a live feed may have none for hours."""

GC_THRESHOLDS = (2_000, 20, 50)
"""What lives at the start is never looked at, what came later seldom. With Python's defaults a handshake costs 0.58 ms of CPU
instead of 0.42 while 4,000 clients come; what follows costs the same, since it makes no garbage. With more than 2,000 it costs no
less, and what wsproto leaves behind of a client that was cut off adds up to megabytes before it is found."""

PUBLIC_ROUTES = ("/docs", "/healthz")
"""What needs no token beside the page: what the routes are called, and whether the server is up."""

RESERVED_DESCRIPTORS = 64
"""For everything but connections: the port, feeds, recordings, and those that have ended and are not closed yet."""

MAX_DESCRIPTORS = 65536
"""What we ask for where the system knows no limit."""


class StartError(Exception):
    """The server cannot start; the text is the one line to tell."""


class WrongCallError(StartError):
    """The server cannot start, because it was told to do what cannot be done."""


async def serve(config: ServeConfig, announce: Callable[[Address, list[str]], None]) -> None:
    """Serve until SIGINT or SIGTERM. `announce` is told the address and the symbols as soon as the port is open.

    Raises: StartError when the port, a feed or the store cannot be had, WrongCallError when there can be no such one.
    The store is opened last, beside the running server, which then ends in order.
    """
    clock = SystemClock()
    sampling = check_storing(config)
    async with AsyncExitStack() as opened:
        feeds = await open_feeds(config, clock, opened)
        markets = [LiveMarket(feed) for feed in feeds]
        live_store = LiveStore(
            config.store,
            config.data_dir or data_directory(),
            Retention(config.retain_days * DAY_S, config.retain_bytes),
            clock,
        )
        opened.callback(live_store.close)
        opened.callback(gc.unfreeze)  # DuckDB tells standard error what it finds uncollected at the end
        served = {symbol: DATA_TYPES for live in markets for symbol in live.market.instruments}
        counts = ServerCounts()
        publisher = Publisher(live.market for live in markets)
        broadcaster = Broadcaster(publisher, config.interval_ms / 1000, counts)
        heartbeats = Heartbeats(clock, config.heartbeat_interval_s, config.max_unanswered_pings)
        gate = make_gate(config)
        limits = Limits(
            max_message_bytes=config.max_message_bytes,
            max_streams=config.max_streams,
            messages_per_s=config.messages_per_second,
            message_burst=config.message_burst,
        )
        websocket = WebSocketServer(
            served,
            limits,
            broadcaster,
            heartbeats,
            clock,
            gate,
            counts,
            config.handshake_timeout_s,
            compresses=config.compression,
            echoes=config.conformance_echo,
        )
        started = trio.current_time()
        replays = [feed for feed in feeds if isinstance(feed, ReplayFeed)]
        loop_lag = LoopLag()

        def make_application() -> Application:
            # Imported late, and in a thread: together these take longer than a third of the start.
            from market_depth.server.exposition import Measured
            from market_depth.server.http import make_application

            measured = Measured(counts, websocket, broadcaster, loop_lag, live_store)
            made = make_application(
                markets,
                replays,
                publisher,
                measured,
                lambda: trio.current_time() - started,
                config.allow_origin,
            )
            gc.freeze()  # otherwise the collector looks at all of it again and again
            return made

        application = HostedApplication(make_application)
        timeouts = Timeouts(head_s=config.handshake_timeout_s)
        http = AsgiServer(application, gate, counts, clock, timeouts)
        make_stream = partial(
            DirectStream,
            counts=counts,
            turnstile=Turnstile(),
            tls=tls_context(config),
        )
        scheme: Literal["http", "https"] = "https" if config.is_encrypted else "http"
        listener = Listener(make_stream, websocket, http, gate, counts, scheme)
        try:
            sockets = await open_listeners(*config.address)
        except OSError as error:
            raise StartError(f"cannot listen on {config.address}: {error.strerror}") from error
        for listening in sockets:
            opened.callback(listening.close)
        if config.record is not None:
            await make_recorders(markets, config.record, clock)
        serving = trio.CancelScope()
        storage = Storage(live_store, markets, sampling, clock, serving)
        address = Address(*sockets[0].getsockname()[:2])
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with recordings(markets), trio.open_nursery() as nursery:
                async with trio.open_nursery() as accepting:
                    for listening in sockets:
                        accepting.start_soon(listener.run, listening, nursery)
                    announce(address, list(served))
                    logger.info("listening addr=%s symbols=%s", address, ",".join(served))
                    if not address.is_loopback:
                        warn_of_exposure(config, address)
                    nursery.start_soon(broadcaster.run)
                    nursery.start_soon(heartbeats.run)
                    nursery.start_soon(loop_lag.run)
                    nursery.start_soon(application.run)
                    nursery.start_soon(run_markets, markets, broadcaster, storage)
                    nursery.start_soon(hurry_when_open, application, markets)
                    with serving:
                        number = await anext(aiter(signals))
                        logger.info("shutting down signal=%s", signal.Signals(number).name)
                    accepting.cancel_scope.cancel()
                async with trio.open_nursery() as leaving:
                    # Beside the clients, and not after them: both may take all the time there is.
                    leaving.start_soon(close_recorders, markets)
                    leaving.start_soon(storage.aclose)
                    with trio.move_on_after(SHUTDOWN_TIMEOUT_S):
                        async with trio.open_nursery() as clients:
                            clients.start_soon(websocket.shut_down)
                            clients.start_soon(http.shut_down)
                        await application.shut_down()
                nursery.cancel_scope.cancel()
    logger.info("stopped")
    if storage.failure is not None:
        raise storage.failure


def check_storing(config: ServeConfig) -> Sampling:
    """Which states of the books are stored. Raises: WrongCallError, also where there can be no such store."""
    try:
        if config.store is not None:
            check_url(config.store)
        return parse_sampling(config.sample)
    except StoreOptionError as error:
        raise WrongCallError(f"--store: {error}") from error
    except ValueError as error:
        raise WrongCallError(f"--sample: {error}") from error


class Storage:
    """The markets' ways into the store, opened when the books are ready and closed before the server ends."""

    def __init__(
        self,
        live_store: LiveStore,
        markets: list[LiveMarket],
        sampling: Sampling,
        clock: Clock,
        serving: trio.CancelScope,
    ) -> None:
        """`serving` is cancelled when the store that was asked for cannot be had."""
        self.failure: StartError | None = None
        """Why the server ends."""
        self._live_store = live_store
        self._markets = markets
        self._sampling = sampling
        self._clock = clock
        self._serving = serving

    async def run(self) -> None:
        """Open the store, and write into it until it is closed."""
        try:
            await self._live_store.open()
        except StoreError as error:
            self.failure = (WrongCallError if isinstance(error, StoreOptionError) else StartError)(str(error))
            self._serving.cancel()
            return
        writer = self._live_store.writer
        if writer is not None:
            # Imported late: it loads numba, which the kernels have by now.
            from market_depth.store.recorder import StoreRecorder

            for live in self._markets:
                live.storing = StoreRecorder(writer, self._clock, live.feed, self._sampling)
        self._live_store.is_decided.set()
        await self._live_store.run()

    async def follow(self, live: LiveMarket, engine: BookEngine, broadcaster: Broadcaster) -> None:
        """Run a market; a replay begins when the store is there, so that its beginning is not missed."""
        if live.feed.source == "replay":
            await self._live_store.is_decided.wait()
        await live.run(engine, broadcaster)

    async def aclose(self) -> None:
        """End the sessions and commit what was taken, all in the time that a shutdown has."""
        deadline = trio.current_time() + SHUTDOWN_TIMEOUT_S
        with trio.move_on_at(deadline):
            for live in self._markets:
                if live.storing is not None:
                    await live.storing.aclose(live.error)
        await self._live_store.aclose(max(0, deadline - trio.current_time()))


async def make_recorders(markets: list[LiveMarket], directory: Path, clock: Clock) -> None:
    """Give every market a recorder into a file of its own. Raises: StartError, WrongCallError."""
    from market_depth.record.errors import RecordingError, RecordingOptionError
    from market_depth.record.recorder import make_recorder

    try:
        for live in markets:
            live.recorder = await make_recorder(directory, live.feed, clock)
    except RecordingError as error:
        for live in markets:
            if live.recorder is not None:
                await live.recorder.discard()
        failure = WrongCallError if isinstance(error, RecordingOptionError) else StartError
        raise failure(str(error)) from error


@asynccontextmanager
async def recordings(markets: list[LiveMarket]) -> AsyncIterator[None]:
    """Run the recorders of the markets; at the end of the block their files have everything that they took."""
    recorders = [(live.recorder, live.feed.name) for live in markets if live.recorder is not None]
    if not recorders:
        yield
        return
    from market_depth.record.recorder import run_and_tell

    async with trio.open_nursery() as nursery:
        for recorder, feed_name in recorders:
            nursery.start_soon(run_and_tell, recorder, feed_name)
        try:
            yield
        finally:
            await close_recorders(markets)


async def close_recorders(markets: list[LiveMarket]) -> None:
    """Have the markets' recordings written and closed, side by side: together they take no longer than one."""
    async with trio.open_nursery() as nursery:
        for live in markets:
            if live.recorder is not None:
                nursery.start_soon(live.recorder.aclose)


async def open_feeds(config: ServeConfig, clock: Clock, opened: AsyncExitStack) -> list[Feed]:
    """The feeds that the configuration asks for, to be closed with `opened`.

    Only what is asked for is imported: that is most of the start.
    Raises: StartError, WrongCallError.
    """
    from market_depth.feeds.pacing import choose_pacing

    feeds: list[Feed] = []

    def take(feed: Feed) -> None:
        opened.push_async_callback(feed.aclose)
        feeds.append(feed)

    try:
        pacing = choose_pacing(1 if config.speed is None else config.speed, config.rate)
        if config.simulated_symbols:
            from market_depth.feeds.simulated import SimulatedFeed

            take(
                SimulatedFeed(
                    config.simulated_symbols, config.scenario, config.seed, config.events_per_second, clock
                )
            )
        for path in config.replay:
            take(
                await ReplayFeed.open(path, pacing, loop=config.loop, limit=config.limit, is_controlled=True)
            )
        for address in config.feed:
            from market_depth.feeds.gateway_url import parse_gateway_url
            from market_depth.feeds.tcp import TcpFeed

            take(await TcpFeed.open(parse_gateway_url(address), os.environ.get(FEED_KEY_VARIABLE, "")))
    except FeedOptionError as error:
        raise WrongCallError(str(error)) from error
    except FeedError as error:
        raise StartError(str(error)) from error
    owner: dict[str, Feed] = {}
    for feed in feeds:
        for instrument in feed.instruments:
            other = owner.setdefault(instrument.symbol, feed)
            if other is not feed:
                raise WrongCallError(
                    f"{instrument.symbol} is in both {other.name} and {feed.name}: serve one of them"
                )
    return feeds


async def run_markets(markets: list[LiveMarket], broadcaster: Broadcaster, storage: Storage) -> None:
    """Load the book engine beside the running server, then open the store and run every market until its feed ends."""
    engines = await trio.to_thread.run_sync(make_engines, len(markets), abandon_on_cancel=True)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    async with trio.open_nursery() as nursery:
        # After the kernels: both at once would delay each other, and the books come first.
        nursery.start_soon(storage.run)
        for live, engine in zip(markets, engines, strict=True):
            nursery.start_soon(storage.follow, live, engine, broadcaster)


async def hurry_when_open(application: HostedApplication, markets: list[LiveMarket]) -> None:
    """Make the HTTP application when the first books are out: beside them it would delay them by as long as it takes."""
    with trio.move_on_after(OPEN_TIMEOUT_S):
        while not all(live.market.is_open for live in markets):  # noqa: ASYNC110 - a market that opens tells nobody
            await trio.sleep(OPEN_CHECK_S)
    application.hurry()


def make_engines(count: int) -> list[BookEngine]:
    """So many book engines. On the first start ever their kernels are compiled, which takes some seconds.

    At log level trace they check all their books after every batch.
    """
    from market_depth.book.engine import BookEngine
    from market_depth.book.soundness import CheckedBookEngine

    if not BookEngine.is_compiled():
        logger.info(
            "compiling the book kernels: first start only, a few seconds; clients may connect meanwhile"
        )
    BookEngine.warm_up()
    logger.info("book kernels ready")
    make = CheckedBookEngine if logger.isEnabledFor(TRACE) else BookEngine
    return [make() for _ in range(count)]


def warn_of_exposure(config: ServeConfig, address: Address) -> None:
    """Tell in the log what others can do to a server that they reach."""
    if config.token is None:
        what = "see the markets and control the replays" if config.replay else "see the markets"
        logger.warning("whoever reaches %s can %s", address, what)
    elif not config.is_encrypted:
        logger.warning("the token goes over the network as it is: --tls-cert encrypts it")


def tls_context(config: ServeConfig) -> ssl.SSLContext | None:
    """How the port speaks TLS; None when it does not. Raises: StartError."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    from market_depth.server.tls import TlsFileError, make_tls_context

    try:
        return make_tls_context(config.tls_cert, config.tls_key)
    except TlsFileError as error:
        raise StartError(str(error)) from error


def make_gate(config: ServeConfig) -> Gate:
    """The rules of the port. There is room for no more connections than the system lets us have."""
    room = max(1, raise_descriptor_limit() - RESERVED_DESCRIPTORS)
    if room < config.max_connections:
        logger.warning("only %d connections possible: the system allows no more open files", room)
    return Gate(
        token=config.token,
        allowed_origins=config.allow_origin,
        public_paths=(*page_files(), *PUBLIC_ROUTES),
        max_connections=min(config.max_connections, room),
        max_connections_per_host=config.max_connections_per_host,
        is_local=config.address.is_loopback,
    )


def raise_descriptor_limit() -> int:
    """Allow as many file descriptors as the system lets us have: each connection takes one. Returns: how many."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if most == resource.RLIM_INFINITY else most
    if wanted > allowed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        except (OSError, ValueError):  # some systems have a lower limit of their own
            return allowed
    return max(wanted, allowed)
