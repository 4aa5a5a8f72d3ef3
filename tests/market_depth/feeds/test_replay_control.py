from __future__ import annotations

from contextlib import asynccontextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from market_depth.book.engine import BookEngine
from market_depth.book.views import resting_orders
from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError, FeedState
from market_depth.feeds.dbn import DamagedFileError
from market_depth.feeds.pacing import choose_pacing
from market_depth.feeds.replay import Playing, ReplayFeed, ReplayState, ReplayStateError
from protocol.events import Flag, OrderEvents, Side
from tests.market_depth.book.written_events import ALL
from tests.market_depth.feeds.dbn_files import START_NS, adds, encoded, write
from tests.market_depth.feeds.memory_recording import MemoryRecording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from market_depth.feeds.pacing import Pacing

MS = 1_000_000
S = 1000 * MS

IDLE, RUNNING, PAUSED = ReplayState.IDLE, ReplayState.RUNNING, ReplayState.PAUSED
DONE, FAILED = ReplayState.DONE, ReplayState.FAILED


def at(*times_s: float) -> OrderEvents:
    """Events of one record each, recorded at these times; the first adds order 1, and so on."""
    events = adds(len(times_s))
    events["ts_recv"] = START_NS + np.array([round(time * S) for time in times_s])
    return events


class Player:
    """A replay and one who follows it: what came when, and the books."""

    def __init__(self, feed: ReplayFeed) -> None:
        self.feed = feed
        self.engine = BookEngine()
        self.came: list[tuple[float, int]] = []
        """When records came that are no part of a snapshot, in seconds from the beginning, and how many."""
        self.error: FeedError | None = None
        """Why it failed, the last time."""
        self._begin = trio.current_time()

    async def follow(self) -> None:
        while True:
            try:
                async for batch in self.feed:
                    assert 0 < len(batch) <= MAX_BATCH_RECORDS
                    self.engine.apply(batch)
                    if not batch["flags"][0] & Flag.SNAPSHOT:
                        self.came.append((self.now(), len(batch)))
                return
            except FeedError as error:
                self.error = error

    def now(self) -> float:
        return round(trio.current_time() - self._begin, 6)

    def orders(self) -> list[int]:
        """The ids of the orders in the book, best price first; those of a price in queue order."""
        orders = resting_orders(self.engine, 7, Side.BID, ALL)["order_id"].tolist()
        return sorted(orders)

    @property
    def position_s(self) -> float:
        return round((self.feed.progress().position_ns - START_NS) / S, 6)

    @property
    def state(self) -> ReplayState:
        return self.feed.progress().state


@asynccontextmanager
async def playing(
    *chunks: OrderEvents, pacing: Pacing | None = None, damage: FeedError | None = None, **options: Any
) -> AsyncIterator[Player]:
    recording = MemoryRecording(*chunks, damage=damage)
    feed = ReplayFeed(recording, pacing or choose_pacing(1), is_controlled=True, **options)
    player = Player(feed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.follow)
        await wait_all_tasks_blocked()
        yield player
        await feed.aclose()


async def test_a_pause_postpones_what_follows_by_as_long_as_it_lasts(autojump_clock: MockClock) -> None:
    async with playing(at(0, 1, 2, 3)) as player:
        await trio.sleep(1.5)
        player.feed.pause()
        await trio.sleep(10)
        assert (player.state, player.position_s, player.orders()) == (PAUSED, 1.5, [1, 2])
        player.feed.resume()
        await trio.sleep(100)
    assert player.came == [(0, 1), (1, 1), (11.5 + 0.5, 1), (13, 1)]


async def test_seeks_beyond_the_end_of_a_looping_replay_leave_it_playing(autojump_clock: MockClock) -> None:
    async with playing(at(0, 1, 2), loop=True) as player:
        for _ in range(3):
            await player.feed.seek(2**63 - 1)
        # From the end it goes on at the beginning, at once.
        await trio.sleep(0.5)
        assert (player.state, player.position_s, player.orders()) == (RUNNING, 0.5, [1])
    assert player.error is None


async def test_a_bug_of_ours_leaves_a_replay_that_says_it_failed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = ReplayFeed(MemoryRecording(at(0, 1)), choose_pacing(1), is_controlled=True)

    async def fail() -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(feed, "_next_batch", fail)
    with pytest.raises(RuntimeError):
        await anext(feed)
    progress = feed.progress()
    assert (progress.state, feed.state) == (FAILED, FeedState.FAILED)
    assert progress.error is not None
    assert progress.error.endswith("internal error")
    with pytest.raises(ReplayStateError):
        feed.pause()


