"""The invariants that the kernels' module states, checked on the arrays themselves after random events."""

import numpy as np
import pytest

from market_depth.book import kernels
from market_depth.book.engine import BookEngine
from market_depth.book.memory import empty_arrays
from market_depth.book.soundness import check_arrays
from protocol.events import Flag, Side, order_events
from tests.market_depth.book.random_events import many_events, narrow_events
from tests.market_depth.book.written_events import INSTRUMENT, PUBLISHER, side_text, written


@pytest.mark.parametrize("seed", range(10))
def test_invariants_hold_after_any_events(seed: int) -> None:
    rng = np.random.default_rng(seed)
    engine = BookEngine()
    check_arrays(engine.arrays)
    for _ in range(20):
        engine.apply(narrow_events(rng, int(rng.integers(1, 100))))
        check_arrays(engine.arrays)


@pytest.mark.parametrize("seed", range(3))
def test_invariants_hold_when_everything_has_grown(seed: int) -> None:
    engine = BookEngine()
    first = empty_arrays()

    engine.apply(many_events(seed, 40_000))

    check_arrays(engine.arrays)
    for name in ("nodes", "ids", "books", "sides", "book_table", "keys", "levels"):
        assert len(getattr(engine.arrays, name)) > len(getattr(first, name)), name


def test_a_full_engine_stops_before_the_event_that_may_not_fit() -> None:
    engine = BookEngine()
    arrays = engine.arrays
    events = order_events(len(arrays.nodes))
    events["action"], events["side"], events["size"] = ord("A"), ord("B"), 1
    events["order_id"] = np.arange(len(events))

    call = np.array([engine.memory, kernels.address_of(events), len(events)])
    applied = kernels.apply_events(kernels.address_of(call))

    # One node is nobody, one is the level, and the last event might have needed another level.
    assert applied == len(arrays.nodes) - 3
    check_arrays(arrays)


def test_clearing_a_book_leaves_its_neighbours_ids() -> None:
    events = np.concatenate([many_events(1, 10_000), order_events(20)])
    events["action"][-20:] = ord("R")
    events["instrument_id"][-20:] = range(20)
    engine = BookEngine()

    engine.apply(events)

    check_arrays(engine.arrays)
    assert sum(engine.book(index).orders == 0 for index in range(engine.book_count)) == 20


def test_top_of_book_orders_have_no_ids() -> None:
    events = many_events(1, 1_000)
    events["action"], events["flags"] = ord("A"), Flag.TOB
    engine = BookEngine()

    engine.apply(events)

    check_arrays(engine.arrays)
    assert not engine.arrays.ids.any()


def pair_of_equal_fingerprints(hashes: kernels.Int64s) -> tuple[int, int]:
    """Positions of two hashes with the same upper half, which is all of a hash that an entry keeps."""
    upper = hashes >> 32
    order = np.argsort(upper, kind="stable")
    (same,) = np.nonzero(np.diff(upper[order]) == 0)
    return int(order[same[0]]), int(order[same[0] + 1])


MANY = np.random.default_rng(1).integers(0, 2**32, 400_000)
GOLDEN = np.int64(kernels.GOLDEN)


def test_two_ids_with_one_fingerprint_are_two_orders() -> None:
    book_keys = np.full_like(MANY, INSTRUMENT << 16 | PUBLISHER)
    first, second = pair_of_equal_fingerprints((MANY ^ (book_keys * GOLDEN)) * GOLDEN)
    one, other = int(MANY[first]), int(MANY[second])
    engine = BookEngine()

    engine.apply(written(f"A {one} B 100 5; A {other} B 100 6; C {one} B 100 5"))

    assert side_text(engine, Side.BID) == f"100: {other}x6"
    check_arrays(engine.arrays)


def test_one_id_with_one_fingerprint_in_two_books_is_two_orders() -> None:
    book_keys = MANY << 16 | PUBLISHER
    first, second = pair_of_equal_fingerprints((np.int64(7) ^ (book_keys * GOLDEN)) * GOLDEN)
    one, other = int(MANY[first]), int(MANY[second])
    engine = BookEngine()

    for instrument_id in (one, other):
        engine.apply(written("A 7 B 100 5", instrument_id=instrument_id))
    engine.apply(written("C 7 B 100 2", instrument_id=other))

    assert side_text(engine, Side.BID, one) == "100: 7x5"
    assert side_text(engine, Side.BID, other) == "100: 7x3"
    check_arrays(engine.arrays)
