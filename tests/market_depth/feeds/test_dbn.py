import os
from collections.abc import Callable
from pathlib import Path

import databento_dbn
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError
from market_depth.feeds.dbn import DamagedFileError, DbnFile, FileUnreadableError, NotDbnError, SchemaError
from protocol.events import ORDER_EVENT, OrderEvents
from protocol.instrument import SCALE, decimal_text
from tests.market_depth.feeds.dbn_files import (
    CENT,
    DAY,
    NEXT_DAY,
    START_NS,
    adds,
    compressed,
    encoded,
    metadata,
    write,
)
from tests.market_depth.feeds.test_dbn_records import STATUS, TRADE, mapping


def read_all(file: DbnFile) -> OrderEvents:
    chunks = [np.empty(0, ORDER_EVENT)]
    while len(events := file.read()):
        chunks.append(events)
    file.close()
    return np.concatenate(chunks)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    "pack",
    [lambda content: content, compressed, lambda content: compressed(content, 7)],
    ids=["plain", "zstd", "several zstd frames"],
)
def test_order_events_of_every_version_and_compression_come_out(
    tmp_path: Path, version: int, pack: Callable[[bytes], bytes]
) -> None:
    events = adds(3000)
    file = DbnFile(write(tmp_path, pack(encoded(events, metadata(version))), "any-name"))
    assert (file.name, file.start_ns) == ("any-name", START_NS)
    assert [(i.symbol, i.venue, i.instrument_id, i.tick_size) for i in file.instruments] == [
        ("ACME", "TEST.MBO", 7, SCALE // 100)
    ]
    np.testing.assert_array_equal(read_all(file), events)


def test_order_events_of_a_body_that_starts_unaligned_are_aligned(tmp_path: Path) -> None:
    content = encoded(adds(3), metadata(1))
    assert (len(content) - 3 * 56) % 8
    with DbnFile(write(tmp_path, content)) as file:
        assert file.read().ctypes.data % 8 == 0


def test_a_long_file_comes_in_bounded_chunks(tmp_path: Path) -> None:
    events = adds(2 * MAX_BATCH_RECORDS + 9)
    with DbnFile(write(tmp_path, compressed(encoded(events)))) as file:
        chunks = [file.read() for _ in range(4)]
    assert [len(chunk) for chunk in chunks] == [MAX_BATCH_RECORDS, MAX_BATCH_RECORDS, 9, 0]
    np.testing.assert_array_equal(np.concatenate(chunks), events)


def test_memory_used_again_is_that_of_chunks_not_kept_and_instruments_stay(tmp_path: Path) -> None:
    events = adds(6 * MAX_BATCH_RECORDS)
    events["price"][MAX_BATCH_RECORDS:] = 1  # a tick size that the first chunk does not tell of
    with DbnFile(write(tmp_path, encoded(events))) as file:
        beginning = file.place()
        file.use_memory_again(2)
        for _ in range(2):
            for _ in file.go_to(beginning):
                pass
            chunks = [file.read() for _ in range(6)]
            np.testing.assert_array_equal(np.concatenate(chunks[-2:]), events[4 * MAX_BATCH_RECORDS :])
            assert len({chunk.ctypes.data for chunk in chunks}) == 2
        assert [instrument.tick_size for instrument in file.instruments] == [CENT]


@pytest.mark.parametrize(
    ("version", "pack"),
    [
        (3, bytes),
        (1, bytes),
        (3, compressed),
        (3, lambda content: compressed(content, frames=40)),
        (1, lambda content: compressed(content, frames=3)),
    ],
    ids=["plain", "unaligned", "one frame", "many frames", "frames that end inside records"],
)
def test_a_file_is_read_on_from_any_place_where_a_read_began(
    version: int, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    events = adds(5 * MAX_BATCH_RECORDS + 9)
    file = DbnFile(write(tmp_path, pack(encoded(events, metadata(version)))))
    chunks, places = [], []
    while True:
        places.append(file.place())
        chunks.append(file.read())
        if not len(chunks[-1]):
            break
    for index in (3, 0, 6, 5, 1, 1, 2, 6, 4, 0):
        for _ in file.go_to(places[index]):
            pass
        assert file.place()[:3] == places[index][:3]
        for expected in chunks[index:][:2]:
            np.testing.assert_array_equal(file.read(), expected)
    file.close()


def test_a_way_left_half_way_does_not_matter_to_the_next(tmp_path: Path) -> None:
    events = adds(20 * MAX_BATCH_RECORDS)
    file = DbnFile(write(tmp_path, compressed(encoded(events))))
    beginning = file.place()
    while len(file.read()):
        end = file.place()
    for _ in file.go_to(beginning):
        pass
    next(file.go_to(end))
    for _ in file.go_to(end):
        pass
    assert (len(file.read()), file.records_read) == (0, len(events))
    file.close()


def test_a_file_that_has_become_shorter_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path, compressed(encoded(adds(MAX_BATCH_RECORDS + 9))))
    file = DbnFile(path)
    beginning = file.place()
    while len(file.read()):
        end = file.place()
    for _ in file.go_to(beginning):
        pass
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(
        DamagedFileError, match=r"cannot be read again: its compressed data breaks off .*; fetch"
    ):
        for _ in file.go_to(end):
            pass
    file.close()


def test_a_live_capture_gets_its_symbols_from_the_mappings_among_its_records(tmp_path: Path) -> None:
    events = adds(4, instrument_ids=(5, 6))
    rows = [row.tobytes() for row in events]
    header = metadata(schema=None, mappings={}, stype_in=None).encode()
    content = header + mapping(6, "ES.FUT", "ESZ3") + STATUS + rows[0] + TRADE + rows[1] + rows[2] + rows[3]
    file = DbnFile(write(tmp_path, content))
    assert [(i.instrument_id, i.symbol) for i in file.instruments] == [(6, "ESZ3"), (5, "5")]
    np.testing.assert_array_equal(read_all(file), events)


def test_the_files_metadata_win_over_symbol_mappings_among_its_records(tmp_path: Path) -> None:
    content = metadata().encode() + mapping(7, "OTHER", "OTHER") + adds(1).tobytes()
    with DbnFile(write(tmp_path, content)) as file:
        assert [i.symbol for i in file.instruments] == ["ACME"]


def test_a_file_with_sending_times_is_read_without_them(tmp_path: Path) -> None:
    events = adds(3)
    rows = np.zeros((3, 64), np.uint8)
    rows[:, :56] = events.view(np.uint8).reshape(3, 56)
    rows[:, 0] = 16
    file = DbnFile(write(tmp_path, metadata(ts_out=True).encode() + rows.tobytes()))
    np.testing.assert_array_equal(read_all(file), events)


def test_instruments_that_appear_late_and_without_a_name_are_left_out_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = adds(3 * MAX_BATCH_RECORDS)
    events["instrument_id"][MAX_BATCH_RECORDS + 10 : 2 * MAX_BATCH_RECORDS] = 99
    events["instrument_id"][-1] = 98
    file = DbnFile(write(tmp_path, encoded(events)))
    read = read_all(file)
    np.testing.assert_array_equal(read, events[events["instrument_id"] == 7])
    assert file.left_out == len(events) - len(read)
    assert [record.getMessage() for record in caplog.records] == [
        "test.dbn: leaves out instruments that nothing at its beginning names"
    ]


def test_instruments_that_appear_late_can_be_read_too_and_are_named_from_what_came_with_them(
    tmp_path: Path,
) -> None:
    early, late = adds(MAX_BATCH_RECORDS), adds(6, instrument_ids=(99, 98, 97))
    late["price"] = np.array([10, 25, 30, 20, 75, 60]) * (SCALE // 100)
    content = encoded(early) + mapping(99, "LATE", "LATE") + mapping(98, "ACME", "ACME") + late.tobytes()
    with DbnFile(write(tmp_path, content), late_instruments=True) as file:
        np.testing.assert_array_equal(file.read(), early)
        assert file.name_late(early) == ()
        read = file.read()
        np.testing.assert_array_equal(read, late)
        added = file.name_late(read)
        assert [(i.instrument_id, i.symbol, decimal_text(i.tick_size)) for i in added] == [
            (97, "97", "0.3"),
            (98, "ACME#98", "0.25"),
            (99, "LATE", "0.1"),
        ]
        assert file.instruments[1:] == added
        assert file.name_late(read) == ()


def test_late_instruments_get_symbols_that_none_before_them_has(tmp_path: Path) -> None:
    late = [adds(MAX_BATCH_RECORDS, instrument_ids=(number,)) for number in (20, 21)]
    content = encoded(adds(MAX_BATCH_RECORDS)) + b"".join(
        mapping(number, "SAME", "SAME") + events.tobytes()
        for number, events in zip((20, 21), late, strict=True)
    )
    with DbnFile(write(tmp_path, content), late_instruments=True) as file:
        while len(events := file.read()):
            file.name_late(events)
    assert [i.symbol for i in file.instruments] == ["ACME", "SAME", "SAME#21"]


def test_a_file_tells_how_far_it_was_read(tmp_path: Path) -> None:
    content = encoded(adds(2 * MAX_BATCH_RECORDS)) + STATUS
    with DbnFile(write(tmp_path, content)) as file:
        assert (file.size_bytes, file.records_read) == (len(content), MAX_BATCH_RECORDS)
        assert 0 < file.bytes_read < len(content)
        while len(file.read()):
            pass
        assert (file.bytes_read, file.records_read) == (len(content), 2 * MAX_BATCH_RECORDS + 1)


def test_a_file_without_records_has_its_instruments_and_no_events(tmp_path: Path) -> None:
    with DbnFile(write(tmp_path, metadata(mappings={"A": [(DAY, NEXT_DAY, "1")]}).encode())) as file:
        assert [i.symbol for i in file.instruments] == ["A"]
        assert (len(file.read()), file.start_ns) == (0, 0)


def test_an_undefined_first_receive_time_does_not_begin_the_recording(tmp_path: Path) -> None:
    events = adds(3)
    events["ts_recv"][0] = 2**64 - 1
    with DbnFile(write(tmp_path, encoded(events))) as file:
        assert file.start_ns == START_NS + 1000


HEADER = metadata().encode()
DBZ = b"\x50\x2a\x4d\x18\x90\0\0\0DBZ\x01GLBX.MDP3" + bytes(132)


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"", NotDbnError, "test.dbn: is empty (0 bytes); fetch the file again"),
        (
            b"D",
            NotDbnError,
            "test.dbn: is not a DBN file (at byte 0, before record 1); give a .dbn or .dbn.zst file of MBO records",
        ),
        (
            b"ts_recv,ts_event\n1,2\n",
            NotDbnError,
            "test.dbn: is not a DBN file (at byte 0, before record 1); give a .dbn or .dbn.zst file of MBO records",
        ),
        (
            compressed(b"{}"),
            NotDbnError,
            "test.dbn: is not a DBN file (at byte 0, before record 1); give a .dbn or .dbn.zst file of MBO records",
        ),
        (
            compressed(b""),
            NotDbnError,
            "test.dbn: is not a DBN file (at byte 0, before record 1); give a .dbn or .dbn.zst file of MBO records",
        ),
        (
            b"DBN",
            NotDbnError,
            "test.dbn: breaks off inside its metadata, at byte 3 and before record 1; fetch the file again",
        ),
        (
            HEADER[:-1],
            NotDbnError,
            f"test.dbn: breaks off inside its metadata, at byte {len(HEADER) - 1} and before record 1; fetch the file again",
        ),
        *(
            (
                HEADER[:4] + size.to_bytes(4, "little") + HEADER[8:],
                NotDbnError,
                f"test.dbn: claims {size} bytes of metadata, at byte 4 and before record 1; fetch the file again",
            )
            for size in (0, 99, 100, 103, 119)
        ),
        (
            b"DBN\x03\xff\xff\xff\xff" + bytes(100),
            NotDbnError,
            "test.dbn: claims 4,294,967,295 bytes of metadata, at byte 4 and before record 1; fetch the file again",
        ),
        (b"DBN\x04" + HEADER[4:], NotDbnError, "test.dbn: is DBN version 4; versions 1 to 3 can be read"),
        (b"DBN\0" + HEADER[4:], NotDbnError, "test.dbn: is DBN version 0; versions 1 to 3 can be read"),
        (DBZ, NotDbnError, "test.dbn: is DBZ, the format before DBN; convert it with databento's dbn tool"),
        (
            adds(2).tobytes(),
            NotDbnError,
            "test.dbn: holds records without DBN's metadata before them; write it again with its metadata",
        ),
        (
            b"# Notes on a recording",
            NotDbnError,
            "test.dbn: is not a DBN file (at byte 0, before record 1); give a .dbn or .dbn.zst file of MBO records",
        ),
        (
            compressed(HEADER)[:60],
            NotDbnError,
            "test.dbn: cannot be read before record 1: its compressed data breaks off at byte 60 of the file; fetch the file again",
        ),
        (
            metadata(schema=databento_dbn.Schema.from_str("mbp-1")).encode(),
            SchemaError,
            f"test.dbn: holds mbp-1 records from byte {len(HEADER)} on (record 1); market-depth replays mbo",
        ),
        (
            metadata(schema=databento_dbn.Schema.from_str("definition")).encode() + b"torn",
            SchemaError,
            f"test.dbn: holds definition records from byte {len(HEADER)} on (record 1); market-depth replays mbo",
        ),
        (
            metadata(schema=None).encode() + TRADE + STATUS + bytes([4, 0xEE]) + bytes(14),
            SchemaError,
            f"test.dbn: holds mbp-0, status, type 0xee records from byte {len(HEADER)} on (record 1); market-depth replays mbo",
        ),
        (
            metadata(schema=None).encode(),
            SchemaError,
            f"test.dbn: holds no records from byte {len(HEADER)} on (record 1); market-depth replays mbo",
        ),
        (
            HEADER + adds(1).tobytes()[:-1],
            DamagedFileError,
            f"test.dbn: ends inside a record (55 bytes of it) at byte {len(HEADER)} (record 1), after 0 order events; fetch the file again",
        ),
    ],
)
def test_a_file_that_cannot_be_replayed_is_refused_when_opened_in_one_line(
    tmp_path: Path, content: bytes, error: type[FeedError], text: str
) -> None:
    with pytest.raises(error) as raised:
        DbnFile(write(tmp_path, content))
    assert str(raised.value) == text


