"""Price-time priority, as tables and as a property."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.events import Side
from simulator.errors import EmptySideError, OrderRejectedError
from simulator.matching import MatchingBook

BID, ASK = Side.BID, Side.ASK


def queue(book: MatchingBook, side: Side, depth: int | None = None) -> list[tuple[int, int, int, int]]:
    return [(order.order_id, order.price, order.size, order.ts_event) for order in book.orders(side, depth)]


@pytest.fixture
def book() -> MatchingBook:
    """Bids 1 and 2 at 100, 3 at 99; asks 4 at 101, 5 and 6 at 102. Sizes ten times the id, times equal to it."""
    book = MatchingBook()
    for order_id, side, price in (
        (1, BID, 100),
        (2, BID, 100),
        (3, BID, 99),
        (4, ASK, 101),
        (5, ASK, 102),
        (6, ASK, 102),
    ):
        book.add(order_id, side, price, 10 * order_id, order_id)
    return book


def test_the_best_price_comes_first_and_within_it_the_order_that_came_first(book: MatchingBook) -> None:
    assert queue(book, BID) == [(1, 100, 10, 1), (2, 100, 20, 2), (3, 99, 30, 3)]
    assert queue(book, ASK) == [(4, 101, 40, 4), (5, 102, 50, 5), (6, 102, 60, 6)]
    assert (book.best_bid, book.best_ask, len(book)) == (100, 101, 6)


@pytest.mark.parametrize(
    ("side", "depth", "levels"),
    [
        (BID, None, [(100, 30, 2), (99, 30, 1)]),
        (BID, 1, [(100, 30, 2)]),
        (BID, 9, [(100, 30, 2), (99, 30, 1)]),
        (BID, 0, []),
        (ASK, None, [(101, 40, 1), (102, 110, 2)]),
        (ASK, 1, [(101, 40, 1)]),
        (ASK, 0, []),
    ],
)
def test_a_level_has_its_price_its_size_and_how_many_orders(
    book: MatchingBook, side: Side, depth: int | None, levels: list[tuple[int, int, int]]
) -> None:
    assert book.levels(side, depth) == levels
    assert len(book.orders(side, depth)) == sum(count for _, _, count in levels)
    assert book.size_at(side, 98) == 0


@pytest.mark.parametrize(
    ("why", "order_id", "price", "size", "bids"),
    [
        ("smaller keeps its place", 1, 100, 4, [(1, 100, 4, 1), (2, 100, 20, 2), (3, 99, 30, 3)]),
        ("unchanged keeps its place", 1, 100, 10, [(1, 100, 10, 1), (2, 100, 20, 2), (3, 99, 30, 3)]),
        ("larger goes to the end", 1, 100, 11, [(2, 100, 20, 2), (1, 100, 11, 9), (3, 99, 30, 3)]),
        ("another price: to the end there", 1, 99, 10, [(2, 100, 20, 2), (3, 99, 30, 3), (1, 99, 10, 9)]),
        ("another price, smaller: the same", 2, 99, 1, [(1, 100, 10, 1), (3, 99, 30, 3), (2, 99, 1, 9)]),
        ("a new level below", 1, 98, 10, [(2, 100, 20, 2), (3, 99, 30, 3), (1, 98, 10, 9)]),
        (
            "the last of its level takes it along",
            3,
            100,
            5,
            [(1, 100, 10, 1), (2, 100, 20, 2), (3, 100, 5, 9)],
        ),
    ],
)
def test_a_modified_order_keeps_or_loses_its_place(
    book: MatchingBook, why: str, order_id: int, price: int, size: int, bids: list[tuple[int, int, int, int]]
) -> None:
    book.modify(order_id, price, size, ts_event=9)
    assert queue(book, BID) == bids, why
    assert book.best_bid == 100
    assert sum(size for _, size, _ in book.levels(BID)) == sum(size for _, _, size, _ in bids)


def test_cancel_of_the_last_order_removes_the_level(book: MatchingBook) -> None:
    assert book.cancel(4).size == 40
    assert book.levels(ASK) == [(102, 110, 2)]
    assert book.best_ask == 102
    assert 4 not in book


def test_cancels_may_empty_a_side(book: MatchingBook) -> None:
    for order_id in (1, 2, 3):
        book.cancel(order_id)
    assert (book.best_bid, book.levels(BID), book.orders(BID), book.level_count(BID)) == (None, [], [], 0)
    with pytest.raises(EmptySideError, match="no bid"):
        book.best(BID)
    assert book.best(ASK) == 101


@pytest.mark.parametrize(
    ("why", "aggressor", "size", "limit", "fills", "rest"),
    [
        ("part of the first", ASK, 4, 100, [(1, 100, 4, 6)], [(1, 6), (2, 20), (3, 30)]),
        ("the first whole", ASK, 10, 100, [(1, 100, 10, 0)], [(2, 20), (3, 30)]),
        ("first come, first served", ASK, 15, 100, [(1, 100, 10, 0), (2, 100, 5, 15)], [(2, 15), (3, 30)]),
        ("no worse than the limit", ASK, 99, 100, [(1, 100, 10, 0), (2, 100, 20, 0)], [(3, 30)]),
        ("through the levels", ASK, 31, 99, [(1, 100, 10, 0), (2, 100, 20, 0), (3, 99, 1, 29)], [(3, 29)]),
        ("everything", ASK, 99, 1, [(1, 100, 10, 0), (2, 100, 20, 0), (3, 99, 30, 0)], []),
        ("limit behind the best", ASK, 5, 101, [], [(1, 10), (2, 20), (3, 30)]),
        ("a buyer", BID, 60, 102, [(4, 101, 40, 0), (5, 102, 20, 30)], [(5, 30), (6, 60)]),
        ("a buyer with a low limit", BID, 60, 100, [], [(4, 40), (5, 50), (6, 60)]),
    ],
)
def test_a_marketable_order_fills_by_price_then_time(
    book: MatchingBook,
    why: str,
    aggressor: Side,
    size: int,
    limit: int,
    fills: list[tuple[int, int, int, int]],
    rest: list[tuple[int, int]],
) -> None:
    made = book.match(aggressor, size, limit)
    assert [(fill.order.order_id, fill.order.price, fill.size, fill.left) for fill in made] == fills, why
    resting = ASK if aggressor is BID else BID
    assert [(order.order_id, order.size) for order in book.orders(resting)] == rest, why


@pytest.mark.parametrize(
    ("reason", "instruct"),
    [
        ("already in the book", lambda book: book.add(1, BID, 98, 1, 9)),
        ("size 0 is not positive", lambda book: book.add(7, BID, 98, 0, 9)),
        ("price 101 would match the other side", lambda book: book.add(7, BID, 101, 1, 9)),
        ("price 100 would match the other side", lambda book: book.add(7, ASK, 100, 1, 9)),
        ("not in the book", lambda book: book.cancel(7)),
        ("not in the book", lambda book: book.modify(7, 98, 1, 9)),
        ("size -1 is not positive", lambda book: book.modify(1, 100, -1, 9)),
        ("price 102 would match the other side", lambda book: book.modify(1, 102, 1, 9)),
    ],
)
def test_what_would_break_the_book_is_refused_and_changes_nothing(
    book: MatchingBook, reason: str, instruct: Callable[[MatchingBook], object]
) -> None:
    before = (queue(book, BID), queue(book, ASK), book.levels(BID), book.levels(ASK))
    with pytest.raises(OrderRejectedError, match=reason):
        instruct(book)
    assert (queue(book, BID), queue(book, ASK), book.levels(BID), book.levels(ASK)) == before


@dataclass
class Resting:
    order_id: int
    side: Side
    price: int
    size: int
    arrival: int


class Ledger:
    """The rules once more, as slow and short as can be: one list, sorted anew for every question."""

    def __init__(self) -> None:
        self.orders: list[Resting] = []

    def queue(self, side: Side) -> list[Resting]:
        better = -1 if side is BID else 1
        return sorted(
            (order for order in self.orders if order.side is side),
            key=lambda order: (better * order.price, order.arrival),
        )

    def is_marketable(self, side: Side, price: int) -> bool:
        if side is BID:
            return any(order.price <= price for order in self.queue(ASK))
        return any(order.price >= price for order in self.queue(BID))

    def match(self, aggressor: Side, size: int, limit: int) -> list[tuple[int, int, int]]:
        fills = []
        for order in self.queue(ASK if aggressor is BID else BID):
            reachable = order.price <= limit if aggressor is BID else order.price >= limit
            traded = min(size, order.size) if reachable else 0
            if traded:
                size -= traded
                order.size -= traded
                fills.append((order.order_id, traded, order.size))
        self.orders = [order for order in self.orders if order.size]
        return fills


INSTRUCTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "modify", "cancel", "match"]),
        st.sampled_from([BID, ASK]),
        st.integers(95, 105),  # price
        st.integers(1, 9),  # size
        st.integers(0, 1000),  # which resting order
    ),
    max_size=120,
)


@given(INSTRUCTIONS)
def test_the_book_ranks_and_fills_as_the_rules_say(
    instructions: list[tuple[str, Side, int, int, int]],
) -> None:
    book, ledger = MatchingBook(), Ledger()
    for now, (kind, side, price, size, which) in enumerate(instructions):
        chosen = ledger.orders[which % len(ledger.orders)] if ledger.orders else None
        if kind == "add" and not ledger.is_marketable(side, price):
            book.add(now, side, price, size, now)
            ledger.orders.append(Resting(now, side, price, size, now))
        elif kind == "match":
            fills = book.match(side, size, price)
            assert [(fill.order.order_id, fill.size, fill.left) for fill in fills] == ledger.match(
                side, size, price
            )
        elif kind == "cancel" and chosen:
            book.cancel(chosen.order_id)
            ledger.orders.remove(chosen)
        elif kind == "modify" and chosen and not ledger.is_marketable(chosen.side, price):
            book.modify(chosen.order_id, price, size, now)
            if price != chosen.price or size > chosen.size:
                chosen.arrival = now
            chosen.price, chosen.size = price, size
        for side_of_book in (BID, ASK):
            expected = ledger.queue(side_of_book)
            assert queue(book, side_of_book) == [
                (order.order_id, order.price, order.size, order.arrival) for order in expected
            ]
            levels = book.levels(side_of_book)
            assert sum(size for _, size, _ in levels) == sum(order.size for order in expected)
            assert sum(count for _, _, count in levels) == len(expected)
            best = book.best_bid if side_of_book is BID else book.best_ask
            assert best == (expected[0].price if expected else None)
        assert len(book) == len(ledger.orders)
