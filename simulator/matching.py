"""A venue's book: plain price-time matching, written to be read.

Best price first, and within a price the order that came first. This book shares no code with the compiled engine
that rebuilds depth from events, so each can prove the other right.
"""

from itertools import islice
from typing import NamedTuple

from sortedcontainers import SortedDict

from protocol.events import Side
from simulator.errors import EmptySideError, OrderRejectedError

# On Python 3.11 looking a member up in its enumeration costs more than the comparison it is needed for.
_BID = Side.BID


class Order:
    """A resting order. `ts_event` is when it took its present place in the queue, in ns since the epoch."""

    __slots__ = ("order_id", "price", "side", "size", "ts_event")

    def __init__(self, order_id: int, side: Side, price: int, size: int, ts_event: int) -> None:
        self.order_id = order_id
        self.side = side
        self.price = price
        self.size = size
        self.ts_event = ts_event

    def __repr__(self) -> str:
        return f"Order({self.order_id}, {self.side.name}, price={self.price}, size={self.size}, ts_event={self.ts_event})"


class PriceLevel:
    """All orders at one price, in queue order, and their total size."""

    __slots__ = ("orders", "size")

    def __init__(self) -> None:
        self.orders: dict[int, Order] = {}  # a dict keeps the order of arrival: the queue
        self.size = 0


class Fill(NamedTuple):
    """What one resting order gave to a marketable one: `size` lots at its price, `left` lots of it still rest."""

    order: Order
    size: int
    left: int