def test_metadata_that_makes_no_sense_is_told_with_the_decoders_reason(tmp_path: Path) -> None:
    content = b"DBN\x03\x78\0\0\0" + b"\xff" * 120
    with pytest.raises(
        NotDbnError, match=r"^test\.dbn: has metadata that makes no sense \(.*\); fetch the file again$"
    ):
        DbnFile(write(tmp_path, content))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadableError, match=r"missing\.dbn: no such file; check the path"):
        DbnFile(tmp_path / "missing.dbn")
    with pytest.raises(FileUnreadableError, match="is not a file; give the path"):
        DbnFile(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileUnreadableError, match="is not a file; give the path"):
        DbnFile(tmp_path / "pipe")
    plain = write(tmp_path, b"")
    with pytest.raises(FileUnreadableError, match="cannot be opened: Not a directory; check the path"):
        DbnFile(plain / "below.dbn")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(adds(1)))
    path.chmod(0)
    with pytest.raises(FileUnreadableError, match="cannot be opened: Permission denied; check the path"):
        DbnFile(path)


SMALL = adds(5)
PLAIN = encoded(SMALL)
ZSTD = compressed(PLAIN, 3)


def delivered_before_error(folder: Path, content: bytes) -> tuple[OrderEvents, FeedError | None]:
    read = np.empty(0, ORDER_EVENT)
    try:
        with DbnFile(write(folder, content)) as file:
            while len(events := file.read()):
                read = np.concatenate([read, events])
    except FeedError as error:
        return read, error
    return read, None