async def test_a_thousand_pauses_do_not_add_up_to_anything_else(autojump_clock: MockClock) -> None:
    async with playing(at(0, 10)) as player:
        for _ in range(1000):
            await trio.sleep(0.0007)
            player.feed.pause()
            await trio.sleep(0.0011)
            player.feed.resume()
        await trio.sleep(10)
    assert player.came == [(0, 1), (10 + 1.1, 1)]


async def test_time_may_stand_still_before_it_begins(autojump_clock: MockClock) -> None:
    feed = ReplayFeed(MemoryRecording(at(0, 1)), choose_pacing(1))
    feed.pause()
    player = Player(feed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.follow)
        await trio.sleep(5)
        assert player.came == []
        feed.resume()
    assert player.came == [(5, 1), (6, 1)]


async def test_steps_hand_over_whole_events_and_leave_the_replay_paused(autojump_clock: MockClock) -> None:
    events = at(0, 1, 2, 3, 4, 60, 61)
    events["flags"] = [Flag.LAST, 0, 0, Flag.LAST, Flag.LAST, Flag.LAST, Flag.LAST]
    async with playing(events[:2], events[2:]) as player:
        await player.feed.step()
        assert (player.state, player.orders(), player.now()) == (PAUSED, [1, 2, 3, 4], 0)
        await trio.sleep(10)
        await player.feed.step(2)
        assert (player.orders(), player.position_s) == ([1, 2, 3, 4, 5, 6], 60)
        player.feed.resume()
        await trio.sleep(5)
        assert player.came == [(0, 1), (0, 3), (10, 2), (11, 1)]
        assert player.state is DONE


async def test_steps_that_the_recording_has_not_end_with_it(autojump_clock: MockClock) -> None:
    async with playing(at(0, 1, 2)) as player:
        await player.feed.step(99)
        assert (player.state, player.orders()) == (DONE, [1, 2, 3])
        with pytest.raises(ReplayStateError, match=r"^memory is DONE: start it first$"):
            await player.feed.step()


@pytest.mark.parametrize(
    ("from_s", "to_s", "orders", "next_after_s"),
    [
        (1, 25.5, [1, 2, 3], 4.5),
        (1, 30, [1, 2, 3, 4], 10),
        (1, 10, [1, 2], 10),
        (25, 10.5, [1, 2], 9.5),
        (25, 0, [1], 10),
        (25, 25, [1, 2, 3], 5),
    ],
)
async def test_a_seek_brings_the_books_of_the_instant_and_then_what_follows_it(
    from_s: float, to_s: float, orders: list[int], next_after_s: float, autojump_clock: MockClock
) -> None:
    async with playing(*np.split(at(0, 10, 20, 30, 40), [2])) as player:
        await trio.sleep(from_s)
        sequence = player.engine.sequence(7)
        await player.feed.seek(START_NS + round(to_s * S))
        assert (player.orders(), player.state, player.now()) == (orders, RUNNING, from_s)
        assert player.position_s == to_s
        assert player.engine.sequence(7) > sequence
        assert player.feed.market_time() == START_NS + (len(orders) - 1) * 10 * S
        player.came.clear()
        await trio.sleep(next_after_s + 0.001)
        assert player.came == [(from_s + next_after_s, 1)]
        assert player.orders() == [*orders, len(orders) + 1]


async def test_a_seek_while_paused_stays_paused(autojump_clock: MockClock) -> None:
    async with playing(at(0, 10, 20, 30)) as player:
        player.feed.pause()
        for to_s, orders in ((25, [1, 2, 3]), (5, [1]), (-5, []), (15, [1, 2])):
            await player.feed.seek(START_NS + to_s * S)
            await trio.sleep(3)
            assert (player.state, player.orders(), player.position_s) == (PAUSED, orders, max(0, to_s))
        player.feed.resume()
        await trio.sleep(6)
        assert player.came[-1] == (12 + 5, 1)


