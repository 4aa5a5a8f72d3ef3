import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from market_depth.clock import ManualClock
from market_depth.feeds.base import ChannelFeed
from market_depth.record.dbn_writer import DbnWriter
from market_depth.record.errors import RecordingError
from market_depth.record.recorder import (
    CHANNEL_BATCHES,
    PATIENCE_S,
    SYNC_INTERVAL_S,
    Recorder,
    RecorderState,
    make_recorder,
    recording_name,
    run_and_tell,
)
from protocol.events import OrderEvents
from protocol.instrument import Instrument
from tests.market_depth.feeds.dbn_files import adds
from tests.market_depth.record.recordings import ACME, BETA, START_NS, databento_reads, delivered, names_in
from tests.market_depth.record.test_dbn_writer import largest_file

WALL_NS = 1_795_193_263 * 1_000_000_000  # 2026-11-20T16:47:43Z
NAME = "simulator-20261120T164743Z.mbo.dbn.zst"


CUSHION_S = 0.02
"""So long nothing happens before a thread counts as having handed over what it did."""


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what threads do: no clock of trio's waits for them."""
    while not is_so():
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked(CUSHION_S)


class SlowDisk(DbnWriter):
    """A writer whose disk takes nothing before `turns` releases it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, [ACME], START_NS)
        self.turns = threading.Semaphore(0)

    def write(self, events: OrderEvents) -> None:
        self.turns.acquire()
        super().write(events)


def feed(name: str = "simulator", instruments: tuple[Instrument, ...] = (ACME, BETA)) -> ChannelFeed:
    _, receiver = trio.open_memory_channel[OrderEvents](0)
    return ChannelFeed(instruments, receiver, name=name, market_time_ns=START_NS)


@asynccontextmanager
async def recorder_in(folder: Path) -> AsyncIterator[Recorder]:
    """A recorder of the feed into a new file of `folder`."""
    recorder = await make_recorder(folder, feed(), ManualClock(WALL_NS))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_and_tell, recorder, "simulator")
        try:
            yield recorder
        finally:
            await recorder.aclose()


async def test_what_a_recorder_is_given_is_in_a_file_named_after_the_feed_and_the_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = adds(1000, instrument_ids=(7, 8))
    caplog.set_level(logging.INFO)
    async with recorder_in(tmp_path) as recorder:
        for batch in np.split(events, 10):
            await recorder.write(batch)
        assert recorder.state is RecorderState.RECORDING
    assert (recorder.state, recorder.error, recorder.records) == (RecorderState.CLOSED, None, 1000)
    assert recorder.path == tmp_path / NAME
    header, records = databento_reads(recorder.path)
    assert (header.start, records) == (START_NS, events.tobytes())
    assert [record.getMessage() for record in caplog.records] == [
        f"recording feed=simulator file={tmp_path / NAME}",
        f"recording closed file={tmp_path / NAME} records=1000",
    ]


@pytest.mark.parametrize(
    ("feed_name", "attempt", "name"),
    [
        ("simulator", 1, NAME),
        ("simulator", 2, "simulator-20261120T164743Z-2.mbo.dbn.zst"),
        ("CLX5_mbo.dbn", 1, "CLX5_mbo-20261120T164743Z.mbo.dbn.zst"),
        ("x-2024.mbo.dbn.zst", 1, "x-2024-20261120T164743Z.mbo.dbn.zst"),
        ("tcp://127.0.0.1:9000", 1, "tcp-127.0.0.1-9000-20261120T164743Z.mbo.dbn.zst"),
        ("../../etc/passwd", 1, "etc-passwd-20261120T164743Z.mbo.dbn.zst"),
        ("日本", 1, "feed-20261120T164743Z.mbo.dbn.zst"),
    ],
)
def test_names_are_plain_and_tell_the_feed_and_the_time(feed_name: str, attempt: int, name: str) -> None:
    assert recording_name(feed_name, WALL_NS, attempt) == name


async def test_a_second_recording_in_the_same_second_has_its_own_name(tmp_path: Path) -> None:
    async with recorder_in(tmp_path) as first, recorder_in(tmp_path) as second:
        assert [first.path.name, second.path.name] == [NAME, "simulator-20261120T164743Z-2.mbo.dbn.zst"]


async def test_a_recording_that_cannot_begin_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="cannot be created: No such file or directory"):
        await make_recorder(tmp_path / "missing", feed(), ManualClock(WALL_NS))


async def test_after_an_error_of_its_user_the_file_is_complete(tmp_path: Path) -> None:
    async def fail() -> None:
        async with recorder_in(tmp_path) as recorder:
            await recorder.write(adds(5))
            raise ValueError("mine")

    with pytest.RaisesGroup(ValueError):
        await fail()
    assert delivered(tmp_path / NAME)[1] is None


async def test_who_is_cancelled_still_gets_everything_written_and_the_file_closed(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with recorder_in(tmp_path) as recorder:
            await recorder.write(adds(5))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert databento_reads(tmp_path / NAME)[1] == adds(5).tobytes()


async def test_events_are_synced_a_second_after_they_came_though_no_others_follow(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    writer = DbnWriter(tmp_path / "a.dbn.zst", [ACME], START_NS)
    recorder = Recorder(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        for count, pause_s in [(5, 0.5 * SYNC_INTERVAL_S), (11, 0.4 * SYNC_INTERVAL_S)]:
            await recorder.write(adds(count)[recorder.records :])
            await until(lambda count=count: writer.records == count)  # type: ignore[misc]
            mock_clock.jump(pause_s)
            await wait_all_tasks_blocked(CUSHION_S)
        assert writer.synced_records == 0
        mock_clock.jump(0.2 * SYNC_INTERVAL_S)
        await until(lambda: writer.synced_records == 11)
        await recorder.aclose()


async def test_a_disk_that_is_slow_makes_the_feed_wait_and_nothing_is_lost(tmp_path: Path) -> None:
    writer = SlowDisk(tmp_path / "a.dbn")
    recorder = Recorder(writer)
    batches = np.split(adds(10 * (CHANNEL_BATCHES + 5)), CHANNEL_BATCHES + 5)
    given = 0

    async def give() -> None:
        nonlocal given
        for batch in batches:
            await recorder.write(batch)
            given += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        nursery.start_soon(give)
        await wait_all_tasks_blocked()
        assert given <= CHANNEL_BATCHES + 2
        writer.turns.release(len(batches))
        await until(lambda: given == len(batches))
        await recorder.aclose()
    assert databento_reads(writer.path)[1] == np.concatenate(batches).tobytes()


async def test_a_disk_that_takes_nothing_at_all_ends_the_recording_and_not_the_market(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = CUSHION_S
    writer = SlowDisk(tmp_path / "a.dbn")
    recorder = Recorder(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        for _ in range(CHANNEL_BATCHES + 5):
            await recorder.write(adds(1))
        assert recorder.state is RecorderState.FAILED
        await recorder.aclose()
    assert recorder.error == "a.dbn: the disk takes nothing for 5 s; record to a faster one"
    assert autojump_clock.current_time() == pytest.approx(PATIENCE_S, abs=0.1)
    writer.turns.release(9)


async def test_a_disk_that_takes_nothing_does_not_hold_up_a_shutdown_for_long(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = CUSHION_S
    writer = SlowDisk(tmp_path / "a.dbn")
    recorder = Recorder(writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        await recorder.write(adds(1))
        await recorder.aclose()
    assert recorder.state is RecorderState.FAILED
    assert autojump_clock.current_time() == pytest.approx(PATIENCE_S, abs=0.1)
    writer.turns.release(9)


async def test_who_closes_in_a_hurry_waits_no_longer_than_that_for_a_patient_recorder(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = CUSHION_S
    writer = SlowDisk(tmp_path / "a.dbn")
    recorder = Recorder(writer, patience_s=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        await recorder.write(adds(1))
        await recorder.aclose(2)
    assert recorder.error == "a.dbn: the disk needs more than 2 s for the rest; record to a faster one"
    assert autojump_clock.current_time() == pytest.approx(2, abs=0.1)
    writer.turns.release(9)


async def test_a_recording_without_events_leaves_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with recorder_in(tmp_path) as recorder:
        await wait_all_tasks_blocked()
    assert (recorder.state, recorder.error, recorder.records) == (RecorderState.CLOSED, None, 0)
    assert names_in(tmp_path) == []
    assert caplog.records[-1].getMessage() == "nothing recorded feed=simulator"


async def test_a_full_disk_ends_the_recording_with_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = adds(500_000)
    async with recorder_in(tmp_path) as recorder:
        with largest_file(100_000):
            for batch in np.split(events, 50):
                await recorder.write(batch)
            await until(lambda: recorder.state is RecorderState.FAILED)
    assert recorder.state is RecorderState.FAILED
    line = f"{NAME}: cannot be written: File too large, after "
    assert str(recorder.error).startswith(line)
    assert [record.getMessage() for record in caplog.records] == [
        f"recording failed file={tmp_path / NAME} error={recorder.error}"
    ]
    got, error = delivered(recorder.path)
    np.testing.assert_array_equal(got, events[: len(got)])
    assert error is not None


async def test_a_bug_ends_the_recording_alone_and_is_logged_with_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = adds(1, instrument_ids=(99,))
    async with recorder_in(tmp_path) as recorder:
        await recorder.write(stranger)
        await until(lambda: recorder.state is RecorderState.FAILED)
        await recorder.write(adds(1))
    assert recorder.error == f"{NAME}: internal error"
    assert [bool(record.exc_info) for record in caplog.records] == [True]


async def test_after_the_end_nothing_is_taken_and_nobody_waits(tmp_path: Path) -> None:
    recorder = Recorder(DbnWriter(tmp_path / "a.dbn", [ACME], START_NS))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        await recorder.aclose()
        await recorder.aclose()
        await recorder.write(adds(1))
    assert recorder.records == 0
