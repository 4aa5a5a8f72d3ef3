"""What DBN records say that lie one behind the other in memory.

A record starts with its length in 32-bit words and its type. MBO records are order events as they are, in every DBN
version; symbol mappings and notices are read, other records are passed over.
Source: the record layouts of databento_dbn (MBOMsg, SymbolMappingMsg, SymbolMappingMsgV1, ErrorMsg, SystemMsg), with
which the tests compare.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from protocol.events import ORDER_EVENT, RECORD_LENGTH, RTYPE_MBO, OrderEvents

WORD = 4
HEADER_BYTES = 16
TS_OUT_BYTES = 8
"""Live sessions may append their sending time to every record."""

RTYPE_ERROR = 0x15
RTYPE_SYMBOL_MAPPING = 0x16
RTYPE_SYSTEM = 0x17

# Where a symbol mapping keeps the symbol asked for and the venue's own, by the record's size without ts_out.
SYMBOL_FIELDS = {
    80: (slice(16, 38), slice(38, 60)),  # DBN 1
    176: (slice(17, 88), slice(89, 160)),  # DBN 2 and 3
}

NOTICE_BYTES = 320
"""Size of an error or system record in DBN 2 and 3. In DBN 1 it is shorter and has no code."""

CODE_AT = {RTYPE_ERROR: 318, RTYPE_SYSTEM: 319}
"""Where such a record keeps its code; its text ends before."""

NO_CODE = 255
HEARTBEAT = 0  # codes of system records
REPLAY_COMPLETED = 3
SKIPPED_RECORDS = 7  # of an error record: the reader was slow

Bytes = npt.NDArray[np.uint8]


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
class Decoded:
    """What whole records say, in the order of each kind."""

    events: OrderEvents
    """Contiguous and aligned: a view of the records where nothing lies between them, else a copy."""
    records: int
    """How many there were, of all types."""
    size: int
    """How many bytes they take."""
    mappings: list[tuple[int, str]] = field(default_factory=list)
    """Instrument ids and their symbols from there on."""
    notices: list[Notice] = field(default_factory=list)
    other_rtypes: set[int] = field(default_factory=set)
    """The types of the records that are neither order events nor mappings."""
    problem: str | None = None
    """Why what follows them is no record, if it is none."""


def decode(data: Bytes, *, ts_out: bool = False) -> Decoded:
    """What the whole records in `data` say, up to the first that makes no sense or is not all there.

    `data`: contiguous, its first byte aligned to 8, a record's first. `ts_out`: whether each record has its sending
    time appended.
    """
    extra_bytes = TS_OUT_BYTES if ts_out else 0
    stride = ORDER_EVENT.itemsize + extra_bytes
    records = data[: len(data) // stride * stride].reshape(-1, stride)
    # Almost always there is nothing but order events, and no record needs to be looked at by itself.
    # Length and type in one look: two take a tenth of the time that decompressing the records does.
    beginnings = data[: records.size].view("<u2")[:: stride // 2]
    others = np.flatnonzero(beginnings != stride // WORD + (RTYPE_MBO << 8))
    alike = int(others[0]) if len(others) else len(records)
    decoded = Decoded(_rows(records[:alike, : ORDER_EVENT.itemsize]), alike, alike * stride)
    if decoded.size < len(data):
        _walk(data, extra_bytes, decoded)
    if extra_bytes:
        decoded.events["length"] = RECORD_LENGTH
    return decoded


def _walk(data: Bytes, extra_bytes: int, decoded: Decoded) -> None:
    """Add what the mixture of records says that is left: each one's length leads to the next."""
    rest = data[decoded.size :].tobytes()
    starts = []
    at = 0
    while at < len(rest):
        size = rest[at] * WORD
        if size < HEADER_BYTES + extra_bytes:
            decoded.problem = f"holds something that is no record (a length of {size} bytes)"
            break
        if at + size > len(rest):
            break
        rtype = rest[at + 1]
        record = rest[at : at + size - extra_bytes]
        if rtype == RTYPE_MBO:
            if len(record) != ORDER_EVENT.itemsize:
                decoded.problem = f"holds an MBO record of {size} bytes"
                break
            starts.append(decoded.size + at)
        elif rtype == RTYPE_SYMBOL_MAPPING:
            decoded.mappings += _mapping(record)
        else:
            decoded.other_rtypes.add(rtype)
            if rtype in CODE_AT:
                decoded.notices.append(_notice(record))
        at += size
        decoded.records += 1
    decoded.size += at
    if starts:
        places = np.array(starts, np.int64)[:, None] + np.arange(ORDER_EVENT.itemsize)
        decoded.events = np.concatenate([decoded.events, _rows(data[places])])


def _rows(records: Bytes) -> OrderEvents:
    """Records of 56 bytes, one a row, as order events: a view where they lie together, else a copy."""
    return np.ascontiguousarray(records).reshape(-1).view(ORDER_EVENT)


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
