import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.market_depth.record.crashing_recorder import EVENTS, PROGRESS_BYTES, SYNC_RECORDS
from tests.market_depth.record.recordings import delivered

LOST = "what was recorded after them is lost, unless the recorder is still at work"


@pytest.mark.parametrize(
    "crashes", [2, pytest.param(25, marks=[pytest.mark.slow, pytest.mark.timeout(300)])], ids=["few", "many"]
)
@pytest.mark.parametrize("name", ["a.dbn", "a.dbn.zst"])
def test_a_killed_recorder_loses_the_unsynced_tail_at_most_and_the_loss_is_told(
    tmp_path: Path, name: str, crashes: int
) -> None:
    rng = random.Random(f"{name} {crashes}")
    for number in range(crashes):
        instant = rng.randrange(1, PROGRESS_BYTES)
        written, synced = crash(tmp_path / name, instant)
        got, error = delivered(tmp_path / name)
        facts = (
            f"crash {number} after byte {instant} of the progress: {written=} {synced=} delivered={len(got)}"
        )
        np.testing.assert_array_equal(got, EVENTS[: len(got)], facts)
        assert len(got) >= synced > written - SYNC_RECORDS, facts
        assert error is not None, facts
        assert f"after {len(got):,} order events" in str(error), facts
        assert LOST in str(error), facts


def crash(path: Path, instant: int) -> tuple[int, int]:
    """Kill a recorder once it has told `instant` bytes of its progress. Returns: what it said last."""
    command = [sys.executable, "-m", "tests.market_depth.record.crashing_recorder", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        told = b"0 0\n" + recorder.stdout.read(instant)
        recorder.kill()
        told += recorder.stdout.read()
    assert recorder.returncode == -signal.SIGKILL
    last = told[: told.rindex(b"\n")].split(b"\n")[-1]
    written, synced = map(int, last.split())
    return written, synced
