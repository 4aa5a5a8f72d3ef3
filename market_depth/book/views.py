"""What a trader sees of an instrument: price levels (MBP), resting orders (MBO), best bid and offer (BBO).

An instrument's publishers are shown as one market: at each price their sizes and counts add up, and their orders
stand one publisher after the other (in the order of their first events), each publisher's in its own queue order.
Between publishers there is no queue: each matches its own orders. An instrument without events has empty views.

Prices are integers of 1e-9, sizes are lots.
"""

from dataclasses import dataclass

import numpy as np

from market_depth.book import kernels
from market_depth.book.engine import BookEngine
from market_depth.book.kernels import Int64s
from protocol.events import RESTING_ORDER, RestingOrders, Side


@dataclass(frozen=True, slots=True)
class PriceLevel:
    """All orders at one price."""

    price: int  # 1e-9
    size: int  # lots
    count: int  # orders


@dataclass(frozen=True, slots=True)
class BestBidOffer:
    """The top of a book; None for an empty side."""

    bid: PriceLevel | None
    ask: PriceLevel | None


def price_levels(engine: BookEngine, instrument_id: int, side: Side, depth: int) -> Int64s:
    """The best `depth` price levels of one side, best first.

    Returns: int64, shape (n, 3), n <= depth: price (1e-9), size (lots), count (orders).
    """
    sides = side_indexes(engine, instrument_id, side)
    available = int(engine.arrays.sides[sides, kernels.COUNT].sum())
    levels = np.empty((min(depth, available), 3), np.int64)
    found = kernels.read_levels(engine.memory, sides, levels)
    return levels[:found]


def resting_orders(engine: BookEngine, instrument_id: int, side: Side, depth: int) -> RestingOrders:
    """All orders of the best `depth` price levels of one side: best price first, inside a level in queue order."""
    count = int(price_levels(engine, instrument_id, side, depth)[:, 2].sum())
    orders = np.empty((count, 4), np.int64)
    found = kernels.read_orders(engine.memory, side_indexes(engine, instrument_id, side), orders)
    return orders[:found].view(RESTING_ORDER)[:, 0]


def best_bid_offer(engine: BookEngine, instrument_id: int) -> BestBidOffer:
    """The best level of each side."""
    return BestBidOffer(
        bid=best_level(engine, instrument_id, Side.BID),
        ask=best_level(engine, instrument_id, Side.ASK),
    )


def best_level(engine: BookEngine, instrument_id: int, side: Side) -> PriceLevel | None:
    """The best level of one side, or None if it is empty."""
    for price, size, count in price_levels(engine, instrument_id, side, 1).tolist():
        return PriceLevel(price, size, count)
    return None


def best_of_book(engine: BookEngine, index: int, side: Side) -> PriceLevel | None:
    """The best level of one side of one publisher's book, or None if it is empty. Needs no kernel."""
    if not 0 <= index < engine.book_count:
        raise IndexError(f"no book {index}: there are {engine.book_count}")
    row = engine.arrays.sides[2 * index + (side == Side.ASK)]
    if row[kernels.COUNT] == 0:
        return None
    level = engine.arrays.levels[row[kernels.BASE] + row[kernels.COUNT] - 1]
    price, size = engine.arrays.nodes[level, [kernels.PRICE, kernels.QUANTITY]].tolist()
    return PriceLevel(price, size, int(engine.arrays.links[level, kernels.ORDERS]))


def side_indexes(engine: BookEngine, instrument_id: int, side: Side) -> Int64s:
    """The rows of `engine.arrays.sides` that make up one side of an instrument."""
    if side not in (Side.BID, Side.ASK):
        raise ValueError(f"a book has bids and asks, not {side!r}")
    return 2 * engine.book_indexes(instrument_id) + (side == Side.ASK)
