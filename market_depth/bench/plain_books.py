"""The yardstick that everybody has: a book as one writes it in plain Python who knows the language."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sortedcontainers import SortedDict

from protocol.events import Action, Side


class PlainBooks:
    """A dict of orders, and for each side a SortedDict from price to the orders there; no classes, a dict as the queue.

    Knows what recorded markets have, except top-of-book publishers.
    """

    def __init__(self) -> None:
        self._orders: dict[tuple[int, int], tuple[Any, int, int]] = {}  # side's levels, price, size
        self._sides: defaultdict[tuple[int, int], Any] = defaultdict(SortedDict)

    def apply(self, action: int, instrument_id: int, order_id: int, side: int, price: int, size: int) -> None:
        """Apply one event."""
        key = instrument_id, order_id
        if action == Action.ADD:
            self._place(self._sides[instrument_id, side], key, price, size)
        elif action == Action.CANCEL:
            known = self._orders.get(key)
            if known is not None:
                levels, price, old_size = known
                if size < old_size:
                    levels[price][key] = old_size - size
                    self._orders[key] = levels, price, old_size - size
                else:
                    self._remove(key)
        elif action == Action.MODIFY:
            known = self._orders.get(key)
            if known is None:
                self._place(self._sides[instrument_id, side], key, price, size)
                return
            levels, old_price, old_size = known
            if price == old_price and size <= old_size:
                levels[price][key] = size
                self._orders[key] = levels, price, size
            else:
                self._remove(key)
                self._place(levels, key, price, size)
        elif action == Action.CLEAR:
            for book_side in (Side.BID, Side.ASK):
                for queue in self._sides.pop((instrument_id, book_side), {}).values():
                    for resting in queue:
                        del self._orders[resting]

    def levels(self, instrument_id: int, side: int, depth: int) -> list[list[int]]:
        """The best levels of one side: price, size, count."""
        levels = self._sides[instrument_id, side]
        prices = levels.keys()[-1 : -depth - 1 : -1] if side == Side.BID else levels.keys()[:depth]
        return [[price, sum(levels[price].values()), len(levels[price])] for price in prices]

    def _place(self, levels: Any, key: tuple[int, int], price: int, size: int) -> None:
        queue = levels.get(price)
        if queue is None:
            queue = levels[price] = {}
        queue[key] = size
        self._orders[key] = levels, price, size

    def _remove(self, key: tuple[int, int]) -> None:
        levels, price, _ = self._orders.pop(key)
        queue = levels[price]
        del queue[key]
        if not queue:
            del levels[price]
