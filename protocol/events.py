"""Order events: what happened to one order, as rows of a numpy array.

A row has exactly DBN's 56-byte MBO layout, in every DBN version, so a recorded file needs no conversion and a
recording of ours opens in any DBN tool.
Source: databento_dbn.MBOMsg; the tests compare the two byte for byte.
"""

from enum import IntEnum, IntFlag

import numpy as np
import numpy.typing as npt

UNDEF_PRICE = 2**63 - 1
"""DBN's "no price": an Add with it empties a side of a top-of-book publisher."""

RTYPE_MBO = 0xA0
"""The record type every order event carries in its header."""

ORDER_EVENT = np.dtype(
    [
        ("length", "u1"),  # record length in 32-bit words: 14
        ("rtype", "u1"),  # RTYPE_MBO
        ("publisher_id", "<u2"),
        ("instrument_id", "<u4"),
        ("ts_event", "<u8"),  # ns since the epoch, at the venue
        ("order_id", "<u8"),
        ("price", "<i8"),  # 1e-9
        ("size", "<u4"),  # lots
        ("flags", "u1"),  # Flag
        ("channel_id", "u1"),
        ("action", "u1"),  # Action
        ("side", "u1"),  # Side
        ("ts_recv", "<u8"),  # ns since the epoch, at the recorder's door
        ("ts_in_delta", "<i4"),  # ns
        ("sequence", "<u4"),  # the venue's own message counter
    ]
)

RECORD_LENGTH = ORDER_EVENT.itemsize // 4

OrderEvents = npt.NDArray[np.void]
"""A one-dimensional array of ORDER_EVENT rows, oldest first."""


RESTING_ORDER = np.dtype([("order_id", "<u8"), ("price", "<i8"), ("size", "<u8"), ("ts_event", "<u8")])
"""What its events have left of an order: price in 1e-9, size in lots, ns since the epoch.

`ts_event` is when the order took its place in the queue. An Add, and a Modify that loses the place, set it; a
reduction in place does not: the order's age is the time it has queued there.
"""

RestingOrders = npt.NDArray[np.void]
"""A one-dimensional array of RESTING_ORDER rows."""


class Action(IntEnum):
    """What happened. Trades and fills tell; they never change a book."""

    ADD = ord("A")
    MODIFY = ord("M")
    CANCEL = ord("C")
    CLEAR = ord("R")
    TRADE = ord("T")
    FILL = ord("F")
    NONE = ord("N")


class Side(IntEnum):
    """Where an order rests; for a trade, the aggressor's side."""

    BID = ord("B")
    ASK = ord("A")
    NONE = ord("N")


class Flag(IntFlag):
    """Bits of an event's `flags`."""

    LAST = 128  # last record of an event: read a book only after it
    TOB = 64  # top-of-book publisher: an Add replaces the whole side
    SNAPSHOT = 32  # from a snapshot, not from the live flow
    MBP = 16  # an aggregated level, not an order
    BAD_TS_RECV = 8
    MAYBE_BAD_BOOK = 4  # the publisher lost messages and has not recovered
    PUBLISHER_SPECIFIC = 2


def order_events(count: int) -> OrderEvents:
    """`count` zeroed rows with their headers (length and record type) filled in."""
    events = np.zeros(count, ORDER_EVENT)
    events["length"] = RECORD_LENGTH
    events["rtype"] = RTYPE_MBO
    return events
