"""Order events out of a stream of DBN records, a bounded chunk at a time."""

from collections import deque
from typing import Protocol

import numpy as np

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError
from market_depth.feeds.dbn_decoding import Bytes, decode
from protocol.events import ORDER_EVENT, OrderEvents

CHUNK_BYTES = MAX_BATCH_RECORDS * ORDER_EVENT.itemsize
"""How much is read at a time: a full batch, so that a chunk without event ends needs no second one."""


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
        self._ts_out = ts_out
        self._memory: deque[Bytes] = deque()  # of the chunks kept, the oldest first
        self._carry = np.empty(0, np.uint8)
        self._damage: tuple[str, str] | None = None  # what it is, and the reason if there is one to tell
        self._ended = False
        self.chunks_kept: int | None = None
        """The memory of what a `read` returns is used again by the `read` that comes so many later; None: never."""
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

    @property
    def is_damaged(self) -> bool:
        """Whether the stream cannot be read on."""
        return self._damage is not None

    def read(self) -> OrderEvents:
        """The next order events, contiguous and aligned, about CHUNK_BYTES of them at most; none at the end.

        Raises: DamagedFileError, after everything before the damage has been returned.
        """
        memory = self._next_memory()
        while not self._ended:
            events = self._decode_chunk(memory)
            self.events_read += len(events)
            if len(events):
                return events
        if self._damage:
            damage, reason = self._damage
            raise DamagedFileError(
                self._name,
                f"{damage} at byte {self.offset:,} (record {self.records_read + 1:,}), "
                f"after {self.events_read:,} order events{reason and ': '}{reason}",
                "fetch the file again",
            )
        return np.empty(0, ORDER_EVENT)

    def _next_memory(self) -> Bytes:
        """Memory for a chunk: its rows are handed on without a copy."""
        if self.chunks_kept is None:
            return np.empty(CHUNK_BYTES, np.uint8)
        # The kernel takes 0.6 ms to map new memory, most of the time that decompressing into it takes.
        is_full = len(self._memory) >= self.chunks_kept
        self._memory.append(self._memory.popleft() if is_full else np.empty(CHUNK_BYTES, np.uint8))
        return self._memory[-1]

    def _decode_chunk(self, memory: Bytes) -> OrderEvents:
        chunk = self._read_chunk(memory)
        decoded = decode(chunk, ts_out=self._ts_out)
        self.offset += decoded.size
        self.records_read += decoded.records
        self.other_rtypes |= decoded.other_rtypes
        for instrument_id, symbol in decoded.mappings:
            self.symbols.setdefault(instrument_id, symbol)
        if decoded.problem is not None:
            # It lies before whatever else ended the chunk.
            self._ended, self._damage = True, (decoded.problem, "")
        self._carry = chunk[decoded.size :].copy()
        if self._ended and len(self._carry):
            self._note_damage(f"ends inside a record ({len(self._carry)} bytes of it)")
        return decoded.events

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
            self._note_damage("cannot be read on", error.strerror or str(error))
        return chunk[:filled]

    def _note_damage(self, damage: str, reason: str = "") -> None:
        # The first damage is the cause, a torn record after it only its consequence.
        self._ended = True
        self._damage = self._damage or (damage, reason)
