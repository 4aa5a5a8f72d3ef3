from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from databento_dbn import DBNDecoder, InstrumentDefMsg, Metadata
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds import dbn_definitions
from market_depth.feeds.dbn import DamagedFileError, DbnFile
from market_depth.feeds.dbn_definitions import (
    DEFINITION,
    DefinitionsError,
    Steps,
    definitions_path,
    encoded_definitions,
    read_definitions,
    with_steps,
)
from protocol.events import ORDER_EVENT, UNDEF_PRICE
from protocol.instrument import SCALE, Instrument
from tests.market_depth.feeds.dbn_files import START_NS, adds, encoded, metadata, write

BITCOIN = Instrument("BTCUSD", "SIM", 1, SCALE // 2, SCALE // 10_000)
CURRENCY = Instrument("EURUSD", "SIM", 2**32 - 1, 10_000, 1000 * SCALE)
CONTENT = encoded_definitions([BITCOIN, CURRENCY], "SIM", START_NS)
HEADER_BYTES = len(CONTENT) - 2 * DEFINITION.itemsize


def changed(**fields: int | str) -> bytes:
    """The definition of BITCOIN with other fields."""
    record = np.frombuffer(CONTENT, DEFINITION, count=1, offset=HEADER_BYTES).copy()
    for name, value in fields.items():
        record[name] = value
    # numpy copies named fields alone: what lies between them is not needed to read them back.
    return CONTENT[:HEADER_BYTES] + record.tobytes()


@pytest.mark.parametrize(
    ("name", "definitions"),
    [
        ("acme.dbn", "acme.definition.dbn"),
        ("acme.dbn.zst", "acme.definition.dbn"),
        ("acme.mbo.dbn.zst", "acme.definition.dbn"),
        ("x-20240403.mbo.dbn", "x-20240403.definition.dbn"),
        ("any.name", "any.name.definition.dbn"),
    ],
)
def test_definitions_lie_beside_their_file(name: str, definitions: str) -> None:
    assert definitions_path(Path("folder") / name) == Path("folder") / definitions


def test_what_is_written_is_read_back_by_us_and_by_databento(tmp_path: Path) -> None:
    path = write(tmp_path, CONTENT)
    assert read_definitions(path) == {
        1: Steps(SCALE // 2, SCALE // 10_000),
        2**32 - 1: Steps(10_000, 1000 * SCALE),
    }
    decoder = DBNDecoder()
    decoder.write(CONTENT)
    header, *records = decoder.decode()
    assert isinstance(header, Metadata)
    assert (header.dataset, header.schema, header.start) == ("SIM", "definition", START_NS)
    for record, instrument in zip(records, (BITCOIN, CURRENCY), strict=True):
        assert isinstance(record, InstrumentDefMsg)
        assert record.raw_symbol == instrument.symbol
        assert record.instrument_id == instrument.instrument_id
        assert record.min_price_increment == instrument.tick_size
        assert record.unit_of_measure_qty == instrument.lot_size
        assert record.ts_recv == record.ts_event == START_NS


@pytest.mark.parametrize(
    ("content", "steps"),
    [
        (changed(tick_size=UNDEF_PRICE), Steps(None, SCALE // 10_000)),
        (changed(tick_size=0), Steps(None, SCALE // 10_000)),
        (changed(tick_size=-1), Steps(None, SCALE // 10_000)),
        (changed(lot_size=UNDEF_PRICE), Steps(SCALE // 2, None)),
        (changed(lot_size=0), Steps(SCALE // 2, None)),
        (changed(measure="BBL"), Steps(SCALE // 2, None)),
        (changed(measure=""), Steps(SCALE // 2, None)),
    ],
)
def test_what_a_definition_leaves_out_is_left_to_others(tmp_path: Path, content: bytes, steps: Steps) -> None:
    assert read_definitions(write(tmp_path, content)) == {1: steps}


def test_defined_steps_win_where_there_are_some() -> None:
    inferred = [Instrument("A", "X", instrument_id, 7, 8) for instrument_id in range(4)]
    definitions = {0: Steps(1, 2), 1: Steps(None, 2), 2: Steps(1, None)}
    assert [(i.tick_size, i.lot_size) for i in with_steps(inferred, definitions)] == [
        (1, 2),
        (7, 2),
        (1, 8),
        (7, 8),
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a DBN 3 file"),
        (b"rubbish", "is not a DBN 3 file"),
        (CONTENT[: HEADER_BYTES - 1], "is not a DBN 3 file"),
        (CONTENT[:-1], "ends inside a record, or holds others than definitions"),
        (encoded(adds(65)), "holds others than definitions"),
    ],
)
def test_definitions_that_make_no_sense_are_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(DefinitionsError) as raised:
        read_definitions(write(tmp_path, content, "a.definition.dbn"))
    assert str(raised.value) == (
        f"a.definition.dbn: {problem}; restore it, or remove it: tick sizes are then inferred from prices"
    )


def test_a_folder_in_their_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionsError, match="cannot be read: Is a directory"):
        read_definitions(tmp_path)


@pytest.mark.parametrize("content", [b"DBN\1" + CONTENT[4:], b"DBN\2" + CONTENT[4:], CONTENT + bytes(100)])
def test_definitions_that_are_too_old_or_too_many_are_not_used_and_that_is_told(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbn_definitions, "MAX_FILE_BYTES", len(CONTENT))
    assert read_definitions(write(tmp_path, content)) is None
    assert [record.getMessage() for record in caplog.records] == [
        "test.dbn: is too large or too old; tick sizes are inferred from prices"
    ]


@given(st.integers(0, len(CONTENT)), st.binary(min_size=1, max_size=80))
def test_rubbish_anywhere_never_crashes_the_reader(
    tmp_path_factory: pytest.TempPathFactory, at: int, rubbish: bytes
) -> None:
    content = CONTENT[:at] + rubbish + CONTENT[at + len(rubbish) :]
    with suppress(DefinitionsError):
        read_definitions(write(tmp_path_factory.getbasetemp(), content))


def test_a_file_with_definitions_beside_it_has_their_steps(tmp_path: Path) -> None:
    (tmp_path / "a.definition.dbn").write_bytes(
        encoded_definitions([Instrument("ACME", "TEST.MBO", 7, 5, 3)], "TEST.MBO", START_NS)
    )
    with DbnFile(write(tmp_path, encoded(adds(1)), "a.mbo.dbn")) as file:
        assert file.instruments == (Instrument("ACME", "TEST.MBO", 7, 5, 3),)
    with DbnFile(write(tmp_path, encoded(adds(2)), "b.dbn")) as file:
        assert file.instruments == (Instrument("ACME", "TEST.MBO", 7, SCALE // 100),)


def test_a_recording_without_an_end_delivers_what_it_has_and_says_that_more_is_lost(tmp_path: Path) -> None:
    events = adds(3)
    (tmp_path / "a.definition.dbn").write_bytes(CONTENT)
    lost = "what was recorded after them is lost, unless the recorder is still at work"
    for content, problem in [
        (
            encoded(events, metadata()),
            f"was not closed, and ends at byte {len(encoded(events, metadata()))} (record 4), after 3 order",
        ),
        (encoded(events, metadata()) + b"\x0e", "ends inside a record (1 bytes of it) at byte"),
    ]:
        with DbnFile(write(tmp_path, content, "a.dbn")) as file:
            np.testing.assert_array_equal(file.read(), events)
            with pytest.raises(DamagedFileError) as raised:
                file.read()
        assert str(raised.value).startswith(f"a.dbn: {problem}")
        assert str(raised.value).endswith(f"after 3 order events; {lost}")


def test_an_unfinished_recording_that_has_no_events_yet_is_just_empty(tmp_path: Path) -> None:
    (tmp_path / "a.definition.dbn").write_bytes(CONTENT)
    with DbnFile(write(tmp_path, encoded(np.empty(0, ORDER_EVENT)), "a.dbn")) as file:
        assert not len(file.read())


def test_the_layout_is_databentos() -> None:
    theirs = np.dtype(InstrumentDefMsg._dtypes)
    names = {
        "tick_size": "min_price_increment",
        "lot_size": "unit_of_measure_qty",
        "measure": "unit_of_measure",
    }
    assert theirs.itemsize == DEFINITION.itemsize
    assert DEFINITION.fields is not None
    assert theirs.fields is not None
    for name, (kind, offset, *_) in DEFINITION.fields.items():
        assert theirs.fields[names.get(name, name)][:2] == (kind, offset)
