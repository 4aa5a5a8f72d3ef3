import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import trio
import trio.lowlevel

from market_depth.clock import ManualClock
from market_depth.store.base import (
    Batch,
    Retention,
    SessionEnding,
    SessionOpening,
    SessionState,
    Store,
    StoreError,
    StoreUnavailableError,
)
from market_depth.store.writer import SessionWriter, StoreState, StoreWriter
from tests.market_depth.store.stores import (
    BOOKS,
    NOW_NS,
    START_NS,
    bbo_rows,
    snapshot_rows,
    trade_rows,
)

ENDING = SessionEnding(SessionState.COMPLETED, NOW_NS)


class ScriptedStore:
    """The writing side of a store: keeps batches, and fails as it is told."""

    name = "scripted"

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.failures: list[Exception] = []
        """What the next calls raise, each once."""
        self.loses_acknowledgements = 0
        """After so many calls more, what was stored is stored, and the call fails nevertheless."""
        self.is_open = threading.Event()
        """Calls wait for it."""
        self.is_open.set()
        self.is_called = threading.Event()
        self.trims = 0
        self.recovered_ns: int | None = None

    def recover(self, now_ns: int) -> None:
        self.recovered_ns = now_ns

    def write(self, batches: Sequence[Batch]) -> None:
        self.is_called.set()
        self.is_open.wait()
        if self.failures:
            raise self.failures.pop(0)
        stored = {(batch.session.id, batch.number) for batch in self.batches}
        self.batches += [batch for batch in batches if (batch.session.id, batch.number) not in stored]
        if self.loses_acknowledgements:
            self.loses_acknowledgements -= 1
            raise StoreUnavailableError("the connection broke")

    def trim(self, *_limits: object) -> bool:
        self.trims += 1
        return self.trims < 3

    def bbo(self, session_id: str = "a") -> Any:
        return np.concatenate([batch.bbo for batch in self.batches if batch.session.id == session_id])


@asynccontextmanager
async def writing(store: ScriptedStore, **options: Any) -> AsyncIterator[tuple[StoreWriter, SessionWriter]]:
    options = {"commit_interval_s": 0} | options
    writer = StoreWriter(as_store(store), ManualClock(NOW_NS), **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        session = writer.open_session(SessionOpening("a", "test", START_NS))
        session.add_series(BOOKS)
        try:
            yield writer, session
        finally:
            store.is_open.set()
            await writer.aclose()


def as_store(store: ScriptedStore) -> Store:
    return store  # type: ignore[return-value]  # nothing is read


async def test_what_is_acknowledged_is_committed() -> None:
    store = ScriptedStore()
    async with writing(store) as (writer, session):
        for first in range(0, 50, 10):
            position = await session.write(bbo=bbo_rows(first, 10), trades=trade_rows(first, 2))
            await session.committed(position)
            np.testing.assert_array_equal(store.bbo(), bbo_rows(0, first + 10))
        assert writer.is_ok
        assert writer.status() == {
            "state": "up",
            "name": "scripted",
            "error": None,
            "rows": {"bbo": 50, "snapshots": 0, "trades": 10},
            "queued_rows": 0,
            "dropped_rows": 0,
        }
    assert writer.state is StoreState.CLOSED
    assert store.recovered_ns == NOW_NS


async def test_what_is_taken_while_a_commit_runs_goes_into_one_batch_of_its_session() -> None:
    store = ScriptedStore()
    async with writing(store) as (writer, session):
        store.is_open.clear()
        other = writer.open_session(SessionOpening("b", "test", START_NS))
        await session.write(bbo=bbo_rows(0, 10))
        await trio.to_thread.run_sync(store.is_called.wait)
        for first in (10, 20):
            await session.write(bbo=bbo_rows(first, 10))
            await other.write(trades=trade_rows(first, 10))
        position = await session.end(ENDING)
        store.is_open.set()
        await session.committed(position)
    told = [(batch.session.id, batch.number, len(batch.bbo), len(batch.trades)) for batch in store.batches]
    assert told == [("a", 1, 10, 0), ("a", 2, 20, 0), ("b", 1, 0, 20)]
    assert store.batches[1].ending == ENDING


async def test_snapshots_of_different_depth_go_into_batches_of_their_own() -> None:
    store = ScriptedStore()
    async with writing(store, commit_interval_s=60) as (_, session):
        for first, depth in enumerate((2, 2, 5)):
            await session.write(snapshots=snapshot_rows(first, 1, depth=depth), bbo=bbo_rows(first, 1))
        await session.write(bbo=bbo_rows(3, 1))
    assert [len(batch.snapshots) for batch in store.batches] == [2, 1]
    np.testing.assert_array_equal(store.bbo(), bbo_rows(0, 4))


async def test_enough_for_a_commit_does_not_wait_for_company() -> None:
    store = ScriptedStore()
    rows = bbo_rows(0, 100)
    async with writing(store, commit_interval_s=1e6, commit_bytes=2 * rows.nbytes) as (_, session):
        await session.write(bbo=rows)
        position = await session.write(bbo=rows)
        await session.committed(position)


async def test_write_waits_while_half_of_the_queue_is_taken() -> None:
    store = ScriptedStore()
    rows = bbo_rows(0, 100)
    async with writing(store, queue_bytes=6 * (rows.nbytes + 300)) as (_, session):
        store.is_open.clear()
        for _ in range(3):
            await session.write(bbo=rows)
        with trio.move_on_after(0.01) as waiting:
            await session.write(bbo=rows)
        assert waiting.cancelled_caught
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(lambda: session.write(bbo=rows))
            store.is_open.set()
    assert len(store.bbo()) == 800  # and not what was cancelled


async def test_offer_takes_the_other_half_and_counts_what_it_leaves_out() -> None:
    store = ScriptedStore()
    rows = bbo_rows(0, 100)
    async with writing(store, queue_bytes=6 * (rows.nbytes + 300)) as (writer, session):
        store.is_open.clear()
        for _ in range(3):
            await session.write(bbo=rows)
        assert [session.offer(bbo=rows) for _ in range(5)] == [True] * 3 + [False] * 2
        assert (session.dropped_rows, writer.counts.dropped_rows) == (200, 200)
        assert writer.status()["queued_rows"] == 600
    assert len(store.bbo()) == 600


async def test_what_is_larger_than_the_queue_goes_alone() -> None:
    store = ScriptedStore()
    async with writing(store, queue_bytes=1000) as (_, session):
        for first in (0, 100):
            await session.committed(await session.write(bbo=bbo_rows(first, 100)))
    np.testing.assert_array_equal(store.bbo(), bbo_rows(0, 200))


async def test_writing_resumes_by_itself_when_the_database_is_back() -> None:
    store = ScriptedStore()
    store.failures = [StoreUnavailableError("gone")] * 2
    async with writing(store) as (writer, session):
        position = await session.write(bbo=bbo_rows(0, 10))
        while writer.state is StoreState.UP:
            await trio.lowlevel.checkpoint()
        assert (writer.is_ok, writer.error) == (False, "gone")
        assert session.offer(bbo=bbo_rows(10, 10))
        await session.committed(position + 1)
        assert (writer.is_ok, writer.error) == (True, None)
    np.testing.assert_array_equal(store.bbo(), bbo_rows(0, 20))


async def test_a_batch_whose_acknowledgement_was_lost_is_stored_once() -> None:
    store = ScriptedStore()
    store.loses_acknowledgements = 1
    async with writing(store) as (_, session):
        for first in (0, 10):
            await session.committed(await session.write(bbo=bbo_rows(first, 10)))
    np.testing.assert_array_equal(store.bbo(), bbo_rows(0, 20))
    assert [batch.number for batch in store.batches] == [1, 2]


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (StoreError("a.duckdb: not ours"), "a.duckdb: not ours"),
        (ZeroDivisionError("oh"), "scripted: internal error"),
    ],
)
async def test_other_failures_end_the_writing_and_are_told(failure: Exception, error: str) -> None:
    store = ScriptedStore()
    store.failures = [failure]
    async with writing(store) as (writer, session):
        position = await session.write(bbo=bbo_rows(0, 10))
        with pytest.raises(StoreError, match=error):
            await session.committed(position)
        with pytest.raises(StoreError, match=error):
            await session.write(bbo=bbo_rows(10, 10))
        assert not session.offer(bbo=bbo_rows(10, 10))
        assert (writer.state, writer.error) == (StoreState.FAILED, error)


