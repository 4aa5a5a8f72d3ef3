"""The best levels after each event."""

from pathlib import Path

import numpy as np
import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.tops import LEVEL_PAIR, LevelPairs, TopOfBook
from protocol.events import UNDEF_PRICE, Action, OrderEvents, Side, order_events
from tests.market_depth.book.plain_book import PlainBooks
from tests.market_depth.book.plain_records import best_levels
from tests.market_depth.book.random_events import many_events, narrow_events, wide_events
from tests.market_depth.book.test_recorded import recorded
from tests.market_depth.book.written_events import written

Top = list[tuple[int, ...]]


def plain_tops(books: PlainBooks, events: OrderEvents, depth: int) -> list[Top]:
    """The top of each event's plain book after it."""
    names = events.dtype.names
    assert names is not None
    tops: list[Top] = []
    for row in events.tolist():
        event = dict(zip(names, row, strict=True))
        books.apply_one(event)
        sides: list[list[tuple[int, int, int]]] = [[], []]
        if event["action"] in list(Action):
            book = books.books[event["instrument_id"], event["publisher_id"]]
            sides = [best_levels(book, side, depth) for side in (Side.BID, Side.ASK)]
        padded = [[*side, *[(UNDEF_PRICE, 0, 0)] * (depth - len(side))] for side in sides]
        tops.append(
            [
                (bid[0], ask[0], min(bid[1], 2**32 - 1), min(ask[1], 2**32 - 1), bid[2], ask[2])
                for bid, ask in zip(*padded, strict=True)
            ]
        )
    return tops


def assert_same_tops(batches: list[OrderEvents], depth: int) -> None:
    top, books = TopOfBook(BookEngine(), depth), PlainBooks()
    for batch in batches:
        assert top.apply(batch).tolist() == plain_tops(books, batch, depth)


def test_an_event_has_the_top_of_its_book_after_it() -> None:
    tops = TopOfBook(BookEngine(), 2).apply(
        written("A 1 B 9 5; A 2 A 11 3; A 3 B 10 1; x 0 N - 0; C 3 B 10 1")
    )

    none = UNDEF_PRICE
    assert tops.tolist() == [
        [(9, none, 5, 0, 1, 0), (none, none, 0, 0, 0, 0)],
        [(9, 11, 5, 3, 1, 1), (none, none, 0, 0, 0, 0)],
        [(10, 11, 1, 3, 1, 1), (9, none, 5, 0, 1, 0)],
        [(none, none, 0, 0, 0, 0), (none, none, 0, 0, 0, 0)],
        [(9, 11, 5, 3, 1, 1), (none, none, 0, 0, 0, 0)],
    ]  # fmt: skip


@pytest.mark.parametrize("depth", [1, 2, 10, 40])
@pytest.mark.parametrize("seed", range(5))
def test_tops_of_narrow_random_events_are_the_plain_ones(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    assert_same_tops([narrow_events(rng, int(rng.integers(0, 60))) for _ in range(20)], depth)


@pytest.mark.parametrize("depth", [10, 20])
def test_tops_of_books_that_grow_in_one_batch_are_the_plain_ones(depth: int) -> None:
    assert_same_tops([many_events(1, 4_000), wide_events(np.random.default_rng(1), 200)], depth)


def test_tops_may_begin_with_books_that_others_told() -> None:
    engine, books = BookEngine(), PlainBooks()
    rng = np.random.default_rng(1)
    first, second = narrow_events(rng, 200), narrow_events(rng, 200)
    TopOfBook(engine, 10).apply(first)
    books.apply(first)

    assert TopOfBook(engine, 3).apply(second).tolist() == plain_tops(books, second, 3)


@pytest.mark.realdata
def test_tops_of_a_recorded_market_are_the_plain_ones(realdata: Path) -> None:
    assert_same_tops([recorded(realdata / "dbn" / "CLX5_mbo.dbn")[:15_000]], 10)


def test_tops_may_be_written_where_the_caller_likes() -> None:
    out = np.zeros((5, 1), LEVEL_PAIR)

    tops = TopOfBook(BookEngine(), 1).apply(written("A 1 B 9 5; A 2 B 10 5"), out)

    assert np.shares_memory(tops, out)
    assert out["bid_px"].ravel().tolist() == [9, 10, 0, 0, 0]


@pytest.mark.parametrize(
    ("out", "text"),
    [
        (np.zeros((2, 1)), "must hold 3 tops of 1"),
        (np.zeros((2, 1), LEVEL_PAIR), "must hold 3 tops of 1"),
        (np.zeros((3, 2), LEVEL_PAIR), "must hold 3 tops of 1"),
        (np.zeros((6, 1), LEVEL_PAIR)[::2], "contiguous"),
    ],
)
def test_room_that_does_not_fit_is_refused(out: LevelPairs, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TopOfBook(BookEngine(), 1).apply(order_events(3), out)


def test_a_top_has_at_least_one_level() -> None:
    with pytest.raises(ValueError, match="at least one level, not 0"):
        TopOfBook(BookEngine(), 0)


@pytest.mark.parametrize("depth", [1, 2, 10])
@pytest.mark.parametrize("seed", range(3))
def test_tops_are_right_after_events_that_went_past_them(seed: int, depth: int) -> None:
    rng = np.random.default_rng(seed)
    engine, books = BookEngine(), PlainBooks()
    top = TopOfBook(engine, depth)
    for _ in range(20):
        past, told = narrow_events(rng, 30), narrow_events(rng, 30)
        engine.apply(past)
        plain_tops(books, past, depth)

        assert top.apply(told).tolist() == plain_tops(books, told, depth)


def test_an_ask_of_the_greatest_key_replaces_a_whole_top() -> None:
    price = -(2**63 - 1)
    top = TopOfBook(BookEngine(), 2)

    tops = top.apply(written(f"A 1 A {price} 5; A 2 A 7 3; A 3 A {price} 2 T"))

    assert [pair[1::2] for pair in tops[-1].tolist()] == [(price, 2, 1), (UNDEF_PRICE, 0, 0)]
