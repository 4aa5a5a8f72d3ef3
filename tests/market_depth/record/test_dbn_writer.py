import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from databento_dbn import Metadata
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.dbn import DbnFile
from market_depth.feeds.dbn_definitions import definitions_path
from market_depth.record.dbn_writer import NO_TIME, DbnWriter
from market_depth.record.errors import RecordingError, RecordingExistsError, RecordingOptionError
from protocol.events import ORDER_EVENT, RECORD_LENGTH, RTYPE_MBO, OrderEvents
from protocol.instrument import SCALE, Instrument
from tests.market_depth.feeds.dbn_files import adds
from tests.market_depth.record.recordings import (
    ACME,
    BETA,
    START_NS,
    content_of,
    databento_reads,
    delivered,
    readable_part,
)

NAMES = ["a.dbn", "a.dbn.zst", "a.mbo.dbn.zst"]
DAY_NS = 86_400 * 1_000_000_000
LOST = "what was recorded after them is lost, unless the recorder is still at work"


def writer(path: Path, *, sync_records: int = 65_536, overwrite: bool = False) -> DbnWriter:
    return DbnWriter(path, [ACME, BETA], START_NS, sync_records=sync_records, overwrite=overwrite)


def events_of_both(count: int) -> OrderEvents:
    return adds(count, instrument_ids=(7, 8))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can become larger than this: what a full disk looks like to one program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", NAMES)
def test_databento_and_the_replay_read_back_what_was_written(tmp_path: Path, name: str) -> None:
    events = events_of_both(1000)
    with writer(tmp_path / name, sync_records=300) as recording:
        for batch in np.split(events, [1, 1, 7, 500]):
            recording.write(batch)
    assert databento_reads(tmp_path / name)[1] == events.tobytes()
    with DbnFile(tmp_path / name) as file:
        assert file.instruments == (ACME, BETA)
        np.testing.assert_array_equal(file.read(), events)
        assert not len(file.read())
    assert recording.records == recording.synced_records == 1000
    assert recording.bytes == (tmp_path / name).stat().st_size


def test_the_metadata_are_complete(tmp_path: Path) -> None:
    events = adds(3, step_ns=DAY_NS, instrument_ids=(7, 8))
    with writer(tmp_path / "a.dbn") as recording:
        recording.write(events)
    header, _ = databento_reads(tmp_path / "a.dbn")
    assert (header.version, header.dataset, header.schema) == (3, "TEST.MBO", "mbo")
    assert (str(header.stype_in), str(header.stype_out)) == ("raw_symbol", "instrument_id")
    assert (header.start, header.end) == (START_NS, START_NS + 2 * DAY_NS + 1)
    assert not header.limit
    assert not header.ts_out
    assert (header.symbols, header.partial, header.not_found) == (["ACME", "BETA"], [], [])
    days = {"start_date": date(2023, 11, 14), "end_date": date(2023, 11, 17)}
    assert header.mappings == {
        "ACME": [{**days, "symbol": "7"}],
        "BETA": [{**days, "symbol": "8"}],
    }


@pytest.mark.parametrize("name", NAMES)
def test_symbols_are_valid_on_every_synced_day_of_an_unfinished_recording(tmp_path: Path, name: str) -> None:
    recording = writer(tmp_path / name)
    for day in range(3):
        events = adds(1)
        events["ts_recv"] += day * DAY_NS
        recording.write(events)
        recording.sync()
        header = Metadata.decode(readable_part(tmp_path / name))
        assert not header.end
        assert header.mappings["ACME"][0]["end_date"] == date(2023, 11, 15 + day)
    recording.close()


def test_an_earlier_first_event_moves_the_start_and_one_without_a_time_does_not(tmp_path: Path) -> None:
    events = adds(3)
    events["ts_recv"] = [NO_TIME, START_NS - DAY_NS, START_NS]
    with writer(tmp_path / "a.dbn") as recording:
        recording.write(events)
    header, _ = databento_reads(tmp_path / "a.dbn")
    assert (header.start, header.end) == (START_NS - DAY_NS, START_NS + 1)
    assert header.mappings["ACME"][0]["start_date"] == date(2023, 11, 13)


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_without_events_is_complete_too(tmp_path: Path, name: str) -> None:
    writer(tmp_path / name).close()
    header, records = databento_reads(tmp_path / name)
    assert (header.end, records) == (START_NS + 1, b"")
    with DbnFile(tmp_path / name) as file:
        assert file.instruments == (ACME, BETA)
        assert not len(file.read())


ROWS = st.lists(
    st.tuples(st.sampled_from([7, 8]), st.binary(min_size=48, max_size=48), st.integers(0, 2**16 - 1)),
    max_size=8,
)


