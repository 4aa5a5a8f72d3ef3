"""The memory of the books: empty, grown, and shrunk to what is in use.

It is measured in three kinds: nodes (orders and levels), books, and the arena of sorted levels. Each doubles when full;
nodes, while they are few, become four times as many.
Only a clear shrinks it: orders that leave one by one are mostly followed by others.
"""

import numpy as np

from market_depth.book import kernels
from market_depth.book.kernels import FIRST_NODES, Arrays, Int32s

FIRST_BOOKS = 1 << 4
FIRST_ARENA = 1 << 12
"""Room for some thousands of orders, 16 books and the first levels of 32 sides: 300 kB."""

FEW_NODES = 1 << 18
"""Below so many, 12 MB with their ids, four times as many follow: a book that gathers 206,000 orders is copied half as
often and comes sooner to arrays so large that the system gives them large pages. An event then takes 1.2 times less.
"""


def empty_arrays() -> Arrays:
    """Memory for no books yet."""
    nodes = np.zeros((FIRST_NODES, kernels.NODE_WORDS), np.int64)
    arrays = Arrays(
        state=np.zeros(kernels.STATE_WORDS, np.int64),
        books=np.zeros((FIRST_BOOKS, kernels.BOOK_WORDS), np.int64),
        sides=np.zeros((2 * FIRST_BOOKS, kernels.SIDE_WORDS), np.int64),
        book_table=np.zeros(2 * FIRST_BOOKS, np.int32),
        nodes=nodes,
        links=nodes.view(np.int32),
        ids=np.zeros(2 * FIRST_NODES, np.int64),
        keys=np.full(FIRST_ARENA, kernels.NO_KEY, np.int64),
        levels=np.zeros(FIRST_ARENA, np.int32),
        level_cache=np.zeros(kernels.LEVEL_CACHE_SIZE, np.int32),
    )
    # Node 0 is nobody: the level cache's empty entries name it, and no side is its.
    arrays.links[0, kernels.SIDE] = -1
    arrays.state[kernels.UNTOUCHED] = arrays.state[kernels.USED] = 1
    arrays.state[kernels.LARGEST_SIDE] = kernels.FIRST_CAPACITY
    return arrays


def with_more_nodes(arrays: Arrays) -> Arrays:
    """The same books with two or four times the nodes, and with them as large an id table."""
    growth = 4 if len(arrays.nodes) < FEW_NODES else 2
    nodes = np.zeros((growth * len(arrays.nodes), kernels.NODE_WORDS), np.int64)
    nodes[: len(arrays.nodes)] = arrays.nodes
    ids = np.zeros(growth * len(arrays.ids), np.int64)
    kernels.move_ids(arrays.ids, ids)
    return arrays._replace(nodes=nodes, links=nodes.view(np.int32), ids=ids)


def with_more_books(arrays: Arrays) -> Arrays:
    """The same books with room for twice as many."""
    books, sides = np.zeros_like(arrays.books), np.zeros_like(arrays.sides)
    table = np.zeros(2 * len(arrays.book_table), np.int32)
    kernels.move_books(arrays.books, int(arrays.state[kernels.BOOKS]), table)
    return arrays._replace(
        books=np.concatenate([arrays.books, books]),
        sides=np.concatenate([arrays.sides, sides]),
        book_table=table,
    )


def with_larger_arena(arrays: Arrays) -> Arrays:
    """The same books with twice the arena."""
    return arrays._replace(
        keys=np.concatenate([arrays.keys, np.full_like(arrays.keys, kernels.NO_KEY)]),
        levels=np.concatenate([arrays.levels, np.zeros_like(arrays.levels)]),
    )


def compacted(arrays: Arrays) -> Arrays:
    """The same books in arrays no larger than they need to be, with as much room again."""
    levels = levels_of(arrays)
    orders = orders_of(arrays, levels)
    old = np.concatenate([[0], levels, orders])
    new = np.zeros(len(arrays.nodes), np.int32)
    new[old] = np.arange(len(old))

    capacity = room_for(len(old), FIRST_NODES)
    nodes = np.zeros((capacity, kernels.NODE_WORDS), np.int64)
    nodes[: len(old)] = arrays.nodes[old]
    links = nodes.view(np.int32)
    neighbours = [kernels.PREVIOUS, kernels.NEXT]
    links[1 : len(old), neighbours] = new[links[1 : len(old), neighbours]]
    first_order = 1 + len(levels)
    links[first_order : len(old), kernels.LEVEL] = new[links[first_order : len(old), kernels.LEVEL]]

    entries = arrays.ids[arrays.ids != 0]
    ids = np.zeros(2 * capacity, np.int64)
    kernels.move_ids(entries & kernels.HIGH | new[entries & kernels.LOW], ids)

    state = arrays.state.copy()
    state[kernels.FREE] = 0
    state[kernels.UNTOUCHED] = state[kernels.USED] = len(old)
    return with_small_arena(
        arrays._replace(
            state=state, nodes=nodes, links=links, ids=ids, level_cache=np.zeros_like(arrays.level_cache)
        ),
        new,
    )


def with_small_arena(arrays: Arrays, new: Int32s) -> Arrays:
    """The same books in a new arena, in which level node `i` is `new[i]`; sides have as much room again."""
    used = 2 * int(arrays.state[kernels.BOOKS])
    sides, state = arrays.sides.copy(), arrays.state.copy()
    capacities = [room_for(int(count), kernels.FIRST_CAPACITY) for count in sides[:used, kernels.COUNT]]
    end = sum(capacities) + used * kernels.PAD
    largest = max(capacities, default=kernels.FIRST_CAPACITY)
    size = room_for(end + 2 * (kernels.PAD + largest), FIRST_ARENA)
    keys, levels = np.full(size, kernels.NO_KEY, np.int64), np.zeros(size, np.int32)
    base = kernels.PAD
    for side, capacity in zip(sides[:used], capacities, strict=True):
        count, old_base = side[kernels.COUNT], side[kernels.BASE]
        keys[base : base + count] = arrays.keys[old_base : old_base + count]
        levels[base : base + count] = new[arrays.levels[old_base : old_base + count]]
        side[kernels.BASE], side[kernels.CAPACITY] = base, capacity
        base += capacity + kernels.PAD
    state[kernels.ARENA_USED], state[kernels.LARGEST_SIDE] = end, largest
    return arrays._replace(state=state, sides=sides, keys=keys, levels=levels)


def room_for(count: int, least: int) -> int:
    """`least`, doubled until it is at least twice `count`."""
    room = least
    while room < 2 * count:
        room *= 2
    return room


def levels_of(arrays: Arrays) -> Int32s:
    """The level nodes of all sides, side after side, each side's worst first."""
    runs = [
        arrays.levels[side[kernels.BASE] : side[kernels.BASE] + side[kernels.COUNT]]
        for side in arrays.sides[: 2 * arrays.state[kernels.BOOKS]]
    ]
    return np.concatenate(runs) if runs else np.zeros(0, np.int32)


def orders_of(arrays: Arrays, levels: Int32s) -> Int32s:
    """The order nodes of some levels; their queues are walked side by side."""
    found = [np.zeros(0, np.int32)]
    nodes = arrays.links[levels, kernels.NEXT]
    while len(nodes):
        is_order = nodes != levels
        nodes, levels = nodes[is_order], levels[is_order]
        found.append(nodes)
        nodes = arrays.links[nodes, kernels.NEXT]
    return np.concatenate(found)
