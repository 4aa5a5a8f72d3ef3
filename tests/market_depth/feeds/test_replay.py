import threading
from collections.abc import Callable
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from market_depth.feeds.base import MAX_BATCH_RECORDS, Feed, FeedState
from market_depth.feeds.dbn import DamagedFileError, FileUnreadableError
from market_depth.feeds.pacing import Pacing, PacingError, choose_pacing
from market_depth.feeds.replay import ReplayFeed
from protocol.events import ORDER_EVENT, Action, Flag, OrderEvents
from tests.market_depth.feeds.dbn_files import START_NS, adds, compressed, encoded, write
from tests.market_depth.feeds.memory_recording import MemoryRecording

MS = 1_000_000
S = 1000 * MS


def replay(
    *chunks: OrderEvents, pacing: Pacing | None = None, loop: bool = False, limit: int | None = None
) -> ReplayFeed:
    return ReplayFeed(MemoryRecording(*chunks), pacing or choose_pacing("max"), loop=loop, limit=limit)


async def sizes(feed: Feed) -> list[int]:
    return [len(batch) async for batch in feed]


async def collect(feed: Feed, clock: MockClock) -> list[tuple[float, int]]:
    """When each batch came, in seconds from now, and how many records it had."""
    start = clock.current_time()
    return [(round(clock.current_time() - start, 9), len(batch)) async for batch in feed]


def at(*times_ms: float) -> OrderEvents:
    """Events of one record each, recorded at these times."""
    events = adds(len(times_ms))
    events["ts_recv"] = START_NS + np.array([round(time * MS) for time in times_ms])
    return events


@pytest.mark.parametrize(
    ("speed", "batches"),
    [
        (1, [(0, 2), (0.5, 1), (2, 1), (36000, 1)]),
        (0.1, [(0, 2), (5, 1), (20, 1), (360000, 1)]),
        (10, [(0, 2), (0.05, 1), (0.2, 1), (3600, 1)]),
        (1_000_000, [(0, 2), (0.001, 2), (0.036, 1)]),
        ("max", [(0, 5)]),
    ],
)
async def test_events_come_at_recorded_pace_times_speed(
    autojump_clock: MockClock, speed: float | str, batches: list[tuple[float, int]]
) -> None:
    feed = replay(at(0, 0, 500, 2000, 36_000_000), pacing=choose_pacing(speed))
    assert await collect(feed, autojump_clock) == batches
    assert feed.state is FeedState.COMPLETED


async def test_a_late_start_loses_nothing_the_replays_time_begins_with_its_first_batch(
    autojump_clock: MockClock,
) -> None:
    feed = replay(at(0, 500), pacing=choose_pacing(1))
    await trio.sleep(100)
    assert await collect(feed, autojump_clock) == [(0, 1), (0.5, 1)]


async def test_after_a_slow_receiver_the_replay_catches_up_and_does_not_drift(
    autojump_clock: MockClock,
) -> None:
    feed = replay(at(*range(0, 10_000, 500)), pacing=choose_pacing(1))
    start = autojump_clock.current_time()
    got = []
    async for batch in feed:
        got.append((autojump_clock.current_time() - start, len(batch)))
        if len(got) == 2:
            await trio.sleep(3.1)
    assert got[:4] == [(0, 1), (0.5, 1), (3.6, 6), (4, 1)]
    assert got[-1] == (9.5, 1)


async def test_events_closer_than_a_millisecond_come_together(autojump_clock: MockClock) -> None:
    feed = replay(at(0, 10, 10.1, 10.2, 10.9, 11.05, 11.5, 30), pacing=choose_pacing(1))
    assert await collect(feed, autojump_clock) == [(0, 1), (0.01, 1), (0.011, 3), (0.012, 2), (0.03, 1)]


@pytest.mark.parametrize("rate", [0.5, 3, 1000, 44_100, 1_000_000])
async def test_at_a_rate_exactly_floor_of_rate_times_t_records_have_come(
    autojump_clock: MockClock, rate: float
) -> None:
    count = 3000
    feed = replay(*np.split(adds(count), [100, 1111]), pacing=choose_pacing(rate=rate))
    batches = await collect(feed, autojump_clock)
    delivered = np.cumsum([size for _, size in batches]).tolist()
    come = {elapsed: records for (elapsed, _), records in zip(batches, delivered, strict=True)}
    assert come == {elapsed: min(count, floor(Fraction(rate) * Fraction(str(elapsed)))) for elapsed in come}
    assert batches[-1][0] == pytest.approx(count / rate, abs=0.001)


async def test_an_event_of_many_records_comes_whole_when_its_last_record_is_due(
    autojump_clock: MockClock,
) -> None:
    events = at(0, 1000, 2000, 3000)
    events["flags"] = [Flag.LAST, 0, 0, Flag.LAST]
    assert await collect(replay(events[:2], events[2:], pacing=choose_pacing(1)), autojump_clock) == [
        (0, 1),
        (3, 3),
    ]
    assert await collect(replay(events, pacing=choose_pacing(rate=1)), autojump_clock) == [(1, 1), (4, 3)]


