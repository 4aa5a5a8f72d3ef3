"""An engine that checks itself: for tests, and for who doubts a book.

The kernels check no bounds and trust what the arrays hold. `CheckedBookEngine` makes good for that, at a thousand times the
cost: after every batch it walks everything that the arrays hold, and looks whether anything was written around them.
"""

import numpy as np

from market_depth.book.engine import BookEngine
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
    RESTING,
    SIDE,
    SIZE,
    UNTOUCHED,
    USED,
    AnyArray,
    Arrays,
    Bytes,
)
from protocol.events import OrderEvents

GUARD_BYTES = 4096
"""Before and behind each array. A wild index lands there if it is off by less than a page."""

GUARD = 0xA5


class CheckedBookEngine(BookEngine):
    """A `BookEngine` whose books are sound after every batch, or an AssertionError tells what is not.

    Takes some microseconds for each resting order and level.
    """

    def __init__(self) -> None:
        self._guarded: list[Bytes] = []
        super().__init__()

    def apply(self, events: OrderEvents) -> None:
        """Apply a batch of events in their order, and check all books.

        Raises: as `BookEngine.apply`; AssertionError when a book is broken.
        """
        super().apply(events)
        self.check()

    def apply_record(self, record: bytes) -> None:
        """Apply one event, and check all books. Raises: as `BookEngine.apply_record`, and as `apply`."""
        super().apply_record(record)
        self.check()

    def check(self) -> None:
        """Raises: AssertionError when a book is broken."""
        for number, array in enumerate(self._guarded):
            for guard in (array[:GUARD_BYTES], array[-GUARD_BYTES:]):
                assert (guard == GUARD).all(), f"written beside the array {Arrays._fields[number]}"
        check_arrays(self.arrays)

    def _use(self, arrays: Arrays) -> None:
        self._guarded = [guarded(array) for array in arrays]
        originals: list[AnyArray] = list(arrays)
        copies = Arrays(
            *(
                buffer[GUARD_BYTES:-GUARD_BYTES].view(array.dtype).reshape(array.shape)
                for array, buffer in zip(originals, self._guarded, strict=True)
            )
        )
        super()._use(copies._replace(links=copies.nodes.view(np.int32)))


def guarded(array: AnyArray) -> Bytes:
    """The bytes of an array between guards."""
    buffer = np.full(array.nbytes + 2 * GUARD_BYTES, GUARD, np.uint8)
    buffer[GUARD_BYTES:-GUARD_BYTES] = np.ascontiguousarray(array).view(np.uint8).ravel()
    return buffer


def check_arrays(arrays: Arrays) -> None:
    """Walk everything that the arrays hold. The invariants are those that `kernels.py` states.

    Raises: AssertionError when one is broken.
    """
    levels = check_runs_are_sorted(arrays)
    queues = {level: queue_of(arrays, level) for level in levels}
    orders = [order for queue in queues.values() for order in queue]
    check_sides_count_their_orders(arrays, queues)
    check_every_node_is_somewhere(arrays, levels, orders)
    check_ids_are_found(arrays, orders)
    check_cache_names_living_levels(arrays, levels)


def check_runs_are_sorted(arrays: Arrays) -> list[int]:
    """Returns all levels. Runs lie apart, each with its pads below."""
    levels: list[int] = []
    ends = [0]
    sides = arrays.sides[: 2 * arrays.state[BOOKS]]
    for number, side in enumerate(sides):
        base, count = side[BASE], side[COUNT]
        keys = arrays.keys[base : base + count]
        run = arrays.levels[base : base + count].tolist()
        assert 0 <= count <= side[CAPACITY], f"side {number} has {count} levels in room for {side[CAPACITY]}"
        assert (keys[:-1] < keys[1:]).all(), f"side {number} is not sorted"
        assert (keys > NO_KEY).all(), f"side {number} has a level without a price"
        assert (arrays.keys[base - PAD : base] == NO_KEY).all(), f"side {number} has lost its pads"
        prices = arrays.nodes[run, PRICE]
        assert (keys == (-prices if number % 2 else prices)).all(), f"side {number} has keys of other prices"
        assert (arrays.links[run, SIDE] == number).all(), f"side {number} has a level of another side"
        levels += run
    for side in sides[np.argsort(sides[:, BASE])]:
        assert side[BASE] - PAD >= ends[-1], "two sides overlap"
        ends.append(side[BASE] + side[CAPACITY])
    assert ends[-1] <= arrays.state[ARENA_USED] <= len(arrays.keys), "a side lies outside the arena"
    return levels


