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
"""

import json
from collections.abc import Mapping

import numpy as np

from market_depth.book import kernels
from market_depth.book.engine import BookEngine
from protocol.events import Flag, OrderEvents, Side

Levels = list[list[int]]


class SnapshotRecords:
    """Applies events to an engine and tells, as NDJSON, each change of the best `levels` levels of a side."""

    def __init__(self, engine: BookEngine, symbols: Mapping[int, str], levels: int) -> None:
        """`symbols` maps instrument ids; an instrument without a symbol goes by its id.

        Raises: ValueError when `levels` is less than one.
        """
        if levels < 1:
            raise ValueError(f"a record has at least one level, not {levels}")
        self._engine = engine
        self._symbols = symbols
        self._levels = levels
        self._last: dict[int, tuple[Levels, Levels]] = {}
        self._ends_are_flagged: set[int] = set()

    def apply(self, events: OrderEvents) -> bytes:
        """Apply a batch to the engine. Returns the records that it led to, each with a line break behind it."""
        lines: list[str] = []
        for row in range(len(events)):
            event = events[row : row + 1]
            self._engine.apply(event)
            index = self._book_of(int(event["instrument_id"][0]), int(event["publisher_id"][0]))
            if index is not None and self._is_end(index, int(event["flags"][0])):
                lines.append(self._line_if_changed(index))
        return "".join(lines).encode()

    def _book_of(self, instrument_id: int, publisher_id: int) -> int | None:
        for index in self._engine.books(instrument_id):
            if self._engine.book(index).publisher_id == publisher_id:
                return index
        return None

    def _is_end(self, index: int, flags: int) -> bool:
        if flags & Flag.LAST:
            self._ends_are_flagged.add(index)
            return True
        return index not in self._ends_are_flagged and not flags & Flag.SNAPSHOT

    def _line_if_changed(self, index: int) -> str:
        bids, asks = (self._best(2 * index + (side == Side.ASK)) for side in (Side.BID, Side.ASK))
        if self._last.get(index, ([], [])) == (bids, asks):
            return ""
        self._last[index] = bids, asks
        book = self._engine.book(index)
        symbol = self._symbols.get(book.instrument_id, str(book.instrument_id))
        bid_texts, ask_texts = [level_text(*level) for level in bids], [level_text(*level) for level in asks]
        return (
            f'{{"symbol":{json.dumps(symbol, ensure_ascii=False)},"publisher_id":{book.publisher_id},'
            f'"timestamp":"{book.ts_event}","timestamp_ns":{book.ts_event},'
            f'"bbo":{{"bid":{bid_texts[0] if bids else "null"},"ask":{ask_texts[0] if asks else "null"}}},'
            f'"levels":{{"bids":[{",".join(bid_texts)}],"asks":[{",".join(ask_texts)}]}},'
            f'"stats":{{"total_orders":{book.orders},"bid_levels":{book.bid_levels},"ask_levels":{book.ask_levels}}}}}\n'
        )

    def _best(self, side: int) -> Levels:
        levels = np.empty((self._levels, 3), np.int64)
        found = kernels.read_levels(self._engine.memory, np.array([side]), levels)
        best: Levels = levels[:found].tolist()
        return best


def level_text(price: int, size: int, count: int) -> str:
    """A price level as JSON."""
    return f'{{"price":"{price}","size":{size},"count":{count}}}'
