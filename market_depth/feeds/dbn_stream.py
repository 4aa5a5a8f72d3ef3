"""A live DBN stream that arrives in pieces: its metadata, then order events, symbol mappings and notices.

Source: the DBN encoding and the record layouts of databento_dbn (ErrorMsg, SystemMsg), with which the tests compare.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from databento_dbn import DBNError, Metadata

from market_depth.feeds.dbn_records import (
    HEADER_BYTES,
    RTYPE_SYMBOL_MAPPING,
    SYMBOL_FIELDS,
    TS_OUT_BYTES,
    WORD,
)
from market_depth.feeds.gateway_text import GatewayError
from protocol.events import ORDER_EVENT, RECORD_LENGTH, RTYPE_MBO, OrderEvents

PREFIX_BYTES = 8
MAGIC = b"DBN"
NEWEST_VERSION = 3

MIN_METADATA_BYTES = 120
MAX_METADATA_BYTES = 16 * 1024 * 1024
"""A session's metadata are some 120 bytes: what is in it comes in records."""

RTYPE_ERROR = 0x15
RTYPE_SYSTEM = 0x17

NOTICE_BYTES = 320
"""Size of an error or system record in DBN 2 and 3. In DBN 1 it is shorter and has no code."""

CODE_AT = {RTYPE_ERROR: 318, RTYPE_SYSTEM: 319}
"""Where such a record keeps its code; its text ends before."""

NO_CODE = 255
HEARTBEAT = 0  # codes of system records
REPLAY_COMPLETED = 3
SKIPPED_RECORDS = 7  # of an error record: the reader was slow


class Notice(NamedTuple):
    """What a gateway says between records."""

    rtype: int
    """RTYPE_ERROR or RTYPE_SYSTEM."""
    code: int
    """databento_dbn's ErrorCode or SystemCode; NO_CODE where DBN 1 has none."""
    text: str

    @property
    def is_heartbeat(self) -> bool:
        """Whether it only says that the gateway is there."""
        return self.rtype == RTYPE_SYSTEM and (
            self.code == HEARTBEAT or (self.code == NO_CODE and self.text == "Heartbeat")
        )


@dataclass(slots=True)
class Received:
    """What the records that were completed by a piece say, in the order of each kind."""

    events: OrderEvents
    """Contiguous and aligned."""
    mappings: list[tuple[int, str]] = field(default_factory=list)
    """Instrument ids and their symbols from now on."""
    notices: list[Notice] = field(default_factory=list)


class DbnStream:
    """Decodes a stream as far as it has arrived."""

    def __init__(self) -> None:
        self.metadata: Metadata | None = None
        """As soon as they have arrived."""
        self._carry = b""
        self._extra_bytes = 0

    def receive(self, data: bytes) -> Received:
        """What `data` completes. Raises: GatewayError where the stream makes no sense; it cannot be read on then."""
        data = self._carry + data
        if self.metadata is None:
            data = self._read_metadata(data)
        received, used = self._decode(data)
        self._carry = data[used:]
        return received

    def _read_metadata(self, data: bytes) -> bytes:
        """What follows the metadata; all of `data` until they are complete."""
        if not data.startswith(MAGIC[: len(data)]):
            raise GatewayError("what follows the handshake is not DBN")
        if len(data) < PREFIX_BYTES:
            return data
        version, size = data[3], int.from_bytes(data[4:PREFIX_BYTES], "little")
        if not 1 <= version <= NEWEST_VERSION:
            raise GatewayError(f"the stream is DBN version {version}, and 1 to {NEWEST_VERSION} can be read")
        if not MIN_METADATA_BYTES <= size <= MAX_METADATA_BYTES:
            raise GatewayError(f"the stream claims {size} bytes of metadata")
        end = PREFIX_BYTES + size
        if len(data) < end:
            return data
        try:
            self.metadata = Metadata.decode(data[:end])
        except DBNError as error:
            raise GatewayError(f"the stream's metadata make no sense ({error})") from error
        self._extra_bytes = TS_OUT_BYTES if self.metadata.ts_out else 0
        return data[end:]

    def _decode(self, data: bytes) -> tuple[Received, int]:
        """What the whole records in `data` say, and how many bytes they take."""
        if self.metadata is None:
            return Received(np.empty(0, ORDER_EVENT)), 0
        stride = ORDER_EVENT.itemsize + self._extra_bytes
        count = len(data) // stride
        records = np.frombuffer(data, np.uint8, count * stride).reshape(count, stride)
        # Almost always there is nothing else, and no record needs to be looked at by itself.
        others = np.flatnonzero((records[:, 0] != stride // WORD) | (records[:, 1] != RTYPE_MBO))
        alike = int(others[0]) if len(others) else count
        events = _rows(records[:alike])
        received, used = self._walk(data, alike * stride)
        if len(received.events):
            received.events = np.concatenate([events, received.events])
        else:
            received.events = events
        return received, used

    def _walk(self, data: bytes, at: int) -> tuple[Received, int]:
        """The same for a mixture of records from `at` on: each one's length leads to the next."""
        received = Received(np.empty(0, ORDER_EVENT))
        starts = []
        while at < len(data):
            size = data[at] * WORD
            if size < HEADER_BYTES + self._extra_bytes:
                raise GatewayError(f"the stream holds something that is no record (a length of {size} bytes)")
            if at + size > len(data):
                break
            rtype = data[at + 1]
            record = data[at : at + size - self._extra_bytes]
            if rtype == RTYPE_MBO:
                if len(record) != ORDER_EVENT.itemsize:
                    raise GatewayError(f"the stream holds an MBO record of {size} bytes")
                starts.append(at)
            elif rtype == RTYPE_SYMBOL_MAPPING:
                received.mappings += _mapping(record)
            elif rtype in CODE_AT:
                received.notices.append(_notice(record))
            at += size
        if starts:
            places = np.array(starts, np.int64)[:, None] + np.arange(ORDER_EVENT.itemsize)
            received.events = _rows(np.frombuffer(data, np.uint8)[places])
        return received, at


def _rows(records: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]") -> OrderEvents:
    """Order events of memory of their own, from records one a row, with or without a sending time at the end."""
    events = np.empty(len(records), ORDER_EVENT)
    events.view(np.uint8).reshape(len(records), ORDER_EVENT.itemsize)[:] = records[:, : ORDER_EVENT.itemsize]
    events["length"] = RECORD_LENGTH
    return events


def _mapping(record: bytes) -> list[tuple[int, str]]:
    """Instrument id and symbol, or nothing where there is no symbol."""
    fields = SYMBOL_FIELDS.get(len(record))
    if fields is None:
        return []
    asked, native = (_text(record[place]) for place in fields)
    # One of the two may be the instrument id as text; the venue's own symbol is the better of two symbols.
    symbol = asked if native.isdecimal() or not native else native
    return [(int.from_bytes(record[4:8], "little"), symbol)] if symbol else []


def _notice(record: bytes) -> Notice:
    rtype = record[1]
    if len(record) != NOTICE_BYTES:
        return Notice(rtype, NO_CODE, _text(record[HEADER_BYTES:]))
    code_at = CODE_AT[rtype]
    return Notice(rtype, record[code_at], _text(record[HEADER_BYTES:code_at]))


def _text(encoded: bytes) -> str:
    return encoded.split(b"\0", 1)[0].decode(errors="replace")
