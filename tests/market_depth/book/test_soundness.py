"""The engine that checks itself: content with any events, and not with any array that was tampered with."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.book import kernels
from market_depth.book.kernels import Arrays
from market_depth.book.soundness import GUARD_BYTES, CheckedBookEngine
from protocol.events import ORDER_EVENT, OrderEvents
from tests.market_depth.book.plain_book import PlainBooks
from tests.market_depth.book.random_events import many_events, narrow_events, wide_events
from tests.market_depth.book.test_agreement import assert_same_books
from tests.market_depth.book.written_events import written

BOOK = "A 1 B 9 5; A 2 B 8 4; A 3 B 8 3; A 4 A 11 2; A 5 A 12 1; C 5 A 12 1"


def bid(arrays: Arrays) -> int:
    """The node of the best bid level."""
    return int(arrays.levels[arrays.sides[0, kernels.BASE] + arrays.sides[0, kernels.COUNT] - 1])


def set_word(name: str, index: object, value: int) -> Callable[[Arrays], None]:
    def tamper(arrays: Arrays) -> None:
        getattr(arrays, name)[index] = value

    return tamper


TAMPERED: dict[str, tuple[Callable[[Arrays], None], str]] = {
    "a key of another price": (lambda a: set_word("keys", a.sides[1, kernels.BASE], -13)(a), "keys of other prices"),
    "a pad gone": (lambda a: set_word("keys", a.sides[0, kernels.BASE] - 1, 5)(a), "lost its pads"),
    "too many levels": (set_word("sides", (0, kernels.COUNT), 1 << 20), "in room for"),
    "an order miscounted on its side": (set_word("sides", (0, kernels.RESTING), 9), "a side miscounts"),
    "an order miscounted on its level": (lambda a: set_word("links", (bid(a), kernels.ORDERS), 2)(a), "miscounts its orders"),
    "a size miscounted": (lambda a: set_word("nodes", (bid(a), kernels.QUANTITY), 2)(a), "miscounts its size"),
    "a queue that leads away": (lambda a: set_word("links", (bid(a), kernels.NEXT), 1 << 30)(a), "leads to"),
    "a queue that leads back elsewhere": (lambda a: set_word("links", (bid(a), kernels.PREVIOUS), 0)(a), "another way"),
    "a free node lost": (set_word("state", kernels.FREE, 0), "a node is lost"),
    "used nodes miscounted": (set_word("state", kernels.USED, 3), "used nodes are miscounted"),
    "an id of nobody": (lambda a: set_word("ids", np.flatnonzero(a.ids == 0)[0], 4000)(a), "an id names no order"),
    "a dead level in the cache": (set_word("level_cache", 0, 4000), "the cache names"),
    "a side outside the arena": (set_word("state", kernels.ARENA_USED, 1 << 40), "outside the arena"),
    "node 0 used": (set_word("links", (0, kernels.SIDE), 0), "node 0"),
}  # fmt: skip


@pytest.mark.parametrize(("tamper", "text"), TAMPERED.values(), ids=TAMPERED)
def test_a_broken_book_is_found(tamper: Callable[[Arrays], None], text: str) -> None:
    engine = CheckedBookEngine()
    engine.apply(written(BOOK))

    tamper(engine.arrays)

    with pytest.raises(AssertionError, match=text):
        engine.check()


@pytest.mark.parametrize("at", [0, GUARD_BYTES - 1, -1, -GUARD_BYTES])
@pytest.mark.parametrize("number", range(len(Arrays._fields)))
def test_a_write_beside_an_array_is_found(number: int, at: int) -> None:
    engine = CheckedBookEngine()

    engine._guarded[number][at] += 1

    with pytest.raises(AssertionError, match=f"beside the array {Arrays._fields[number]}"):
        engine.check()


def assert_sound_and_same(batches: list[OrderEvents]) -> None:
    engine, plain = CheckedBookEngine(), PlainBooks()
    for batch in batches:
        engine.apply(batch)
        plain.apply(batch)
        assert_same_books(engine, plain)


@pytest.mark.parametrize("seed", range(5))
def test_hostile_events_leave_sound_books(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_sound_and_same([narrow_events(rng, int(rng.integers(0, 60))) for _ in range(20)])


def test_random_bytes_and_growth_leave_sound_books() -> None:
    rng = np.random.default_rng(1)
    assert_sound_and_same([wide_events(rng, 500), many_events(1, 8_000)])


@given(st.binary(max_size=40 * ORDER_EVENT.itemsize))
def test_any_bytes_leave_sound_books(data: bytes) -> None:
    events = np.frombuffer(data[: len(data) // ORDER_EVENT.itemsize * ORDER_EVENT.itemsize], ORDER_EVENT)
    assert_sound_and_same([events])


def test_every_action_leaves_sound_books() -> None:
    events = np.tile(written("A 1 B 9 5; A 2 B 9 4"), 256)
    events["action"][1::2] = np.arange(256)
    assert_sound_and_same([events, events])