@pytest.mark.parametrize("content", [PLAIN, ZSTD], ids=["plain", "zstd"])
def test_cut_short_anywhere_a_file_gives_its_whole_records_and_then_an_error(
    tmp_path: Path, content: bytes
) -> None:
    for length in range(len(content)):
        read, error = delivered_before_error(tmp_path, content[:length])
        np.testing.assert_array_equal(read, SMALL[: len(read)])
        at_record_end = content is PLAIN and length >= len(HEADER) and (length - len(HEADER)) % 56 == 0
        # Between two zstd frames the cut does not show unless it goes through a record.
        assert error is not None or at_record_end, length
        if content is PLAIN:
            assert len(read) == max(0, (length - len(HEADER)) // 56)


@given(st.sampled_from([PLAIN, ZSTD]), st.integers(0, len(PLAIN)), st.binary(min_size=1, max_size=80))
def test_a_file_overwritten_with_rubbish_anywhere_never_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, at: int, rubbish: bytes
) -> None:
    damaged = content[:at] + rubbish + content[at + len(rubbish) :]
    read, _ = delivered_before_error(tmp_path_factory.getbasetemp(), damaged)
    intact = min(at, len(PLAIN)) - len(HEADER)
    if content is PLAIN and intact >= 0:
        np.testing.assert_array_equal(read[: intact // 56], SMALL[: intact // 56])


REAL_FILES = {
    "CLX5_mbo.dbn": (38_212, [("CLX5", 432669, "0.01")]),
    "dbeq-basic-20240403.mbo.dbn.zst": (286_130, [("GOOG", 7151, "0.005"), ("GOOGL", 7152, "0.005")]),
    "esh4-glbx-mdp3-20231224.mbo.dbn.zst": (8_725, [("ESH4", 17077, "0.25")]),
    "vendor/LIVE/test_data.live.dbn.zst": (5, [("ESZ4", 183748, "0.25")]),
    "vendor/XNAS.ITCH/test_data.mbo.dbn.zst": (4, [("NVDA", 6155, "0.01")]),
    "vendor/test_data.mbo.dbn": (2, [("ESH1", 5482, "0.25")]),
    "vendor/test_data.mbo.v1.dbn.zst": (2, [("ESH1", 5482, "0.25")]),
    "vendor/test_data.mbo.v2.dbn.zst": (2, [("ESH1", 5482, "0.25")]),
    "vendor/test_data.mbo.v3.dbn": (2, [("ESH1", 5482, "0.25")]),
    "vendor/test_data.mbo.v3.dbn.zst": (2, [("ESH1", 5482, "0.25")]),
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL_FILES)
def test_recorded_order_files_are_read_as_databento_reads_them(realdata: Path, name: str) -> None:
    path = realdata / "dbn" / name
    file = DbnFile(path)
    count, instruments = REAL_FILES[name]
    assert [(i.symbol, i.instrument_id, decimal_text(i.tick_size)) for i in file.instruments] == instruments
    events = read_all(file)
    assert len(events) == count
    assert events.tobytes() == databento_reads(path)


def databento_reads(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".zst":
        content = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    decoder = databento_dbn.DBNDecoder()
    decoder.write(content)
    return b"".join(bytes(record) for record in decoder.decode() if isinstance(record, databento_dbn.MBOMsg))


@pytest.mark.realdata
def test_every_other_recorded_file_is_refused_with_what_it_is(realdata: Path) -> None:
    folder = realdata / "dbn"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.db*") if path.is_file()}
    assert files > set(REAL_FILES)
    for name in files - set(REAL_FILES):
        with pytest.raises((SchemaError, NotDbnError), match=r"holds (mbp|trades|tbbo|definition)|is DBZ"):
            DbnFile(folder / name)