async def test_a_seek_behind_the_end_is_done_and_one_back_plays_on(autojump_clock: MockClock) -> None:
    async with playing(at(0, 10, 20)) as player:
        for instant_ns in (START_NS + 100 * S, 2**70):
            await player.feed.seek(instant_ns)
            await trio.sleep(1)
            assert (player.state, player.feed.state) == (DONE, FeedState.COMPLETED)
            assert (player.orders(), player.position_s) == ([1, 2, 3], 20)
        await player.feed.seek(START_NS + 15 * S)
        assert (player.state, player.feed.state, player.orders()) == (RUNNING, FeedState.RUNNING, [1, 2])
        await trio.sleep(6)
        assert (player.state, player.orders()) == (DONE, [1, 2, 3])


async def test_of_several_seeks_the_last_one_counts_and_all_return(autojump_clock: MockClock) -> None:
    async with playing(at(*range(100)), pacing=choose_pacing(0.1)) as player:
        async with trio.open_nursery() as nursery:
            for to_s in (70, 20, 90, 30):
                nursery.start_soon(player.feed.seek, START_NS + to_s * S)
        assert len(player.orders()) == player.position_s + 1
        assert player.position_s in (70, 20, 90, 30)


@pytest.mark.parametrize(
    ("speed", "rate", "came"),
    [
        (2, None, [(0, 1), (10, 1), (15 + 2.5, 1), (22.5, 1)]),
        (0.5, None, [(0, 1), (10, 1), (15 + 10, 1), (45, 1)]),
        ("max", None, [(0, 1), (10, 1), (15, 2)]),
        (1, 0.25, [(0, 1), (10, 1), (19, 1), (23, 1)]),
    ],
)
async def test_another_pace_holds_from_the_moment_on(
    speed: float | str, rate: float | None, came: list[tuple[float, int]], autojump_clock: MockClock
) -> None:
    async with playing(at(0, 10, 20, 30)) as player:
        await trio.sleep(15)
        player.feed.set_pacing(choose_pacing(speed, rate))
        await trio.sleep(100)
    assert player.came == came


