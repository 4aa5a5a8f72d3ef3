"""What becomes of a feed's rows: they wait or are counted, and the session ends as the feed does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from market_depth.book.engine import BookEngine
from market_depth.clock import ManualClock
from market_depth.feeds.base import ChannelFeed, FeedError, Source
from market_depth.store.base import SessionState, Store, StoreError
from market_depth.store.recorder import StoreRecorder
from market_depth.store.sampling import parse_sampling
from market_depth.store.writer import StoreWriter
from protocol.events import OrderEvents
from tests.market_depth.store.stores import NOW_NS
from tests.market_depth.store.test_sampled_books import BOOKS, flow


def feed(source: Source = "live") -> ChannelFeed:
    _, channel = trio.open_memory_channel[OrderEvents | FeedError](0)
    return ChannelFeed(BOOKS, channel, name="invented", source=source)


@asynccontextmanager
async def running(writer: StoreWriter) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        try:
            yield
        finally:
            await writer.aclose()


@pytest.mark.parametrize("source", ["live", "replay"])
async def test_a_feed_is_a_session_with_all_its_rows(store: Store, source: Source) -> None:
    writer = StoreWriter(store, ManualClock(NOW_NS))
    recorder = StoreRecorder(writer, ManualClock(NOW_NS), feed(source), parse_sampling("events:1"))
    events = flow(1, 600)
    async with running(writer):
        for first in range(0, 600, 200):
            await recorder.apply(BookEngine(), events[first : first + 200])
        await recorder.aclose(None)
        await recorder.aclose(None)
    (session,) = store.sessions()
    assert (session.source, session.state) == ("invented", SessionState.COMPLETED)
    ends = int((events["flags"] != 0).sum())
    assert (session.bbo_rows, session.snapshot_rows) == (ends, ends)
    assert sorted(series.instrument.symbol for series in session.series) == ["ACME", "OTHER"]


async def test_a_feed_that_failed_is_a_session_that_failed(store: Store) -> None:
    writer = StoreWriter(store, ManualClock(NOW_NS))
    recorder = StoreRecorder(writer, ManualClock(NOW_NS), feed(), parse_sampling("ms:1"))
    async with running(writer):
        await recorder.apply(BookEngine(), flow(2, 50))
        await recorder.aclose("the file is cut short")
    (session,) = store.sessions()
    assert (session.state, session.error) == (SessionState.FAILED, "the file is cut short")


async def test_a_feed_without_events_is_no_session(store: Store) -> None:
    writer = StoreWriter(store, ManualClock(NOW_NS))
    async with running(writer):
        await StoreRecorder(writer, ManualClock(NOW_NS), feed(), parse_sampling("change")).aclose(None)
    assert store.sessions() == []


async def test_a_live_feed_goes_on_when_the_store_is_full_and_the_rows_are_counted() -> None:
    writer = StoreWriter(broken_store(), ManualClock(NOW_NS), queue_bytes=100_000)  # nothing is taken out
    recorder = StoreRecorder(writer, ManualClock(NOW_NS), feed(), parse_sampling("events:1"))
    engine = BookEngine()
    await recorder.apply(engine, flow(3, 1000))
    assert engine.counters.events == 1000
    assert writer.counts.dropped_rows > 0


async def test_a_replay_waits_when_the_store_is_full(autojump_clock: object) -> None:
    writer = StoreWriter(broken_store(), ManualClock(NOW_NS), queue_bytes=100_000)
    recorder = StoreRecorder(writer, ManualClock(NOW_NS), feed("replay"), parse_sampling("events:1"))
    with trio.move_on_after(60) as waiting:
        await recorder.apply(BookEngine(), flow(3, 1000))
    assert waiting.cancelled_caught
    assert writer.counts.dropped_rows == 0


async def test_books_go_on_without_a_store_that_has_failed(caplog: pytest.LogCaptureFixture) -> None:
    writer = StoreWriter(broken_store(), ManualClock(NOW_NS))
    recorder = StoreRecorder(writer, ManualClock(NOW_NS), feed("replay"), parse_sampling("events:1"))
    engine = BookEngine()
    async with running(writer):
        for first in range(0, 1000, 100):
            await recorder.apply(engine, flow(3, 1000)[first : first + 100])
            await wait_all_tasks_blocked(0.01)
        await recorder.aclose(None)
    assert engine.counters.events == 1000
    assert [
        record.getMessage() for record in caplog.records if "no longer stored" in record.getMessage()
    ] == ["no longer stored feed=invented error=NoStore: it broke"]


def broken_store() -> Store:
    return cast("Store", NoStore())


class NoStore:
    """A store that cannot be used at all."""

    name = "NoStore"

    def __getattr__(self, _: str) -> object:
        def broken(*_: object) -> None:
            raise StoreError("NoStore: it broke")

        return broken
