"""How fast books are rebuilt: the compiled engine against the usual book in plain Python, on the same synthetic events.

Both end with the same best levels or nothing is reported. CPU time is measured, because others may share the machine;
the ratio of the two is firmer than either figure.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from sortedcontainers import SortedDict

from market_depth.bench.errors import BenchError
from market_depth.bench.order_stream import FIRST_INSTRUMENT, order_stream
from market_depth.book.engine import BookEngine
from market_depth.book.views import price_levels, resting_orders
from protocol.events import Action, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from protocol.events import OrderEvents

MAX_EVENTS = 50_000_000
MAX_ROUNDS = 100
MAX_INSTRUMENTS = 10_000

BATCH = 50_000
"""Events handed over at a time, as a replay at full speed does."""

VIEW_DEPTH = 20
VIEW_CALLS = 1_000


@dataclass(frozen=True)
class Result:
    """The figures of one stream."""

    instruments: int
    events: int
    resting_orders: int
    levels: int
    memory_mb: float
    engine_ns: list[float]
    """Nanoseconds an event, of each round."""
    plain_ns: float
    price_levels_us: float
    """One side of the first instrument, VIEW_DEPTH levels."""
    resting_orders_us: float

    @property
    def ns_per_event(self) -> float:
        """The engine's median."""
        return median(self.engine_ns)

    @property
    def events_per_s(self) -> float:
        """The engine's median."""
        return 1e9 / self.ns_per_event

    @property
    def ratio(self) -> float:
        """How many times as fast as the plain book."""
        return self.plain_ns / self.ns_per_event


@dataclass(frozen=True)
class Report:
    """The figures of all streams."""

    results: list[Result]

    def as_dict(self) -> dict[str, Any]:
        """All figures of all rounds, and what follows from them."""
        return {
            "results": [
                {
                    **asdict(result),
                    "ns_per_event": result.ns_per_event,
                    "events_per_s": result.events_per_s,
                    "ratio": result.ratio,
                }
                for result in self.results
            ]
        }

    def lines(self) -> list[str]:
        """A line for each figure of each stream."""
        lines: list[str] = []
        for result in self.results:
            noun = "instrument" if result.instruments == 1 else "instruments"
            lines += [
                f"{result.instruments} {noun}, {result.events:,} events",
                f"  engine            {result.ns_per_event:8.1f} ns an event, {result.events_per_s / 1e6:.1f} M events/s",
                f"  plain Python      {result.plain_ns:8.1f} ns an event: the engine is {result.ratio:.0f} times as fast",
                f"  {VIEW_DEPTH} price levels   {result.price_levels_us:8.1f} µs",
                f"  their orders      {result.resting_orders_us:8.1f} µs",
                f"  at the end        {result.resting_orders:,} orders on {result.levels:,} levels in {result.memory_mb:.1f} MB",
                "",
            ]
        return lines


