"""What the server does with the recordings of its feeds, when they begin and when it ends."""

from pathlib import Path

import pytest
from trio.testing import MockClock

from market_depth.app import WrongCallError, close_recorders, make_recorders, recordings
from market_depth.clock import ManualClock
from market_depth.live_market import LiveMarket
from market_depth.record.recorder import PATIENCE_S, Recorder
from protocol.instrument import SCALE, Instrument
from tests.market_depth.feeds.dbn_files import adds
from tests.market_depth.record.recordings import ACME, START_NS, names_in
from tests.market_depth.record.test_recorder import CUSHION_S, SlowDisk, feed


async def test_a_recording_that_cannot_begin_leaves_none_of_the_others(tmp_path: Path) -> None:
    unheld = Instrument("Ä", "TEST", 8, SCALE)
    markets = [LiveMarket(feed(instrument.symbol, (instrument,))) for instrument in (ACME, unheld)]
    with pytest.raises(WrongCallError, match="DBN cannot hold its symbols"):
        await make_recorders(markets, tmp_path, ManualClock(START_NS))
    assert names_in(tmp_path) == []


async def test_disks_that_take_nothing_hold_up_a_shutdown_no_longer_than_one_does(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = CUSHION_S
    markets = [LiveMarket(feed()) for _ in range(3)]
    disks = [SlowDisk(tmp_path / f"{number}.dbn") for number in range(3)]
    for live, disk in zip(markets, disks, strict=True):
        live.recorder = Recorder(disk)
    async with recordings(markets):
        for live in markets:
            assert live.recorder is not None
            await live.recorder.write(adds(1))
        await close_recorders(markets)
    assert [live.is_ok for live in markets] == [False] * 3
    assert autojump_clock.current_time() == pytest.approx(PATIENCE_S, abs=0.1)
    for disk in disks:
        disk.turns.release(9)
