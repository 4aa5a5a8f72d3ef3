import numpy as np
import pytest
from databento_dbn import ErrorMsg, Metadata, SType, SymbolMappingMsg, SystemCode, SystemMsg
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.dbn_decoding import (
    HEARTBEAT,
    RTYPE_ERROR,
    RTYPE_SYSTEM,
    Notice,
)
from market_depth.feeds.dbn_stream import DbnStream
from market_depth.feeds.gateway_text import GatewayError
from protocol.events import ORDER_EVENT, OrderEvents
from tests.market_depth.feeds.dbn_files import START_NS, adds, metadata

HEADER = metadata(schema=None, stype_in=None, mappings={}).encode()
TRADE = bytes([12, 0]) + bytes(46)


def mapping(instrument_id: int, asked: str, native: str) -> bytes:
    kind = SType.from_str("raw_symbol")
    return bytes(
        SymbolMappingMsg(
            publisher_id=0,
            instrument_id=instrument_id,
            ts_event=START_NS,
            stype_in=kind,
            stype_in_symbol=asked,
            stype_out=kind,
            stype_out_symbol=native,
            start_ts=0,
            end_ts=0,
        )
    )


def error(text: str, code: int) -> bytes:
    record = bytearray(bytes(ErrorMsg(ts_event=START_NS, err=text, is_last=True)))
    record[-2] = code  # databento_dbn knows the newer codes only in its newer versions
    return bytes(record)


def system(text: str, code: str) -> bytes:
    return bytes(SystemMsg(ts_event=START_NS, msg=text, code=SystemCode.from_str(code)))


def stamped(record: bytes) -> bytes:
    return bytes([record[0] + 2]) + record[1:] + bytes(8)


def receive(data: bytes, *sizes: int) -> tuple[OrderEvents, list[tuple[int, str]], list[Notice]]:
    stream = DbnStream()
    events, mappings, notices = [np.empty(0, ORDER_EVENT)], [], []
    at = 0
    for size in [*sizes, len(data)]:
        received = stream.receive(data[at : at + size])
        at += size
        assert received.events.flags.c_contiguous
        assert received.events.flags.aligned
        assert received.events.flags.writeable
        events.append(received.events)
        mappings += received.mappings
        notices += received.notices
    return np.concatenate(events), mappings, notices


@given(st.lists(st.integers(1, 700), max_size=40), st.booleans())
def test_a_stream_says_the_same_however_its_bytes_arrive(sizes: list[int], ts_out: bool) -> None:
    events = adds(9, instrument_ids=(7, 8))
    records = [
        mapping(7, "ACME", "ACME"),
        mapping(8, "8", "EMCA"),
        system("Heartbeat", "heartbeat"),
        *(event.tobytes() for event in events[:4]),
        TRADE,
        error("Unknown symbol X", 4),
        *(event.tobytes() for event in events[4:]),
    ]
    header = metadata(schema=None, stype_in=None, mappings={}, ts_out=ts_out).encode()
    data = header + b"".join(stamped(record) if ts_out else record for record in records)
    found, mappings, notices = receive(data, *sizes)
    np.testing.assert_array_equal(found, events)
    assert mappings == [(7, "ACME"), (8, "EMCA")]
    assert notices == [
        Notice(RTYPE_SYSTEM, HEARTBEAT, "Heartbeat"),
        Notice(RTYPE_ERROR, 4, "Unknown symbol X"),
    ]


def test_metadata_are_there_once_they_are_complete() -> None:
    stream = DbnStream()
    known: list[Metadata | None] = []
    for byte in HEADER:
        stream.receive(bytes([byte]))
        known.append(stream.metadata)
    assert set(known[:-1]) == {None}
    assert known[-1] is not None
    assert known[-1].dataset == "TEST.MBO"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_version_of_dbn_is_read(version: int) -> None:
    events = adds(3)
    found, _, _ = receive(metadata(version).encode() + events.tobytes())
    np.testing.assert_array_equal(found, events)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"success=1\n", "is not DBN"),
        (b"X", "is not DBN"),
        (b"DBN\x04" + bytes(4), "DBN version 4"),
        (b"DBN\x00" + bytes(4), "DBN version 0"),
        (b"DBN\x03" + (5).to_bytes(4, "little"), "claims 5 bytes of metadata"),
        (b"DBN\x03" + b"\xff" * 4, "claims 4,294,967,295 bytes of metadata"),
        (b"DBN\x03" + (200).to_bytes(4, "little") + b"\xff" * 200, "makes no sense"),
        (HEADER + bytes(16), r"no record \(a length of 0 bytes\)"),
        (HEADER + b"\x03" + bytes(15), r"no record \(a length of 12 bytes\)"),
        (HEADER + bytes([12, 0xA0]) + bytes(46), "an MBO record of 48 bytes"),
        (HEADER + adds(2).tobytes() + bytes(16), r"no record \(a length of 0 bytes\)"),
    ],
)
def test_what_makes_no_sense_is_an_error(data: bytes, problem: str) -> None:
    with pytest.raises(GatewayError, match=problem):
        DbnStream().receive(data)


@given(st.booleans(), st.binary(max_size=2000))
def test_rubbish_is_an_error_or_records(with_header: bool, rubbish: bytes) -> None:
    stream = DbnStream()
    try:
        stream.receive((HEADER if with_header else b"") + rubbish)
    except GatewayError:
        return
