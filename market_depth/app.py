"""The server put together: feeds, books, streams and the port, in one nursery. The only place that wires parts.

    warming ──► serving ──► shutting down

The port is open from `warming` on: clients may subscribe at once, and get their first snapshot when the books are there.
"""

from __future__ import annotations

import gc
import logging
import resource
import signal
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING

import trio

from market_depth.clock import SystemClock
from market_depth.config import Address
from market_depth.feeds.base import FeedError, FeedOptionError, FeedState
from market_depth.feeds.replay import ReplayFeed
from market_depth.server.broadcaster import Broadcaster
from market_depth.server.heartbeats import Heartbeats
from market_depth.server.http import json_page
from market_depth.server.listener import Listener, open_listeners
from market_depth.server.pages import front_page
from market_depth.server.replay_control import ReplayControl
from market_depth.server.websocket import WebSocketServer
from market_depth.stream.market import Market
from market_depth.stream.publisher import Publisher
from protocol.events import Action, Flag
from protocol.messages import DATA_TYPES
from protocol.session import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from market_depth.book.engine import BookEngine
    from market_depth.clock import Clock
    from market_depth.config import ServeConfig
    from market_depth.feeds.base import Feed
    from market_depth.server.http import Page, Routes
    from protocol.events import OrderEvents

logger = logging.getLogger(__name__)

HEARTBEAT_INTERVAL_S = 30
SHUTDOWN_TIMEOUT_S = 5.0

GC_THRESHOLDS = (20_000, 20, 50)
"""Garbage is collected this seldom, and what lives at the start never looked at: with Python's defaults a handshake
costs twice as much."""


MAX_DESCRIPTORS = 65536
"""What we ask for where the system knows no limit."""


class StartError(Exception):
    """The server cannot start; the text is the one line to tell."""


class WrongCallError(StartError):
    """The server cannot start, because it was told to do what cannot be done."""


async def serve(config: ServeConfig, announce: Callable[[Address, list[str]], None]) -> None:
    """Serve until SIGINT or SIGTERM. `announce` is told the address and the symbols as soon as the port is open.

    Raises: StartError when the port or a feed cannot be had, WrongCallError when there can be no such feed.
    """
    clock = SystemClock()
    markets = [LiveMarket(feed) for feed in await open_feeds(config, clock)]
    served = {symbol: DATA_TYPES for live in markets for symbol in live.market.instruments}
    broadcaster = Broadcaster(Publisher(live.market for live in markets), config.interval_ms / 1000)
    heartbeats = Heartbeats(clock, HEARTBEAT_INTERVAL_S)
    websocket = WebSocketServer(served, Limits(), broadcaster, heartbeats, clock)
    started = trio.current_time()
    replays = [live.feed for live in markets if isinstance(live.feed, ReplayFeed)]
    routes: Routes = {
        "/": lambda: front_page(list(served)),
        "/api/health": lambda: health_page(markets, trio.current_time() - started),
        **ReplayControl(replays).routes,
    }
    listener = Listener(websocket, routes)
    raise_descriptor_limit()
    try:
        sockets = await open_listeners(*config.address)
    except OSError as error:
        raise StartError(f"cannot listen on {config.address}: {error.strerror}") from error
    address = Address(*sockets[0].getsockname()[:2])
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as accepting:
                for opened in sockets:
                    accepting.start_soon(listener.run, opened, nursery)
                announce(address, list(served))
                logger.info("listening addr=%s symbols=%s", address, ",".join(served))
                nursery.start_soon(broadcaster.run)
                nursery.start_soon(heartbeats.run)
                nursery.start_soon(run_markets, markets, broadcaster)
                number = await anext(aiter(signals))
                logger.info("shutting down signal=%s", signal.Signals(number).name)
                accepting.cancel_scope.cancel()
            with trio.move_on_after(SHUTDOWN_TIMEOUT_S):
                await websocket.shut_down()
            nursery.cancel_scope.cancel()
    logger.info("stopped")