@given(st.sampled_from(NAMES), st.lists(ROWS, max_size=4), st.integers(1, 9))
def test_any_events_come_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    batches: list[list[tuple[int, bytes, int]]],
    step: int,
) -> None:
    folder = tmp_path_factory.getbasetemp() / name.replace(".", "-")
    folder.mkdir(exist_ok=True)
    path = folder / name
    recording = writer(path, sync_records=step, overwrite=True)
    written = b""
    for rows in batches:
        heads = (
            bytes([RECORD_LENGTH, RTYPE_MBO]) + publisher.to_bytes(2, "little") + number.to_bytes(4, "little")
            for number, _, publisher in rows
        )
        content = b"".join(head + body for head, (_, body, _) in zip(heads, rows, strict=True))
        recording.write(np.frombuffer(content, ORDER_EVENT))
        written += content
    recording.close()
    whole = content_of(path)
    header = Metadata.decode(whole)
    assert header.end is not None
    assert whole[len(whole) - len(written) :] == written
    events, error = delivered(path)
    assert (events.tobytes(), error) == (written, None)


@pytest.mark.parametrize("name", NAMES)
def test_the_bytes_do_not_depend_on_how_events_are_cut_into_batches(tmp_path: Path, name: str) -> None:
    events = events_of_both(5000)
    files = []
    for cuts in ([], [1, 2, 3], range(0, 5000, 77)):
        with writer(tmp_path / name, sync_records=1000, overwrite=True) as recording:
            for batch in np.split(events, cuts):
                recording.write(batch)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_synced_can_be_read_at_once_and_an_unfinished_file_says_so(tmp_path: Path, name: str) -> None:
    events = events_of_both(25)
    recording = writer(tmp_path / name, sync_records=10)
    recording.write(events)
    assert (recording.records, recording.synced_records) == (25, 20)
    got, error = delivered(tmp_path / name)
    np.testing.assert_array_equal(got, events[: len(got)])
    assert len(got) >= 20
    recording.sync()
    assert recording.synced_records == 25
    got, error = delivered(tmp_path / name)
    np.testing.assert_array_equal(got, events)
    assert "after 25 order events" in str(error)
    assert LOST in str(error)
    recording.close()
    assert delivered(tmp_path / name)[1] is None


@pytest.mark.parametrize("name", ["a.dbn", "a.dbn.zst"])
def test_torn_at_any_byte_everything_synced_before_is_delivered_and_the_loss_told(
    tmp_path: Path, name: str
) -> None:
    events = events_of_both(12)
    path = tmp_path / name
    recording = writer(path, sync_records=4)
    synced = [(recording.bytes, 0)]
    for batch in np.split(events, 6):
        recording.write(batch)
        synced.append((recording.bytes, recording.synced_records))
    whole = path.read_bytes()
    for length in range(synced[0][0], len(whole) + 1):
        path.write_bytes(whole[:length])
        got, error = delivered(path)
        np.testing.assert_array_equal(got, events[: len(got)])
        assert len(got) >= max(records for size, records in synced if size <= length), length
        # A file that ends before the first record is just empty.
        assert len(got) == 0 or (error is not None and LOST in str(error)), length
    recording.close()


@pytest.mark.parametrize("name", ["a.dbn", "a.dbn.zst"])
def test_a_full_disk_ends_the_recording_with_everything_synced_before(tmp_path: Path, name: str) -> None:
    events = events_of_both(20_000)
    path = tmp_path / name
    recording = writer(path, sync_records=500)
    with largest_file(100_000), pytest.raises(RecordingError) as raised:
        recording.write(events)
    synced = recording.synced_records
    assert 0 < synced < len(events)
    assert str(raised.value) == (
        f"{name}: cannot be written: File too large, after {synced:,} synced order events; "
        "make room, and record into another file"
    )
    recording.close()
    got, error = delivered(path)
    np.testing.assert_array_equal(got, events[: len(got)])
    assert len(got) >= synced
    assert LOST in str(error)


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_at_the_start_is_told_in_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with largest_file(100), pytest.raises(RecordingError, match="cannot be written: File too large"):
        writer(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("synced", [0, 1, 2], ids=["definitions", "head", "folder"])
def test_a_disk_that_breaks_at_the_start_keeps_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: int
) -> None:
    outcomes = iter([None] * synced)

    def fsync(_: int) -> None:
        if next(outcomes, errno.EIO):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RecordingError, match="cannot be written: Input/output error"):
        writer(tmp_path / "a.dbn")
    assert not list(tmp_path.iterdir())


def test_a_discarded_recording_leaves_nothing(tmp_path: Path) -> None:
    recording = writer(tmp_path / "a.dbn")
    recording.discard()
    recording.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "other"), [("a.dbn", "a.dbn.zst"), ("a.mbo.dbn.zst", "a.dbn"), ("a.dbn.zst", "a.mbo.dbn")]
)
def test_a_name_that_would_share_its_definitions_is_refused(
    tmp_path: Path, name: str, other: str, overwrite: bool
) -> None:
    (tmp_path / other).touch()
    with pytest.raises(RecordingOptionError) as raised:
        writer(tmp_path / name, overwrite=overwrite)
    assert str(raised.value) == (
        f"{tmp_path / name}: would share a.definition.dbn with {other}; take another name"
    )
    assert [p.name for p in tmp_path.iterdir()] == [other]