async def test_batches_are_bounded_and_cut_at_event_ends_across_chunks() -> None:
    events = adds(3 * MAX_BATCH_RECORDS)
    events["flags"][::5] = 0
    feed = replay(*np.array_split(events, 11))
    batches = [batch async for batch in feed]
    assert max(map(len, batches)) <= MAX_BATCH_RECORDS
    assert all(batch["flags"][-1] == Flag.LAST and batch.flags.c_contiguous for batch in batches)
    np.testing.assert_array_equal(np.concatenate(batches), events)


async def test_records_without_an_event_end_still_come_in_bounded_batches() -> None:
    events = adds(2 * MAX_BATCH_RECORDS + 3)
    events["flags"] = 0
    assert await sizes(replay(*np.array_split(events, 5))) == [
        MAX_BATCH_RECORDS,
        MAX_BATCH_RECORDS,
        3,
    ]


async def test_times_that_fall_or_are_missing_count_as_the_time_before(autojump_clock: MockClock) -> None:
    events = at(0, 500, 200, 0, 1000)
    events["ts_recv"][3] = 2**64 - 1
    assert await collect(replay(events, pacing=choose_pacing(1)), autojump_clock) == [
        (0, 1),
        (0.5, 3),
        (1, 1),
    ]


async def test_market_time_is_the_recorded_time_of_the_last_record_handed_over() -> None:
    feed = replay(at(0, 0.5, 2), pacing=choose_pacing(2))
    assert feed.market_time() == START_NS
    times = []
    async for batch in feed:
        assert feed.market_time() == batch["ts_recv"][-1]
        times.append(feed.market_time() - START_NS)
    assert times[-1] == 2 * MS


@pytest.mark.parametrize(("limit", "expected"), [(1, [1]), (3, [3]), (4, [4]), (5, [4, 1]), (99, [4, 4])])
async def test_a_limit_plays_the_first_records_only(limit: int, expected: list[int]) -> None:
    assert await sizes(replay(adds(4), adds(4), limit=limit)) == expected


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(PacingError, match=r"^memory: a limit of 0 records is not possible; give 1 or more$"):
        replay(adds(1), limit=0)


async def test_a_loop_clears_every_book_and_starts_again_in_time(autojump_clock: MockClock) -> None:
    events = at(0, 500, 2000)
    events["instrument_id"] = [7, 5, 7]
    events["publisher_id"] = [2, 9, 1]
    feed = replay(events, pacing=choose_pacing(1), loop=True)
    start = autojump_clock.current_time()
    got: list[tuple[float, OrderEvents]] = []
    async for batch in feed:
        got.append((autojump_clock.current_time() - start, batch))
        assert feed.market_time() == batch["ts_recv"][-1]
        if len(got) == 9:
            break
    assert [(time, len(batch)) for time, batch in got] == [
        (0, 1), (0.5, 1), (2, 1),
        (2, 3), (2, 1), (2.5, 1), (4, 1),
        (4, 3), (4, 1),
    ]  # fmt: skip
    for clears in (got[3][1], got[7][1]):
        assert clears[["instrument_id", "publisher_id"]].tolist() == [(7, 2), (5, 9), (7, 1)]
        assert set(clears["action"]) == {Action.CLEAR}
        assert clears["flags"].tolist() == [Flag.SNAPSHOT, Flag.SNAPSHOT, Flag.SNAPSHOT | Flag.LAST]
        assert set(clears["ts_recv"]) == set(clears["ts_event"]) == {START_NS}
        assert set(clears["length"]) == {14}
        assert set(clears["rtype"]) == {0xA0}
    await feed.aclose()


async def test_a_loop_at_a_rate_counts_the_records_of_all_rounds(autojump_clock: MockClock) -> None:
    feed = replay(adds(3), pacing=choose_pacing(rate=1), loop=True, limit=2)
    start = autojump_clock.current_time()
    got = []
    async for batch in feed:
        got.append((autojump_clock.current_time() - start, chr(batch["action"][0]), len(batch)))
        if len(got) == 6:
            break
    assert got == [(1, "A", 1), (2, "A", 1), (2, "R", 1), (3, "A", 1), (4, "A", 1), (4, "R", 1)]


async def test_a_loop_over_nothing_ends() -> None:
    assert await sizes(replay(loop=True)) == []


async def test_damage_comes_after_everything_before_it_even_half_an_event() -> None:
    events = adds(3)
    events["flags"] = [Flag.LAST, 0, 0]
    damage = DamagedFileError("memory", "breaks off", "fetch it again")
    recording = MemoryRecording(events, damage=damage)
    feed = ReplayFeed(recording, choose_pacing("max"), loop=True)
    assert [len(await anext(feed)), len(await anext(feed))] == [1, 2]
    with pytest.raises(DamagedFileError, match="breaks off"):
        await anext(feed)
    assert (feed.state, recording.is_closed) == (FeedState.FAILED, True)
    assert await sizes(feed) == []