class LiveMarket:
    """A feed and the books it feeds, and what went wrong with them."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.market = Market(feed.instruments, feed.market_time)
        self.error: str | None = None

    async def run(self, engine: BookEngine, broadcaster: Broadcaster) -> None:
        """Apply the feed's events until it ends. A feed that fails leaves its last books, and the others go on."""
        feed, market = self.feed, self.market
        market.warm(engine)
        try:
            async for events in feed:
                if begins_snapshot(events):
                    market.close()
                market.apply(events)
                if not (market.is_open or feed.state is FeedState.WAITING or breaks_off_snapshot(events)):
                    market.open()
                    broadcaster.hurry()
            logger.info("feed completed feed=%s", feed.name)
        except FeedError as error:
            self.error = str(error)
            logger.error("feed failed feed=%s error=%s", feed.name, error)
        except Exception:
            # A bug of ours ends this feed alone: the others, and the last books of this one, are still served.
            self.error = f"{feed.name}: internal error"
            logger.exception("feed failed feed=%s", feed.name)
        finally:
            market.open()
            with trio.CancelScope(shield=True):
                await feed.aclose()


def begins_snapshot(events: OrderEvents) -> bool:
    """Whether all that was known is void from here on: the source went elsewhere, or was lost and found."""
    return bool(events["action"][0] == Action.CLEAR and events["flags"][0] & Flag.SNAPSHOT)


def breaks_off_snapshot(events: OrderEvents) -> bool:
    """Whether the batch ends inside a snapshot that is too large for it: the books are not whole yet."""
    return bool(events["flags"][-1] & (Flag.SNAPSHOT | Flag.LAST) == Flag.SNAPSHOT)


async def open_feeds(config: ServeConfig, clock: Clock) -> list[Feed]:
    """The feeds that the configuration asks for. Only what is asked for is imported: that is most of the start.

    Raises: StartError, WrongCallError.
    """
    feeds: list[Feed] = []
    try:
        if config.simulated_symbols:
            from market_depth.feeds.simulated import SimulatedFeed

            feeds.append(
                SimulatedFeed(
                    config.simulated_symbols, config.scenario, config.seed, config.events_per_second, clock
                )
            )
        for path in config.replay:
            from market_depth.feeds.pacing import choose_pacing

            pacing = choose_pacing(config.speed, config.rate)
            feeds.append(
                await ReplayFeed.open(path, pacing, loop=config.loop, limit=config.limit, is_controlled=True)
            )
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


async def run_markets(markets: list[LiveMarket], broadcaster: Broadcaster) -> None:
    """Load the book engine beside the running server, then run every market until its feed ends."""
    engines = await trio.to_thread.run_sync(make_engines, len(markets), abandon_on_cancel=True)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    async with trio.open_nursery() as nursery:
        for live, engine in zip(markets, engines, strict=True):
            nursery.start_soon(live.run, engine, broadcaster)


def make_engines(count: int) -> list[BookEngine]:
    """So many book engines. On the first start ever their kernels are compiled, which takes some seconds."""
    from market_depth.book.engine import BookEngine

    if not BookEngine.is_compiled():
        logger.info(
            "compiling the book kernels: first start only, a few seconds; clients may connect meanwhile"
        )
    BookEngine.warm_up()
    logger.info("book kernels ready")
    return [BookEngine() for _ in range(count)]


def health_page(markets: list[LiveMarket], uptime_s: float) -> Page:
    """How the server is: its feeds, and whether all parts are up."""
    is_ok = all(live.error is None for live in markets)
    is_warm = all(live.market.is_warm for live in markets)
    content = {
        "ok": is_ok,
        "state": "serving" if is_warm else "warming",
        "version": version("market-depth"),
        "uptime_s": round(uptime_s, 3),
        "feeds": [
            {
                "name": live.feed.name,
                "source": live.feed.source,
                "state": live.feed.state,
                "symbols": list(live.market.instruments),
                "error": live.error,
            }
            for live in markets
        ],
        "store": {"state": "none"},
    }
    return json_page(content, HTTPStatus.OK if is_ok else HTTPStatus.SERVICE_UNAVAILABLE)


def raise_descriptor_limit() -> None:
    """Allow as many connections as the system lets us have: each takes a file descriptor."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if most == resource.RLIM_INFINITY else most
    if wanted > allowed:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        except (OSError, ValueError) as error:  # some systems have a lower limit of their own
            logger.warning("only %d connections possible: %s", allowed, error)