@pytest.mark.parametrize("rate", [200, 1_000, 10_000, 50_000, 500_000])
async def test_a_rate_is_held_whatever_happens_meanwhile(rate: int, autojump_clock: MockClock) -> None:
    chunks = np.array_split(adds(12 * rate // 5), 50)
    for chunk in chunks:
        chunk["order_id"] %= 500
    async with playing(*chunks, pacing=choose_pacing(rate=rate)) as player:
        for second in range(20):
            await trio.sleep(0.0333)
            player.feed.pause()
            await trio.sleep(second)
            player.feed.resume()
            await trio.sleep(0.0167)
        # A second has been played. Double speed for half a second, then the rate again.
        come = sum(count for _, count in player.came)
        assert come == pytest.approx(rate, rel=0.01)
        player.feed.set_pacing(choose_pacing(rate=2 * rate))
        await trio.sleep(0.25)
        player.feed.set_pacing(choose_pacing(rate=rate))
        await trio.sleep(0.5)
        assert sum(count for _, count in player.came) == pytest.approx(2 * rate, rel=0.005)


async def test_a_start_while_it_plays_changes_nothing(autojump_clock: MockClock) -> None:
    async with playing(at(0, 10, 20)) as player:
        await trio.sleep(15)
        before = player.feed.progress()
        assert not await player.feed.start(Playing(choose_pacing(5), loops=True))
        assert player.feed.progress() == before
        player.feed.pause()
        assert not await player.feed.start(Playing(choose_pacing(5)))
        assert player.state is PAUSED


async def test_a_stop_leaves_the_books_and_a_start_begins_anew(autojump_clock: MockClock) -> None:
    async with playing(at(0, 10, 20, 30)) as player:
        await trio.sleep(15)
        player.feed.stop()
        player.feed.stop()
        await trio.sleep(100)
        assert (player.state, player.orders()) == (IDLE, [1, 2])
        assert await player.feed.start(Playing(choose_pacing(10)))
        assert (player.state, player.position_s) == (RUNNING, 0)
        await trio.sleep(0.5)
        assert player.orders() == [1]
        await trio.sleep(10)
        assert player.came[2:] == [(115, 1), (116, 1), (117, 1), (118, 1)]
        assert (player.state, player.orders()) == (DONE, [1, 2, 3, 4])


async def test_a_part_of_the_recording_is_played_again_and_again_and_in_time(
    autojump_clock: MockClock,
) -> None:
    async with playing(*np.split(at(0, 10, 20, 30, 40), [2])) as player:
        player.feed.stop()
        part = Playing(choose_pacing(1), loops=True, start_ns=START_NS + 15 * S, end_ns=START_NS + 35 * S)
        await player.feed.start(part)
        assert player.orders() == [1, 2]
        player.came.clear()
        await trio.sleep(50.5)
        # A round ends with its last event, at 30: it takes 15 seconds.
        assert player.came == [(5, 1), (15, 1), (20, 1), (30, 1), (35, 1), (45, 1), (50, 1)]
        assert (player.orders(), player.position_s) == ([1, 2, 3], 20.5)
        await player.feed.seek(START_NS + 100 * S)
        await trio.sleep(5.5)
        assert (player.state, player.orders()) == (RUNNING, [1, 2, 3])


async def test_a_part_without_events_is_done_even_if_it_loops(autojump_clock: MockClock) -> None:
    async with playing(at(0, 10, 20)) as player:
        player.feed.stop()
        part = Playing(choose_pacing(1), loops=True, start_ns=START_NS + 12 * S, end_ns=START_NS + 18 * S)
        await player.feed.start(part)
        await trio.sleep(1)
        assert (player.state, player.orders(), player.position_s) == (DONE, [1, 2], 10)


async def test_progress_tells_how_much_was_played(autojump_clock: MockClock) -> None:
    async with playing(*np.split(at(*range(100)), 10)) as player:
        got = []
        for _ in range(5):
            progress = player.feed.progress()
            got.append((progress.records, round(progress.share, 2), player.position_s))
            await trio.sleep(25.4)
    assert got == [(1, 0.01, 0), (26, 0.26, 25.4), (51, 0.51, 50.8), (77, 0.77, 76.2), (100, 1, 99)]


CALLS: dict[str, Callable[[ReplayFeed], object]] = {
    "pause": lambda feed: feed.pause(),
    "resume": lambda feed: feed.resume(),
    "step": lambda feed: feed.step(),
    "seek": lambda feed: feed.seek(START_NS),
    "speed": lambda feed: feed.set_pacing(choose_pacing(2)),
    "start": lambda feed: feed.start(Playing(choose_pacing(1))),
    "stop": lambda feed: feed.stop(),
}


async def call(name: str, feed: ReplayFeed) -> None:
    answer = CALLS[name](feed)
    if hasattr(answer, "__await__"):
        awaitable: Awaitable[object] = answer
        await awaitable


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        (RUNNING, set()),
        (PAUSED, set()),
        (IDLE, {"pause", "resume", "step", "seek"}),
        (DONE, {"pause", "resume", "step"}),
        (FAILED, {"pause", "resume", "step"}),
    ],
)
async def test_each_state_refuses_what_makes_no_sense_in_it(
    state: ReplayState, refused: set[str], autojump_clock: MockClock
) -> None:
    for name in CALLS:
        damage = DamagedFileError("memory", "breaks off", "fetch it") if state is FAILED else None
        async with playing(at(0, 10, 20), damage=damage) as player:
            if state is PAUSED:
                player.feed.pause()
            if state is IDLE:
                player.feed.stop()
            if state in (DONE, FAILED):
                await player.feed.seek(START_NS + 100 * S)
                await trio.sleep(1)
            assert player.state is state
            if name in refused:
                with pytest.raises(ReplayStateError, match=f"^memory is {state}: "):
                    await call(name, player.feed)
                assert player.state is state
            else:
                await call(name, player.feed)


async def test_who_waits_for_a_replay_that_fails_or_closes_is_told(autojump_clock: MockClock) -> None:
    damage = DamagedFileError("memory", "breaks off", "fetch it")
    async with playing(at(0, 10), damage=damage) as player:
        with pytest.raises(ReplayStateError, match=r"^memory is FAILED: memory: breaks off; fetch it$"):
            await player.feed.step(5)
        assert (player.error, player.orders()) == (damage, [1, 2])
    feed = ReplayFeed(MemoryRecording(at(0, 10)), choose_pacing(1))
    async with trio.open_nursery() as nursery:

        async def seek() -> None:
            with pytest.raises(ReplayStateError, match=r"^memory is CLOSED: it plays no more$"):
                await feed.seek(START_NS)

        nursery.start_soon(seek)  # nobody calls for batches
        await wait_all_tasks_blocked()
        await feed.aclose()


class Disk(MemoryRecording):
    """A recording that cannot be read while it is away."""

    is_away = False

    def read(self) -> OrderEvents:
        if self.is_away:
            raise DamagedFileError("memory", "cannot be read", "look after the disk")
        return super().read()


