import databento_dbn
import numpy as np
import pytest
from databento_dbn import ErrorCode, SystemCode
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.dbn_decoding import (
    HEARTBEAT,
    NO_CODE,
    REPLAY_COMPLETED,
    RTYPE_ERROR,
    RTYPE_SYSTEM,
    SKIPPED_RECORDS,
    Bytes,
    Decoded,
    Notice,
    decode,
)
from tests.market_depth.feeds.dbn_files import START_NS, adds
from tests.market_depth.feeds.test_dbn_records import STATUS, TRADE, mapping
from tests.market_depth.feeds.test_dbn_stream import error, stamped, system


def memory(data: bytes) -> Bytes:
    aligned = np.empty(len(data), np.uint8)
    aligned[:] = np.frombuffer(data, np.uint8)
    return aligned


def says(decoded: Decoded) -> tuple[list[int], list[tuple[int, str]], list[Notice], set[int]]:
    return decoded.events["order_id"].tolist(), decoded.mappings, decoded.notices, decoded.other_rtypes


ROWS = [row.tobytes() for row in adds(4)]
MIXTURES = {
    "nothing": (b"", ([], [], [], set())),
    "order events alone": (b"".join(ROWS), ([1, 2, 3, 4], [], [], set())),
    "others behind them": (b"".join(ROWS) + TRADE + STATUS, ([1, 2, 3, 4], [], [], {0x00, 0x12})),
    "others between them": (
        ROWS[0] + ROWS[1] + STATUS + ROWS[2] + TRADE + ROWS[3],
        ([1, 2, 3, 4], [], [], {0, 0x12}),
    ),
    "others before them": (
        mapping(7, "A", "B") + ROWS[2] + mapping(7, "A", "C"),
        ([3], [(7, "B"), (7, "C")], [], set()),
    ),
    "notices": (
        system("Heartbeat", "heartbeat") + ROWS[0] + error("No", 4),
        ([1], [], [Notice(RTYPE_SYSTEM, HEARTBEAT, "Heartbeat"), Notice(RTYPE_ERROR, 4, "No")], {0x15, 0x17}),
    ),
}


def records_of(data: bytes) -> list[bytes]:
    records = []
    while data:
        records.append(data[: 4 * data[0]])
        data = data[4 * data[0] :]
    return records


@pytest.mark.parametrize("ts_out", [False, True])
@pytest.mark.parametrize(("data", "expected"), MIXTURES.values(), ids=MIXTURES)
def test_what_records_say(data: bytes, expected: object, ts_out: bool) -> None:
    records = records_of(data)
    data = b"".join(stamped(record) if ts_out else record for record in records)
    decoded = decode(memory(data), ts_out=ts_out)
    assert says(decoded) == expected
    assert (decoded.records, decoded.size, decoded.problem) == (len(records), len(data), None)
    assert set(decoded.events["length"].tolist()) <= {14}


@pytest.mark.parametrize("ts_out", [False, True])
def test_a_record_that_is_not_all_there_is_left(ts_out: bool) -> None:
    records = records_of(MIXTURES["notices"][0] + MIXTURES["others between them"][0])
    records = [stamped(record) if ts_out else record for record in records]
    data = b"".join(records)
    for length in range(len(data)):
        whole, size = 0, 0
        while size + len(records[whole]) <= length:
            size += len(records[whole])
            whole += 1
        decoded = decode(memory(data[:length]), ts_out=ts_out)
        assert (decoded.records, decoded.size, decoded.problem) == (whole, size, None), length


@pytest.mark.parametrize(
    ("rubbish", "problem"),
    [
        (bytes(16), "holds something that is no record (a length of 0 bytes)"),
        (b"\x03" + bytes(15), "holds something that is no record (a length of 12 bytes)"),
        (bytes([12, 0xA0]) + bytes(46), "holds an MBO record of 48 bytes"),
    ],
)
@pytest.mark.parametrize("before", [b"", ROWS[0], STATUS + ROWS[0]])
def test_what_is_no_record_ends_them(before: bytes, rubbish: bytes, problem: str) -> None:
    decoded = decode(memory(before + rubbish + ROWS[1]))
    assert (decoded.problem, decoded.size) == (problem, len(before))
    assert decoded.events.tobytes() == (ROWS[0] if before else b"")


def test_order_events_alone_are_not_copied() -> None:
    data = memory(b"".join(ROWS) + TRADE)
    assert np.shares_memory(decode(data).events, data)


@given(st.binary(max_size=600), st.booleans())
def test_rubbish_is_a_problem_or_records(rubbish: bytes, ts_out: bool) -> None:
    decoded = decode(memory(rubbish), ts_out=ts_out)
    assert 0 <= decoded.size <= len(rubbish)


def test_codes_are_databentos() -> None:
    assert int(SystemCode.from_str("heartbeat")) == HEARTBEAT
    assert int(SystemCode.from_str("replay_completed")) == REPLAY_COMPLETED
    names = {int(code): str(code) for code in ErrorCode.variants()}
    assert names.get(SKIPPED_RECORDS, "skipped_records_after_slow_reading") == (
        "skipped_records_after_slow_reading"
    )


def test_a_message_of_dbn_1_has_no_code() -> None:
    old = bytes([20, RTYPE_SYSTEM]) + bytes(14) + b"Heartbeat".ljust(64, b"\0")
    (notice,) = decode(memory(old)).notices
    assert (notice.code, notice.is_heartbeat) == (NO_CODE, True)


def test_a_symbol_mapping_reads_as_databento_reads_it() -> None:
    made = databento_dbn.SymbolMappingMsg(
        publisher_id=0,
        instrument_id=9,
        ts_event=START_NS,
        stype_in=databento_dbn.SType.from_str("parent"),
        stype_in_symbol="ES.FUT",
        stype_out=databento_dbn.SType.from_str("raw_symbol"),
        stype_out_symbol="ESZ3",
        start_ts=0,
        end_ts=0,
    )
    assert decode(memory(bytes(made))).mappings == [(9, "ESZ3")]
