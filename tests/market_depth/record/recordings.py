"""What tests of recordings share: small recordings, and every way to read one back."""

from pathlib import Path

import numpy as np
import zstandard
from databento_dbn import DBNDecoder, MBOMsg, Metadata

from market_depth.feeds.base import FeedError
from market_depth.feeds.dbn import DbnFile
from protocol.events import ORDER_EVENT, OrderEvents
from protocol.instrument import SCALE, Instrument
from tests.market_depth.feeds.dbn_files import START_NS

ACME = Instrument("ACME", "TEST.MBO", 7, SCALE // 4, SCALE // 1000)
BETA = Instrument("BETA", "TEST.MBO", 8, SCALE // 100, 50 * SCALE)

__all__ = [
    "ACME",
    "BETA",
    "START_NS",
    "content_of",
    "databento_reads",
    "delivered",
    "names_in",
    "readable_part",
]


def content_of(path: Path) -> bytes:
    """What a complete file holds, by a reader that knows no more than the first zstd frame."""
    content = path.read_bytes()
    if path.suffix != ".zst":
        return content
    frame = zstandard.ZstdDecompressor().decompressobj()
    whole = frame.decompress(content)
    assert frame.eof
    assert not frame.unused_data
    return whole


def readable_part(path: Path) -> bytes:
    """What can be read of a file that may be cut short."""
    content = path.read_bytes()
    return (
        zstandard.ZstdDecompressor().decompressobj().decompress(content) if path.suffix == ".zst" else content
    )


def databento_reads(path: Path) -> tuple[Metadata, bytes]:
    """The metadata and the records that databento_dbn finds in a complete file."""
    decoder = DBNDecoder()
    decoder.write(content_of(path))
    header, *records = decoder.decode()
    assert not decoder.buffer()
    assert isinstance(header, Metadata)
    assert all(isinstance(record, MBOMsg) for record in records)
    return header, b"".join(map(bytes, records))


def delivered(path: Path) -> tuple[OrderEvents, FeedError | None]:
    """The order events that a replay would get, and what it is told at their end."""
    chunks = [np.empty(0, ORDER_EVENT)]
    try:
        with DbnFile(path) as file:
            while len(events := file.read()):
                chunks.append(events)
    except FeedError as error:
        return np.concatenate(chunks), error
    return np.concatenate(chunks), None


def names_in(folder: Path) -> list[str]:
    """What files there are."""
    return sorted(path.name for path in folder.iterdir())
