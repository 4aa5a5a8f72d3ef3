"""Snapshot records: one line of JSON for each change of a book's best levels.

    {"symbol":"CLX5","publisher_id":1,"timestamp":"1758742200000860000","timestamp_ns":1758742200000860000,
     "bbo":{"bid":{"price":"64780000000","size":3,"count":1},"ask":null},
     "levels":{"bids":[{"price":"64780000000","size":3,"count":1}],"asks":[]},
     "stats":{"total_orders":1,"bid_levels":1,"ask_levels":0}}

Each publisher of an instrument has a book and records of its own, told apart by `publisher_id`. Prices are integers of
1e-9 as text, sizes are lots, the time is the `ts_event` of the record that completed the change; `stats` counts the
whole book, of which `levels` shows the best.

A book is read where an event ends, at a record with the flag LAST, and gives a line if its best levels are not those
of its line before. Until a book's first LAST every record ends an event (some sources never set the flag), except those
of a snapshot.

The kernel writes the lines while it applies the events: each level's text is kept, and only what changed is made anew.
"""

import json
from collections.abc import Callable, Mapping

import numpy as np

from market_depth.book import kernels
from market_depth.book.engine import BookEngine, event_words
from market_depth.book.kernels import Bytes, Int64s, RecordArrays
from protocol.events import ORDER_EVENT, OrderEvents

TEXT_BYTES = 1 << 18
"""Of records before they are handed from the kernel to Python: what a core's own cache holds."""

FIRST_HEAD_BYTES = 128
HEAD_STEP_BYTES = 32
"""Heads are copied in steps of so many bytes."""


class SnapshotRecords:
    """Applies events to an engine and tells, as NDJSON, each change of the best `levels` levels of a side.

    An engine has one of them at a time. Books that were there before, or changed past it, are told whole, each after its
    next event.
    """

    def __init__(
        self, engine: BookEngine, symbols: Mapping[int, str], levels: int, *, every_event: bool = False
    ) -> None:
        """`symbols` maps instrument ids; an instrument without a symbol goes by its id.

        With `every_event` each event is told, also one that left the best levels as they were.

        Raises: ValueError when `levels` is less than one.
        """
        if levels < 1:
            raise ValueError(f"a record has at least one level, not {levels}")
        self._engine = engine
        self._symbols = symbols
        self._headed = 0
        self._use(empty_arrays(len(engine.arrays.books), levels))
        self._arrays.state[kernels.EVERY_EVENT] = every_event
        engine.arrays.state[kernels.UNTOLD] = 1

    def apply(self, events: OrderEvents) -> bytes:
        """Apply a batch to the engine. Returns the records that it led to, each with a line break behind it.

        Raises: as `BookEngine.apply`.
        """
        texts: list[bytes] = []
        self.apply_and_write(events, lambda text: texts.append(bytes(text)))
        return b"".join(texts)

    def apply_and_write(self, events: OrderEvents, write: Callable[[memoryview], object]) -> None:
        """Apply a batch, handing its records over as they are made: some at a time, valid while `write` runs.

        That saves two copies, which take as long as making the records. Raises: as `BookEngine.apply`.
        """
        words = event_words(events)
        address, left = kernels.address_of(words), len(events)
        # The kernel stops for every few hundred records. Of its state Python reads a view, which takes a third of asking
        # the array: with the arrays, a seventh of all time went into these lines.
        state = self._arrays.state.data
        self._make_room()
        while True:
            applied = kernels.apply_and_record(self._engine.memory, self._address, address, left)
            address, left = address + applied * ORDER_EVENT.itemsize, left - applied
            written, due = state[kernels.WRITTEN], state[kernels.DUE]
            if written:
                write(self._text[:written])
                state[kernels.WRITTEN] = 0
            if due < 0 and not left:
                return
            if due < 0:
                self._engine.make_room()
            if due < 0 or not written:  # else there was only no more room for text
                self._make_room()

    def _make_room(self) -> None:
        """Follow the engine: with places for as many books as it has, and heads for those that have come."""
        places = len(self._engine.arrays.books)
        if places > len(self._arrays.books):
            self._use(with_places(self._arrays, places))
        for book in range(self._headed, self._engine.book_count):
            head = self._head(book)
            if len(head) > self._arrays.heads.shape[1]:
                self._use(with_longer_heads(self._arrays, len(head)))
            self._arrays.heads[book, : len(head)] = np.frombuffer(head, np.uint8)
            self._arrays.books[book, kernels.HEAD_LENGTH] = len(head)
        self._headed = self._engine.book_count

    def _head(self, book: int) -> bytes:
        state = self._engine.book(book)
        symbol = self._symbols.get(state.instrument_id, str(state.instrument_id))
        text = json.dumps(symbol, ensure_ascii=False)
        return f'{{"symbol":{text},"publisher_id":{state.publisher_id},"timestamp":"'.encode()

    def _use(self, arrays: RecordArrays) -> None:
        self._arrays = arrays
        self._words = kernels.record_words(arrays)
        self._address = kernels.address_of(self._words)
        self._text = arrays.text.data


def empty_arrays(places: int, levels: int) -> RecordArrays:
    """Nothing told yet, of as many books."""
    state = np.zeros(kernels.RECORD_STATE_WORDS, np.int64)
    state[kernels.DUE] = -1
    return RecordArrays(
        state=state,
        books=untold_books(places),
        heads=np.zeros((places, FIRST_HEAD_BYTES), np.uint8),
        sides=untouched_sides(2 * places),
        rows=np.zeros((2 * places, levels, kernels.ROW_WORDS), np.int64),
        text=text_for(FIRST_HEAD_BYTES, levels),
    )


def untold_books(count: int) -> Int64s:
    """So many books, of which nothing was told and nothing is known."""
    books = np.zeros((count, kernels.RECORD_BOOK_WORDS), np.int64)
    books[:, kernels.TAIL_BIDS] = books[:, kernels.TAIL_ASKS] = kernels.NOT_TOLD
    return books


def untouched_sides(count: int) -> Int64s:
    """So many sides, of which nothing was told and nothing has changed."""
    sides = np.zeros((count, kernels.RECORD_SIDE_WORDS), np.int64)
    sides[:, kernels.BEST_TOUCHED] = kernels.NO_KEY
    sides[:, kernels.WORST_TOUCHED] = kernels.ABOVE_KEYS
    return sides


def with_places(arrays: RecordArrays, places: int) -> RecordArrays:
    """The same with places for more books."""
    more = empty_arrays(places - len(arrays.books), arrays.rows.shape[1])
    heads = np.zeros((places, arrays.heads.shape[1]), np.uint8)
    heads[: len(arrays.heads)] = arrays.heads
    return arrays._replace(
        books=np.concatenate([arrays.books, more.books]),
        heads=heads,
        sides=np.concatenate([arrays.sides, more.sides]),
        rows=np.concatenate([arrays.rows, more.rows]),
    )


def with_longer_heads(arrays: RecordArrays, length: int) -> RecordArrays:
    """The same with room for heads of a length."""
    size = -(-length // HEAD_STEP_BYTES) * HEAD_STEP_BYTES
    heads = np.zeros((len(arrays.heads), size), np.uint8)
    heads[:, : arrays.heads.shape[1]] = arrays.heads
    return arrays._replace(heads=heads, text=text_for(size, arrays.rows.shape[1]))


def text_for(head_size: int, levels: int) -> Bytes:
    """Room for many records, or for two that are long."""
    return np.zeros(max(TEXT_BYTES, 2 * kernels.longest_record(head_size, levels)), np.uint8)
