"""The compiled engine and the plain books see the same events and must end with the same books, whatever the bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_depth.book.engine import BookEngine
from market_depth.book.views import price_levels, resting_orders
from protocol.events import ORDER_EVENT, Side, order_events
from tests.market_depth.book.plain_book import PlainBooks
from tests.market_depth.book.random_events import (
    ACTIONS,
    FLAGS,
    PRICES,
    SIDES,
    SIZES,
    many_events,
    narrow_events,
    wide_events,
)
from tests.market_depth.book.written_events import ALL


def assert_same_books(engine: BookEngine, plain: PlainBooks) -> None:
    counters = engine.counters
    assert counters.events == plain.actions.total()
    assert counters.unknown_orders == plain.unknown_orders
    assert counters.duplicate_orders == plain.duplicate_orders
    assert counters.invalid_events == plain.invalid_events
    assert (counters.adds, counters.cancels) == (plain.actions[ord("A")], plain.actions[ord("C")])
    assert engine.instruments() == list(dict.fromkeys(instrument for instrument, _ in plain.books))
    for instrument_id in engine.instruments():
        books = [engine.book(index) for index in engine.books(instrument_id)]
        assert [(book.sequence, book.ts_event, book.ts_recv, book.flags) for book in books] == [
            (book.sequence, book.ts_event, book.ts_recv, book.flags) for book in plain.books_of(instrument_id)
        ]
        for side in (Side.BID, Side.ASK):
            levels = price_levels(engine, instrument_id, side, ALL)
            assert [tuple(level) for level in levels.tolist()] == plain.levels(instrument_id, side)
            assert resting_orders(engine, instrument_id, side, ALL).tolist() == plain.queue(
                instrument_id, side
            )


@pytest.mark.parametrize("seed", range(20))
def test_narrow_random_events_leave_equal_books(seed: int) -> None:
    rng = np.random.default_rng(seed)
    engine, plain = BookEngine(), PlainBooks()
    for _ in range(20):
        events = narrow_events(rng, int(rng.integers(0, 60)))
        engine.apply(events)
        plain.apply(events)
        assert_same_books(engine, plain)


@pytest.mark.parametrize("seed", range(3))
def test_wide_random_bytes_leave_equal_books(seed: int) -> None:
    events = wide_events(np.random.default_rng(seed), 1_000)
    engine, plain = BookEngine(), PlainBooks()
    engine.apply(events)
    plain.apply(events)
    assert_same_books(engine, plain)


@pytest.mark.parametrize("seed", range(3))
def test_books_that_grow_in_one_batch_are_equal(seed: int) -> None:
    events = many_events(seed, 10_000)
    engine, plain = BookEngine(), PlainBooks()
    engine.apply(events)
    plain.apply(events)
    assert_same_books(engine, plain)


@given(st.binary(max_size=40 * ORDER_EVENT.itemsize))
def test_any_bytes_leave_equal_books(data: bytes) -> None:
    events = np.frombuffer(data[: len(data) // ORDER_EVENT.itemsize * ORDER_EVENT.itemsize], ORDER_EVENT)
    engine, plain = BookEngine(), PlainBooks()
    engine.apply(events)
    plain.apply(events)
    assert_same_books(engine, plain)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.sampled_from(SIDES),
        st.sampled_from(FLAGS),
        st.integers(0, 3),
        st.sampled_from(PRICES),
        st.sampled_from(SIZES),
        st.integers(0, 1),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(EVENTS)
def test_any_sequence_of_events_leaves_equal_books(
    rows: list[tuple[int, int, int, int, int, int, int]],
) -> None:
    events = order_events(len(rows))
    names = ["action", "side", "flags", "order_id", "price", "size", "publisher_id"]
    for event, row in zip(events, rows, strict=True):
        for name, value in zip(names, row, strict=True):
            event[name] = value
    events["ts_event"] = np.arange(len(rows))
    engine, plain = BookEngine(), PlainBooks()
    for event in np.split(events, len(rows)) if rows else []:
        engine.apply(event)
    plain.apply(events)
    assert_same_books(engine, plain)
