import signal
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
import trio
from trio.testing import MockClock

from market_depth.feeds.base import FeedError
from market_depth.record.dbn_writer import DbnWriter
from market_depth.record.errors import RecordingError
from market_depth.record.recorder import PATIENCE_S, Recorder
from market_depth.record.recording_job import UNHURRIED_PATIENCE_S, progress_bar, run_recording
from protocol.events import OrderEvents
from tests.market_depth.feeds.dbn_files import adds
from tests.market_depth.record.recordings import ACME, START_NS, databento_reads
from tests.market_depth.record.test_recorder import CUSHION_S, SlowDisk


class Batches:
    """Events without end; what happens before some of them is said by number."""

    def __init__(self, before: dict[int, Callable[[], None]], pause_s: float = 0) -> None:
        self.count = 0
        self._before = before
        self._pause_s = pause_s

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        await trio.sleep(self._pause_s)
        self._before.get(self.count, lambda: None)()
        self.count += 1
        return adds(1)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def break_off() -> None:
    raise FeedError("there", "broke", "mend it")


def test_where_there_is_no_terminal_notes_alone_are_shown_each_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress_bar(10, 5, lambda: 1.0) as display:
        display.tell(7)
        display.note("[red] " + 30 * "a long line ")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"market-depth: [red] {30 * 'a long line '}\n")


@pytest.mark.parametrize("end", [interrupt, break_off])
async def test_what_was_recorded_before_the_end_is_in_a_complete_file(
    tmp_path: Path, end: Callable[[], None]
) -> None:
    path = tmp_path / "a.dbn"
    recorder = Recorder(DbnWriter(path, [ACME], START_NS))
    batches, told = Batches({3: end}), list[int]()
    try:
        await run_recording(recorder, batches, told.append)
    except FeedError:
        assert end is break_off
    else:
        assert end is interrupt
    # Who interrupts loses at most the batch that was not taken yet.
    assert max(batches.count - 1, 3) <= len(databento_reads(path)[1]) // 56 <= batches.count
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("before", "problem", "after_s"),
    [
        ({}, "the disk takes nothing for 60 s", UNHURRIED_PATIENCE_S),
        ({3: interrupt}, "the disk needs more than 5 s for the rest", PATIENCE_S),
    ],
    ids=["left alone", "interrupted"],
)
async def test_a_disk_that_takes_nothing_is_waited_for_as_long_as_nobody_is_in_a_hurry(
    tmp_path: Path,
    autojump_clock: MockClock,
    before: dict[int, Callable[[], None]],
    problem: str,
    after_s: float,
) -> None:
    autojump_clock.autojump_threshold = CUSHION_S
    disk = SlowDisk(tmp_path / "a.dbn")
    recorder = Recorder(disk, patience_s=UNHURRIED_PATIENCE_S)
    batches = Batches(before, pause_s=1)
    with pytest.raises(RecordingError, match=problem):
        await run_recording(recorder, batches, lambda _: None)
    assert trio.current_time() == pytest.approx(batches.count + after_s, abs=1)
    disk.turns.release(99)
