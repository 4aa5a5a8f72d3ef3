"""Order books of every instrument and publisher, rebuilt from order events.

`BookEngine` checks what comes in and owns the memory; the rules of the books are in `kernels.py`, how memory grows and
shrinks in `memory.py`.

An engine belongs to one thread at a time: its kernels release the interpreter's lock, and nothing else guards them.
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from market_depth.book import kernels
from market_depth.book.kernels import Arrays, Int64s, apply_events, apply_one
from market_depth.book.memory import (
    compacted,
    empty_arrays,
    with_larger_arena,
    with_more_books,
    with_more_nodes,
)
from protocol.events import ORDER_EVENT, Action, OrderEvents, order_events

RECORD_BYTES = ORDER_EVENT.itemsize

COMPILED: tuple[Any, ...] = (
    apply_events,
    apply_one,
    kernels.read_levels,
    kernels.read_orders,
    kernels.write_price_levels,
    kernels.move_ids,
    kernels.move_books,
)
"""The kernels that Python calls; they contain the others."""


@dataclass(frozen=True, slots=True)
class BookCounters:
    """What an engine has seen. An event counts as unknown, duplicate or invalid at most once."""

    events: int
    adds: int
    modifies: int
    cancels: int
    clears: int
    trades: int
    fills: int
    nones: int
    unknown_orders: int  # cancels and modifies of orders that do not rest
    duplicate_orders: int  # adds of orders that rest already
    invalid_events: int  # no known action, or no price, size or side where one is needed


@dataclass(frozen=True, slots=True)
class BookState:
    """One book: whose it is, where it stands, and how large it is."""

    instrument_id: int
    publisher_id: int
    sequence: int  # how many events changed it
    ts_event: int  # ns since the epoch, of its last event
    ts_recv: int
    flags: int  # protocol.events.Flag, of its last event
    orders: int
    bid_levels: int
    ask_levels: int


class BookEngine:
    """The books of every (instrument, publisher) that events were applied for.

    `arrays` is the engine's memory, for views to read; `memory` is its address, for them to hand to kernels.
    """

    def __init__(self) -> None:
        self._books_of: dict[int, Int64s] = {}
        self._indexed = 0
        self._call = np.zeros(kernels.CALL_WORDS, np.int64)
        self._call_address = kernels.address_of(self._call)
        row = np.zeros(kernels.EVENT_WORDS, np.int64)
        self._row = (ctypes.c_char * RECORD_BYTES).from_buffer(row.data)
        self._row_call = np.array([0, kernels.address_of(row), 1])
        self._row_call_address = kernels.address_of(self._row_call)
        self._use(empty_arrays())

    def _use(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self._memory_words = kernels.memory_words(arrays)
        self.memory = kernels.address_of(self._memory_words)
        self._call[kernels.CALL_MEMORY] = self._row_call[kernels.CALL_MEMORY] = self.memory

    def apply(self, events: OrderEvents) -> None:
        """Apply a batch of events in their order.

        Raises: TypeError for anything but an array of ORDER_EVENT rows, ValueError for one not one-dimensional.
        """
        if getattr(events, "shape", None) == (1,) and events.dtype == ORDER_EVENT:
            self.apply_record(events.tobytes())
            return
        words = event_words(events)
        address, left = kernels.address_of(words), len(events)
        while left:
            self._call[kernels.CALL_EVENTS], self._call[kernels.CALL_COUNT] = address, left
            applied = apply_events(self._call_address)
            address, left = address + applied * ORDER_EVENT.itemsize, left - applied
            if left:
                self.make_room()

    def apply_record(self, record: bytes) -> None:
        """Apply one event, the bytes of an ORDER_EVENT row: the fastest way for events that come one by one.

        Raises: ValueError when it has another size.
        """
        if len(record) != RECORD_BYTES:
            raise ValueError(f"a record has {RECORD_BYTES} bytes, not {len(record)}")
        # Of all copies this is the one that takes least from Python, half the time of a memoryview's.
        self._row.raw = record
        while not apply_one(self._row_call_address):
            self.make_room()

    def make_room(self) -> None:
        """Enlarge what a kernel that stopped early found too small, or shrink what a clear left mostly unused."""
        if self.arrays.state[kernels.STOP] & kernels.TOO_LARGE:
            self._use(compacted(self.arrays))
        state = self.arrays.state
        if state[kernels.USED] + 2 > len(self.arrays.nodes):
            self._use(with_more_nodes(self.arrays))
        if state[kernels.BOOKS] == len(self.arrays.books):
            self._use(with_more_books(self.arrays))
        arena_needed = state[kernels.ARENA_USED] + 2 * (kernels.PAD + state[kernels.LARGEST_SIDE])
        while arena_needed > len(self.arrays.keys):
            self._use(with_larger_arena(self.arrays))
        self.arrays.state[kernels.STOP] = 0

    @property
    def book_count(self) -> int:
        """How many books there are; their indexes are those below it."""
        return int(self.arrays.state[kernels.BOOKS])

    def instruments(self) -> list[int]:
        """Ids of the instruments that have a book, in the order of their first event."""
        self._index_new_books()
        return list(self._books_of)

    def books(self, instrument_id: int) -> list[int]:
        """Indexes of an instrument's books, one for each publisher, in the order of their first event."""
        return [int(book) for book in self.book_indexes(instrument_id)]

    def book_indexes(self, instrument_id: int) -> Int64s:
        """The same as an array that views hand to kernels. Empty for an instrument without events."""
        self._index_new_books()
        return self._books_of.get(instrument_id, NO_BOOKS)

    def book(self, index: int) -> BookState:
        """The state of one book."""
        if not 0 <= index < self.book_count:
            raise IndexError(f"no book {index}: there are {self.book_count}")
        row = self.arrays.books[index]
        bids, asks = self.arrays.sides[2 * index : 2 * index + 2]
        key = int(row[kernels.BOOK_KEY])
        return BookState(
            instrument_id=key >> 16,
            publisher_id=key & 0xFFFF,
            sequence=int(row[kernels.SEQUENCE]),
            ts_event=int(row[kernels.TS_EVENT].view(np.uint64)),
            ts_recv=int(row[kernels.TS_RECV].view(np.uint64)),
            flags=int(row[kernels.FLAGS]),
            orders=int(bids[kernels.RESTING] + asks[kernels.RESTING]),
            bid_levels=int(bids[kernels.COUNT]),
            ask_levels=int(asks[kernels.COUNT]),
        )

    def sequence(self, instrument_id: int) -> int:
        """How many events changed an instrument's books. Never falls; while it is equal, the books are equal."""
        return int(self.arrays.books[self.book_indexes(instrument_id), kernels.SEQUENCE].sum())

    @property
    def counters(self) -> BookCounters:
        """What was seen so far, over all books."""
        state = self.arrays.state
        seen = state[kernels.SEEN :].tolist()
        adds, modifies, cancels, clears, trades, fills, nones = (
            seen[action - kernels.ACTIONS_FROM]
            for action in (
                Action.ADD,
                Action.MODIFY,
                Action.CANCEL,
                Action.CLEAR,
                Action.TRADE,
                Action.FILL,
                Action.NONE,
            )
        )
        unknown_actions = int(state[kernels.UNKNOWN_ACTIONS])
        return BookCounters(
            events=sum(seen) + unknown_actions,
            adds=adds,
            modifies=modifies,
            cancels=cancels,
            clears=clears,
            trades=trades,
            fills=fills,
            nones=nones,
            unknown_orders=int(state[kernels.UNKNOWN_ORDERS]),
            duplicate_orders=int(state[kernels.DUPLICATE_ORDERS]),
            invalid_events=int(state[kernels.INVALID_EVENTS]) + unknown_actions,
        )

    @property
    def memory_bytes(self) -> int:
        """The size of the engine's arrays. Pages never touched are not resident."""
        return sum(array.nbytes for array in self.arrays) - self.arrays.links.nbytes

    def _index_new_books(self) -> None:
        # When books are asked for, not when events are applied: that happens a million times as often.
        for book in range(self._indexed, self.book_count):
            instrument_id = int(self.arrays.books[book, kernels.BOOK_KEY]) >> 16
            self._books_of[instrument_id] = np.append(self._books_of.get(instrument_id, NO_BOOKS), book)
            self._indexed = book + 1

    @staticmethod
    def warm_up() -> None:
        """Load the kernels from numba's cache, or compile them, which takes some seconds on a first start."""
        engine, events = BookEngine(), order_events(2)
        events["action"] = Action.NONE
        engine.apply(events)
        engine.apply(events[:1])
        sides = np.zeros(1, np.int64)
        kernels.read_levels(engine.memory, sides, np.zeros((1, 3), np.int64))
        kernels.read_orders(engine.memory, sides, np.zeros((1, 4), np.int64))
        text = np.zeros(kernels.MAX_FRAME_ENDS, np.uint8)
        kernels.write_price_levels(0, 0, 0, 0, 0, 1, kernels.address_of(text))
        with_more_books(with_more_nodes(engine.arrays))

    @staticmethod
    def is_compiled() -> bool:
        """Whether numba's cache on disk holds all kernels, made after the last change of their source.

        A reading of file names and times: after an upgrade of numba it may be wrong, and `warm_up` compiles again.
        """
        source = Path(kernels.__file__)
        return all(
            any(
                index.stat().st_mtime >= source.stat().st_mtime
                for index in Path(kernel.stats.cache_path).glob(f"{source.stem}.{kernel.__name__}-*.nbi")
            )
            for kernel in COMPILED
        )


NO_BOOKS: Int64s = np.empty(0, np.int64)


def event_words(events: OrderEvents) -> Int64s:
    """The rows as one run of aligned 64-bit words, copied only if they are not that already.

    Raises: as `BookEngine.apply`.
    """
    if not isinstance(events, np.ndarray) or events.dtype != ORDER_EVENT:
        raise TypeError(f"events must be an array of ORDER_EVENT rows, not {describe(events)}")
    if events.ndim != 1:
        raise ValueError(f"events must have one dimension, not {events.ndim}")
    words = np.ascontiguousarray(events).view(np.int64)
    return words if words.flags.aligned else words.copy()


def describe(value: object) -> str:
    """What a wrong argument is, for an error's text."""
    return f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