class MatchingBook:
    """The resting orders of one instrument under price-time priority; never crossed, never locked.

    A price change or a larger size loses the place in the queue, a smaller size keeps it. Prices are integers of
    1e-9, sizes are lots. Instructions that would break the book raise OrderRejectedError and change nothing.
    """

    def __init__(self) -> None:
        self._bids: SortedDict[int, PriceLevel] = SortedDict()
        self._asks: SortedDict[int, PriceLevel] = SortedDict()
        self._orders: dict[int, Order] = {}
        # Every event asks for the best prices; keeping them halves the cost of an event against looking them up.
        self._best_bid: int | None = None
        self._best_ask: int | None = None

    def __len__(self) -> int:
        return len(self._orders)

    def __contains__(self, order_id: int) -> bool:
        return order_id in self._orders

    @property
    def best_bid(self) -> int | None:
        """The highest price somebody pays, or None when there is no bid."""
        return self._best_bid

    @property
    def best_ask(self) -> int | None:
        """The lowest price somebody sells at, or None when there is no ask."""
        return self._best_ask

    def best(self, side: Side) -> int:
        """The best price of one side. Raises: EmptySideError when it has no orders."""
        price = self._best_bid if side is _BID else self._best_ask
        if price is None:
            raise EmptySideError(side)
        return price

    def order(self, order_id: int) -> Order:
        """The resting order of that id. Raises: OrderRejectedError when none rests."""
        try:
            return self._orders[order_id]
        except KeyError:
            raise OrderRejectedError(order_id, "not in the book") from None

    def level_count(self, side: Side) -> int:
        """How many prices have orders on one side."""
        return len(self._bids if side is _BID else self._asks)

    def size_at(self, side: Side, price: int) -> int:
        """The lots resting at a price, 0 where nothing rests."""
        level = (self._bids if side is _BID else self._asks).get(price)
        return level.size if level else 0

    def levels(self, side: Side, depth: int | None = None) -> list[tuple[int, int, int]]:
        """(price, size, count of orders) of the best `depth` levels of one side, or of all; best first."""
        return [(price, level.size, len(level.orders)) for price, level in self._best_levels(side, depth)]

    def orders(self, side: Side, depth: int | None = None) -> list[Order]:
        """The orders of the best `depth` levels of one side, or of all: best price first, then in queue order."""
        return [order for _, level in self._best_levels(side, depth) for order in level.orders.values()]

    def add(self, order_id: int, side: Side, price: int, size: int, ts_event: int) -> Order:
        """Rest a new order at the end of the queue of its price, and return it.

        Raises: OrderRejectedError for a known id, an empty size, or a price that would match: use `match` first.
        """
        if order_id in self._orders:
            raise OrderRejectedError(order_id, "already in the book")
        if size <= 0:
            raise OrderRejectedError(order_id, f"size {size} is not positive")
        if self._would_match(side, price):
            raise OrderRejectedError(order_id, f"price {price} would match the other side")
        order = Order(order_id, side, price, size, ts_event)
        self._orders[order_id] = order
        self._enqueue(order)
        return order

    def modify(self, order_id: int, price: int, size: int, ts_event: int) -> Order:
        """Give an order a new price or size by the rules of priority, and return it.

        Raises: OrderRejectedError for an unknown id, an empty size, or a price that would match.
        """
        order = self.order(order_id)
        if size <= 0:
            raise OrderRejectedError(order_id, f"size {size} is not positive")
        if price == order.price and size <= order.size:
            level = (self._bids if order.side is _BID else self._asks)[price]
            level.size -= order.size - size
            order.size = size
            return order
        if self._would_match(order.side, price):
            raise OrderRejectedError(order_id, f"price {price} would match the other side")
        self._dequeue(order)
        order.price = price
        order.size = size
        order.ts_event = ts_event
        self._enqueue(order)
        return order

    def cancel(self, order_id: int) -> Order:
        """Take an order out of the book and return it as it last was. Raises: OrderRejectedError for an unknown id."""
        order = self.order(order_id)
        del self._orders[order_id]
        self._dequeue(order)
        return order

    def match(self, aggressor: Side, size: int, limit_price: int) -> list[Fill]:
        """Fill `size` lots against the other side, no worse than `limit_price`: best price first, then first come.

        Returns the fills in the order they happened; when they add up to less than `size`, nothing at or within
        the limit is left. The caller decides whether the remainder rests.
        """
        fills: list[Fill] = []
        resting = self._asks if aggressor is _BID else self._bids
        best = 0 if aggressor is _BID else -1
        while size > 0 and resting:
            price, level = resting.peekitem(best)
            if price > limit_price if aggressor is _BID else price < limit_price:
                break
            order = next(iter(level.orders.values()))
            traded = min(size, order.size)
            size -= traded
            if traded == order.size:
                del self._orders[order.order_id]
                self._dequeue(order)
                fills.append(Fill(order, traded, 0))
            else:
                order.size -= traded
                level.size -= traded
                fills.append(Fill(order, traded, order.size))
        return fills

    def _would_match(self, side: Side, price: int) -> bool:
        if side is _BID:
            return self._best_ask is not None and price >= self._best_ask
        return self._best_bid is not None and price <= self._best_bid

    def _best_levels(self, side: Side, depth: int | None) -> list[tuple[int, PriceLevel]]:
        levels = self._bids if side is _BID else self._asks
        best_first = reversed(levels.items()) if side is _BID else iter(levels.items())
        return list(islice(best_first, depth))

    def _enqueue(self, order: Order) -> None:
        price = order.price
        if order.side is _BID:
            level = self._bids.get(price)
            if level is None:
                level = self._bids[price] = PriceLevel()
                if self._best_bid is None or price > self._best_bid:
                    self._best_bid = price
        else:
            level = self._asks.get(price)
            if level is None:
                level = self._asks[price] = PriceLevel()
                if self._best_ask is None or price < self._best_ask:
                    self._best_ask = price
        level.orders[order.order_id] = order
        level.size += order.size

    def _dequeue(self, order: Order) -> None:
        price = order.price
        if order.side is _BID:
            level = self._bids[price]
            del level.orders[order.order_id]
            level.size -= order.size
            if not level.orders:
                del self._bids[price]
                if price == self._best_bid:
                    self._best_bid = self._bids.keys()[-1] if self._bids else None
        else:
            level = self._asks[price]
            del level.orders[order.order_id]
            level.size -= order.size
            if not level.orders:
                del self._asks[price]
                if price == self._best_ask:
                    self._best_ask = self._asks.keys()[0] if self._asks else None