def run(
    events: int = 2_600_000,
    rounds: int = 5,
    instruments: Sequence[int] = (1, 200),
    seed: int = 1,
    progress: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Measure with a stream of `events` events for each number of `instruments`, `rounds` times each.

    The defaults take about twenty seconds. `progress` is told what happens.
    Raises: BenchError when a value is out of bounds.
    """
    if not 1 <= events <= MAX_EVENTS:
        raise BenchError(f"events must be from 1 to {MAX_EVENTS:,}, not {events:,}")
    if not 1 <= rounds <= MAX_ROUNDS:
        raise BenchError(f"rounds must be from 1 to {MAX_ROUNDS}, not {rounds}")
    if not all(1 <= count <= MAX_INSTRUMENTS for count in instruments):
        raise BenchError(f"instruments must be from 1 to {MAX_INSTRUMENTS:,}")
    progress("loading or compiling the kernels")
    BookEngine.warm_up()
    return Report([_measure(events, rounds, count, seed, progress) for count in instruments])


def _measure(
    events: int, rounds: int, instruments: int, seed: int, progress: Callable[[str], None]
) -> Result:
    progress(f"instruments: {instruments}; making {events:,} events")
    stream = order_stream(seed, events, instruments)
    progress(f"instruments: {instruments}; the engine")
    engine_ns, engine = [], BookEngine()
    for _ in range(rounds):
        engine = BookEngine()
        engine_ns.append(_engine_s(engine, stream) / events * 1e9)
    progress(f"instruments: {instruments}; plain Python")
    plain = PlainBooks()
    plain_ns = _plain_s(plain, stream) / events * 1e9
    _compare(engine, plain)
    books = [engine.book(index) for index in range(engine.book_count)]
    return Result(
        instruments=instruments,
        events=events,
        resting_orders=sum(book.orders for book in books),
        levels=sum(book.bid_levels + book.ask_levels for book in books),
        memory_mb=engine.memory_bytes / 1e6,
        engine_ns=engine_ns,
        plain_ns=plain_ns,
        price_levels_us=_call_us(lambda: price_levels(engine, FIRST_INSTRUMENT, Side.BID, VIEW_DEPTH)),
        resting_orders_us=_call_us(lambda: resting_orders(engine, FIRST_INSTRUMENT, Side.BID, VIEW_DEPTH)),
    )


def _engine_s(engine: BookEngine, stream: OrderEvents) -> float:
    began_s = time.process_time()
    for start in range(0, len(stream), BATCH):
        engine.apply(stream[start : start + BATCH])
    return time.process_time() - began_s


def _plain_s(books: PlainBooks, stream: OrderEvents) -> float:
    """The time without that of making Python's integers, which a plain reader of files might get in another way."""
    elapsed_s = 0.0
    columns = ["action", "instrument_id", "order_id", "side", "price", "size"]
    for start in range(0, len(stream), BATCH):
        rows = stream[columns][start : start + BATCH].tolist()
        began_s = time.process_time()
        for row in rows:
            books.apply(*row)
        elapsed_s += time.process_time() - began_s
    return elapsed_s


def _call_us(view: Callable[[], object]) -> float:
    began_s = time.process_time()
    for _ in range(VIEW_CALLS):
        view()
    return (time.process_time() - began_s) / VIEW_CALLS * 1e6


def _compare(engine: BookEngine, plain: PlainBooks) -> None:
    for instrument_id in engine.instruments():
        for side in (Side.BID, Side.ASK):
            levels = price_levels(engine, instrument_id, side, VIEW_DEPTH).tolist()
            if levels != plain.levels(instrument_id, side, VIEW_DEPTH):
                raise BenchError(f"the two books of instrument {instrument_id} differ: nothing is comparable")


class PlainBooks:
    """The yardstick: a dict of orders, and for each side a SortedDict from price to the orders there.

    As one writes it in Python who knows the language: no classes for orders or levels, a dict as the queue. Knows the
    events that `order_stream` makes, and no others.
    """

    def __init__(self) -> None:
        self._orders: dict[int, tuple[Any, int, int]] = {}  # side's levels, price, size
        self._sides: defaultdict[tuple[int, int], Any] = defaultdict(SortedDict)

    def apply(self, action: int, instrument_id: int, order_id: int, side: int, price: int, size: int) -> None:
        """Apply one event."""
        if action == Action.ADD:
            self._place(self._sides[instrument_id, side], order_id, price, size)
        elif action == Action.CANCEL:
            self._remove(order_id)
        elif action == Action.MODIFY:
            levels, old_price, old_size = self._orders[order_id]
            if price == old_price and size <= old_size:
                levels[price][order_id] = size
                self._orders[order_id] = levels, price, size
            else:
                self._remove(order_id)
                self._place(levels, order_id, price, size)

    def levels(self, instrument_id: int, side: int, depth: int) -> list[list[int]]:
        """The best levels of one side: price, size, count."""
        levels = self._sides[instrument_id, side]
        prices = levels.keys()[-1 : -depth - 1 : -1] if side == Side.BID else levels.keys()[:depth]
        return [[price, sum(levels[price].values()), len(levels[price])] for price in prices]

    def _place(self, levels: Any, order_id: int, price: int, size: int) -> None:
        queue = levels.get(price)
        if queue is None:
            queue = levels[price] = {}
        queue[order_id] = size
        self._orders[order_id] = levels, price, size

    def _remove(self, order_id: int) -> None:
        levels, price, _ = self._orders.pop(order_id)
        queue = levels[price]
        del queue[order_id]
        if not queue:
            del levels[price]
