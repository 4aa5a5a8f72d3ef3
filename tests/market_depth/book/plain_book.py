"""The rules of the books in plain Python: what the compiled engine must agree with after every event.

A side is a dict from price to queue, a queue is a list of orders, front first. Nothing is fast and nothing is clever.
"""

from collections import Counter
from dataclasses import dataclass, field

from protocol.events import UNDEF_PRICE, Action, Flag, OrderEvents, Side

Level = tuple[int, int, int]
"""Price, size, count."""

QueuedOrder = tuple[int, int, int, int]
"""Order id, price, size, ts_event."""


@dataclass(eq=False)
class Order:
    # Compared by identity: two orders may look the same and still have different places.
    order_id: int
    price: int
    size: int
    side: int
    placed: int
    has_id: bool = True


@dataclass
class PlainBook:
    """One publisher's book of one instrument."""

    sides: dict[int, dict[int, list[Order]]] = field(default_factory=lambda: {Side.BID: {}, Side.ASK: {}})
    orders: dict[int, Order] = field(default_factory=dict)
    sequence: int = 0
    ts_event: int = 0
    ts_recv: int = 0
    flags: int = 0

    def place(self, order: Order) -> None:
        self.sides[order.side].setdefault(order.price, []).append(order)
        if order.has_id:
            self.orders[order.order_id] = order

    def remove(self, order: Order) -> None:
        queue = self.sides[order.side][order.price]
        queue.remove(order)
        if not queue:
            del self.sides[order.side][order.price]
        if order.has_id:
            del self.orders[order.order_id]

    def clear_side(self, side: int) -> bool:
        resting = [order for queue in self.sides[side].values() for order in queue]
        for order in resting:
            self.remove(order)
        return bool(resting)

    def prices(self, side: int) -> list[int]:
        return sorted(self.sides[side], reverse=side == Side.BID)


class PlainBooks:
    """The books of every (instrument, publisher), and what was counted on the way."""

    def __init__(self) -> None:
        self.books: dict[tuple[int, int], PlainBook] = {}
        self.actions: Counter[int] = Counter()
        self.unknown_orders = 0
        self.duplicate_orders = 0
        self.invalid_events = 0

    def apply(self, events: OrderEvents) -> None:
        names = events.dtype.names
        assert names is not None
        for row in events.tolist():
            self.apply_one(dict(zip(names, row, strict=True)))

    def apply_one(self, event: dict[str, int]) -> None:
        self.actions[event["action"]] += 1
        if event["action"] not in list(Action):
            self.invalid_events += 1
            return
        book = self.books.setdefault((event["instrument_id"], event["publisher_id"]), PlainBook())
        changed = False
        match event["action"]:
            case Action.ADD:
                changed = self.add(book, event)
            case Action.CANCEL:
                changed = self.cancel(book, event)
            case Action.MODIFY:
                changed = self.modify(book, event)
            case Action.CLEAR:
                cleared = [book.clear_side(side) for side in (Side.BID, Side.ASK)]
                changed = any(cleared)
        book.sequence += changed
        book.ts_event, book.ts_recv, book.flags = event["ts_event"], event["ts_recv"], event["flags"]

    def add(self, book: PlainBook, event: dict[str, int]) -> bool:
        if not names_side(event):
            self.invalid_events += 1
            return False
        if event["flags"] & Flag.TOB:
            emptied = book.clear_side(event["side"])
            if rests(event):
                book.place(order_from(event, has_id=False))
            return emptied or rests(event)
        if not rests(event):
            self.invalid_events += 1
            return False
        if event["order_id"] in book.orders:
            self.duplicate_orders += 1
            book.remove(book.orders[event["order_id"]])
        book.place(order_from(event))
        return True

    def cancel(self, book: PlainBook, event: dict[str, int]) -> bool:
        order = book.orders.get(event["order_id"])
        if order is None:
            self.unknown_orders += 1
            return False
        if event["size"] == 0:
            self.invalid_events += 1
            return False
        if event["size"] < order.size:
            order.size -= event["size"]
        else:
            book.remove(order)
        return True

    def modify(self, book: PlainBook, event: dict[str, int]) -> bool:
        order = book.orders.get(event["order_id"])
        if order is None:
            self.unknown_orders += 1
            if names_side(event) and rests(event):
                book.place(order_from(event))
                return True
            return False
        if event["side"] == Side.NONE:
            event = {**event, "side": order.side}
        if not names_side(event):
            self.invalid_events += 1
            return False
        if not rests(event):
            book.remove(order)
            return True
        if (event["side"], event["price"]) == (order.side, order.price) and event["size"] <= order.size:
            changed = event["size"] < order.size
            order.size = event["size"]
            return changed
        book.remove(order)
        book.place(order_from(event))
        return True

    def levels(self, instrument_id: int, side: int) -> list[Level]:
        """All price levels of an instrument over its publishers, best first."""
        totals: dict[int, tuple[int, int]] = {}
        for book in self.books_of(instrument_id):
            for price, queue in book.sides[side].items():
                size, count = totals.get(price, (0, 0))
                totals[price] = size + sum(order.size for order in queue), count + len(queue)
        return [(price, *totals[price]) for price in sorted(totals, reverse=side == Side.BID)]

    def queue(self, instrument_id: int, side: int) -> list[QueuedOrder]:
        """All orders of an instrument, best price first, at a price publisher after publisher."""
        return [
            (order.order_id, order.price, order.size, order.placed)
            for price, _, _ in self.levels(instrument_id, side)
            for book in self.books_of(instrument_id)
            for order in book.sides[side].get(price, [])
        ]

    def books_of(self, instrument_id: int) -> list[PlainBook]:
        return [book for (instrument, _), book in self.books.items() if instrument == instrument_id]


def rests(event: dict[str, int]) -> bool:
    return event["size"] > 0 and event["price"] not in (UNDEF_PRICE, -(2**63))


def names_side(event: dict[str, int]) -> bool:
    return event["side"] in (Side.BID, Side.ASK)


def order_from(event: dict[str, int], *, has_id: bool = True) -> Order:
    return Order(event["order_id"], event["price"], event["size"], event["side"], event["ts_event"], has_id)
