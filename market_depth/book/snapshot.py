"""All books of an engine as order events: whoever applies them has the same books, whatever it had before.

They are what a venue sends to those who come late: each book is cleared, then every resting order is added again, in
queue order and with the time at which it took its place.
"""

import numpy as np
import numpy.typing as npt

from market_depth.book import kernels
from market_depth.book.clears import clears
from market_depth.book.engine import BookEngine
from protocol.events import Action, Flag, OrderEvents, Side, order_events


def snapshot(engine: BookEngine, ts_recv: int) -> OrderEvents:
    """A Clear for every book, in the order of their first events, then an Add for every resting order.

    `ts_recv` dates all of them, in ns since the epoch. All carry the flag SNAPSHOT, the last one LAST: together they
    are one event, and between two of them no book is whole.
    """
    listed = _listed_nodes(engine)
    books = range(engine.book_count)
    adds = [_adds(engine, book, side, listed) for book in books for side in (Side.BID, Side.ASK)]
    events = np.concatenate([cleared(engine, ts_recv), *adds])
    events["ts_recv"] = ts_recv
    events["flags"] = events["flags"] & ~np.uint8(Flag.LAST) | np.uint8(Flag.SNAPSHOT)
    events["flags"][-1:] |= np.uint8(Flag.LAST)
    return events


def cleared(engine: BookEngine, ts_recv: int) -> OrderEvents:
    """The snapshot that leaves every book empty."""
    return clears(engine.arrays.books[: engine.book_count, kernels.BOOK_KEY], ts_recv)


def _adds(engine: BookEngine, book: int, side: Side, listed: npt.NDArray[np.bool_]) -> OrderEvents:
    arrays = engine.arrays
    index = 2 * book + (side == Side.ASK)
    base, count = arrays.sides[index, [kernels.BASE, kernels.COUNT]]
    levels = arrays.levels[base : base + count][::-1]  # best first, as the orders are read
    counts = arrays.links[levels, kernels.ORDERS].astype(np.int64)
    orders = np.empty((counts.sum(), 4), np.int64)
    kernels.read_orders(engine.memory, np.array([index]), orders)
    key = arrays.books[book, kernels.BOOK_KEY]
    events = order_events(len(orders))
    events["instrument_id"] = key >> 16
    events["publisher_id"] = key & 0xFFFF
    events["order_id"] = orders[:, 0].view(np.uint64)
    events["price"] = orders[:, 1]
    events["size"] = orders[:, 2]
    events["ts_event"] = orders[:, 3].view(np.uint64)
    events["action"] = Action.ADD
    events["side"] = side
    # The order of a top-of-book publisher is found by its side alone, never by its id (which may be another order's),
    # and must be so again. It emptied the side when it came: it is its level's first, and goes before all others.
    fronts = np.cumsum(counts) - counts
    quote = fronts[~listed[arrays.links[levels, kernels.NEXT]]]
    events["flags"][quote] = Flag.TOB
    return np.concatenate([events[quote], np.delete(events, quote)]) if len(quote) else events


def _listed_nodes(engine: BookEngine) -> npt.NDArray[np.bool_]:
    """Which nodes are orders that their ids lead to."""
    listed = np.zeros(len(engine.arrays.nodes), np.bool_)
    listed[engine.arrays.ids & kernels.LOW] = True  # empty entries name node 0, which is nobody
    return listed
