"""How fast books are rebuilt: the compiled engine against other books, on the same synthetic or recorded events.

CPU time is measured, because others may share the machine. In each round all books take their turn, so the ratios between
them are firmer than any figure. The engine and the plain book end with the same best levels or nothing is reported.
"""

from __future__ import annotations

import platform
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from market_depth.bench.errors import BenchError, BenchOptionError
from market_depth.bench.order_stream import order_stream
from market_depth.bench.peers import CppBook, hftbacktest_ns, nautilus_ns
from market_depth.bench.plain_books import PlainBooks
from market_depth.book import kernels
from market_depth.book.engine import BookEngine, event_words
from market_depth.book.records import SnapshotRecords
from market_depth.book.tops import LEVEL_PAIR, TopOfBook
from market_depth.book.views import price_levels, resting_orders
from market_depth.feeds.base import FeedError
from market_depth.feeds.dbn import DbnFile
from protocol.events import ORDER_EVENT, Flag, OrderEvents, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

MAX_EVENTS = 50_000_000
MAX_ROUNDS = 100
MAX_INSTRUMENTS = 10_000

BATCH = 50_000
"""Events handed over at a time, as a replay at full speed does."""

OUTPUT_BATCH = 16_384
"""Where each event has an output, which is written into one buffer again and again."""

TOP_LEVELS = 10
VIEW_DEPTH = 20
VIEW_CALLS = 1_000

JSON_EVENTS = 100_000
"""Of a stream, those that the C++ book makes text for: it takes microseconds for each."""

TICKS_S = 0.05
"""How long the cycle counter is compared with the clock."""

WARM = 0.05
"""The share of a stream whose latencies do not count: the books fill."""

PERCENTILES = (50.0, 99.0, 99.9)

APPLY, BBO, TOP, JSON, SINGLE = (
    "apply",
    "apply + BBO",
    f"apply + top {TOP_LEVELS}",
    "apply + JSON",
    "one a call",
)
PLAIN, CPP, CPP_JSON, NAUTILUS, HFTBACKTEST = (
    "plain Python",
    "C++",
    "C++ + JSON",
    "nautilus_trader",
    "hftbacktest",
)


@dataclass(frozen=True)
class Result:
    """The figures of one stream."""

    name: str
    events: int
    resting_orders: int
    levels: int
    memory_mb: float
    ns: dict[str, list[float]]
    """Nanoseconds an event, of each round."""
    latency_ns: dict[str, dict[str, float]]
    """Percentiles of what single events took, by book; the clock is read inside the loop that applies them."""
    price_levels_us: float
    """One side of the first instrument, VIEW_DEPTH levels."""
    resting_orders_us: float

    @property
    def medians(self) -> dict[str, float]:
        """Nanoseconds an event."""
        return {name: median(rounds) for name, rounds in self.ns.items()}

    @property
    def ratios(self) -> dict[str, float]:
        """How many times the time of applying in the engine each takes: medians over the rounds' own ratios."""
        own = self.ns[APPLY]
        return {
            name: median(ns / mine for ns, mine in zip(rounds, own, strict=True))
            if len(rounds) == len(own)
            else median(rounds) / median(own)
            for name, rounds in self.ns.items()
        }


@dataclass(frozen=True)
class Report:
    """The figures of all streams."""

    results: list[Result]

    def as_dict(self) -> dict[str, Any]:
        """All figures of all rounds, and what follows from them."""
        return {
            "results": [
                {**asdict(result), "median_ns": result.medians, "ratios": result.ratios}
                for result in self.results
            ]
        }

    def lines(self) -> list[str]:
        """A line for each figure of each stream."""
        lines: list[str] = []
        for result in self.results:
            lines.append(f"{result.name}, {result.events:,} events")
            lines += [
                f"  {name:<20}{ns:10.1f} ns an event {1e3 / ns:8.2f} M/s {result.ratios[name]:8.2f} × apply"
                for name, ns in result.medians.items()
            ]
            lines += [
                f"  {'latency, ' + name:<20}{', '.join(f'{key} {value:.0f}' for key, value in percentiles.items()):>10} ns"
                for name, percentiles in result.latency_ns.items()
            ]
            lines += [
                f"  {f'{VIEW_DEPTH} price levels':<20}{result.price_levels_us:10.1f} µs",
                f"  {'their orders':<20}{result.resting_orders_us:10.1f} µs",
                f"  at the end {result.resting_orders:,} orders on {result.levels:,} levels in {result.memory_mb:.1f} MB",
                "",
            ]
        return lines