def queue_of(arrays: Arrays, level: int) -> list[int]:
    """The orders of a level, front first; the links lead back the same way, the sums are right, none is empty."""
    queue: list[int] = []
    node = int(arrays.links[level, NEXT])
    while node != level:
        assert 0 < node < len(arrays.nodes), f"the queue of level {level} leads to {node}"
        assert arrays.links[node, LEVEL] == level, f"order {node} does not know that it is on level {level}"
        assert len(queue) < len(arrays.nodes), f"the queue of level {level} has no end"
        queue.append(node)
        node = int(arrays.links[node, NEXT])
    circle = [level, *queue, level]
    assert [int(arrays.links[node, PREVIOUS]) for node in circle[1:]] == circle[:-1], (
        f"the queue of level {level} leads back another way"
    )
    sizes = arrays.links[queue, SIZE].view(np.uint32).astype(np.int64)
    assert queue, f"level {level} is empty"
    assert sizes.min() > 0, f"level {level} has an empty order"
    assert arrays.links[level, ORDERS] == len(queue), f"level {level} miscounts its orders"
    assert arrays.nodes[level, QUANTITY] == sizes.sum(), f"level {level} miscounts its size"
    return queue


def check_sides_count_their_orders(arrays: Arrays, queues: dict[int, list[int]]) -> None:
    counts = np.zeros(len(arrays.sides), np.int64)
    for level, queue in queues.items():
        counts[arrays.links[level, SIDE]] += len(queue)
    assert (arrays.sides[:, RESTING] == counts).all(), "a side miscounts its orders"


def check_every_node_is_somewhere(arrays: Arrays, levels: list[int], orders: list[int]) -> None:
    free: list[int] = []
    node = int(arrays.state[FREE])
    while node:
        assert len(free) < len(arrays.nodes), "the free list has no end"
        free.append(node)
        node = int(arrays.links[node, NEXT])
    untouched = int(arrays.state[UNTOUCHED])
    assert sorted([*levels, *orders, *free]) == list(range(1, untouched)), "a node is lost, or is two things"
    assert arrays.state[USED] == 1 + len(levels) + len(orders) <= len(arrays.nodes), (
        "used nodes are miscounted"
    )


def check_ids_are_found(arrays: Arrays, orders: list[int]) -> None:
    """Each entry names one order, and no empty place lies between its home and it."""
    (places,) = np.nonzero(arrays.ids)
    named = arrays.ids[places] & LOW
    assert len(set(named.tolist())) == len(places) <= len(arrays.ids) // 2, "two ids name one order"
    assert set(named.tolist()) <= set(orders), "an id names no order"
    shift = 65 - len(arrays.ids).bit_length()
    homes = (arrays.ids[places] >> shift) & (len(arrays.ids) - 1)
    for place, home in zip(places.tolist(), homes.tolist(), strict=True):
        distance = (place - home) % len(arrays.ids)
        assert arrays.ids[(home + np.arange(distance)) % len(arrays.ids)].all(), f"the id at {place} is lost"


def check_cache_names_living_levels(arrays: Arrays, levels: list[int]) -> None:
    assert len(arrays.level_cache) == LEVEL_CACHE_SIZE
    assert set(arrays.level_cache.tolist()) <= {0, *levels}, "the cache names a level that is gone"
    assert arrays.links[0, SIDE] == -1, "node 0 has become somebody"
