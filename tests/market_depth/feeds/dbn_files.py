"""DBN files made for the tests, by databento_dbn's own encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import zstandard
from databento_dbn import Metadata, Schema, SType
from databento_dbn.metadata import MappingInterval

from protocol.events import Action, Flag, OrderEvents, Side, order_events

START_NS = 1_700_000_000_000_000_000  # 2023-11-14
DAY = date(2023, 11, 14)
NEXT_DAY = date(2023, 11, 15)
CENT = 10_000_000

MBO = Schema.from_str("mbo")
RAW_SYMBOL = SType.from_str("raw_symbol")
INSTRUMENT_ID = SType.from_str("instrument_id")

Intervals = Sequence[tuple[date, date, str]]


@dataclass
class Interval:
    start_date: date
    end_date: date
    symbol: str


@dataclass
class Mapped:
    raw_symbol: str
    intervals: Sequence[MappingInterval]


def metadata(
    version: int = 3,
    *,
    schema: Schema | None = MBO,
    mappings: Mapping[str, Intervals] | None = None,
    stype_in: SType | None = RAW_SYMBOL,
    stype_out: SType = INSTRUMENT_ID,
    ts_out: bool = False,
) -> Metadata:
    mappings = {"ACME": [(DAY, NEXT_DAY, "7")]} if mappings is None else mappings
    return Metadata(
        dataset="TEST.MBO",
        start=START_NS,
        stype_in=stype_in,
        stype_out=stype_out,
        schema=schema,
        symbols=list(mappings),
        mappings=[
            Mapped(symbol, [Interval(first, last, out) for first, last, out in intervals])
            for symbol, intervals in mappings.items()
        ],
        ts_out=ts_out,
        version=version,
    )


def adds(count: int, *, step_ns: int = 1000, instrument_ids: Sequence[int] = (7,)) -> OrderEvents:
    """`count` Adds, `step_ns` apart, of the instruments in turn; each is an event by itself."""
    numbers = np.arange(count)
    events = order_events(count)
    events["publisher_id"] = 2
    events["instrument_id"] = np.array(instrument_ids)[numbers % len(instrument_ids)]
    events["ts_event"] = events["ts_recv"] = START_NS + numbers * step_ns
    events["order_id"] = numbers + 1
    events["price"] = (1000 + numbers % 50) * CENT
    events["size"] = 1
    events["flags"] = Flag.LAST
    events["action"] = Action.ADD
    events["side"] = Side.BID
    events["sequence"] = numbers
    return events


def encoded(events: OrderEvents, header: Metadata | None = None) -> bytes:
    return (header or metadata()).encode() + events.tobytes()


def compressed(content: bytes, frames: int = 1) -> bytes:
    size = -(-len(content) // frames) or 1
    compressor = zstandard.ZstdCompressor()
    return b"".join(
        compressor.compress(content[at : at + size]) for at in range(0, max(len(content), 1), size)
    )


def write(folder: Path, content: bytes, name: str = "test.dbn") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path