async def test_a_cancelled_wait_loses_nothing(autojump_clock: MockClock) -> None:
    feed = replay(at(0, 500, 1000), pacing=choose_pacing(1))
    got: list[tuple[int, float]] = []
    while len(got) < 3:
        with trio.move_on_after(0.3):
            got.append((len(await anext(feed)), round(autojump_clock.current_time(), 9)))
    assert got == [(1, 0), (1, 0.5), (1, 1)]


async def test_closing_ends_the_iteration_also_of_one_who_waits(autojump_clock: MockClock) -> None:
    recording = MemoryRecording(at(0, 60_000))
    feed = ReplayFeed(recording, choose_pacing(1))
    got: list[tuple[float, int]] = []

    async def receive() -> None:
        got.extend(await collect(feed, autojump_clock))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.sleep(1)
        await feed.aclose()
        await feed.aclose()
    assert (got, feed.state, recording.is_closed) == ([(0, 1)], FeedState.CLOSED, True)
    assert await collect(feed, autojump_clock) == []


class SlowDisk(MemoryRecording):
    """A recording whose reading waits for the test, and which must not be closed meanwhile."""

    blocks = True

    def __init__(self, *chunks: OrderEvents) -> None:
        super().__init__(*chunks)
        self.is_reading = threading.Event()
        self.may_read = threading.Event()

    def read(self) -> OrderEvents:
        self.is_reading.set()
        assert self.may_read.wait(10)
        assert not self.is_closed
        return super().read()


async def test_closing_while_a_thread_reads_closes_the_file_when_it_has_read() -> None:
    recording = SlowDisk(adds(3))
    feed = ReplayFeed(recording, choose_pacing("max"))
    got: list[int] = []

    async def receive() -> None:
        got.extend(await sizes(feed))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        assert await trio.to_thread.run_sync(recording.is_reading.wait, 10)
        await feed.aclose()
        recording.may_read.set()
    assert (got, feed.state, recording.is_closed) == ([], FeedState.CLOSED, True)


async def test_a_replay_closed_before_it_began_gives_nothing() -> None:
    feed = replay(adds(3))
    await feed.aclose()
    assert (await sizes(feed), feed.state) == ([], FeedState.CLOSED)


async def test_full_speed_lets_other_tasks_run_between_batches() -> None:
    feed = replay(*np.array_split(adds(50 * MAX_BATCH_RECORDS), 50))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_turns)
        batches = await sizes(feed)
        nursery.cancel_scope.cancel()
    assert turns >= len(batches) // 2


@pytest.mark.parametrize("pack", [lambda content: content, compressed], ids=["plain", "zstd"])
async def test_a_file_is_played_from_disk_again_and_again(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    events = adds(2 * MAX_BATCH_RECORDS + 100)
    feed = await ReplayFeed.open(write(tmp_path, pack(encoded(events))), choose_pacing("max"), loop=True)
    assert (feed.name, feed.source, feed.state) == ("test.dbn", "replay", FeedState.WAITING)
    assert [instrument.symbol for instrument in feed.instruments] == ["ACME"]
    for _ in range(3):
        got = np.empty(0, ORDER_EVENT)
        while len(got) < len(events):
            got = np.concatenate([got, await anext(feed)])
        np.testing.assert_array_equal(got, events)
        assert [chr(action) for action in (await anext(feed))["action"]] == ["R"]
    await feed.aclose()


async def test_a_damaged_file_is_played_up_to_the_damage(tmp_path: Path) -> None:
    events = adds(100)
    feed = await ReplayFeed.open(write(tmp_path, encoded(events) + b"\x0e\xa0"), choose_pacing("max"))
    np.testing.assert_array_equal(await anext(feed), events)
    with pytest.raises(
        DamagedFileError,
        match=r"ends inside a record \(2 bytes of it\) at byte [0-9,]+ \(record 101\), after 100 order events",
    ):
        await anext(feed)


async def test_a_file_that_cannot_be_opened_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadableError, match="no such file"):
        await ReplayFeed.open(tmp_path / "missing.dbn", choose_pacing())


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "count", "ends_at_event_end"),
    [
        ("CLX5_mbo.dbn", 38_212, True),
        ("dbeq-basic-20240403.mbo.dbn.zst", 286_130, True),
        ("esh4-glbx-mdp3-20231224.mbo.dbn.zst", 8_725, True),
    ],
)
async def test_recorded_files_are_played_completely(
    realdata: Path, name: str, count: int, ends_at_event_end: bool
) -> None:
    feed = await ReplayFeed.open(realdata / "dbn" / name, choose_pacing("max"))
    batches = [batch async for batch in feed]
    assert sum(map(len, batches)) == count
    assert max(map(len, batches)) <= MAX_BATCH_RECORDS
    assert all(batch["flags"][-1] & Flag.LAST for batch in batches) is ends_at_event_end
    assert feed.market_time() == batches[-1]["ts_recv"][-1]