async def test_closing_commits_what_was_taken() -> None:
    store = ScriptedStore()
    async with writing(store, commit_interval_s=1e6) as (writer, session):
        for first in range(0, 100, 10):
            await session.write(bbo=bbo_rows(first, 10))
        await writer.aclose()
        with pytest.raises(StoreError, match="closed"):
            await session.write(bbo=bbo_rows(0, 10))
        await writer.aclose()  # again does nothing
    np.testing.assert_array_equal(store.bbo(), bbo_rows(0, 100))


async def test_closing_gives_up_a_database_that_stays_away() -> None:
    store = ScriptedStore()
    store.failures = [StoreUnavailableError("gone")] * 1000
    async with writing(store) as (writer, session):
        position = await session.write(bbo=bbo_rows(0, 10))
        with trio.fail_after(2):
            await writer.aclose(0.01)
        assert writer.error == "scripted: 10 rows were not written in time"
        with pytest.raises(StoreError):
            await session.committed(position)


async def test_closing_gives_up_a_commit_that_hangs() -> None:
    store = ScriptedStore()
    async with writing(store) as (writer, session):
        store.is_open.clear()
        await session.write(bbo=bbo_rows(0, 10))
        with trio.fail_after(2):
            await writer.aclose(0.01)
        assert writer.state is StoreState.FAILED


async def test_closing_reaches_its_end_where_the_caller_is_cancelled() -> None:
    store = ScriptedStore()
    async with writing(store) as (writer, session):
        await session.write(bbo=bbo_rows(0, 10))
        with trio.CancelScope() as scope:
            scope.cancel()
            await writer.aclose()
        assert writer.state is StoreState.CLOSED
    assert len(store.bbo()) == 10


async def test_trimming_goes_on_in_steps_until_nothing_is_left_to_trim() -> None:
    store = ScriptedStore()
    async with writing(store, retention=Retention(max_age_s=1)) as (_, session):
        while store.trims < 3:
            await session.committed(await session.write(bbo=bbo_rows(0, 1)))
    assert store.trims == 3