def test_an_existing_file_is_kept_unless_it_is_to_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.dbn"
    path.write_bytes(b"precious")
    with pytest.raises(RecordingExistsError, match="exists already; take another name"):
        writer(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.dbn"]
    assert path.read_bytes() == b"precious"
    with writer(path, overwrite=True) as recording:
        recording.write(adds(1))
    assert delivered(path)[1] is None


def test_existing_definitions_are_kept_too(tmp_path: Path) -> None:
    definitions = definitions_path(tmp_path / "a.dbn")
    definitions.write_bytes(b"precious")
    with pytest.raises(RecordingExistsError, match=r"a\.definition\.dbn: exists already"):
        writer(tmp_path / "a.dbn")
    assert [p.name for p in tmp_path.iterdir()] == ["a.definition.dbn"]
    assert definitions.read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a", "a.zst", "a.csv", "a.dbn.gz", "a.definition.dbn"])
def test_a_name_that_no_reader_would_take_for_a_recording_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingOptionError) as raised:
        writer(tmp_path / name)
    assert str(raised.value) == (
        f"{name}: is no name for a recording; call it NAME.dbn, or NAME.dbn.zst to compress it"
    )
    assert not list(tmp_path.iterdir())


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.dbn").mkdir()
    os.mkfifo(tmp_path / "pipe.dbn")
    for name in ("folder.dbn", "pipe.dbn"):
        with pytest.raises(RecordingOptionError, match="is not a file; take another name"):
            writer(tmp_path / name, overwrite=True)
    with pytest.raises(RecordingError, match="cannot be created: No such file or directory"):
        writer(tmp_path / "missing" / "a.dbn")
    (tmp_path / "plain").touch()
    with pytest.raises(RecordingError, match="cannot be created: Not a directory"):
        writer(tmp_path / "plain" / "a.dbn")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RecordingError, match="cannot be created: Permission denied"):
        writer(tmp_path / "a.dbn")


@pytest.mark.parametrize(
    ("instruments", "text"),
    [
        (
            [ACME, Instrument("X", "OTHER", 9, SCALE)],
            "a.dbn: cannot hold instruments of 2 venues (OTHER, TEST.MBO); record each venue into a file of its own",
        ),
        ([], "a.dbn: cannot hold instruments of 0 venues (); record each venue into a file of its own"),
        (
            [Instrument("X" * 71, "TEST.MBO", 9, SCALE)],
            "a.dbn: DBN cannot hold its symbols or venue (encoding error: string cannot be longer than 70; received str",
        ),
        ([Instrument("X", "V" * 16, 9, SCALE)], "cannot be longer than 15 characters"),
        ([Instrument("Ä", "TEST.MBO", 9, SCALE)], "couldn't convert Ä to ASCII"),
    ],
)
def test_instruments_that_dbn_cannot_hold_are_refused(
    tmp_path: Path, instruments: list[Instrument], text: str
) -> None:
    with pytest.raises(RecordingOptionError) as raised:
        DbnWriter(tmp_path / "a.dbn", instruments, START_NS)
    assert text in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_what_is_no_order_event_of_the_recording_is_not_written(tmp_path: Path) -> None:
    stranger, no_mbo = adds(3), adds(3)
    stranger["instrument_id"][1] = 9
    no_mbo["rtype"][2] = 0
    with writer(tmp_path / "a.dbn") as recording:
        with pytest.raises(ValueError, match="instrument 9, which is not in the recording"):
            recording.write(stranger)
        with pytest.raises(ValueError, match="header of MBO records"):
            recording.write(no_mbo)
        with pytest.raises(TypeError, match="not of float64"):
            recording.write(np.zeros(3))  # type: ignore[arg-type]
        recording.write(adds(4)[::2])
    assert databento_reads(tmp_path / "a.dbn")[1] == adds(4)[::2].tobytes()


def test_thousands_of_symbols_fit_in_the_metadata(tmp_path: Path) -> None:
    instruments = [Instrument(f"S{number}", "TEST.MBO", number + 1, SCALE) for number in range(3000)]
    with DbnWriter(tmp_path / "a.dbn.zst", instruments, START_NS) as recording:
        recording.write(adds(1))
    header, records = databento_reads(tmp_path / "a.dbn.zst")
    assert (len(header.mappings), records) == (3000, adds(1).tobytes())
    with DbnFile(tmp_path / "a.dbn.zst") as file:
        assert {i.tick_size for i in file.instruments} == {SCALE}


def test_closing_again_does_nothing(tmp_path: Path) -> None:
    recording = writer(tmp_path / "a.dbn")
    recording.close()
    recording.close()
    with suppress(RecordingError), recording:
        pass
    assert delivered(tmp_path / "a.dbn")[1] is None
