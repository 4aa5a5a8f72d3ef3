"""A file, published over TCP and taken as a feed, leaves the books of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio

from market_depth.book.engine import BookEngine
from market_depth.book.views import price_levels, resting_orders
from market_depth.clock import ManualClock
from market_depth.feeds.base import FeedState
from market_depth.feeds.dbn import DbnFile
from market_depth.feeds.gateway_url import parse_gateway_url
from market_depth.feeds.pacing import Pacing, choose_pacing
from market_depth.feeds.tcp import TcpFeed
from market_depth.live_market import LiveMarket
from market_depth.metrics import ServerCounts
from market_depth.publish.publisher import Publisher
from market_depth.server.broadcaster import Broadcaster
from market_depth.stream.publisher import Publisher as StreamPublisher
from protocol.events import Action, Flag, Side
from tests.market_depth.book.random_events import narrow_events
from tests.market_depth.feeds.dbn_files import START_NS, encoded, metadata, write

if TYPE_CHECKING:
    from pathlib import Path

    from protocol.events import OrderEvents
    from protocol.instrument import Instrument

SEED = 5


def busy_events(count: int) -> OrderEvents:
    """Random events of three instruments and publishers, with times and prices as in a recording."""
    events = narrow_events(np.random.default_rng(SEED), count)
    events["ts_event"] = events["ts_recv"] = START_NS + np.arange(count)
    events["flags"] |= np.uint8(Flag.LAST)
    return events


def levels_of(engine: BookEngine, instruments: tuple[Instrument, ...]) -> list[list[list[int]]]:
    return [
        price_levels(engine, instrument.instrument_id, side, 1000).tolist()
        + resting_orders(engine, instrument.instrument_id, side, 1000).tolist()
        for instrument in instruments
        for side in (Side.BID, Side.ASK)
    ]


async def serve(path: Path, pacing: Pacing, port: int = 0) -> tuple[Publisher, list[trio.SocketListener]]:
    published = await Publisher.open(path, pacing, ManualClock(START_NS))
    return published, await trio.open_tcp_listeners(port, host="127.0.0.1")


async def test_books_from_a_gateway_equal_those_of_its_file(tmp_path: Path, nursery: trio.Nursery) -> None:
    path = write(tmp_path, encoded(busy_events(60_000), metadata(mappings={})))
    expected = BookEngine()
    with DbnFile(path) as file:
        while len(events := file.read()):
            expected.apply(events)
    published, listeners = await serve(path, choose_pacing("max"))
    nursery.start_soon(published.run, listeners)
    port = listeners[0].socket.getsockname()[1]
    feed = await TcpFeed.open(parse_gateway_url(f"tcp://127.0.0.1:{port}"))
    assert len(feed.instruments) == 3
    engine = BookEngine()
    live = LiveMarket(feed)
    await live.run(engine, Broadcaster(StreamPublisher([live.market]), 1000, ServerCounts()))
    assert (feed.state, live.error, live.market.is_open) == (FeedState.COMPLETED, None, True)
    assert levels_of(engine, feed.instruments) == levels_of(expected, feed.instruments)
    nursery.cancel_scope.cancel()


async def test_a_gateway_that_comes_back_leaves_the_books_of_its_file(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    events = busy_events(3000)
    path = write(tmp_path, encoded(events, metadata(mappings={})))
    slow, listeners = await serve(path, choose_pacing(rate=500))
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as first_time:
        first_time.start_soon(slow.run, listeners)
        feed = await TcpFeed.open(parse_gateway_url(f"tcp://127.0.0.1:{port}"))
        batches = [await anext(feed)]
        first_time.cancel_scope.cancel()
    fast, listeners = await serve(path, choose_pacing("max"), port)
    nursery.start_soon(fast.run, listeners)
    batches += [batch async for batch in feed]
    engine, expected = BookEngine(), BookEngine()
    for batch in batches:
        engine.apply(batch)
    expected.apply(events)
    assert levels_of(engine, feed.instruments) == levels_of(expected, feed.instruments)
    assert 9 in [len(batch) for batch in batches if set(batch["action"]) == {Action.CLEAR}]
    nursery.cancel_scope.cancel()


@pytest.mark.realdata
async def test_recorded_books_come_through(realdata: Path, nursery: trio.Nursery) -> None:
    path = realdata / "dbn" / "CLX5_mbo.dbn"
    published, listeners = await serve(path, choose_pacing("max"))
    nursery.start_soon(published.run, listeners)
    port = listeners[0].socket.getsockname()[1]
    feed = await TcpFeed.open(parse_gateway_url(f"tcp://127.0.0.1:{port}?dataset=GLBX.MDP3&symbols=CLX5"))
    engine, expected = BookEngine(), BookEngine()
    count = 0
    async for batch in feed:
        engine.apply(batch)
        count += len(batch)
    with DbnFile(path) as file:
        assert feed.instruments == file.instruments
        while len(events := file.read()):
            expected.apply(events)
    assert count == 38_212
    assert levels_of(engine, feed.instruments) == levels_of(expected, feed.instruments)
    nursery.cancel_scope.cancel()
