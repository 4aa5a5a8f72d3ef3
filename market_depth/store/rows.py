"""What the store keeps, as numpy rows: the best bid and offer, the best levels, trades, and whose they are.

A row names its book by `series`: to be written, by the place of the book's `Series` in its session's list; read back,
by the key under which `Found.series` has it. Prices are integers of 1e-9, sizes are lots, times ns since the epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.events import UNDEF_PRICE
from protocol.instrument import Instrument

Rows = npt.NDArray[np.void]
"""A one-dimensional array of rows, in the order in which they came."""

MAX_TS = 2**63 - 1
"""The last time the store can hold, in 2262. DBN's undefined time, 2**64 - 1, becomes this one."""

BBO_ROW = np.dtype(
    [
        ("series", "<i4"),
        ("ts_event", "<i8"),
        ("best_bid_px", "<i8"),  # UNDEF_PRICE where the side is empty: null in the store
        ("best_bid_sz", "<i8"),  # 0 where the side is empty: null in the store
        ("best_ask_px", "<i8"),
        ("best_ask_sz", "<i8"),
    ]
)
"""The best price level of each side."""

TRADE_ROW = np.dtype(
    [
        ("series", "<i4"),
        ("ts_event", "<i8"),
        ("price", "<i8"),
        ("size", "<i8"),
        ("aggressor", "u1"),  # protocol.events.Side
    ]
)
"""A print."""

LEVEL = np.dtype([("price", "<i8"), ("size", "<i8"), ("count", "<i8")])
"""A price level; where there is none: UNDEF_PRICE, 0, 0."""

MAX_DEPTH = 100
"""Levels of a side in a stored snapshot."""


@cache
def snapshot_row(depth: int) -> np.dtype[np.void]:
    """The row of a snapshot of the best `depth` levels of each side, best first."""
    if not 1 <= depth <= MAX_DEPTH:
        raise ValueError(f"a snapshot has 1 to {MAX_DEPTH} levels a side, not {depth}")
    return np.dtype(
        [
            ("series", "<i4"),
            ("ts_event", "<i8"),
            ("orders", "<i8"),  # of the whole book, as are the next two
            ("bid_levels", "<i8"),
            ("ask_levels", "<i8"),
            ("bids", LEVEL, (depth,)),
            ("asks", LEVEL, (depth,)),
        ]
    )


def depth_of(rows: Rows) -> int:
    """How many levels of a side there is room for in snapshots."""
    return int(rows.dtype["bids"].shape[0])


def empty_snapshots(count: int, depth: int) -> Rows:
    """So many snapshots of empty books."""
    rows = np.zeros(count, snapshot_row(depth))
    rows["bids"]["price"] = rows["asks"]["price"] = UNDEF_PRICE
    return rows


def shown_levels(levels: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """How many levels there are in each row of one side of snapshots."""
    return np.asarray((levels["price"] != UNDEF_PRICE).sum(axis=1), np.int64)


def stored_times(ts: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Times as the store has them."""
    return np.minimum(ts, np.uint64(MAX_TS)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Series:
    """One book in a session: an instrument at one publisher, or at all of them together (publisher 0)."""

    instrument: Instrument
    publisher_id: int = 0

    def __post_init__(self) -> None:
        for text in (self.instrument.symbol, self.instrument.venue):
            check_text(text)


@dataclass(frozen=True, slots=True)
class Found:
    """Rows that were read, and the series that they name.

    `positions` is each row's number among all rows of its kind in its session.
    """

    rows: Rows
    positions: npt.NDArray[np.int64]
    series: Mapping[int, Series]

    def __len__(self) -> int:
        return len(self.rows)


def check_text(text: str) -> None:
    """Raises: ValueError for text that a database cannot hold: with a zero byte, or half a character."""
    if "\0" in text:
        raise ValueError(f"{text!r} has a zero byte")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is no text of Unicode") from None


def no_rows(kind: np.dtype[Any]) -> Rows:
    """None of a kind."""
    return np.empty(0, kind)
