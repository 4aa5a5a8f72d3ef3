"""A recorded file's books, rebuilt as fast as the file can be read.

    file ──► read ahead ──► engine ──► statistics
                              └──────► output, a record of each change of a book's best levels

A compressed or long file is read ahead in a thread of its own, a short one needs none.
Plain synchronous code for commands and worker threads. Memory does not grow with the file: a few chunks, the books.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from market_depth.book.engine import BookEngine
from market_depth.book.records import SnapshotRecords
from market_depth.feeds.base import FeedError
from market_depth.feeds.dbn import DbnFile
from market_depth.feeds.read_ahead import CHUNKS_IN_USE, ReadAhead
from market_depth.rebuild.errors import CancelledError, IncompleteError
from market_depth.rebuild.output import OutputFile
from market_depth.rebuild.statistics import ApplyTimes, Statistics, final_books
from protocol.events import order_events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from protocol.events import OrderEvents
    from protocol.instrument import Instrument

MAX_LEVELS = 1000
"""As many as a subscriber can have."""

SOON_READ_BYTES = 4 * 1024 * 1024
"""So much is copied from memory in less than a millisecond: to wait for a thread, on a busy machine, takes longer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file was rebuilt."""

    bytes_read: int
    bytes: int
    records: int


def rebuild(
    path: Path,
    *,
    levels: int = 10,
    output: Path | None = None,
    limit: int | None = None,
    progress: Callable[[Progress], None] = lambda _progress: None,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Statistics:
    """The statistics of a DBN file, `.dbn` or `.dbn.zst`, after all its order events.

    `output`: where to write a snapshot record (`market_depth.book.records`) for each change of the best `levels` levels
    of a book, as NDJSON, compressed if the name ends in `.zst`; a file of that name is replaced when all is written.
    `limit`: the first so many order events only. After each of the file's chunks (16,384 records) `progress` is told, and
    `is_cancelled` asked whether to go on: both in the caller's thread, for whoever lets one of its own do this.

    Raises: FeedError when nothing could be read, IncompleteError where the file is damaged, OutputError,
    CancelledError; ValueError for levels or a limit out of bounds.
    """
    if not 1 <= levels <= MAX_LEVELS:
        raise ValueError(f"levels must be 1 to {MAX_LEVELS}, not {levels}")
    if limit is not None and limit < 1:
        raise ValueError(f"a limit must be 1 or more, not {limit}")
    started = time.perf_counter()
    file = DbnFile(path, late_instruments=True)
    is_read_ahead = file.is_compressed or file.size_bytes > SOON_READ_BYTES
    file.use_memory_again(CHUNKS_IN_USE if is_read_ahead else 1)
    damage = None
    with closing(ReadAhead(file) if is_read_ahead else file) as recording:
        # Once the file is known to be good: on a first start it takes seconds. It is no time of the rebuild.
        started += load_kernels(output is not None)
        books = Books(file, levels)
        left_out = 0  # behind the limit, of the records read
        with ExitStack() as stack:
            written = output and stack.enter_context(OutputFile(output, source=path))
            try:
                while books.events != limit and len(chunk := recording.read()):
                    events = chunk[: None if limit is None else limit - books.events]
                    if written:
                        books.apply_and_write(events, written.write)
                    else:
                        books.apply(events)
                    left_out = len(chunk) - len(events)
                    records = recording.place().records - left_out
                    progress(Progress(recording.bytes_read, recording.size_bytes, records))
                    if is_cancelled():
                        raise CancelledError
            except FeedError as error:
                damage = error
        wall_s = time.perf_counter() - started
        statistics = books.statistics(recording.place().records - left_out, wall_s)
    if damage:
        raise IncompleteError(damage, statistics) from damage
    return statistics


def load_kernels(with_records: bool) -> float:
    """Load what every file needs, with or without an output. Returns: how many seconds that took."""
    started = time.perf_counter()
    engine, events = BookEngine(), order_events(2)  # a single one would take another kernel
    # Not the engine's own warm-up: on a first start that compiles for half a second more what may not be needed.
    if with_records:
        SnapshotRecords(engine, {}, 1).apply(events)
    else:
        engine.apply(events)
    return time.perf_counter() - started


class Books:
    """The books of a file's instruments."""

    def __init__(self, file: DbnFile, levels: int) -> None:
        self._file = file
        self._engine = BookEngine()
        self._times = ApplyTimes()
        self._levels = levels
        self._symbols: dict[int, str] = {}
        self._records: SnapshotRecords | None = None
        self._named = 0  # how many books there were when their instruments were last looked at
        self.events = 0
        """How many were applied."""

    def apply(self, events: OrderEvents) -> None:
        """Apply a batch of events."""
        started = time.perf_counter_ns()
        self._engine.apply(events)
        self._count(events, time.perf_counter_ns() - started)
        if self._engine.book_count > self._named:
            self._file.name_late(events)
            self._named = self._engine.book_count

    def apply_and_write(self, events: OrderEvents, write: Callable[[memoryview], None]) -> None:
        """Apply a batch of events and hand over the records that they lead to, some at a time."""
        if self._records is None:
            self._symbols |= symbols_of(self._file.instruments)
            self._records = SnapshotRecords(self._engine, self._symbols, self._levels)
        self._symbols |= symbols_of(self._file.name_late(events))
        writing_ns = 0

        def timed(text: memoryview) -> None:
            nonlocal writing_ns
            started = time.perf_counter_ns()
            write(text)
            writing_ns += time.perf_counter_ns() - started

        started = time.perf_counter_ns()
        self._records.apply_and_write(events, timed)
        self._count(events, time.perf_counter_ns() - started - writing_ns)

    def _count(self, events: OrderEvents, ns: int) -> None:
        self._times.add(len(events), ns)
        self.events += len(events)

    def statistics(self, records: int, wall_s: float) -> Statistics:
        """What is told of the file now that `records` were read in `wall_s` seconds."""
        return Statistics(
            file=self._file.name,
            bytes=self._file.size_bytes,
            records=records,
            orders_processed=self.events,
            unknown_orders=self._engine.counters.unknown_orders,
            wall_s=wall_s,
            throughput_per_s=records / wall_s,
            apply_mean_ns=self._times.mean_ns,
            apply_p99_ns=self._times.percentile_ns(99),
            books=final_books(self._engine, self._file.instruments),
        )


def symbols_of(instruments: Iterable[Instrument]) -> dict[int, str]:
    """Symbols by instrument id."""
    return {instrument.instrument_id: instrument.symbol for instrument in instruments}
