"""Order events out of a stream of DBN records, a bounded chunk at a time.

A DBN record starts with its length in 32-bit words and its type. MBO records are order events as they are, in every
DBN version; symbol mappings are remembered; other records are passed over.
Source: the record layouts of databento_dbn (MBOMsg, SymbolMappingMsg, SymbolMappingMsgV1), with which the tests
compare.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError
from protocol.events import ORDER_EVENT, RECORD_LENGTH, RTYPE_MBO, OrderEvents

CHUNK_BYTES = MAX_BATCH_RECORDS * ORDER_EVENT.itemsize
"""How much is read at a time: a full batch, so that a chunk without event ends needs no second one."""

WORD = 4
HEADER_BYTES = 16
TS_OUT_BYTES = 8
"""Live sessions may append their sending time to every record."""

RTYPE_SYMBOL_MAPPING = 0x16

# Where a symbol mapping keeps the symbol asked for and the venue's own, by the record's size without ts_out.
SYMBOL_FIELDS = {
    80: (slice(16, 38), slice(38, 60)),  # DBN 1
    176: (slice(17, 88), slice(89, 160)),  # DBN 2 and 3
}

Bytes = npt.NDArray[np.uint8]


class DamagedFileError(FeedError):
    """The file breaks off or makes no sense from some point on; all before it was good and has been delivered.

    The problem names that point: the byte of the content (what the file holds without its compression) at which the
    first record starts that cannot be had, and its number, counting all records from 1.
    """


class ByteStream(Protocol):
    """Where records are read from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the front of `buffer` and tell how many bytes that were; 0 only at the end.

        Raises: OSError when the rest cannot be had.
        """


class RecordReader:
    """Reads order events from a stream that stands at the start of a record."""

    def __init__(self, stream: ByteStream, name: str, *, ts_out: bool = False, offset: int = 0) -> None:
        """`name`: what errors call the stream; `ts_out`: whether each record has its sending time appended;
        `offset`: how many bytes of the content were read before."""
        self._stream = stream
        self._name = name
        self._extra_bytes = TS_OUT_BYTES if ts_out else 0
        self._carry = np.empty(0, np.uint8)
        self._damage: str | None = None
        self._ended = False
        self.events_read = 0
        """How many order events have been returned."""
        self.records_read = 0
        """How many whole records were read, of all types."""
        self.offset = offset
        """Where in the content they end."""
        self.symbols: dict[int, str] = {}
        """Symbols by instrument id, from the mappings passed so far."""
        self.other_rtypes: set[int] = set()
        """The types of the records passed over, mappings aside."""

    def read(self, buffer: Bytes | None = None) -> OrderEvents:
        """The next order events, contiguous and aligned, about CHUNK_BYTES of them at most; none at the end.

        Takes: CHUNK_BYTES of aligned memory to read into, if the caller has some to use again; the events may lie in
        it. Raises: DamagedFileError, after everything before the damage has been returned.
        """
        while not self._ended:
            # By default a fresh buffer: the rows are handed on without a copy. The kernel takes 0.6 ms to map one,
            # a third of the time that decompressing into it takes, so who reads a whole file uses a few in turn.
            events = self._decode_chunk(np.empty(CHUNK_BYTES, np.uint8) if buffer is None else buffer)
            self.events_read += len(events)
            if len(events):
                return events
        if self._damage:
            raise DamagedFileError(
                self._name,
                f"{self._damage} at byte {self.offset:,} (record {self.records_read + 1:,}), "
                f"after {self.events_read:,} order events",
                "fetch the file again",
            )
        return np.empty(0, ORDER_EVENT)

    def _decode_chunk(self, buffer: Bytes) -> OrderEvents:
        chunk = self._read_chunk(buffer)
        events, used = self._decode(chunk)
        self.offset += used
        self._carry = chunk[used:].copy()
        if self._ended and len(self._carry):
            self._note_damage(f"ends inside a record ({len(self._carry)} bytes of it)")
        return events

    def _read_chunk(self, chunk: Bytes) -> Bytes:
        # Records start aligned in the chunk wherever they stood in the file (a DBN 1 body does not start at a
        # multiple of 8).
        filled = len(self._carry)
        chunk[:filled] = self._carry
        try:
            while filled < CHUNK_BYTES and not self._ended:
                count = self._stream.readinto(chunk.data[filled:])
                filled += count
                self._ended = count == 0
        except OSError as error:
            self._note_damage(f"cannot be read on: {error.strerror or error}")
        return chunk[:filled]

    def _decode(self, chunk: Bytes) -> tuple[OrderEvents, int]:
        """The chunk's order events, and how many of its bytes were whole records."""
        stride = ORDER_EVENT.itemsize + self._extra_bytes
        records = chunk[: len(chunk) // stride * stride].reshape(-1, stride)
        # Length and type in one look: two take a tenth of the time that decompressing the records does.
        beginnings = chunk[: records.size].view("<u2")[:: stride // 2]
        if np.all(beginnings == stride // WORD + (RTYPE_MBO << 8)):
            # What is left is shorter than an order event, and may still be whole records of another type.
            _, used = self._walk(chunk[records.size :])
            self.records_read += len(records)
            return self._rows(records[:, : ORDER_EVENT.itemsize]), records.size + used
        return self._walk(chunk)

    def _walk(self, chunk: Bytes) -> tuple[OrderEvents, int]:
        """The same for a mixture of records: each one's length leads to the next."""
        data = chunk.tobytes()
        starts = []
        at = 0
        while at < len(data):
            size = data[at] * WORD
            if size < HEADER_BYTES + self._extra_bytes:
                self._note_damage(f"holds something that is no record (a length of {size} bytes)")
                break
            if at + size > len(data):
                break
            rtype = data[at + 1]
            if rtype == RTYPE_MBO:
                if size != ORDER_EVENT.itemsize + self._extra_bytes:
                    self._note_damage(f"holds an MBO record of {size} bytes")
                    break
                starts.append(at)
            elif rtype == RTYPE_SYMBOL_MAPPING:
                self._remember_symbol(data[at : at + size])
            else:
                self.other_rtypes.add(rtype)
            at += size
            self.records_read += 1
        places = np.array(starts, np.int64)[:, None] + np.arange(ORDER_EVENT.itemsize)
        return self._rows(chunk[places]), at

    def _rows(self, records: Bytes) -> OrderEvents:
        """Records of 56 bytes, one a row, as order events: a view where they lie together, else a copy."""
        events = np.ascontiguousarray(records).reshape(-1).view(ORDER_EVENT)
        if self._extra_bytes:
            events["length"] = RECORD_LENGTH
        return events

    def _remember_symbol(self, record: bytes) -> None:
        fields = SYMBOL_FIELDS.get(len(record) - self._extra_bytes)
        if fields is None:
            return
        asked, native = (record[field].split(b"\0", 1)[0].decode(errors="replace") for field in fields)
        # One of the two may be the instrument id as text; the venue's own symbol is the better of two symbols.
        symbol = asked if native.isdecimal() or not native else native
        if symbol:
            instrument_id = int.from_bytes(record[4:8], "little")
            self.symbols.setdefault(instrument_id, symbol)

    def _note_damage(self, problem: str) -> None:
        # The first damage is the cause, a torn record after it only its consequence.
        self._ended = True
        self._damage = self._damage or problem
