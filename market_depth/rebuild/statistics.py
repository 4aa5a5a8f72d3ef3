"""What is told of a rebuilt file: how much it held, how long that took, and its final books."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import exp, log
from typing import TYPE_CHECKING, Any

from market_depth.book.views import PriceLevel, best_of_book
from protocol.events import Side
from protocol.instrument import Instrument

if TYPE_CHECKING:
    from market_depth.book.engine import BookEngine

RESOLUTION = 0.005
"""Two times that differ by less than half a percent count as the same: so percentiles of any number of them take no
more memory than some thousand numbers."""


@dataclass(frozen=True, slots=True)
class Level:
    """A price level: the price as decimal text, the size in lots, the number of orders."""

    price: str
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class FinalBook:
    """The book of one (instrument, publisher) after the last event."""

    symbol: str
    instrument_id: int
    publisher_id: int
    active_orders: int
    bid_levels: int
    ask_levels: int
    best_bid: Level | None
    best_ask: Level | None
    spread: str | None
    """Best ask less best bid as decimal text; negative in a crossed book, None where a side is empty."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a file held and led to."""

    file: str
    bytes: int
    """The file's size."""
    records: int
    """Whole records read, of all types."""
    orders_processed: int
    """Order events applied to the books."""
    unknown_orders: int
    """Cancels and modifies of orders that did not rest."""
    wall_s: float
    """From opening the file to the final books, with the kernels loaded before."""
    throughput_per_s: float
    """Records in that time."""
    apply_mean_ns: float
    """Time that the engine took for an order event, making the records of an output included."""
    apply_p99_ns: float
    """The same in the slowest of the batches, as far as 99 % of the events are in batches no slower.

    A batch is up to 16,384 events, and its time an event is a mean: this tells of slow stretches, not of single events.
    What 99 % of single events take, `market-depth bench book` measures: with a clock inside the kernel, which not every
    processor has, in a kernel of its own that would have to be loaded here, too.
    """
    books: tuple[FinalBook, ...]
    """One for each (instrument, publisher), in the order of their first events."""

    def as_dict(self) -> dict[str, Any]:
        """The same for machines, ready to be written as JSON."""
        return asdict(self)


class ApplyTimes:
    """How long batches took, an event."""

    def __init__(self) -> None:
        self._events_of: Counter[int] = Counter()  # by the logarithm of a batch's time an event
        self._events = 0
        self._ns = 0

    def add(self, events: int, ns: int) -> None:
        """Count a batch of `events` events that took `ns` nanoseconds."""
        self._events += events
        self._ns += ns
        self._events_of[round(log(max(ns, 1) / events) / RESOLUTION)] += events

    @property
    def mean_ns(self) -> float:
        """For an event; 0 when there was none."""
        return self._ns / max(self._events, 1)

    def percentile_ns(self, percent: float) -> float:
        """The time that batches with `percent` of all events did not exceed, an event; 0 when there was none."""
        missing = self._events * percent / 100
        for logarithm in sorted(self._events_of):
            missing -= self._events_of[logarithm]
            if missing <= 0:
                return exp(logarithm * RESOLUTION)
        return 0.0


def final_books(engine: BookEngine, instruments: tuple[Instrument, ...]) -> tuple[FinalBook, ...]:
    """The books of an engine, whose instruments all are among `instruments`."""
    instrument_of = {instrument.instrument_id: instrument for instrument in instruments}
    return tuple(
        final_book(engine, index, instrument_of[engine.book(index).instrument_id])
        for index in range(engine.book_count)
    )


def final_book(engine: BookEngine, index: int, instrument: Instrument) -> FinalBook:
    """One of an engine's books."""
    state = engine.book(index)
    bid, ask = best_of_book(engine, index, Side.BID), best_of_book(engine, index, Side.ASK)
    return FinalBook(
        symbol=instrument.symbol,
        instrument_id=state.instrument_id,
        publisher_id=state.publisher_id,
        active_orders=state.orders,
        bid_levels=state.bid_levels,
        ask_levels=state.ask_levels,
        best_bid=shown(bid, instrument),
        best_ask=shown(ask, instrument),
        spread=instrument.price_text(ask.price - bid.price) if bid and ask else None,
    )


def shown(level: PriceLevel | None, instrument: Instrument) -> Level | None:
    """A best level, or that there is none, as statistics tell it."""
    return Level(instrument.price_text(level.price), level.size, level.count) if level else None
