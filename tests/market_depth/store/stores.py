"""What the tests of stores store: sessions of invented books, every row of which tells its own number."""

from dataclasses import dataclass, field

import numpy as np

from market_depth.store.base import Batch, SessionEnding, SessionOpening
from market_depth.store.rows import (
    BBO_ROW,
    TRADE_ROW,
    Rows,
    Series,
    empty_snapshots,
)
from protocol.events import UNDEF_PRICE, Side
from protocol.instrument import Instrument

ACME = Instrument("ACME", "XTEST", 7, 10_000_000, 1_000_000_000)
OTHER = Instrument("OTHER", "XTEST", 2**32 - 1, 1, 1)
BOOKS = (Series(ACME), Series(OTHER, 41))

START_NS = 1_790_000_000_000_000_000
NOW_NS = START_NS + 5_000_000_000
STEP_NS = 1_000


def bbo_rows(first: int, count: int, series: int = 0, step_ns: int = STEP_NS) -> Rows:
    """Rows number `first` and on: of every third both sides, no bid, no ask; prices and times from their numbers."""
    numbers = np.arange(first, first + count)
    rows = np.empty(count, BBO_ROW)
    rows["series"] = series
    rows["ts_event"] = START_NS + numbers * step_ns
    for place, side in enumerate(("bid", "ask")):
        is_empty = numbers % 3 == place + 1
        rows[f"best_{side}_px"] = np.where(is_empty, UNDEF_PRICE, 65_430_000_000 + place - numbers)
        rows[f"best_{side}_sz"] = np.where(is_empty, 0, numbers + 1)
    return rows


def trade_rows(first: int, count: int, series: int = 0, step_ns: int = STEP_NS) -> Rows:
    """Trades number `first` and on."""
    numbers = np.arange(first, first + count)
    rows = np.empty(count, TRADE_ROW)
    rows["series"] = series
    rows["ts_event"] = START_NS + numbers * step_ns
    rows["price"] = numbers - 5  # spreads trade below zero
    rows["size"] = 2**32 + numbers
    rows["aggressor"] = np.array([Side.BID, Side.ASK, Side.NONE])[numbers % 3]
    return rows


def snapshot_rows(first: int, count: int, series: int = 0, depth: int = 3, step_ns: int = STEP_NS) -> Rows:
    """Snapshots number `first` and on, of which number n has n % (depth + 1) bids and one ask less."""
    rows = empty_snapshots(count, depth)
    for row, number in zip(rows, range(first, first + count), strict=True):
        row["series"] = series
        row["ts_event"] = START_NS + number * step_ns
        shown = number % (depth + 1)
        row["orders"], row["bid_levels"], row["ask_levels"] = number, shown, max(0, shown - 1)
        for level in range(shown):
            row["bids"][level] = (number - level, 2**32 + number, level + 1)
        for level in range(shown - 1):
            row["asks"][level] = (number + level + 1, number, 1)
    return rows


@dataclass
class Story:
    """A session being told: its batches, numbered as they come."""

    id: str = "a"
    created_ns: int = START_NS
    series: tuple[Series, ...] = BOOKS
    number: int = field(default=0, init=False)

    @property
    def opening(self) -> SessionOpening:
        return SessionOpening(self.id, f"{self.id}.dbn", self.created_ns)

    def batch(self, *, ending: SessionEnding | None = None, **rows: Rows) -> Batch:
        """The next batch."""
        self.number += 1
        return Batch(self.opening, self.number, self.series, ending=ending, **rows)
