"""What views show: depth, publishers as one market, empty sides."""

import numpy as np
import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.views import (
    BestBidOffer,
    PriceLevel,
    best_bid_offer,
    best_of_book,
    price_levels,
    resting_orders,
)
from protocol.events import RESTING_ORDER, Side
from tests.market_depth.book.written_events import INSTRUMENT, written

BOOK = "A 1 B 100 5; A 2 B 100 3; A 3 B 99 4; A 4 B 97 1; A 5 A 101 2; A 6 A 103 6; A 7 A 103 7"


def engine_of(*events: str) -> BookEngine:
    """An engine with the events of publishers 1, 2, …"""
    engine = BookEngine()
    for publisher_id, text in enumerate(events, start=1):
        engine.apply(written(text, publisher_id=publisher_id))
    return engine


@pytest.mark.parametrize(
    ("side", "depth", "levels"),
    [
        (Side.BID, 20, [[100, 8, 2], [99, 4, 1], [97, 1, 1]]),
        (Side.BID, 2, [[100, 8, 2], [99, 4, 1]]),
        (Side.BID, 1, [[100, 8, 2]]),
        (Side.BID, 0, []),
        (Side.ASK, 20, [[101, 2, 1], [103, 13, 2]]),
    ],
)
def test_price_levels_are_the_best_first(side: Side, depth: int, levels: list[list[int]]) -> None:
    assert price_levels(engine_of(BOOK), INSTRUMENT, side, depth).tolist() == levels


@pytest.mark.parametrize(
    ("side", "depth", "orders"),
    [
        (Side.BID, 20, [(1, 100, 5, 1), (2, 100, 3, 2), (3, 99, 4, 3), (4, 97, 1, 4)]),
        (Side.BID, 1, [(1, 100, 5, 1), (2, 100, 3, 2)]),
        (Side.BID, 0, []),
        (Side.ASK, 2, [(5, 101, 2, 5), (6, 103, 6, 6), (7, 103, 7, 7)]),
    ],
)
def test_depth_counts_levels_not_orders(
    side: Side, depth: int, orders: list[tuple[int, int, int, int]]
) -> None:
    assert resting_orders(engine_of(BOOK), INSTRUMENT, side, depth).tolist() == orders


def test_publishers_add_up_at_each_price() -> None:
    engine = engine_of(
        "A 1 B 100 5; A 2 B 98 1; A 3 A 102 1", "A 1 B 99 2; A 2 B 98 3; A 2 B 98 4 T", "A 1 A 102 7"
    )

    assert price_levels(engine, INSTRUMENT, Side.BID, 20).tolist() == [[100, 5, 1], [98, 5, 2]]
    assert price_levels(engine, INSTRUMENT, Side.ASK, 20).tolist() == [[102, 8, 2]]


def test_at_one_price_publishers_stand_one_after_the_other() -> None:
    engine = engine_of("A 1 B 100 5; A 2 B 100 6", "A 1 B 100 7")
    engine.apply(written("A 3 B 100 8", publisher_id=1))

    orders = resting_orders(engine, INSTRUMENT, Side.BID, 20)

    assert orders["size"].tolist() == [5, 6, 8, 7]
    assert orders["order_id"].tolist() == [1, 2, 3, 1]


def test_depth_is_that_of_the_whole_market() -> None:
    engine = engine_of("A 1 B 100 5; A 2 B 97 5", "A 1 B 99 7; A 2 B 98 7")

    assert price_levels(engine, INSTRUMENT, Side.BID, 3)[:, 0].tolist() == [100, 99, 98]
    assert resting_orders(engine, INSTRUMENT, Side.BID, 3)["price"].tolist() == [100, 99, 98]


def test_best_bid_and_offer() -> None:
    assert best_bid_offer(engine_of(BOOK), INSTRUMENT) == BestBidOffer(
        PriceLevel(100, 8, 2), PriceLevel(101, 2, 1)
    )
    assert best_bid_offer(engine_of("A 1 A 101 2"), INSTRUMENT) == BestBidOffer(None, PriceLevel(101, 2, 1))


def test_the_best_of_a_book_is_that_of_one_publisher() -> None:
    engine = engine_of("A 1 B 100 5; A 2 B 100 6; A 3 B 99 1", "A 1 B 101 7; A 2 A 103 1; A 3 A 102 2")

    best = [[best_of_book(engine, index, side) for side in (Side.BID, Side.ASK)] for index in (0, 1)]

    assert best == [[PriceLevel(100, 11, 2), None], [PriceLevel(101, 7, 1), PriceLevel(102, 2, 1)]]
    with pytest.raises(IndexError, match="no book 2: there are 2"):
        best_of_book(engine, 2, Side.BID)


@pytest.mark.parametrize("events", ["", "A 1 B 100 5; C 1 B 100 5"], ids=["never seen", "emptied"])
def test_an_empty_book_has_empty_views(events: str) -> None:
    engine = engine_of(events)

    for side in (Side.BID, Side.ASK):
        levels = price_levels(engine, INSTRUMENT, side, 20)
        orders = resting_orders(engine, INSTRUMENT, side, 20)
        assert levels.shape == (0, 3)
        assert levels.dtype == np.int64
        assert orders.shape == (0,)
        assert orders.dtype == RESTING_ORDER
    assert best_bid_offer(engine, INSTRUMENT) == BestBidOffer(None, None)


def test_a_view_stays_as_it_was_when_the_book_changes() -> None:
    engine = engine_of(BOOK)
    levels = price_levels(engine, INSTRUMENT, Side.BID, 20)
    orders = resting_orders(engine, INSTRUMENT, Side.BID, 20)

    engine.apply(written("R 0 N - 0"))

    assert levels[:, 0].tolist() == [100, 99, 97]
    assert orders["order_id"].tolist() == [1, 2, 3, 4]


def test_no_book_has_a_third_side() -> None:
    with pytest.raises(ValueError, match="bids and asks"):
        price_levels(engine_of(BOOK), INSTRUMENT, Side.NONE, 20)
