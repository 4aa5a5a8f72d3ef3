import threading
from pathlib import Path

import numpy as np
import pytest

from market_depth.feeds.base import MAX_BATCH_RECORDS
from market_depth.feeds.dbn import DamagedFileError, DbnFile
from market_depth.feeds.dbn_records import Bytes
from market_depth.rebuild.reading import CHUNKS_AHEAD, read_ahead
from protocol.events import OrderEvents
from tests.market_depth.feeds.dbn_files import adds, encoded, write


def is_reading() -> bool:
    return any(thread.name == "read-ahead" for thread in threading.enumerate())


def test_all_events_come_in_order_with_how_far_they_were_read(tmp_path: Path) -> None:
    events = adds(9 * MAX_BATCH_RECORDS + 5)
    with DbnFile(write(tmp_path, encoded(events))) as file:
        chunks = [
            (chunk.events.copy(), chunk.bytes_read, chunk.records_read, chunk.memory.ctypes.data)
            for chunk in read_ahead(file)
        ]
    np.testing.assert_array_equal(np.concatenate([chunk[0] for chunk in chunks]), events)
    assert [chunk[2] for chunk in chunks] == [
        *range(MAX_BATCH_RECORDS, len(events), MAX_BATCH_RECORDS),
        len(events),
    ]
    assert chunks[-1][1] == file_size(tmp_path)
    assert len({chunk[3] for chunk in chunks}) == CHUNKS_AHEAD
    assert not is_reading()


def file_size(folder: Path) -> int:
    return (folder / "test.dbn").stat().st_size


def test_damage_is_told_after_everything_before_it(tmp_path: Path) -> None:
    events = adds(2 * MAX_BATCH_RECORDS)
    with DbnFile(write(tmp_path, encoded(events) + b"\x0e")) as file:
        chunks = read_ahead(file)
        assert [len(next(chunks).events) for _ in range(2)] == [MAX_BATCH_RECORDS] * 2
        with pytest.raises(DamagedFileError):
            next(chunks)
    assert not is_reading()


def test_closed_early_it_reads_on_no_more(tmp_path: Path) -> None:
    with DbnFile(write(tmp_path, encoded(adds(20 * MAX_BATCH_RECORDS)))) as file:
        chunks = read_ahead(file)
        next(chunks)
        chunks.close()
        assert not is_reading()
        assert file.records_read <= (CHUNKS_AHEAD + 1) * MAX_BATCH_RECORDS


def test_it_reads_no_further_ahead_than_it_has_memory(tmp_path: Path) -> None:
    """However long the caller takes: here as long as the thread needs to come to a stop."""

    class Counted(DbnFile):
        reads = 0
        waits = threading.Event()

        def read(self, buffer: Bytes | None = None) -> OrderEvents:
            self.reads += 1
            if self.reads == CHUNKS_AHEAD:
                self.waits.set()
            return super().read(buffer)

    with Counted(write(tmp_path, encoded(adds(20 * MAX_BATCH_RECORDS)))) as file:
        chunks = read_ahead(file)
        next(chunks)
        assert file.waits.wait(30)
        chunks.close()
        assert file.reads == CHUNKS_AHEAD


def test_a_bug_in_the_thread_is_raised_in_the_caller(tmp_path: Path) -> None:
    class Broken(DbnFile):
        def read(self, buffer: Bytes | None = None) -> OrderEvents:
            raise AssertionError(f"a bug: {buffer is None}")

    with (
        Broken(write(tmp_path, encoded(adds(1)))) as file,
        pytest.raises(AssertionError, match="a bug: False"),
    ):
        next(read_ahead(file))
    assert not is_reading()
