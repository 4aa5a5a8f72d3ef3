"""The frames of one book as order events: a snapshot of the first, then the net changes from each to the next.

Whoever applies the events has, after those of each frame, exactly the book of this frame: the same orders with the same
prices and sizes, in the same queues and with the same times. What happened between two frames and left no trace is not
in them: an order that came and went, or the trades. An order's number is its id, if that is one in decimal digits; for
any other text it is a hash of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

import numpy as np

from market_depth.record.frame_instrument import scaled
from protocol.events import UNDEF_PRICE, Action, Flag, OrderEvents, Side, order_events
from protocol.instrument import Instrument
from protocol.messages import MarketData, RestingOrder, RestingOrders
from protocol.timestamp import timestamp_ns

MAX_SIZE = 2**32 - 1
MAX_ORDER_ID = 2**64 - 1

SEQUENCES = 2**32
"""DBN has 32 bits for a sequence: the frames' is cut to them."""

SIDES = {"Bid": Side.BID, "Ask": Side.ASK}


class FrameError(Exception):
    """A frame cannot be told in order events: the text says why."""


class FrameChanges:
    """The order events of one instrument. Give it its frames one after the other."""

    def __init__(self, instrument: Instrument) -> None:
        self._instrument = instrument
        self._book: _Book | None = None

    def restart(self) -> None:
        """Have the next frame told as a snapshot: nobody knows what happened before it."""
        self._book = None

    def take(self, frame: MarketData) -> OrderEvents:
        """What leads to this frame: one event, or none if nothing changed. Raises: FrameError; then nothing is taken."""
        book = _book_of(frame, self._instrument)
        now_ns = _ns(frame.timestamp)
        is_first = self._book is None
        changes = _snapshot(book) if self._book is None else _changes(self._book, book)
        events = _events(list(changes), now_ns)
        events["instrument_id"] = self._instrument.instrument_id
        events["ts_recv"] = now_ns
        events["sequence"] = frame.sequence % SEQUENCES
        events["flags"] = Flag.SNAPSHOT if is_first else 0
        events["flags"][-1:] |= np.uint8(Flag.LAST)
        self._book = book
        return events


class _Order(NamedTuple):
    side: Side
    price: int  # 1e-9
    size: int  # lots
    timestamp: str  # RFC 3339: when it took its place in the queue


class _Book(NamedTuple):
    orders: dict[int, _Order]
    queues: dict[tuple[Side, int], list[int]]  # by side and price, the numbers of its orders


class _Change(NamedTuple):
    action: Action
    number: int
    order: _Order | None  # None in a Clear
    timestamp: str | None  # None for the frame's own


def _book_of(frame: MarketData, instrument: Instrument) -> _Book:
    if not isinstance(frame.data, RestingOrders):
        raise FrameError("the frame is not by order")
    orders: dict[int, _Order] = {}
    queues: dict[tuple[Side, int], list[int]] = {}
    prices: dict[Decimal, int] = {}  # the orders of a level share theirs
    times_seen: Counter[str] = Counter()
    for shown in chain(frame.data.bids, frame.data.asks):
        price = prices.get(shown.price)
        if price is None:
            price = prices[shown.price] = _price(shown)
        number = order_number(shown.order_id, times_seen[shown.order_id])
        times_seen[shown.order_id] += 1
        side = SIDES[shown.side]
        orders[number] = _Order(side, price, _size(shown, instrument), shown.timestamp)
        queues.setdefault((side, price), []).append(number)
    if len(orders) < times_seen.total():
        raise FrameError("two of its order ids cannot be told apart")
    return _Book(orders, queues)


def order_number(order_id: str, times_seen: int = 0) -> int:
    """The number of an order with this id; of one that shares it with so many before it in the frame.

    Publishers shown as one market may use the same ids.
    """
    number = int(order_id) if order_id.isascii() and order_id.isdecimal() and len(order_id) <= 20 else None
    if number is not None and number <= MAX_ORDER_ID and str(number) == order_id and not times_seen:
        return number
    digest = blake2b(f"{times_seen} {order_id}".encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _price(shown: RestingOrder) -> int:
    price = scaled(shown.price)
    if price is None:
        raise FrameError(f"the price {shown.price} cannot be held in DBN")
    return price


def _size(shown: RestingOrder, instrument: Instrument) -> int:
    size, rest = divmod(scaled(shown.quantity) or 0, instrument.lot_size)
    if rest or not 0 < size <= MAX_SIZE:
        lot = instrument.quantity_text(1)
        raise FrameError(f"the quantity {shown.quantity} is not 1 to {MAX_SIZE:,} lots of {lot}")
    return size


def _snapshot(book: _Book) -> Iterator[_Change]:
    yield _Change(Action.CLEAR, 0, None, None)
    for number, order in book.orders.items():
        yield _Change(Action.ADD, number, order, order.timestamp)


def _changes(before: _Book, after: _Book) -> Iterator[_Change]:
    """What leads from one book to the other, where an order joins a queue at its end."""
    staying = {
        number
        for place, queue in after.queues.items()
        for number in _staying(before.queues.get(place, ()), queue, before.orders, after.orders)
    }
    moving: set[int] = set()
    for number, order in before.orders.items():
        if number in staying:
            continue
        if _can_move(order, after.orders.get(number)):
            moving.add(number)
        else:
            yield _Change(Action.CANCEL, number, order, None)
    for number, order in after.orders.items():
        if number in staying:
            if order.size < before.orders[number].size:
                yield _Change(Action.MODIFY, number, order, None)
        else:
            yield _Change(Action.MODIFY if number in moving else Action.ADD, number, order, order.timestamp)


def _staying(
    old_queue: Iterable[int], queue: Iterable[int], before: dict[int, _Order], after: dict[int, _Order]
) -> Iterator[int]:
    """The orders at the front of a queue that kept their places in it; all behind them have joined it since."""
    rest = iter(old_queue)
    for number in queue:
        if number not in rest:  # goes on in `rest` until it is found
            return
        old, new = before[number], after[number]
        if new.size > old.size or new.timestamp != old.timestamp:
            return
        yield number


def _can_move(old: _Order, new: _Order | None) -> bool:
    """Whether a Modify sends an order to the end of its new queue: any other leaves it where it stands."""
    return new is not None and new.side is old.side and (new.price != old.price or new.size > old.size)


def _events(changes: list[_Change], now_ns: int) -> OrderEvents:
    events = order_events(len(changes))
    orders = [change.order for change in changes]
    events["action"] = [change.action for change in changes]
    events["order_id"] = np.array([change.number for change in changes], np.uint64)
    events["price"] = [UNDEF_PRICE if order is None else order.price for order in orders]
    events["size"] = [0 if order is None else order.size for order in orders]
    events["side"] = [Side.NONE if order is None else order.side for order in orders]
    events["ts_event"] = [now_ns if c.timestamp is None else _ns(c.timestamp) for c in changes]
    return events


def _ns(timestamp: str) -> int:
    try:
        ns = timestamp_ns(timestamp)
    except ValueError as error:
        raise FrameError(str(error)) from error
    if ns < 0:
        raise FrameError(f"{timestamp} is before 1970")
    return ns