@pytest.mark.parametrize("again", ["start", "seek", "stop and start"])
async def test_a_replay_that_failed_is_played_again(again: str, autojump_clock: MockClock) -> None:
    disk = Disk(*np.split(at(0, 1, 2, 3, 4, 5), 3))
    feed = ReplayFeed(disk, choose_pacing(1), is_controlled=True)
    player = Player(feed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.follow)
        await trio.sleep(2.5)
        disk.is_away = True
        await trio.sleep(10)
        assert (player.state, feed.state, player.orders()) == (FAILED, FeedState.FAILED, [1, 2, 3, 4])
        assert feed.progress().error == "memory: cannot be read; look after the disk"
        assert player.position_s == 3

        # As long as it is away, it fails again.
        await feed.seek(START_NS + 4 * S)
        await trio.sleep(1)
        assert player.state is FAILED

        disk.is_away = False
        if again == "seek":
            await feed.seek(START_NS + round(2.5 * S))
            assert (player.position_s, player.orders()) == (2.5, [1, 2, 3])
        else:
            if again == "stop and start":
                feed.stop()
                assert (player.state, feed.progress().error) == (IDLE, None)
            assert await feed.start(Playing(choose_pacing(1)))
        assert (player.state, feed.state, feed.progress().error) == (RUNNING, FeedState.RUNNING, None)
        await trio.sleep(10)
        assert (player.state, player.orders()) == (DONE, [1, 2, 3, 4, 5, 6])
        await feed.aclose()
    assert disk.is_closed


async def test_a_file_that_was_repaired_or_has_grown_is_read_on(tmp_path: Path) -> None:
    content = encoded(at(0, 1, 2, 3))
    path = write(tmp_path, content[:-60])
    feed = await ReplayFeed.open(path, choose_pacing("max"), is_controlled=True)
    player = Player(feed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.follow)
        with pytest.raises(ReplayStateError, match=r"is FAILED: .*ends inside a record"):
            await feed.step(5)
        assert player.orders() == [1, 2]
        path.write_bytes(content)
        await feed.seek(START_NS + 100 * S)
        assert player.orders() == [1, 2, 3, 4]
        await feed.aclose()


async def test_a_snapshot_of_many_orders_comes_in_bounded_batches(autojump_clock: MockClock) -> None:
    events = adds(3 * MAX_BATCH_RECORDS, step_ns=1000)
    feed = ReplayFeed(MemoryRecording(*np.split(events, 3)), choose_pacing("max"), is_controlled=True)
    assert len(await anext(feed)) == MAX_BATCH_RECORDS
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.seek, START_NS + 40_000_000)
        await wait_all_tasks_blocked()
        batches = [await anext(feed) for _ in range(3)]
        assert [len(batch) for batch in batches] == [
            MAX_BATCH_RECORDS,
            MAX_BATCH_RECORDS,
            40_002 - 2 * MAX_BATCH_RECORDS,
        ]
        assert chr(batches[0]["action"][0]) == "R"
        assert [bool(batch["flags"][-1] & Flag.LAST) for batch in batches] == [False, False, True]
        np.testing.assert_array_equal((await anext(feed))["order_id"], events["order_id"][40_001:])
    await feed.aclose()


async def test_a_cancelled_call_loses_neither_seek_nor_step(autojump_clock: MockClock) -> None:
    feed = ReplayFeed(MemoryRecording(at(0, 10, 20, 30, 40)), choose_pacing(1))
    player = Player(feed)

    async def follow() -> None:
        while True:
            with trio.CancelScope() as scope:
                scope.cancel()
                batch = await anext(feed)
            if scope.cancelled_caught:
                batch = await anext(feed)
            player.engine.apply(batch)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        await feed.seek(START_NS + 25 * S)
        assert player.orders() == [1, 2, 3]
        await feed.step()
        assert player.orders() == [1, 2, 3, 4]
        nursery.cancel_scope.cancel()
    await feed.aclose()


