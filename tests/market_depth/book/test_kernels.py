"""The invariants that the kernels' module states, checked on the arrays themselves after random events."""

import numpy as np
import pytest

from market_depth.book import kernels
from market_depth.book.engine import BookEngine, empty_arrays
from market_depth.book.kernels import (
    ARENA_USED,
    BASE,
    BOOKS,
    CAPACITY,
    COUNT,
    FREE,
    LEVEL,
    LEVEL_CACHE_SIZE,
    LOW,
    NEXT,
    NO_KEY,
    ORDERS,
    PAD,
    PREVIOUS,
    PRICE,
    QUANTITY,
    SIDE,
    SIZE,
    UNTOUCHED,
    USED,
    Arrays,
)
from protocol.events import Flag, Side, order_events
from tests.market_depth.book.random_events import many_events, narrow_events
from tests.market_depth.book.written_events import INSTRUMENT, PUBLISHER, side_text, written


def assert_sound(arrays: Arrays) -> None:
    """Walk everything that the arrays hold."""
    levels = assert_runs_are_sorted(arrays)
    orders = [order for level in levels for order in queue_of(arrays, level)]
    assert_every_node_is_somewhere(arrays, levels, orders)
    assert_ids_are_found(arrays, orders)
    assert_cache_names_living_levels(arrays, levels)


def assert_runs_are_sorted(arrays: Arrays) -> list[int]:
    """Returns all levels. Runs lie apart, each with its pads below."""
    levels: list[int] = []
    ends = [0]
    sides = arrays.sides[: 2 * arrays.state[BOOKS]]
    for number, side in enumerate(sides):
        base, count = side[BASE], side[COUNT]
        keys = arrays.keys[base : base + count]
        run = arrays.levels[base : base + count].tolist()
        assert 0 <= count <= side[CAPACITY]
        assert (keys[:-1] < keys[1:]).all()
        assert (keys > NO_KEY).all()
        assert (arrays.keys[base - PAD : base] == NO_KEY).all()
        prices = arrays.nodes[run, PRICE]
        assert (keys == (-prices if number % 2 else prices)).all()
        assert (arrays.links[run, SIDE] == number).all()
        levels += run
    for side in sides[np.argsort(sides[:, BASE])]:
        assert side[BASE] - PAD >= ends[-1]
        ends.append(side[BASE] + side[CAPACITY])
    assert ends[-1] <= arrays.state[ARENA_USED] <= len(arrays.keys)
    return levels


def queue_of(arrays: Arrays, level: int) -> list[int]:
    """The orders of a level, front first; the links lead back the same way, the sums are right, none is empty."""
    queue: list[int] = []
    node = int(arrays.links[level, NEXT])
    while node != level:
        queue.append(node)
        assert arrays.links[node, LEVEL] == level
        node = int(arrays.links[node, NEXT])
    circle = [level, *queue, level]
    assert [int(arrays.links[node, PREVIOUS]) for node in circle[1:]] == circle[:-1]
    sizes = arrays.links[queue, SIZE].view(np.uint32).astype(np.int64)
    assert queue
    assert sizes.min() > 0
    assert arrays.links[level, ORDERS] == len(queue)
    assert arrays.nodes[level, QUANTITY] == sizes.sum()
    return queue


def assert_every_node_is_somewhere(arrays: Arrays, levels: list[int], orders: list[int]) -> None:
    free: list[int] = []
    node = int(arrays.state[FREE])
    while node:
        free.append(node)
        node = int(arrays.links[node, NEXT])
    untouched = int(arrays.state[UNTOUCHED])
    assert sorted([*levels, *orders, *free]) == list(range(1, untouched))
    assert arrays.state[USED] == 1 + len(levels) + len(orders) <= len(arrays.nodes)


def assert_ids_are_found(arrays: Arrays, orders: list[int]) -> None:
    """Each entry names one order, and no empty place lies between its home and it."""
    (places,) = np.nonzero(arrays.ids)
    named = arrays.ids[places] & LOW
    assert len(set(named.tolist())) == len(places) <= len(arrays.ids) // 2
    assert set(named.tolist()) <= set(orders)
    shift = 65 - len(arrays.ids).bit_length()
    homes = (arrays.ids[places] >> shift) & (len(arrays.ids) - 1)
    for place, home in zip(places.tolist(), homes.tolist(), strict=True):
        distance = (place - home) % len(arrays.ids)
        assert arrays.ids[(home + np.arange(distance)) % len(arrays.ids)].all()


def assert_cache_names_living_levels(arrays: Arrays, levels: list[int]) -> None:
    assert len(arrays.level_cache) == LEVEL_CACHE_SIZE
    assert set(arrays.level_cache.tolist()) <= {0, *levels}
    assert arrays.links[0, SIDE] == -1


@pytest.mark.parametrize("seed", range(10))
def test_invariants_hold_after_any_events(seed: int) -> None:
    rng = np.random.default_rng(seed)
    engine = BookEngine()
    assert_sound(engine.arrays)
    for _ in range(20):
        engine.apply(narrow_events(rng, int(rng.integers(1, 100))))
        assert_sound(engine.arrays)


@pytest.mark.parametrize("seed", range(3))
def test_invariants_hold_when_everything_has_grown(seed: int) -> None:
    engine = BookEngine()
    first = empty_arrays()

    engine.apply(many_events(seed, 40_000))

    assert_sound(engine.arrays)
    for name in ("nodes", "ids", "books", "sides", "book_table", "keys", "levels"):
        assert len(getattr(engine.arrays, name)) > len(getattr(first, name)), name


def test_a_full_engine_stops_before_the_event_that_may_not_fit() -> None:
    engine = BookEngine()
    arrays = engine.arrays
    events = order_events(len(arrays.nodes))
    events["action"], events["side"], events["size"] = ord("A"), ord("B"), 1
    events["order_id"] = np.arange(len(events))

    applied = kernels.apply_events(engine.memory, kernels.address_of(events), len(events))

    # One node is nobody, one is the level, and the last event might have needed another level.
    assert applied == len(arrays.nodes) - 3
    assert_sound(arrays)


def test_clearing_a_book_leaves_its_neighbours_ids() -> None:
    events = np.concatenate([many_events(1, 10_000), order_events(20)])
    events["action"][-20:] = ord("R")
    events["instrument_id"][-20:] = range(20)
    engine = BookEngine()

    engine.apply(events)

    assert_sound(engine.arrays)
    assert sum(engine.book(index).orders == 0 for index in range(engine.book_count)) == 20


def test_top_of_book_orders_have_no_ids() -> None:
    events = many_events(1, 1_000)
    events["action"], events["flags"] = ord("A"), Flag.TOB
    engine = BookEngine()

    engine.apply(events)

    assert_sound(engine.arrays)
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
    assert_sound(engine.arrays)


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
    assert_sound(engine.arrays)
