"""A snapshot leads to the same books, and what follows it to the same books again."""

import numpy as np
import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.snapshot import cleared, snapshot
from market_depth.book.views import price_levels, resting_orders
from protocol.events import Action, Flag, OrderEvents, Side
from tests.market_depth.book.random_events import many_events, narrow_events
from tests.market_depth.book.written_events import ALL, written

TS_RECV = 1_700_000_000 * 10**9
SNAPSHOT, LAST, TOB = Flag.SNAPSHOT, Flag.LAST, Flag.TOB


def engine_of(*batches: OrderEvents) -> BookEngine:
    engine = BookEngine()
    for events in batches:
        engine.apply(events)
    return engine


def contents(engine: BookEngine) -> list[tuple[int, list[int], list[tuple[list[object], list[object]]]]]:
    """All orders of all instruments, each publisher's in its place."""
    return [
        (
            instrument_id,
            [engine.book(index).publisher_id for index in engine.books(instrument_id)],
            [
                (
                    price_levels(engine, instrument_id, side, ALL).tolist(),
                    resting_orders(engine, instrument_id, side, ALL).tolist(),
                )
                for side in (Side.BID, Side.ASK)
            ],
        )
        for instrument_id in engine.instruments()
    ]


def test_a_snapshot_clears_each_book_and_adds_its_orders_in_queue_order() -> None:
    events = snapshot(
        engine_of(written("A 1 B 100 5; A 2 B 101 3; A 3 B 100 4; M 2 B 101 1; A 4 A 102 1")), TS_RECV
    )
    assert events[["action", "side", "order_id", "price", "size", "ts_event", "flags"]].tolist()[1:] == [
        (Action.ADD, Side.BID, 2, 101, 1, 2, SNAPSHOT),
        (Action.ADD, Side.BID, 1, 100, 5, 1, SNAPSHOT),
        (Action.ADD, Side.BID, 3, 100, 4, 3, SNAPSHOT),
        (Action.ADD, Side.ASK, 4, 102, 1, 5, SNAPSHOT | LAST),
    ]
    assert (events["action"][0], events["flags"][0]) == (Action.CLEAR, SNAPSHOT)
    assert set(events["ts_recv"]) == {TS_RECV}


def test_a_snapshot_of_nothing_is_empty_and_one_of_empty_books_clears_them() -> None:
    assert len(snapshot(BookEngine(), TS_RECV)) == 0
    engine = engine_of(written("A 1 B 100 5; C 1 B 100 5"))
    events = snapshot(engine, TS_RECV)
    assert events.tobytes() == cleared(engine, TS_RECV).tobytes()
    assert events[["action", "flags"]].tolist() == [(Action.CLEAR, SNAPSHOT | LAST)]


def test_the_quote_of_a_top_of_book_publisher_stays_out_of_reach_of_its_id() -> None:
    engine = engine_of(written("A 7 B 100 5 T; A 7 A 102 6 T; A 1 B 101 1; A 2 B 100 3"))
    events = snapshot(engine, TS_RECV)
    assert events[events["side"] == Side.BID][["order_id", "flags"]].tolist() == [
        (7, SNAPSHOT | TOB),
        (1, SNAPSHOT),
        (2, SNAPSHOT),
    ]
    late = engine_of(events)
    assert contents(late) == contents(engine)
    for follower in (engine, late):
        follower.apply(written("C 7 B 100 5; A 8 A 103 1 T"))
    assert contents(late) == contents(engine)


@pytest.mark.parametrize("seed", range(10))
def test_who_comes_late_has_the_same_books_from_then_on(seed: int) -> None:
    rng = np.random.default_rng(seed)
    engine, late = BookEngine(), engine_of(narrow_events(rng, 50))
    # What `late` had before does not matter, as long as its books are among the engine's.
    engine.apply(cleared(late, 0))
    for _ in range(10):
        engine.apply(narrow_events(rng, 200))
    late.apply(snapshot(engine, TS_RECV))
    assert contents(late) == contents(engine), f"seed {seed}"
    for _ in range(10):
        events = narrow_events(rng, 50)
        engine.apply(events)
        late.apply(events)
        assert contents(late) == contents(engine), f"seed {seed}"


def test_many_orders_on_many_levels_are_the_same_books() -> None:
    engine = engine_of(many_events(1, 100_000))
    assert contents(engine_of(snapshot(engine, TS_RECV))) == contents(engine)