@dataclass(frozen=True)
class Clock:
    """Ticks of the processor's cycle counter as time."""

    ns_per_tick: float

    @classmethod
    def calibrated(cls) -> Clock | None:
        """Compared with the system's clock; None where programs may not read the counter."""
        if platform.machine() not in ("x86_64", "AMD64"):
            return None
        kernels.read_cycles(1)
        began_ns, began = time.perf_counter_ns(), kernels.read_cycles(1)
        while time.perf_counter_ns() - began_ns < TICKS_S * 1e9:
            pass
        ended_ns, ended = time.perf_counter_ns(), kernels.read_cycles(1)
        return cls((ended_ns - began_ns) / (ended - began))

    def percentiles(self, ticks: npt.NDArray[Any]) -> dict[str, float]:
        """Of a stream's events, without those at its beginning, in ns."""
        warm = ticks[int(len(ticks) * WARM) :]
        values = np.percentile(warm, PERCENTILES) * self.ns_per_tick
        return {
            f"p{percentile:g}": float(value) for percentile, value in zip(PERCENTILES, values, strict=True)
        }


def run(
    events: int = 2_600_000,
    rounds: int = 5,
    instruments: Sequence[int] = (1, 200),
    seed: int = 1,
    file: Path | None = None,
    cpp: Path | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Measure with a stream of `events` events for each number of `instruments`, `rounds` times each.

    With `file`, a DBN file of MBO records, that is the only stream. `cpp` is the source of a C++ book, see `peers.py`.
    The defaults take about a minute. `progress` is told what happens.
    Raises: BenchOptionError when a value is out of bounds, a file cannot be read, or a C++ book not compiled.
    """
    if not 1 <= events <= MAX_EVENTS:
        raise BenchOptionError(f"events must be from 1 to {MAX_EVENTS:,}, not {events:,}")
    if not 1 <= rounds <= MAX_ROUNDS:
        raise BenchOptionError(f"rounds must be from 1 to {MAX_ROUNDS}, not {rounds}")
    if not all(1 <= count <= MAX_INSTRUMENTS for count in instruments):
        raise BenchOptionError(f"instruments must be from 1 to {MAX_INSTRUMENTS:,}")
    cpp_book = CppBook(cpp) if cpp else None
    if file:
        return Report([_measure(file.name, recorded(file), rounds, cpp_book, progress)])
    results = []
    for count in instruments:
        name = "1 instrument" if count == 1 else f"{count} instruments"
        progress(f"{name}: making {events:,} events")
        results.append(_measure(name, order_stream(seed, events, count), rounds, cpp_book, progress))
    return Report(results)


def recorded(path: Path) -> OrderEvents:
    """All order events of a DBN file.

    Raises: BenchError when it cannot be read, has none, or more than can be measured.
    """
    parts: list[OrderEvents] = []
    try:
        with DbnFile(path) as file:
            while len(part := file.read()):
                parts.append(part.copy())
                if sum(map(len, parts)) > MAX_EVENTS:
                    raise BenchError(f"{path} has more than {MAX_EVENTS:,} records")
    except FeedError as error:
        raise BenchError(str(error)) from error
    if not parts:
        raise BenchError(f"{path} has no records")
    return np.concatenate(parts)


def _measure(
    name: str, stream: OrderEvents, rounds: int, cpp: CppBook | None, progress: Callable[[str], None]
) -> Result:
    progress(f"{name}: loading or compiling the kernels")
    ways: dict[str, Callable[[OrderEvents], float]] = {
        APPLY: _apply_s,
        BBO: lambda events: _top_s(events, 1),
        TOP: lambda events: _top_s(events, TOP_LEVELS),
        JSON: _json_s,
        SINGLE: _single_s,
    }
    if cpp:
        ways[CPP] = cpp.apply_s
    BookEngine.warm_up()
    for measure in ways.values():
        measure(stream[:1_000])
    ns: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(1, rounds + 1):
        progress(f"{name}: round {number} of {rounds}")
        for way, measure in ways.items():
            ns[way].append(measure(stream) / len(stream) * 1e9)

    progress(f"{name}: plain Python")
    engine, plain = BookEngine(), PlainBooks()
    engine.apply(stream)
    plain_s = _plain_s(plain, stream)
    is_plain = engine.book_count == len(engine.instruments()) and not (stream["flags"] & Flag.TOB).any()
    if is_plain:  # it knows one publisher, with its whole depth
        _compare(engine, plain)
        ns[PLAIN] = [plain_s / len(stream) * 1e9]
    if cpp:
        first = stream[:JSON_EVENTS]
        ns[CPP_JSON] = [cpp.json_s(first) / len(first) * 1e9]
    for peer, peer_ns in {NAUTILUS: nautilus_ns, HFTBACKTEST: hftbacktest_ns}.items():
        progress(f"{name}: {peer}, if it is installed")
        measured = peer_ns(stream)
        if measured is not None:
            ns[peer] = [measured]

    books = [engine.book(index) for index in range(engine.book_count)]
    first_instrument = engine.instruments()[0]
    return Result(
        name=name,
        events=len(stream),
        resting_orders=sum(book.orders for book in books),
        levels=sum(book.bid_levels + book.ask_levels for book in books),
        memory_mb=engine.memory_bytes / 1e6,
        ns=ns,
        latency_ns=_latencies(stream, cpp),
        price_levels_us=_call_us(lambda: price_levels(engine, first_instrument, Side.BID, VIEW_DEPTH)),
        resting_orders_us=_call_us(lambda: resting_orders(engine, first_instrument, Side.BID, VIEW_DEPTH)),
    )


def _apply_s(stream: OrderEvents) -> float:
    engine = BookEngine()
    began_s = time.process_time()
    for start in range(0, len(stream), BATCH):
        engine.apply(stream[start : start + BATCH])
    return time.process_time() - began_s


def _top_s(stream: OrderEvents, depth: int) -> float:
    top, out = TopOfBook(BookEngine(), depth), np.empty((OUTPUT_BATCH, depth), LEVEL_PAIR)
    began_s = time.process_time()
    for start in range(0, len(stream), OUTPUT_BATCH):
        top.apply(stream[start : start + OUTPUT_BATCH], out)
    return time.process_time() - began_s


def _json_s(stream: OrderEvents) -> float:
    records = SnapshotRecords(BookEngine(), {}, TOP_LEVELS, every_event=True)
    began_s = time.process_time()
    for start in range(0, len(stream), BATCH):
        records.apply_and_write(stream[start : start + BATCH], len)
    return time.process_time() - began_s


def _single_s(stream: OrderEvents) -> float:
    engine = BookEngine()
    apply = engine.apply_record
    elapsed_s = 0.0
    for start in range(0, len(stream), BATCH):
        records = [event.tobytes() for event in stream[start : start + BATCH]]
        began_s = time.process_time()
        for record in records:
            apply(record)
        elapsed_s += time.process_time() - began_s
    return elapsed_s


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


def _latencies(stream: OrderEvents, cpp: CppBook | None) -> dict[str, dict[str, float]]:
    clock = Clock.calibrated()
    if clock is None:
        return {}
    latencies = {APPLY: clock.percentiles(_ticks(stream))}
    if cpp:
        latencies[CPP] = clock.percentiles(cpp.ticks(stream))
    return latencies


def _ticks(stream: OrderEvents) -> npt.NDArray[np.int64]:
    """What each event took in the engine, in ticks."""
    engine, words = BookEngine(), event_words(stream)
    ticks = np.zeros(len(stream), np.int64)
    applied = 0
    while True:
        applied += kernels.apply_timed(
            engine.memory,
            kernels.address_of(words) + applied * ORDER_EVENT.itemsize,
            len(stream) - applied,
            kernels.address_of(ticks) + applied * ticks.itemsize,
        )
        if applied == len(stream):
            return ticks
        engine.make_room()


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
