import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from market_depth.feeds.base import MAX_BATCH_RECORDS
from market_depth.feeds.dbn import DamagedFileError, DbnFile
from market_depth.feeds.read_ahead import CHUNKS_IN_USE, ReadAhead
from protocol.events import OrderEvents
from tests.market_depth.feeds.dbn_files import adds, compressed, encoded, write
from tests.market_depth.feeds.memory_recording import MemoryRecording
from tests.market_depth.feeds.test_dbn_records import STATUS

DAMAGE = DamagedFileError("memory", "breaks off", "fetch it again")


class WatchedRecording(MemoryRecording):
    """It tells of each read when it begins, lets as many pass as it may, and must not be closed meanwhile."""

    def __init__(self, *chunks: OrderEvents) -> None:
        super().__init__(*chunks)
        self.reads_begun: SimpleQueue[None] = SimpleQueue()
        self.may_read = threading.Semaphore(0)
        self.was_closed = threading.Event()

    def read(self) -> OrderEvents:
        self.reads_begun.put(None)
        assert self.may_read.acquire(timeout=10)
        assert not self.is_closed
        return super().read()

    def close(self) -> None:
        super().close()
        self.was_closed.set()


def chunks_of(count: int) -> list[OrderEvents]:
    return np.split(adds(10 * count), count)


def go_to(recording: ReadAhead, place: int) -> None:
    for _ in recording.go_to(MemoryRecording().place()._replace(offset=place)):
        pass


def test_what_is_read_is_what_the_recording_gives_and_so_is_every_place() -> None:
    chunks = chunks_of(7)
    recording = ReadAhead(MemoryRecording(*chunks))
    for number, chunk in enumerate(chunks):
        assert (recording.place().offset, recording.bytes_read) == (number, number * chunk.nbytes)
        np.testing.assert_array_equal(recording.read(), chunk)
    for _ in range(5):
        assert (len(recording.read()), recording.place().offset) == (0, 7)
    recording.close()


def test_reading_goes_on_wherever_it_is_told_to() -> None:
    chunks = chunks_of(7)
    recording = ReadAhead(MemoryRecording(*chunks))
    for start in (3, 0, 6, 7, 5):
        go_to(recording, start)
        assert recording.place().offset == start
        for chunk in chunks[start:][:3]:
            np.testing.assert_array_equal(recording.read(), chunk)
    recording.close()


def test_a_way_left_half_way_does_not_matter_to_the_next() -> None:
    chunks = chunks_of(7)
    recording = ReadAhead(MemoryRecording(*chunks))
    recording.read()
    next(recording.go_to(recording.place()))
    go_to(recording, 2)
    np.testing.assert_array_equal(recording.read(), chunks[2])
    recording.close()


def test_damage_is_told_in_its_place_and_every_time() -> None:
    recording = ReadAhead(MemoryRecording(*chunks_of(3), damage=DAMAGE))
    for _ in range(2):
        assert [len(recording.read()) for _ in range(3)] == [10, 10, 10]
        for _ in range(5):
            with pytest.raises(DamagedFileError, match="breaks off"):
                recording.read()
        go_to(recording, 0)
    recording.close()


def test_a_recording_that_is_being_read_ahead_is_closed_afterwards() -> None:
    watched = WatchedRecording(*chunks_of(9))
    recording = ReadAhead(watched)
    watched.may_read.release()
    recording.read()
    for _ in range(2):
        watched.reads_begun.get(timeout=10)
    recording.close()
    recording.close()
    assert not watched.is_closed
    watched.may_read.release()
    assert watched.was_closed.wait(10)


def test_a_recording_that_was_never_read_is_closed_at_once() -> None:
    memory = MemoryRecording(*chunks_of(2))
    ReadAhead(memory).close()
    assert memory.is_closed


def test_it_reads_no_further_ahead_than_its_memory_reaches() -> None:
    """However long the caller takes: here as long as the thread needs to come to a stop."""
    watched = WatchedRecording(*chunks_of(20))
    recording = ReadAhead(watched)
    for _ in range(20):
        watched.may_read.release()
    recording.read()
    for _ in range(CHUNKS_IN_USE):
        watched.reads_begun.get(timeout=10)
    recording.close()
    assert watched.was_closed.wait(10)
    assert watched.reads_begun.empty()


@pytest.mark.parametrize("pack", [bytes, compressed], ids=["plain", "zstd"])
def test_memory_is_not_used_again_while_the_caller_works_on_it(
    tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    events = adds(20 * MAX_BATCH_RECORDS + 5)
    file = DbnFile(write(tmp_path, pack(encoded(events))))
    file.use_memory_again(CHUNKS_IN_USE)
    memories = set()
    with closing(ReadAhead(file)) as recording:
        read = 0
        while len(chunk := recording.read()):
            np.testing.assert_array_equal(chunk, events[read : read + len(chunk)])
            read += len(chunk)
            assert recording.place().records == read
            memories.add(chunk.ctypes.data)
        assert (read, recording.bytes_read) == (len(events), recording.size_bytes)
    assert len(memories) <= CHUNKS_IN_USE + 1  # the first chunk was read when the file was opened


def test_damage_is_told_with_the_place_of_the_record_that_cannot_be_had(tmp_path: Path) -> None:
    content = encoded(adds(3)) + STATUS * 50_000
    with closing(ReadAhead(DbnFile(write(tmp_path, content + b"\x0e")))) as recording:
        assert len(recording.read()) == 3
        with pytest.raises(DamagedFileError, match=rf"at byte {len(content):,} \(record 50,004\)"):
            recording.read()
        assert recording.place()[:3] == (len(content), 50_003, 3)


def test_a_bug_in_the_thread_is_raised_in_the_caller() -> None:
    class Broken(MemoryRecording):
        def read(self) -> OrderEvents:
            raise AssertionError("a bug")

    with closing(ReadAhead(Broken())) as recording, pytest.raises(AssertionError, match="a bug"):
        recording.read()
