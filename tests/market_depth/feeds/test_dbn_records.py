from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.base import MAX_BATCH_RECORDS
from market_depth.feeds.dbn_records import DamagedFileError, RecordReader
from protocol.events import ORDER_EVENT, OrderEvents
from tests.market_depth.feeds.dbn_files import adds


class Trickle:
    """A stream that hands out a few bytes at a time, and may fail at its end."""

    def __init__(self, data: bytes, step: int = 1 << 30, error: OSError | None = None) -> None:
        self._data = BytesIO(data)
        self._step = step
        self._error = error

    def readinto(self, buffer: memoryview, /) -> int:
        count = self._data.readinto(buffer[: self._step])
        if not count and self._error:
            raise self._error
        return count


def mapping(instrument_id: int, asked: str, native: str, version: int = 3) -> bytes:
    if version == 1:
        text = asked.encode().ljust(22, b"\0") + native.encode().ljust(22, b"\0") + bytes(4)
    else:
        text = b"\xff" + asked.encode().ljust(71, b"\0") + b"\xff" + native.encode().ljust(71, b"\0")
    body = text + bytes(16)
    return bytes([(16 + len(body)) // 4, 0x16, 0, 0]) + instrument_id.to_bytes(4, "little") + bytes(8) + body


TRADE = bytes([12, 0]) + bytes(46)
STATUS = bytes([10, 0x12]) + bytes(38)


def read_all(reader: RecordReader) -> OrderEvents:
    chunks = [np.empty(0, ORDER_EVENT)]
    while len(events := reader.read()):
        chunks.append(events)
    return np.concatenate(chunks)


@pytest.mark.parametrize("step", [1, 7, 56, 100, 1 << 30])
def test_order_events_come_out_as_they_are_however_the_stream_hands_out_its_bytes(step: int) -> None:
    events = adds(100)
    np.testing.assert_array_equal(read_all(RecordReader(Trickle(events.tobytes(), step), "x")), events)


def test_chunks_are_bounded_aligned_and_contiguous() -> None:
    events = adds(2 * MAX_BATCH_RECORDS + 5)
    reader = RecordReader(Trickle(events.tobytes(), 1001), "x")
    chunks = [reader.read() for _ in range(4)]
    assert [len(chunk) for chunk in chunks] == [MAX_BATCH_RECORDS, MAX_BATCH_RECORDS, 5, 0]
    assert all(chunk.ctypes.data % 8 == 0 and chunk.flags.c_contiguous for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), events)


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_memory_is_used_again_after_as_many_chunks_as_are_kept(kept: int) -> None:
    events = adds(7 * MAX_BATCH_RECORDS)
    content = events.tobytes()
    middle = len(content) // 7 * 3
    others = (bytes([14, 0x12]) + bytes(54)) * (2 * MAX_BATCH_RECORDS)  # two chunks without order events
    reader = RecordReader(Trickle(content[:middle] + others + content[middle:]), "x")
    first = reader.read()
    reader.chunks_kept = kept
    chunks = [reader.read() for _ in range(6)]
    expected = np.split(events, 7)
    np.testing.assert_array_equal(first, expected[0])
    for chunk, its_events in zip(chunks[-kept:], expected[-kept:], strict=True):
        np.testing.assert_array_equal(chunk, its_events)
    assert len({chunk.ctypes.data for chunk in chunks}) == kept


def test_the_reader_counts_records_of_all_types_and_the_bytes_of_the_content() -> None:
    data = adds(2).tobytes() + STATUS + adds(1).tobytes() + TRADE
    reader = RecordReader(Trickle(data + b"\x0e\xa0"), "x", offset=1000)
    reader.read()
    with pytest.raises(DamagedFileError, match=rf" at byte {1000 + len(data):,} \(record 6\), after 3 order"):
        reader.read()
    assert (reader.records_read, reader.offset) == (5, 1000 + len(data))


@pytest.mark.parametrize("step", [1, 60, 1 << 30])
def test_records_of_other_types_are_passed_over_and_noted(step: int) -> None:
    events = adds(4)
    rows = [row.tobytes() for row in events]
    data = STATUS + rows[0] + TRADE + TRADE + rows[1] + rows[2] + STATUS + rows[3] + TRADE
    reader = RecordReader(Trickle(data, step), "x")
    np.testing.assert_array_equal(read_all(reader), events)
    assert reader.other_rtypes == {0x00, 0x12}


def test_a_whole_record_shorter_than_an_order_event_may_be_the_last() -> None:
    events = adds(3)
    np.testing.assert_array_equal(read_all(RecordReader(Trickle(events.tobytes() + TRADE), "x")), events)
    assert len(RecordReader(Trickle(TRADE), "x").read()) == 0


def test_appended_sending_times_are_taken_off() -> None:
    events = adds(50)
    sent = np.zeros((50, 64), np.uint8)
    sent[:, :56] = events.view(np.uint8).reshape(50, 56)
    sent[:, 0] = 16
    sent[:, 56:] = 255
    uniform = sent.tobytes()
    np.testing.assert_array_equal(read_all(RecordReader(Trickle(uniform), "x", ts_out=True)), events)
    mixed = bytes([14, 0]) + bytes(54) + uniform
    np.testing.assert_array_equal(read_all(RecordReader(Trickle(mixed), "x", ts_out=True)), events)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_symbol_mappings_are_remembered_the_first_of_an_instrument_counts(version: int) -> None:
    data = (
        mapping(1, "ES.FUT", "ESZ3", version)
        + mapping(2, "NQZ3", "2", version)
        + mapping(3, "CLX5", "", version)
        + mapping(1, "ES.c.0", "ESH4", version)
        + mapping(4, "", "", version)
    )
    reader = RecordReader(Trickle(data), "x")
    assert len(reader.read()) == 0
    assert reader.symbols == {1: "ESZ3", 2: "NQZ3", 3: "CLX5"}


@pytest.mark.parametrize(
    ("tail", "problem"),
    [
        (b"\x0e", r"ends inside a record \(1 bytes of it\)"),
        (adds(1).tobytes()[:-1], r"ends inside a record \(55 bytes of it\)"),
        (TRADE[:-1], r"ends inside a record \(47 bytes of it\)"),
        (bytes(56), r"holds something that is no record \(a length of 0 bytes\)"),
        (bytes([3, 0xA0]) + bytes(100), r"holds something that is no record \(a length of 12 bytes\)"),
        (bytes([12, 0xA0]) + bytes(46), r"holds an MBO record of 48 bytes"),
        (bytes([16, 0xA0]) + bytes(62), r"holds an MBO record of 64 bytes"),
    ],
)
@pytest.mark.parametrize("count", [0, 1, MAX_BATCH_RECORDS])
def test_everything_before_damage_is_read_and_then_the_damage_is_told_every_time(
    count: int, tail: bytes, problem: str
) -> None:
    events = adds(count)
    reader = RecordReader(Trickle(events.tobytes() + tail), "x.dbn")
    if count:
        np.testing.assert_array_equal(reader.read(), events)
    for _ in range(2):
        with pytest.raises(
            DamagedFileError,
            match=rf"^x\.dbn: {problem} at byte {56 * count:,} \(record {count + 1:,}\), after {count:,} order events; fetch",
        ):
            reader.read()


def test_a_stream_that_fails_is_damage_after_what_it_gave() -> None:
    events = adds(3)
    reader = RecordReader(Trickle(events.tobytes() + b"\x0e", error=OSError(5, "Input/output error")), "x")
    np.testing.assert_array_equal(reader.read(), events)
    with pytest.raises(
        DamagedFileError,
        match=r"cannot be read on at byte 168 \(record 4\), after 3 order events: Input/output error; fetch",
    ):
        reader.read()


@given(st.binary(max_size=600), st.integers(0, 3), st.integers(1, 80), st.booleans())
def test_rubbish_after_good_records_never_loses_them_nor_crashes(
    rubbish: bytes, count: int, step: int, ts_out: bool
) -> None:
    stride = 64 if ts_out else 56
    rows = np.zeros((count, stride), np.uint8)
    rows[:, :56] = adds(count).view(np.uint8).reshape(count, 56)
    rows[:, 0] = stride // 4
    reader = RecordReader(Trickle(rows.tobytes() + rubbish, step), "x", ts_out=ts_out)
    read = np.empty(0, ORDER_EVENT)
    try:
        while len(events := reader.read()):
            read = np.concatenate([read, events])
    except DamagedFileError:
        pass
    np.testing.assert_array_equal(read[:count], adds(count))