async def test_a_file_is_controlled_while_a_thread_reads(tmp_path: Path) -> None:
    events = adds(10 * MAX_BATCH_RECORDS, step_ns=1000)
    events["order_id"] %= 100
    feed = await ReplayFeed.open(
        write(tmp_path, encoded(events)), choose_pacing("max"), loop=True, is_controlled=True
    )
    player = Player(feed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.follow)
        for number in (150_000, 3, 80_000, 5_000, 163_000):
            feed.resume()
            await trio.lowlevel.checkpoint()
            feed.pause()
            await feed.seek(START_NS + 1000 * number)
            assert feed.progress().records == number + 1
            expected = BookEngine()
            expected.apply(events[: number + 1])
            assert (
                resting_orders(player.engine, 7, Side.BID, ALL).tolist()
                == resting_orders(expected, 7, Side.BID, ALL).tolist()
            )
        await feed.aclose()


# A model of a replay: a list of times, and where it stands in it.

STEP_S = Fraction(1, 100)

CONTROLS = st.one_of(
    st.tuples(st.just("pause")),
    st.tuples(st.just("resume")),
    st.tuples(st.just("step"), st.integers(1, 5)),
    st.tuples(st.just("seek"), st.integers(-20, 320)),
    st.tuples(st.just("speed"), st.sampled_from([Fraction(1, 2), Fraction(1), Fraction(3), Fraction(10)])),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("stop")),
    st.tuples(st.just("start")),
)


class Model:
    """Where a replay stands, by the definitions of its controls."""

    def __init__(self, times: list[Fraction]) -> None:
        self.times = times
        self.position = Fraction(0)
        self.speed = Fraction(1)
        self.state = RUNNING

    def records(self, tolerance: Fraction) -> int:
        return sum(time <= self.position + tolerance for time in self.times)

    def wait(self, seconds: Fraction) -> None:
        if self.state is RUNNING:
            self.position += seconds * self.speed
            self.end_at_last()

    def end_at_last(self) -> None:
        if self.position >= self.times[-1]:
            self.position = self.times[-1]
            self.state = DONE

    async def apply(self, control: tuple[Any, ...], player: Player) -> None:
        """Do the same to model and replay, where the replay's state allows it."""
        feed = player.feed
        match control:
            case ("wait", count):
                self.wait(count * STEP_S)
                await trio.sleep(float(count * STEP_S))
            case ("speed", speed):
                self.speed = speed
                feed.set_pacing(choose_pacing(float(speed)))
            case ("start",):
                if self.state in (IDLE, DONE):
                    self.position, self.speed, self.state = Fraction(0), Fraction(1), RUNNING
                await feed.start(Playing(choose_pacing(1)))
            case ("stop",):
                self.state = IDLE
                feed.stop()
            case ("seek", count) if self.state is not IDLE:
                self.position = max(Fraction(0), count * STEP_S)
                self.state = RUNNING if self.state is DONE else self.state
                await feed.seek(START_NS + round(count * STEP_S * S))
                self.end_at_last()
            case ("step", count) if self.state in (RUNNING, PAUSED):
                reached = min(feed.progress().records + count, len(self.times))
                self.position, self.state = self.times[reached - 1], PAUSED
                await feed.step(count)
            case ("pause",) if self.state in (RUNNING, PAUSED):
                self.state = PAUSED
                feed.pause()
            case ("resume",) if self.state in (RUNNING, PAUSED):
                self.state = RUNNING
                feed.resume()
            case _:
                return


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 30), min_size=2, max_size=30),
    st.lists(CONTROLS, max_size=25),
    st.lists(st.integers(1, 29), max_size=3, unique=True),
)
def test_any_controls_lead_where_the_model_leads(
    gaps: list[int], controls: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    times = [Fraction(int(number), 100) for number in np.cumsum([0, *gaps])]

    async def control() -> None:
        chunks = np.split(at(*map(float, times)), sorted(cut for cut in cuts if cut < len(times)))
        async with playing(*chunks) as player:
            model = Model(times)
            await model.apply(("wait", 1), player)
            for number, control in enumerate(controls):
                await model.apply(control, player)
                await model.apply(("wait", 1), player)
                told = controls[: number + 1]
                tolerance = Fraction(2, 1000) * model.speed
                records = player.feed.progress().records
                assert model.records(-tolerance) <= records <= model.records(tolerance), told
                assert player.orders() == list(range(1, records + 1)), told
                # At the very end it may be done a moment later than the model, or a paused one may find out.
                assert player.state is model.state or model.position + tolerance >= times[-1], told
                model.state = player.state
                if model.state is not IDLE:
                    assert player.position_s == pytest.approx(float(model.position), abs=float(tolerance)), (
                        told
                    )

    trio.run(control, clock=MockClock(autojump_threshold=0))
