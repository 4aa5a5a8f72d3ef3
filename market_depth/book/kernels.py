"""Order books as functions over arrays, compiled by numba: apply events, read or tell what they lead to.

In this order: nodes, ids, levels, orders, books, events; then what is told of them: levels and orders on demand, the
best levels after each event, and these as text.

What the arrays hold (`Arrays`), and what is true of them between two events:

- **Nodes** of 32 bytes in one pool: resting orders and price levels alike. Both end in the links of a circular list:
  a level is the sentinel of its queue, so its NEXT is the front order and its PREVIOUS the back, and appending or
  leaving never asks whether the queue is empty. A level without orders does not exist. Unused nodes form the free
  list through NEXT; nodes from state[UNTOUCHED] on were never used. Node 0 is nobody.
- **Sides**: book `b` has side 2b for its bids and 2b + 1 for its asks. A side's levels are a sorted run in the arena:
  `keys[base : base + count]` with the *best at the end*, where books change most, and `levels` beside it with the
  level nodes. A bid's key is its price, an ask's its negated price, so that better is always greater. PAD keys of
  NO_KEY lie below every run: short searches need no bounds, and reading past the worst level yields NO_KEY.
- **Ids**: a hash table by open addressing from (order id, book) to node. An entry is the hash's upper 32 bits and the
  node in the lower; 0 is empty. It has two places for every node of the pool, so it is never more than half full.
  Deletion shifts later entries back: there are no tombstones.
- **Level cache**: a direct-mapped guess from (price, side) to level. An entry names a living level or node 0.
- **Books** are found by (instrument, publisher) in a second hash table and register themselves when first seen.

No kernel allocates or checks bounds. Instead `apply_events` asks before each event whether the worst that one event
can do still fits (`has_room`), and stops there if not: its caller grows the arrays and goes on with the rest.

What makes it fast: kernels work on bare addresses (`Memory`), because arrays handed from function to function count
references, which makes an event ten times as slow, and because a call from Python unpacks no arrays; the level cache;
and for large books, prefetching. `market-depth bench book` measures it: about 28 ns an event with 206,000 resting
orders, 30 times as fast as dicts and SortedDicts and 5 times as fast as a usual book in C++.

All kernels stand in this one module, though they are several ideas: numba's cache on disk notices an edit here, but not
one in a module it imports, and `BookEngine.is_compiled` would take stale kernels for good ones.
Sources: DBN's MBO schema and its actions and flags (databento_dbn); backward-shift deletion after Knuth, The Art of
Computer Programming, volume 3, section 6.4, algorithm R.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core.options import DefaultOptions
from numba.extending import intrinsic

from protocol.events import ORDER_EVENT, UNDEF_PRICE, Action, Flag, Side

# An event, as 64-bit words of DBN's MBO record (little-endian).
EVENT_WORDS = ORDER_EVENT.itemsize // 8
EVENT_HEADER = 0  # from the lowest bit: length (8), record type (8), publisher (16), instrument (32)
EVENT_TS_EVENT = 1
EVENT_ORDER_ID = 2
EVENT_PRICE = 3
EVENT_BODY = 4  # from the lowest bit: size (32), flags (8), channel (8), action (8), side (8)
EVENT_TS_RECV = 5

ADD, MODIFY, CANCEL, CLEAR = int(Action.ADD), int(Action.MODIFY), int(Action.CANCEL), int(Action.CLEAR)
TRADE, FILL, NONE = int(Action.TRADE), int(Action.FILL), int(Action.NONE)
ACTIONS_FROM = (
    64  # actions are letters, among the 32 bytes from here on: a set of them is a number with their bits set
)
ORDER_ACTIONS = sum(1 << (action - ACTIONS_FROM) for action in (ADD, MODIFY, CANCEL))
KNOWN_ACTIONS = ORDER_ACTIONS | sum(1 << (action - ACTIONS_FROM) for action in (CLEAR, TRADE, FILL, NONE))
BID, ASK, NO_SIDE = int(Side.BID), int(Side.ASK), int(Side.NONE)
TOB = int(Flag.TOB)

# A book, as 64-bit words: a row of Arrays.books.
BOOK_KEY = 0  # instrument id (32 bits), publisher id (16)
SEQUENCE = 1  # how many events changed the book
TS_EVENT, TS_RECV, FLAGS = 2, 3, 4  # of the last event
BOOK_WORDS = 8  # with those unused a row is a cache line
BOOK_KEY_MASK = (1 << 48) - 1

# A side of a book, as 64-bit words: a row of Arrays.sides.
BASE, COUNT, CAPACITY = 0, 1, 2  # in the arena: where the run starts, how long it is, how long it may become
RESTING = 3  # its orders
SIDE_WORDS = 4

# A node, as 64-bit words of Arrays.nodes …
ORDER_ID, PLACED = 0, 1  # an order: its id; ts_event of the event that gave it its place
PRICE, QUANTITY = 0, 1  # a level: its price; the sum of its orders' sizes
NODE_WORDS = 4
# … and as 32-bit halves of the same bytes, Arrays.links.
LEVEL, SIZE = 4, 5  # an order: its level, its size
SIDE, ORDERS = 4, 5  # a level: its side, the number of its orders
PREVIOUS, NEXT = 6, 7  # both: the neighbours in the queue
NODE_LINKS = 8

# Arrays.state, what all books share.
FREE = 0  # first node of the free list, or 0
UNTOUCHED = 1  # the lowest node never used
USED = 2  # nodes in use, node 0 included
BOOKS = 3  # books registered
ARENA_USED = 4  # where the arena's free end starts
LARGEST_SIDE = 5  # the greatest CAPACITY
UNKNOWN_ORDERS, DUPLICATE_ORDERS, INVALID_EVENTS = 6, 7, 8
UNKNOWN_ACTIONS = 9  # those of the invalid events whose action no book counts
STOP = 10  # why no event may be applied before the arrays grow or shrink; 0, or any of …
UNTOLD = 11  # whether events were applied of which nobody was told who tells tops
SEEN = 12  # from here on: how many events of each action, by the last five bits of its letter
STATE_WORDS = SEEN + 32

FULL = 1  # there may be no room for another book, or for a side that doubles
TOO_LARGE = 2  # a clear left the nodes mostly unused

SPARSE = 16
"""A clear that leaves fewer than one in so many nodes in use asks for smaller arrays …"""
FIRST_NODES = 1 << 12
"""… but never for fewer nodes than these."""

PAD = 16
"""Keys of NO_KEY below each run: as many as `position_of` looks at before it halves."""

NO_KEY = -(2**63)
ABOVE_KEYS = 2**63 - 1
FIRST_CAPACITY = 48
"""Levels a new side has room for: with its pads, 512 bytes of keys."""

LEVEL_CACHE_BITS = 14
LEVEL_CACHE_SIZE = 1 << LEVEL_CACHE_BITS
"""64 kB. Without the cache an event takes 1.4 times as long with one instrument, 1.1 times with 200."""

BOOK_HASH_SHIFT = 40
"""Leaves 24 bits of a book key's hash: enough for 16 million books."""

PREFETCH_NODES = 1 << 14
"""From 512 kB of nodes on, prefetch: with their ids these fill half of a core's own cache, and outputs want the rest.

Without it, with 243,000 orders, an event takes 1.9 times as long with one instrument, 1.6 times with 200.
"""

GOLDEN = 0x9E3779B97F4A7C15 - 2**64
"""2**64 over the golden ratio, odd, as a signed number: multiplying by it spreads keys (Knuth, section 6.4)."""

LOW = 0xFFFFFFFF
HIGH = ~LOW

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
AnyArray = npt.NDArray[Any]


class Pointer(Protocol):
    """A bare address with an element type: indexing it is a load or a store and nothing else."""

    def __getitem__(self, index: int) -> int: ...
    def __setitem__(self, index: int, value: int) -> None: ...


class Arrays(NamedTuple):
    """Everything the books are made of. The first axis of each is its capacity; powers of two for the hash tables."""

    state: Int64s
    books: Int64s  # (n, BOOK_WORDS)
    sides: Int64s  # (2n, SIDE_WORDS)
    book_table: Int32s  # hash table of books: book + 1, or 0
    nodes: Int64s  # (n, NODE_WORDS)
    links: Int32s  # (n, NODE_LINKS): the same memory as nodes
    ids: Int64s  # hash table of orders
    keys: Int64s  # the arena
    levels: Int32s  # the arena: the level node of each key
    level_cache: Int32s


class Memory(NamedTuple):
    """The addresses of `Arrays`, and the sizes that the kernels need in their loops. Valid while the arrays live."""

    state: Pointer
    books: Pointer
    sides: Pointer
    book_table: Pointer
    nodes: Pointer
    links: Pointer
    ids: Pointer
    keys: Pointer
    levels: Pointer
    level_cache: Pointer
    node_capacity: int
    book_capacity: int
    arena_capacity: int
    id_shift: int
    id_mask: int
    book_mask: int


F = TypeVar("F", bound=Callable[..., Any])


# By default every function also gets a door for Python and one for C. Only kernels need the first: without the others
# a first start compiles for 5.4 s instead of 8.6. A numba that does not know these options makes all doors.
NO_DOOR_FOR_C: Any = {"no_cfunc_wrapper": True} if hasattr(DefaultOptions, "no_cfunc_wrapper") else {}
NO_DOORS: Any = (
    {"no_cpython_wrapper": True, **NO_DOOR_FOR_C} if hasattr(DefaultOptions, "no_cpython_wrapper") else {}
)


def kernel(function: F) -> F:
    """Compile `function` on its first call, or load it from numba's cache. It runs without the interpreter's lock."""
    return cast("F", numba.njit(cache=True, nogil=True, **NO_DOOR_FOR_C)(function))


def brief_kernel(function: F) -> F:
    """The same, but it keeps the interpreter's lock: for what is done sooner than the lock is given away and taken again."""
    return cast("F", numba.njit(cache=True, **NO_DOOR_FOR_C)(function))


def inlined(function: F) -> F:
    """Compile `function` into each of its callers."""
    return cast("F", numba.njit(forceinline=True, **NO_DOORS)(function))


def outlined(function: F) -> F:
    """Compile `function` once, for its callers to call: what is long and rare would only make each of them longer."""
    return cast("F", numba.njit(**NO_DOORS)(function))


pointer_type: Any = types.CPointer  # its constructor is untyped
CHARS = pointer_type(types.uint8)


def _pointer_to(element: Any) -> Callable[[int], Pointer]:
    def _pointer(_typing_context: Any, _address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return pointer_type(element)(types.int64), generate

    return cast("Callable[[int], Pointer]", intrinsic(_pointer))


int64s, int32s, chars = _pointer_to(types.int64), _pointer_to(types.int32), _pointer_to(types.uint8)
"""An address as one of elements."""


def _prefetch(_typing_context: Any, address: Any, _index: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], function_type)
        element = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), byte)
        read, keep, data = word(0), word(3), word(1)
        builder.call(function, [element, read, keep, data])
        return _context.get_dummy_value()

    return types.void(address, types.int64), generate


prefetch: Callable[[Pointer, int], None] = cast("Any", intrinsic(_prefetch))
"""Ask for the cache line of an address's element without waiting for it."""


def _constant_text(text: str) -> Callable[[Pointer, int], int]:
    """A function (to, at) that writes a text and returns where it ends.

    It writes as many bytes as make a power of two, because that is one store: what stands behind the text may change.
    """
    written = text.encode().ljust(1 << (len(text) - 1).bit_length())

    def _write(_typing_context: Any, _chars: Any, _at: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8), len(written))
            target = builder.bitcast(builder.gep(arguments[0], [arguments[1]]), vector.as_pointer())
            builder.store(ir.Constant(vector, list(written)), target).align = 1
            return builder.add(arguments[1], arguments[1].type(len(text)))

        return types.int64(CHARS, types.int64), generate

    return cast("Callable[[Pointer, int], int]", intrinsic(_write))


def _copy_of(size: int) -> Callable[[Pointer, int, Pointer, int], None]:
    def _copy(_typing_context: Any, _to: Any, _to_at: Any, _source: Any, _source_at: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8), size).as_pointer()
            to, to_at, source, source_at = arguments
            content = builder.load(builder.bitcast(builder.gep(source, [source_at]), vector), align=1)
            builder.store(content, builder.bitcast(builder.gep(to, [to_at]), vector), align=1)
            return context.get_dummy_value()

        return types.void(CHARS, types.int64, CHARS, types.int64), generate

    return cast("Callable[[Pointer, int, Pointer, int], None]", intrinsic(_copy))


copy_16, copy_32, copy_64, copy_128 = _copy_of(16), _copy_of(32), _copy_of(64), _copy_of(128)
"""Copy so many bytes: (to, at, from, at). Of a shorter text that is more than it has, in one step."""


def _store_eight(_typing_context: Any, _chars: Any, _at: Any, _value: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        to, at, value = arguments
        target = builder.bitcast(builder.gep(to, [at]), value.type.as_pointer())
        builder.store(value, target, align=1)
        return context.get_dummy_value()

    return types.void(CHARS, types.int64, types.int64), generate


store_eight: Callable[[Pointer, int, int], None] = cast("Any", intrinsic(_store_eight))
"""Write a number's eight bytes, lowest first, wherever."""


def _count_among(comparison: str) -> Callable[[Pointer, int, int], int]:
    def _count(_typing_context: Any, _keys: Any, _at: Any, _key: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            keys, at, key = arguments
            vector, lanes = ir.VectorType(key.type, PAD), ir.VectorType(ir.IntType(32), PAD)
            run = builder.load(builder.bitcast(builder.gep(keys, [at]), vector.as_pointer()), align=8)
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, key, ir.IntType(32)(0))
            everywhere = builder.shuffle_vector(first, undefined, ir.Constant(lanes, [0] * PAD))
            found = builder.bitcast(builder.icmp_signed(comparison, run, everywhere), ir.IntType(PAD))
            return builder.zext(builder.ctpop(found), key.type)

        return types.int64(pointer_type(types.int64), types.int64, types.int64), generate

    return cast("Callable[[Pointer, int, int], int]", intrinsic(_count))


count_above, count_not_below = _count_among(">"), _count_among(">=")
"""How many of PAD keys, from a position on, are above a key, or not below it: without a branch, in a few vectors."""


def _trailing_zeros(_typing_context: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.int64(types.int64), generate


trailing_zeros: Callable[[int], int] = cast("Any", intrinsic(_trailing_zeros))
"""How many of a number's lowest bits are zero."""


def _cycles(_typing_context: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        counter = ir.FunctionType(ir.IntType(64), [])
        return builder.call(builder.module.declare_intrinsic("llvm.readcyclecounter", (), counter), [])

    return types.int64(), generate


cycles: Callable[[], int] = cast("Any", intrinsic(_cycles))
"""The processor's cycle counter; on x86 it runs at a constant rate."""


widen: Callable[[int], int] = cast("Any", np.int64)
"""A 32-bit load as a 64-bit number: all arithmetic of the kernels is in one type."""

unsigned: Callable[[int], int] = cast("Any", np.uint64)


@inlined
def memory(address: int) -> Memory:
    """What the words at an address tell, as `memory_words` wrote them."""
    words = int64s(address)
    return Memory(
        int64s(words[0]),
        int64s(words[1]),
        int64s(words[2]),
        int32s(words[3]),
        int64s(words[4]),
        int32s(words[5]),
        int64s(words[6]),
        int64s(words[7]),
        int32s(words[8]),
        int32s(words[9]),
        words[10],
        words[11],
        words[12],
        words[13],
        words[14],
        words[15],
    )


def memory_words(arrays: Arrays) -> Int64s:
    """The fields of `Memory` as numbers: what kernels are given the address of. Valid while the arrays live."""
    # A home is a hash's uppermost bits, as many as number the places of the id table.
    id_shift = 65 - len(arrays.ids).bit_length()
    return np.array(
        [
            *(address_of(array) for array in arrays),
            len(arrays.nodes),
            len(arrays.books),
            len(arrays.keys),
            id_shift,
            len(arrays.ids) - 1,
            len(arrays.book_table) - 1,
        ],
        np.int64,
    )


def address_of(array: AnyArray) -> int:
    """Where an array's first element is."""
    return array.ctypes.data


# --- Nodes: the pool that orders and levels come from ---


@inlined
def word(m: Memory, node: int, field: int) -> int:
    return m.nodes[node * NODE_WORDS + field]


@inlined
def set_word(m: Memory, node: int, field: int, value: int) -> None:
    m.nodes[node * NODE_WORDS + field] = value


@inlined
def link(m: Memory, node: int, field: int) -> int:
    return widen(m.links[node * NODE_LINKS + field])


@inlined
def set_link(m: Memory, node: int, field: int, value: int) -> None:
    m.links[node * NODE_LINKS + field] = value


@inlined
def take_node(m: Memory) -> int:
    node = m.state[FREE]
    if node != 0:
        m.state[FREE] = link(m, node, NEXT)
    else:
        node = m.state[UNTOUCHED]
        m.state[UNTOUCHED] = node + 1
    m.state[USED] += 1
    return node


@inlined
def return_node(m: Memory, node: int) -> None:
    set_link(m, node, NEXT, m.state[FREE])
    m.state[FREE] = node
    m.state[USED] -= 1


# --- Ids: from (order id, book) to node ---


@inlined
def id_hash(order_id: int, book_key: int) -> int:
    return (order_id ^ (book_key * GOLDEN)) * GOLDEN


@inlined
def id_home(m: Memory, hashed: int) -> int:
    """The place where a hash, or an entry with its upper half, would like to be."""
    return (hashed >> m.id_shift) & m.id_mask


@inlined
def find_id(m: Memory, hashed: int, order_id: int, book: int) -> int:
    """The place of an order's entry, or the empty place where it belongs."""
    place = id_home(m, hashed)
    while True:
        entry = m.ids[place]
        if entry == 0:
            return place
        if (entry ^ hashed) & HIGH == 0:
            node = entry & LOW
            level = link(m, node, LEVEL)
            if word(m, node, ORDER_ID) == order_id and link(m, level, SIDE) >> 1 == book:
                return place
        place = (place + 1) & m.id_mask


@inlined
def erase_id(m: Memory, place: int) -> None:
    """Empty a place, and shift back every later entry that could then no longer be reached from its home."""
    hole = place
    m.ids[hole] = 0
    while True:
        place = (place + 1) & m.id_mask
        entry = m.ids[place]
        if entry == 0:
            return
        if (place - id_home(m, entry)) & m.id_mask >= (place - hole) & m.id_mask:
            m.ids[hole] = entry
            m.ids[place] = 0
            hole = place


@inlined
def forget_id(m: Memory, node: int, book_key: int) -> None:
    """Erase the entry that names this very node. Top-of-book orders have none."""
    place = id_home(m, id_hash(word(m, node, ORDER_ID), book_key))
    while m.ids[place] != 0:
        if m.ids[place] & LOW == node:
            erase_id(m, place)
            return
        place = (place + 1) & m.id_mask


@kernel
def move_ids(old: Int64s, new: Int64s) -> None:
    """Enter everything of a full table into an empty, larger one. An entry holds all of the hash that homes need."""
    shift = 64
    while 1 << (64 - shift) < new.size:
        shift -= 1
    for entry in old:
        if entry != 0:
            place = (entry >> shift) & (new.size - 1)
            while new[place] != 0:
                place = (place + 1) & (new.size - 1)
            new[place] = entry


# --- Levels: sorted runs of keys in the arena ---


@inlined
def key_of(side: int, price: int) -> int:
    """A price as a key of its side, and a key as its price."""
    return -price if side & 1 else price


@inlined
def run_end(m: Memory, side: int) -> int:
    """Where in the arena the run of a side ends: one after its best level."""
    return m.sides[side * SIDE_WORDS + BASE] + m.sides[side * SIDE_WORDS + COUNT]


@inlined
def position_of(m: Memory, side: int, key: int) -> int:
    """Where in the arena the first key of a side stands that is not below `key`; the run's end if there is none."""
    end = run_end(m, side)
    # Most events are near the best.
    not_below = count_not_below(m.keys, end - PAD, key)
    if not_below < PAD:
        return end - not_below
    low, high = m.sides[side * SIDE_WORDS + BASE], end - PAD
    while low < high:
        middle = (low + high) >> 1
        if m.keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@inlined
def cache_place(side: int, price: int) -> int:
    return (((price ^ (side << 40)) * GOLDEN) >> (64 - LEVEL_CACHE_BITS)) & (LEVEL_CACHE_SIZE - 1)


@inlined
def level_at(m: Memory, side: int, price: int) -> int:
    """The level of a side at a price, made if it is not there."""
    cached = cache_place(side, price)
    level = widen(m.level_cache[cached])
    if word(m, level, PRICE) == price and link(m, level, SIDE) == side:
        return level
    key = key_of(side, price)
    position = position_of(m, side, key)
    if position < run_end(m, side) and m.keys[position] == key:
        level = widen(m.levels[position])
    else:
        level = insert_level(m, side, price, position)
    m.level_cache[cached] = level
    return level


@outlined
def insert_level(m: Memory, side: int, price: int, position: int) -> int:
    """A new level without orders at a position of its side's run; the run moves first if it has no room."""
    if m.sides[side * SIDE_WORDS + COUNT] == m.sides[side * SIDE_WORDS + CAPACITY]:
        position += relocate(m, side)
    for i in range(run_end(m, side), position, -1):
        m.keys[i] = m.keys[i - 1]
        m.levels[i] = m.levels[i - 1]
    level = take_node(m)
    m.keys[position] = key_of(side, price)
    m.levels[position] = level
    m.sides[side * SIDE_WORDS + COUNT] += 1
    set_word(m, level, PRICE, price)
    set_word(m, level, QUANTITY, 0)
    set_link(m, level, SIDE, side)
    set_link(m, level, ORDERS, 0)
    set_link(m, level, PREVIOUS, level)
    set_link(m, level, NEXT, level)
    return level


@inlined
def stop_if_full(m: Memory) -> None:
    """Ask for more memory when the next event might need more: a new book with two sides, or a side that doubles."""
    arena_needed = m.state[ARENA_USED] + 2 * (PAD + m.state[LARGEST_SIDE])
    if m.state[BOOKS] == m.book_capacity or arena_needed > m.arena_capacity:
        m.state[STOP] |= FULL


@outlined
def relocate(m: Memory, side: int) -> int:
    """Give a side's run twice its room at the arena's free end. Returns how far it moved; what it leaves is lost."""
    at = side * SIDE_WORDS
    base, capacity = m.sides[at + BASE], 2 * m.sides[at + CAPACITY]
    new_base = m.state[ARENA_USED] + PAD
    for i in range(m.sides[at + COUNT]):
        m.keys[new_base + i] = m.keys[base + i]
        m.levels[new_base + i] = m.levels[base + i]
    m.sides[at + BASE] = new_base
    m.sides[at + CAPACITY] = capacity
    m.state[ARENA_USED] = new_base + capacity
    m.state[LARGEST_SIDE] = max(m.state[LARGEST_SIDE], capacity)
    stop_if_full(m)
    return new_base - base


@outlined
def drop_level(m: Memory, level: int) -> None:
    """Take a level without orders out of its side."""
    side = link(m, level, SIDE)
    price = word(m, level, PRICE)
    position = position_of(m, side, key_of(side, price))
    for i in range(position, run_end(m, side) - 1):
        m.keys[i] = m.keys[i + 1]
        m.levels[i] = m.levels[i + 1]
    m.sides[side * SIDE_WORDS + COUNT] -= 1
    discard_level(m, level, side, price)


@inlined
def discard_level(m: Memory, level: int, side: int, price: int) -> None:
    """Give back the node of a level that its side no longer lists."""
    cached = cache_place(side, price)
    if m.level_cache[cached] == level:
        m.level_cache[cached] = 0
    return_node(m, level)


# --- Orders: their places in the queues ---


class Event(NamedTuple):
    """One event, unpacked."""

    order_id: int
    price: int
    size: int
    flags: int
    side: int  # the byte: BID, ASK, NO_SIDE or rubbish
    ts_event: int


@inlined
def size_of(m: Memory, order: int) -> int:
    """An order's size; sizes are unsigned."""
    return link(m, order, SIZE) & LOW


@inlined
def join_queue(m: Memory, order: int, side: int, event: Event) -> None:
    """Put an order at the back of the queue where its event says."""
    level = level_at(m, side, event.price)
    m.sides[side * SIDE_WORDS + RESTING] += 1
    back = link(m, level, PREVIOUS)
    set_word(m, order, PLACED, event.ts_event)
    set_link(m, order, LEVEL, level)
    set_link(m, order, SIZE, event.size)
    set_link(m, order, PREVIOUS, back)
    set_link(m, order, NEXT, level)
    set_link(m, back, NEXT, order)
    set_link(m, level, PREVIOUS, order)
    set_link(m, level, ORDERS, link(m, level, ORDERS) + 1)
    set_word(m, level, QUANTITY, word(m, level, QUANTITY) + event.size)


@inlined
def leave_queue(m: Memory, order: int) -> None:
    """Take an order out of its level's queue, and an emptied level out of its side."""
    level = link(m, order, LEVEL)
    side = link(m, level, SIDE)
    m.sides[side * SIDE_WORDS + RESTING] -= 1
    before, after = link(m, order, PREVIOUS), link(m, order, NEXT)
    set_link(m, before, NEXT, after)
    set_link(m, after, PREVIOUS, before)
    set_word(m, level, QUANTITY, word(m, level, QUANTITY) - size_of(m, order))
    set_link(m, level, ORDERS, link(m, level, ORDERS) - 1)
    if link(m, level, ORDERS) == 0:
        drop_level(m, level)


@inlined
def resize(m: Memory, order: int, size: int) -> None:
    """Change an order's size where it stands."""
    level = link(m, order, LEVEL)
    set_word(m, level, QUANTITY, word(m, level, QUANTITY) + size - size_of(m, order))
    set_link(m, order, SIZE, size)


@outlined
def clear_side(m: Memory, side: int) -> int:
    """Remove all orders of a side. Returns 1 if there were any."""
    at = side * SIDE_WORDS
    base, count = m.sides[at + BASE], m.sides[at + COUNT]
    book_key = m.books[(side >> 1) * BOOK_WORDS + BOOK_KEY]
    for i in range(base, base + count):
        level = widen(m.levels[i])
        order = link(m, level, NEXT)
        while order != level:
            after = link(m, order, NEXT)
            forget_id(m, order, book_key)
            return_node(m, order)
            order = after
        discard_level(m, level, side, word(m, level, PRICE))
    m.sides[at + COUNT] = m.sides[at + RESTING] = 0
    if m.node_capacity > FIRST_NODES and SPARSE * m.state[USED] < m.node_capacity:
        m.state[STOP] |= TOO_LARGE
    return 1 if count > 0 else 0


# --- Books ---


@inlined
def book_key(header: int) -> int:
    """Instrument and publisher, as they stand side by side in an event's first word."""
    return (header >> 16) & BOOK_KEY_MASK


@inlined
def book_of(m: Memory, key: int) -> int:
    """The book of an instrument at a publisher, registered if it is new."""
    place = ((key * GOLDEN) >> BOOK_HASH_SHIFT) & m.book_mask
    while True:
        book = widen(m.book_table[place]) - 1
        if book < 0:
            return register_book(m, key, place)
        if m.books[book * BOOK_WORDS + BOOK_KEY] == key:
            return book
        place = (place + 1) & m.book_mask


@outlined
def register_book(m: Memory, key: int, place: int) -> int:
    book = m.state[BOOKS]
    m.state[BOOKS] = book + 1
    m.book_table[place] = book + 1
    m.books[book * BOOK_WORDS + BOOK_KEY] = key
    for side in range(2 * book, 2 * book + 2):
        base = m.state[ARENA_USED] + PAD
        m.sides[side * SIDE_WORDS + BASE] = base
        m.sides[side * SIDE_WORDS + CAPACITY] = FIRST_CAPACITY
        m.state[ARENA_USED] = base + FIRST_CAPACITY
    stop_if_full(m)
    return book


@kernel
def move_books(books: Int64s, count: int, table: Int32s) -> None:
    """Enter the first `count` books into an empty, larger table."""
    for book in range(count):
        place = ((books[book, BOOK_KEY] * GOLDEN) >> BOOK_HASH_SHIFT) & (table.size - 1)
        while table[place] != 0:
            place = (place + 1) & (table.size - 1)
        table[place] = book + 1


# --- Events ---


class Change(NamedTuple):
    """What an event did to a book: whether that is another one now, and the levels that are others, came or went.

    ABOVE_KEYS as a key stands for all levels of a side, NOWHERE as a side for none.
    """

    is_real: int
    left_side: int  # where an order left, or was resized
    left_key: int
    joined_side: int  # where an order joined
    joined_key: int


NOWHERE = -1


@inlined
def unchanged() -> Change:
    return Change(0, NOWHERE, NO_KEY, NOWHERE, NO_KEY)


@inlined
def rests(event: Event) -> bool:
    """Whether an order of this price and size can stand in a book. NO_KEY as a price would break the pads."""
    return event.price != UNDEF_PRICE and event.price != NO_KEY and event.size > 0


@inlined
def names_side(event: Event) -> bool:
    return event.side == BID or event.side == ASK


@inlined
def side_of(book: int, event: Event) -> int:
    return 2 * book + (event.side == ASK)


@inlined
def new_order(m: Memory, event: Event) -> int:
    order = take_node(m)
    set_word(m, order, ORDER_ID, event.order_id)
    return order


@inlined
def change_order(m: Memory, book: int, key: int, action: int, event: Event) -> Change:
    """Add, cancel or modify an order.

    An add places an order, also one that rests already. A cancel reduces an order where it stands, or removes it. A modify
    leaves an order in its place that only becomes smaller, moves any other to the back, and removes it without a price or a
    size; a side of NO_SIDE leaves it on the side it has. It adds an unknown order: the stream began after that.

    One path for the three: with one for each, the compiler took twice as long.
    """
    can_enter = names_side(event) and rests(event)
    if action == ADD and not can_enter:
        m.state[INVALID_EVENTS] += 1
        return unchanged()
    hashed = id_hash(event.order_id, key)
    place = find_id(m, hashed, event.order_id, book)
    side = side_of(book, event)
    left_side, left_key = NOWHERE, NO_KEY
    if m.ids[place] == 0:
        if action != ADD:
            m.state[UNKNOWN_ORDERS] += 1
        if action == CANCEL or not can_enter:
            return unchanged()
        order = new_order(m, event)
        m.ids[place] = hashed & HIGH | order
    else:
        order = m.ids[place] & LOW
        level, size = link(m, order, LEVEL), size_of(m, order)
        left_side = link(m, level, SIDE)
        left_key = key_of(left_side, word(m, level, PRICE))
        if action == CANCEL:
            if event.size == 0:
                m.state[INVALID_EVENTS] += 1
                return unchanged()
            left, stays = size - event.size, True
        elif action == MODIFY:
            if not names_side(event):
                if event.side != NO_SIDE:
                    m.state[INVALID_EVENTS] += 1
                    return unchanged()
                side = left_side
            left = event.size if rests(event) else 0
            stays = left <= size and side == left_side and key_of(side, event.price) == left_key
        else:
            m.state[DUPLICATE_ORDERS] += 1
            left, stays = event.size, False
        if stays and left > 0:
            resize(m, order, left)
            return Change(1 if left != size else 0, left_side, left_key, NOWHERE, NO_KEY)
        leave_queue(m, order)
        if left <= 0:
            erase_id(m, place)
            return_node(m, order)
            return Change(1, left_side, left_key, NOWHERE, NO_KEY)
    join_queue(m, order, side, event)
    return Change(1, left_side, left_key, side, key_of(side, event.price))


@outlined
def replace_side(m: Memory, book: int, event: Event) -> Change:
    """A top-of-book publisher's new best: all it has on that side. Without a price or a size the side is empty."""
    if not names_side(event):
        m.state[INVALID_EVENTS] += 1
        return unchanged()
    side = side_of(book, event)
    changed = clear_side(m, side)
    if rests(event):
        join_queue(m, new_order(m, event), side, event)
        changed = 1
    return Change(changed, side, ABOVE_KEYS, NOWHERE, NO_KEY)


@inlined
def clear_book(m: Memory, book: int) -> Change:
    bids, asks = 2 * book, 2 * book + 1
    return Change(clear_side(m, bids) | clear_side(m, asks), bids, ABOVE_KEYS, asks, ABOVE_KEYS)


@inlined
def is_among(actions: int, byte: int) -> bool:
    return byte ^ ACTIONS_FROM < 32 and (actions >> (byte & 31)) & 1 == 1


@inlined
def apply_event(m: Memory, events: Pointer, at: int) -> tuple[int, Change]:
    """Apply the event whose first word is `events[at]`. It may need all that `has_room` promises.

    Returns: its book, or -1 if its action is none, and what it did to that.
    """
    body = events[at + EVENT_BODY]
    action = (body >> 48) & 0xFF
    if not is_among(KNOWN_ACTIONS, action):
        m.state[UNKNOWN_ACTIONS] += 1
        return -1, unchanged()
    m.state[SEEN + (action & 31)] += 1
    key = book_key(events[at + EVENT_HEADER])
    book = book_of(m, key)
    event = Event(
        events[at + EVENT_ORDER_ID],
        events[at + EVENT_PRICE],
        body & LOW,
        (body >> 32) & 0xFF,
        (body >> 56) & 0xFF,
        events[at + EVENT_TS_EVENT],
    )
    change = unchanged()
    if action == ADD and event.flags & TOB:
        change = replace_side(m, book, event)
    elif is_among(ORDER_ACTIONS, action):
        change = change_order(m, book, key, action, event)
    elif action == CLEAR:
        change = clear_book(m, book)
    row = book * BOOK_WORDS
    m.books[row + SEQUENCE] += change.is_real
    m.books[row + TS_EVENT] = event.ts_event
    m.books[row + TS_RECV] = events[at + EVENT_TS_RECV]
    m.books[row + FLAGS] = event.flags
    return book, change


@inlined
def has_room(m: Memory) -> bool:
    """Whether the worst event fits, which needs two nodes; whether the rest is large enough was asked when that grew."""
    return m.state[USED] + 2 <= m.node_capacity and m.state[STOP] == 0


@inlined
def prefetch_ahead(m: Memory, events: Pointer, at: int, end: int) -> None:
    """Start loading what later events will touch: first their place among the ids, later the node found there."""
    soon, later = at + 8 * EVENT_WORDS, at + 16 * EVENT_WORDS
    if later < end:
        hashed = id_hash(events[later + EVENT_ORDER_ID], book_key(events[later + EVENT_HEADER]))
        prefetch(m.ids, id_home(m, hashed))
        hashed = id_hash(events[soon + EVENT_ORDER_ID], book_key(events[soon + EVENT_HEADER]))
        prefetch(m.nodes, (m.ids[id_home(m, hashed)] & LOW) * NODE_WORDS)


# What `apply_events` is asked for, as 64-bit words.
CALL_MEMORY, CALL_EVENTS, CALL_COUNT = 0, 1, 2
CALL_WORDS = 3


@kernel
def apply_events(call: int) -> int:
    """Apply events in order until the arrays have no room for another. Returns how many were applied.

    Takes: the address of the addresses of `memory_words` and of aligned ORDER_EVENT rows, and how many these are. One
    argument instead of three: each costs a call from Python a tenth of a microsecond.
    """
    asked = int64s(call)
    m, words, count = memory(asked[CALL_MEMORY]), int64s(asked[CALL_EVENTS]), asked[CALL_COUNT]
    end = count * EVENT_WORDS
    large = m.state[USED] >= PREFETCH_NODES
    m.state[UNTOLD] = 1
    for at in range(0, end, EVENT_WORDS):
        if not has_room(m):
            return at // EVENT_WORDS
        if large:
            prefetch_ahead(m, words, at, end)
        apply_event(m, words, at)
    return count


@brief_kernel
def apply_one(call: int) -> int:
    """`apply_events` for a single event: from Python it takes an eighth less, and 0.3 s more to compile."""
    return apply_events(call)


# --- Reading: the sides of several books as one ---


@inlined
def key_after(m: Memory, side: int, taken: int) -> int:
    """The key of a side's level number `taken` from the best; NO_KEY (the run's pad) after the worst."""
    return m.keys[run_end(m, side) - 1 - taken]


@inlined
def level_after(m: Memory, side: int, taken: int) -> int:
    return widen(m.levels[run_end(m, side) - 1 - taken])


@inlined
def rank_of(m: Memory, side: int, key: int, count: int) -> int:
    """How many of a side's best `count` levels are better than a key; perhaps more, if that is all of them."""
    end = run_end(m, side)
    rank = count_above(m.keys, end - PAD, key)
    if rank == PAD:
        while rank < count and m.keys[end - 1 - rank] > key:
            rank += 1
    return rank


@inlined
def is_below_top(m: Memory, side: int, key: int, depth: int) -> bool:
    """Whether a side has `depth` levels better than a key.

    One comparison, where its rank takes a count: half of all events end here, and which ones cannot be predicted.
    """
    nearest_pad = m.sides[side * SIDE_WORDS + BASE] - 1
    return key < m.keys[max(run_end(m, side) - depth, nearest_pad)]


@inlined
def best_key(m: Memory, sides: Int64s, taken: Int64s) -> int:
    """The best key of all sides, after what is taken of each; NO_KEY if nothing is left."""
    best = NO_KEY
    for i in range(sides.size):
        best = max(best, key_after(m, sides[i], taken[i]))
    return best


@kernel
def read_levels(address: int, sides: Int64s, levels: Int64s) -> int:
    """Fill rows of (price, size, count) with the best levels of `sides` merged, best first. Returns how many."""
    m = memory(address)
    taken = np.zeros_like(sides)
    for row in range(len(levels)):
        key = best_key(m, sides, taken)
        if key == NO_KEY:
            return row
        levels[row, 0] = key_of(sides[0], key)
        levels[row, 1] = 0
        levels[row, 2] = 0
        for i in range(sides.size):
            if key_after(m, sides[i], taken[i]) == key:
                level = level_after(m, sides[i], taken[i])
                levels[row, 1] += word(m, level, QUANTITY)
                levels[row, 2] += link(m, level, ORDERS)
                taken[i] += 1
    return len(levels)


@kernel
def read_orders(address: int, sides: Int64s, orders: Int64s) -> int:
    """Fill rows of (order id, price, size, ts_event) with the best orders of `sides` merged. Returns how many.

    Best price first; at one price side by side in the order given, and of each side in queue order.
    """
    m = memory(address)
    taken = np.zeros_like(sides)
    row = 0
    while row < len(orders):
        key = best_key(m, sides, taken)
        if key == NO_KEY:
            break
        for i in range(sides.size):
            if key_after(m, sides[i], taken[i]) == key:
                row = read_queue(m, level_after(m, sides[i], taken[i]), orders, row)
                taken[i] += 1
    return row


@inlined
def read_queue(m: Memory, level: int, orders: Int64s, row: int) -> int:
    """Fill rows from `row` on with a level's orders, front first. Returns the row after them."""
    order = link(m, level, NEXT)
    while order != level and row < len(orders):
        orders[row, 0] = word(m, order, ORDER_ID)
        orders[row, 1] = word(m, level, PRICE)
        orders[row, 2] = size_of(m, order)
        orders[row, 3] = word(m, order, PLACED)
        order = link(m, order, NEXT)
        row += 1
    return row


# --- Tops: the best levels of a book after each event ---

# A pair of levels, one of each side, as 64-bit words …
PAIR_PRICE = 0  # the bid's, then the ask's
PAIR_WORDS = 4
# … and as 32-bit halves.
PAIR_SIZE, PAIR_COUNT = 4, 6
PAIR_HALVES = 8
NO_PRICE = UNDEF_PRICE


class Tops(NamedTuple):
    """Where the tops of all books are: row `book` has `depth` pairs."""

    words: Pointer
    halves: Pointer
    bytes: Pointer
    depth: int


@inlined
def set_pair(t: Tops, book: int, rank: int, parity: int, price: int, quantity: int, orders: int) -> None:
    pair = book * t.depth + rank
    t.words[pair * PAIR_WORDS + PAIR_PRICE + parity] = price
    t.halves[pair * PAIR_HALVES + PAIR_SIZE + parity] = min(quantity, LOW)
    t.halves[pair * PAIR_HALVES + PAIR_COUNT + parity] = orders


@inlined
def show_pair(m: Memory, t: Tops, side: int, rank: int) -> None:
    level = level_after(m, side, rank)
    price, quantity, orders = word(m, level, PRICE), word(m, level, QUANTITY), link(m, level, ORDERS)
    set_pair(t, side >> 1, rank, side & 1, price, quantity, orders)


@outlined
def show_pairs(m: Memory, t: Tops, side: int, rank: int) -> None:
    """Bring all levels of a side's top up to date that are not better than a rank."""
    count = min(m.sides[side * SIDE_WORDS + COUNT], t.depth)
    for other in range(rank, count):
        show_pair(m, t, side, other)
    for other in range(max(rank, count), t.depth):
        set_pair(t, side >> 1, other, side & 1, NO_PRICE, 0, 0)


@inlined
def update_top(m: Memory, t: Tops, side: int, key: int) -> None:
    """Bring a side's top up to date after a change of the level of a key, or of all with ABOVE_KEYS."""
    if side == NOWHERE or is_below_top(m, side, key, t.depth):
        return
    count = min(m.sides[side * SIDE_WORDS + COUNT], t.depth)
    rank = rank_of(m, side, key, count)
    shown = t.words[((side >> 1) * t.depth + rank) * PAIR_WORDS + PAIR_PRICE + (side & 1)]
    if rank < count and key_after(m, side, rank) == key and key_of(side, key) == shown and key != ABOVE_KEYS:
        show_pair(m, t, side, rank)
    else:
        show_pairs(m, t, side, rank)


@kernel
def apply_and_show(
    address: int, tops_address: int, depth: int, events: int, count: int, pairs_address: int
) -> int:
    """`apply_events` that also copies the top of each event's book after it. Returns how many events were applied.

    Takes: addresses, of a top for each book there is room for and an empty one behind them, and of `count` tops.
    """
    m = memory(address)
    t = Tops(int64s(tops_address), int32s(tops_address), chars(tops_address), depth)
    words = int64s(events)
    end = count * EVENT_WORDS
    large = m.state[USED] >= PREFETCH_NODES
    if m.state[UNTOLD]:
        for side in range(2 * m.state[BOOKS]):
            show_pairs(m, t, side, 0)
        m.state[UNTOLD] = 0
    at = 0
    last = m.book_capacity
    while at < end and has_room(m):
        if large:
            prefetch_ahead(m, words, at, end)
        book, change = apply_event(m, words, at)
        # The top before this event's is copied only now: right after it was written, wide loads would wait for it.
        if at > 0:
            copy_top(t, last, pairs_address, at // EVENT_WORDS - 1)
        update_top(m, t, change.left_side, change.left_key)
        update_top(m, t, change.joined_side, change.joined_key)
        last = book if book >= 0 else m.book_capacity
        at += EVENT_WORDS
    if at > 0:
        copy_top(t, last, pairs_address, at // EVENT_WORDS - 1)
    return at // EVENT_WORDS


@inlined
def copy_top(t: Tops, book: int, pairs_address: int, row: int) -> None:
    pairs, size = chars(pairs_address), 8 * PAIR_WORDS * t.depth
    to, source = row * size, book * size
    end = to + size
    while to + 64 <= end:
        copy_64(pairs, to, t.bytes, source)
        to += 64
        source += 64
    if to < end:
        copy_32(pairs, to, t.bytes, source)


@kernel
def apply_and_show_best(address: int, events: int, count: int, pairs_address: int) -> int:
    """`apply_and_show` of one level, which is sooner read than found to be right."""
    m = memory(address)
    out = Tops(int64s(pairs_address), int32s(pairs_address), chars(pairs_address), 1)
    words = int64s(events)
    end = count * EVENT_WORDS
    large = m.state[USED] >= PREFETCH_NODES
    at = 0
    while at < end and has_room(m):
        if large:
            prefetch_ahead(m, words, at, end)
        book, _ = apply_event(m, words, at)
        show_best(m, out, book, at // EVENT_WORDS)
        at += EVENT_WORDS
    return at // EVENT_WORDS


@inlined
def show_best(m: Memory, out: Tops, book: int, row: int) -> None:
    """Fill a row with the best pair of a book, or with none for book -1."""
    for parity in range(2):
        side = 2 * book + parity
        if book >= 0 and m.sides[side * SIDE_WORDS + COUNT] > 0:
            level = level_after(m, side, 0)
            price, quantity, orders = word(m, level, PRICE), word(m, level, QUANTITY), link(m, level, ORDERS)
            set_pair(out, row, 0, parity, price, quantity, orders)
        else:
            set_pair(out, row, 0, parity, NO_PRICE, 0, 0)


# --- Time: what each event takes ---


@kernel
def apply_timed(address: int, events: int, count: int, times_address: int) -> int:
    """`apply_events` that also tells what each event took, in ticks of the processor's cycle counter."""
    m = memory(address)
    words, times = int64s(events), int64s(times_address)
    end = count * EVENT_WORDS
    large = m.state[USED] >= PREFETCH_NODES
    m.state[UNTOLD] = 1
    for at in range(0, end, EVENT_WORDS):
        if not has_room(m):
            return at // EVENT_WORDS
        if large:
            prefetch_ahead(m, words, at, end)
        began = cycles()
        apply_event(m, words, at)
        times[at // EVENT_WORDS] = cycles() - began
    return count


@kernel
def read_cycles(count: int) -> int:
    """The processor's cycle counter after reading it `count` times."""
    last = cycles()
    for _ in range(count):
        last = cycles()
    return last


# --- Text: numbers as characters ---

EIGHT_DIGITS = 10**8
ZEROS = 0x3030303030303030
"""The text 00000000."""


@inlined
def digits(value: int) -> int:
    """The eight decimal digits of a number below 10**8 as eight bytes, the first digit lowest.

    Halves, quarters and eighths of the number are divided side by side in one word; each multiplication and shift
    is the exact division by 100 or 10 of numbers that small.
    """
    high = (value * 3518437209) >> 45
    halves = high + ((value - 10_000 * high) << 32)
    high = ((halves * 5243) >> 19) & 0x0000007F_0000007F
    quarters = high + ((halves - 100 * high) << 16)
    high = ((quarters * 103) >> 10) & 0x000F000F_000F000F
    return high + ((quarters - 10 * high) << 8)


@inlined
def write_short(text: Pointer, at: int, value: int) -> int:
    """Write a number below 10**8. Returns where its text ends; the bytes up to `at` + 8 may change."""
    eight = digits(value)
    leading_zeros = trailing_zeros(eight | NO_KEY) >> 3  # at most seven: the last digit stays
    store_eight(text, at, (eight | ZEROS) >> (8 * leading_zeros))
    return at + 8 - leading_zeros


@outlined
def write_number(text: Pointer, at: int, value: int) -> int:
    """Write 64 bits as an unsigned number. Returns where its text ends; seven bytes behind that may change."""
    if 0 <= value < EIGHT_DIGITS:
        return write_short(text, at, value)
    high = widen(unsigned(value) // unsigned(EIGHT_DIGITS))
    highest = high // EIGHT_DIGITS
    if highest == 0:
        at = write_short(text, at, high)
    else:
        at = write_short(text, at, highest)
        store_eight(text, at, digits(high - highest * EIGHT_DIGITS) | ZEROS)
        at += 8
    store_eight(text, at, digits(value - high * EIGHT_DIGITS) | ZEROS)
    return at + 8


@inlined
def write_signed(text: Pointer, at: int, value: int) -> int:
    if value < 0:
        at = write_minus(text, at)
        value = -value
    return write_number(text, at, value)


write_minus = _constant_text("-")
write_null = _constant_text("null")

# --- Records: a line of JSON for each change of a book's best levels ---

# A shown level, as 64-bit words of RecordArrays.rows …
ROW_KEY, ROW_QUANTITY, ROW_ORDERS = 0, 1, 2  # what its text tells
ROW_SIZE_AT = 3  # where in the text its size stands
ROW_LENGTH = 4  # of the text
ROW_WORDS = 16
# … and as bytes.
ROW_TEXT = 40
ROW_BYTES = 8 * ROW_WORDS
MAX_LEVEL_TEXT = 79
"""Of `{"price":"…","size":…,"count":…},` with the longest numbers. A row has room for it and what is copied with it."""

# RecordArrays.state, as 64-bit words …
DUE = 0  # the book whose event has ended and is not yet told, or -1
WRITTEN = 1  # bytes of text so far
EVERY_EVENT = 2  # whether also events that left the best levels as they were are told
STEM, STEM_LENGTH = 3, 4  # the last time without its last eight digits, and the length of its text
RECORD_STATE_WORDS = 8
# … and as bytes.
STEM_TEXT = 40

# A side's words in RecordArrays.sides.
SHOWN = 0  # how many of its levels were told last
BEST_TOUCHED, WORST_TOUCHED = 1, 2  # the range of keys whose levels changed since then
RECORD_SIDE_WORDS = 4

# A book in RecordArrays.books, as 64-bit words …
HEAD_LENGTH = 0  # of its record's beginning; 0 while that is unknown
ENDS_ARE_FLAGGED = 1  # whether a record of the book had the flag LAST
TAIL_BIDS, TAIL_ASKS = 2, 3  # the numbers of levels that its record's end tells, or NOT_TOLD
TAIL_LENGTH = 4  # of the text of that end
RECORD_BOOK_WORDS = 16
# … and as bytes.
TAIL_TEXT = 64
NOT_TOLD = -1

MAX_RECORD_FRAME = 512
"""More than a record has besides its head and its levels: names, two times, three counts, the best bid and offer."""

LAST, SNAPSHOT = int(Flag.LAST), int(Flag.SNAPSHOT)


class RecordArrays(NamedTuple):
    """What the records of an engine's books are made of. Rows of a side beyond its `shown` mean nothing."""

    state: Int64s
    books: Int64s  # (n, RECORD_BOOK_WORDS)
    heads: Bytes  # (n, m): each book's record up to its time
    sides: Int64s  # (2n, RECORD_SIDE_WORDS)
    rows: Int64s  # (2n, levels, ROW_WORDS): the levels told last, best first
    text: Bytes


class Records(NamedTuple):
    """The addresses of `RecordArrays`, and their sizes. Valid while the arrays live."""

    state: Pointer
    state_text: Pointer
    books: Pointer
    book_texts: Pointer
    heads: Pointer
    sides: Pointer
    rows: Pointer
    row_texts: Pointer
    text: Pointer
    head_size: int
    levels: int
    last_start: int  # where a record may begin at the latest


def record_words(arrays: RecordArrays) -> Int64s:
    """The fields of `Records` as numbers: what kernels are given the address of. Valid while the arrays live."""
    head_size, levels = arrays.heads.shape[1], arrays.rows.shape[1]
    return np.array(
        [
            address_of(arrays.state),
            address_of(arrays.state),
            address_of(arrays.books),
            address_of(arrays.books),
            address_of(arrays.heads),
            address_of(arrays.sides),
            address_of(arrays.rows),
            address_of(arrays.rows),
            address_of(arrays.text),
            head_size,
            levels,
            len(arrays.text) - longest_record(head_size, levels),
        ],
        np.int64,
    )


def longest_record(head_size: int, levels: int) -> int:
    """How many bytes a record may take, and what is written behind it in passing."""
    return head_size + MAX_RECORD_FRAME + 2 * levels * MAX_LEVEL_TEXT


@inlined
def records_at(address: int) -> Records:
    """What the words at an address tell, as `record_words` wrote them."""
    words = int64s(address)
    return Records(
        int64s(words[0]),
        chars(words[1]),
        int64s(words[2]),
        chars(words[3]),
        chars(words[4]),
        int64s(words[5]),
        int64s(words[6]),
        chars(words[7]),
        chars(words[8]),
        words[9],
        words[10],
        words[11],
    )


write_size_name = _constant_text('","size":')
write_count_name = _constant_text(',"count":')
write_level_end = _constant_text("},")
write_price_name = _constant_text('{"price":"')


@outlined
def write_row_counts(rows: Pointer, texts: Pointer, row: int, quantity: int, orders: int) -> None:
    """Tell a shown level's size and count anew."""
    at = row * ROW_WORDS
    rows[at + ROW_QUANTITY], rows[at + ROW_ORDERS] = quantity, orders
    start = row * ROW_BYTES + ROW_TEXT
    end = write_size_name(texts, start + rows[at + ROW_SIZE_AT])
    end = write_count_name(texts, write_number(texts, end, quantity))
    end = write_level_end(texts, write_number(texts, end, orders))
    rows[at + ROW_LENGTH] = end - start


@outlined
def write_row(
    rows: Pointer, texts: Pointer, row: int, key: int, price: int, quantity: int, orders: int
) -> None:
    """Tell a level that was not shown yet."""
    at = row * ROW_WORDS
    start = row * ROW_BYTES + ROW_TEXT
    end = write_signed(texts, write_price_name(texts, start), price)
    rows[at + ROW_KEY], rows[at + ROW_SIZE_AT] = key, end - start
    write_row_counts(rows, texts, row, quantity, orders)


@inlined
def move_row(r: Records, source: int, to: int) -> None:
    copy_128(r.row_texts, to * ROW_BYTES, r.row_texts, source * ROW_BYTES)


@inlined
def fill_row(m: Memory, r: Records, side: int, rank: int) -> None:
    """Show the level that now has a rank."""
    level = level_after(m, side, rank)
    key, price = key_after(m, side, rank), word(m, level, PRICE)
    row = side * r.levels + rank
    write_row(r.rows, r.row_texts, row, key, price, word(m, level, QUANTITY), link(m, level, ORDERS))


@inlined
def refresh_row(m: Memory, r: Records, side: int, rank: int) -> int:
    """Show the size and count that a shown level has now. Returns 1 if they are others."""
    level = level_after(m, side, rank)
    quantity, orders = word(m, level, QUANTITY), link(m, level, ORDERS)
    row = side * r.levels + rank
    if r.rows[row * ROW_WORDS + ROW_QUANTITY] == quantity and r.rows[row * ROW_WORDS + ROW_ORDERS] == orders:
        return 0
    write_row_counts(r.rows, r.row_texts, row, quantity, orders)
    return 1


@inlined
def shown(r: Records, side: int) -> int:
    return r.sides[side * RECORD_SIDE_WORDS + SHOWN]


@inlined
def touch(r: Records, side: int, key: int) -> None:
    """Note that the level of a key is another, comes or goes, or all of a side with ABOVE_KEYS."""
    if side == NOWHERE:
        return
    at = side * RECORD_SIDE_WORDS
    r.sides[at + BEST_TOUCHED] = max(r.sides[at + BEST_TOUCHED], key)
    r.sides[at + WORST_TOUCHED] = min(r.sides[at + WORST_TOUCHED], NO_KEY if key == ABOVE_KEYS else key)


@inlined
def forget_touches(r: Records, side: int) -> None:
    r.sides[side * RECORD_SIDE_WORDS + BEST_TOUCHED] = NO_KEY
    r.sides[side * RECORD_SIDE_WORDS + WORST_TOUCHED] = ABOVE_KEYS


@inlined
def touched_sides(r: Records, book: int) -> tuple[int, int]:
    """The first touched side of a book, and the one behind the last. Mostly it is one: a loop, and nothing to guess."""
    bids, asks = 2 * book, 2 * book + 1
    first = bids + (r.sides[bids * RECORD_SIDE_WORDS + BEST_TOUCHED] == NO_KEY)
    return first, asks + (r.sides[asks * RECORD_SIDE_WORDS + BEST_TOUCHED] != NO_KEY)


@inlined
def shows(r: Records, side: int, rank: int, key: int) -> bool:
    """Whether the level shown at a rank is that of a key."""
    return rank < shown(r, side) and r.rows[(side * r.levels + rank) * ROW_WORDS + ROW_KEY] == key


@inlined
def show_side(m: Memory, r: Records, side: int) -> int:
    """Bring the shown levels of a side up to date. Returns 1 if they are others now."""
    at = side * RECORD_SIDE_WORDS
    best, worst = r.sides[at + BEST_TOUCHED], r.sides[at + WORST_TOUCHED]
    forget_touches(r, side)
    if is_below_top(m, side, best, r.levels):
        return 0
    count = min(m.sides[side * SIDE_WORDS + COUNT], r.levels)
    rank = rank_of(m, side, best, count)
    # Mostly one level was touched: the rows of the others are right, though perhaps no longer in their place.
    if best == worst:
        return show_level(m, r, side, count, rank, best)
    return show_levels(m, r, side, count, rank)


@inlined
def show_level(m: Memory, r: Records, side: int, count: int, rank: int, key: int) -> int:
    """`show_side` after changes of the one level that has or had a key, and with it a rank."""
    had, first = shown(r, side), side * r.levels
    is_there = rank < count and key_after(m, side, rank) == key
    was_there = shows(r, side, rank, key)
    if is_there and was_there:
        return refresh_row(m, r, side, rank)
    if is_there:
        for row in range(first + min(had, r.levels - 1), first + rank, -1):
            move_row(r, row - 1, row)
        fill_row(m, r, side, rank)
    elif was_there:
        for row in range(first + rank, first + had - 1):
            move_row(r, row + 1, row)
        if count == had:
            fill_row(m, r, side, had - 1)
    r.sides[side * RECORD_SIDE_WORDS + SHOWN] = count
    return 1 if is_there or was_there else 0


@inlined
def show_levels(m: Memory, r: Records, side: int, count: int, rank: int) -> int:
    """`show_side` after any changes at a rank and below."""
    changed = 1 if count != shown(r, side) else 0
    for other in range(rank, count):
        if shows(r, side, other, key_after(m, side, other)):
            changed |= refresh_row(m, r, side, other)
        else:
            fill_row(m, r, side, other)
            changed = 1
    r.sides[side * RECORD_SIDE_WORDS + SHOWN] = count
    return changed


@inlined
def write_row_text(r: Records, at: int, row: int) -> int:
    """Copy a shown level's text, with the comma behind it. Returns where it ends."""
    length = r.rows[row * ROW_WORDS + ROW_LENGTH]
    start = row * ROW_BYTES + ROW_TEXT
    copy_64(r.text, at, r.row_texts, start)
    if length > 64:
        copy_32(r.text, at + 64, r.row_texts, start + 64)
    return at + length


@inlined
def write_best(r: Records, at: int, side: int) -> int:
    if shown(r, side) == 0:
        return write_null(r.text, at)
    return write_row_text(r, at, side * r.levels) - 1


@inlined
def write_side(r: Records, at: int, side: int) -> int:
    first = side * r.levels
    for row in range(first, first + shown(r, side)):
        at = write_row_text(r, at, row)
    return at - 1 if shown(r, side) > 0 else at


write_time_name = _constant_text('","timestamp_ns":')
write_bbo_name = _constant_text(',"bbo":{"bid":')
write_ask_name = _constant_text(',"ask":')
write_bids_name = _constant_text('},"levels":{"bids":[')
write_asks_name = _constant_text('],"asks":[')
write_orders_name = _constant_text(']},"stats":{"total_orders":')
write_bid_levels_name = _constant_text(',"bid_levels":')
write_ask_levels_name = _constant_text(',"ask_levels":')
write_record_end = _constant_text("}}\n")


@inlined
def write_time(r: Records, at: int, time: int) -> int:
    """`write_number` of a time. All digits but the last eight are mostly those of the time before: their text is kept."""
    stem = widen(unsigned(time) // unsigned(EIGHT_DIGITS))
    if stem == 0:
        return write_number(r.text, at, time)
    if stem != r.state[STEM]:
        keep_stem(r, stem)
    copy_16(r.text, at, r.state_text, STEM_TEXT)
    at += r.state[STEM_LENGTH]
    store_eight(r.text, at, digits(time - stem * EIGHT_DIGITS) | ZEROS)
    return at + 8


@outlined
def keep_stem(r: Records, stem: int) -> None:
    r.state[STEM] = stem
    r.state[STEM_LENGTH] = write_number(r.state_text, STEM_TEXT, stem) - STEM_TEXT


@inlined
def write_tail(m: Memory, r: Records, at: int, book: int) -> int:
    """Write a record's end: the numbers of levels, mostly those of the book's record before."""
    row = book * RECORD_BOOK_WORDS
    bids, asks = m.sides[2 * book * SIDE_WORDS + COUNT], m.sides[(2 * book + 1) * SIDE_WORDS + COUNT]
    if r.books[row + TAIL_BIDS] != bids or r.books[row + TAIL_ASKS] != asks:
        keep_tail(r, row, bids, asks)
    copy_64(r.text, at, r.book_texts, 8 * row + TAIL_TEXT)
    return at + r.books[row + TAIL_LENGTH]


@outlined
def keep_tail(r: Records, row: int, bids: int, asks: int) -> None:
    r.books[row + TAIL_BIDS], r.books[row + TAIL_ASKS] = bids, asks
    texts, start = r.book_texts, 8 * row + TAIL_TEXT
    at = write_number(texts, write_bid_levels_name(texts, start), bids)
    at = write_number(texts, write_ask_levels_name(texts, at), asks)
    r.books[row + TAIL_LENGTH] = write_record_end(texts, at) - start


@inlined
def write_record(m: Memory, r: Records, book: int) -> None:
    """Write a book's record behind the others."""
    start, text = r.state[WRITTEN], r.text
    for i in range(0, r.books[book * RECORD_BOOK_WORDS + HEAD_LENGTH], 32):
        copy_32(text, start + i, r.heads, book * r.head_size + i)
    at, time = start + r.books[book * RECORD_BOOK_WORDS + HEAD_LENGTH], m.books[book * BOOK_WORDS + TS_EVENT]
    at = write_time(r, at, time)
    at = write_time_name(text, at)
    at = write_time(r, at, time)
    at = write_bbo_name(text, at)
    at = write_ask_name(text, write_best(r, at, 2 * book))
    at = write_bids_name(text, write_best(r, at, 2 * book + 1))
    at = write_asks_name(text, write_side(r, at, 2 * book))
    at = write_orders_name(text, write_side(r, at, 2 * book + 1))
    bids, asks = 2 * book * SIDE_WORDS, (2 * book + 1) * SIDE_WORDS
    at = write_number(text, at, m.sides[bids + RESTING] + m.sides[asks + RESTING])
    r.state[WRITTEN] = write_tail(m, r, at, book)


@inlined
def tell(m: Memory, r: Records, book: int) -> bool:
    """Write a book's record if its best levels are others than last time. False, and nothing done, without the means."""
    if r.books[book * RECORD_BOOK_WORDS + HEAD_LENGTH] == 0 or r.state[WRITTEN] > r.last_start:
        return False
    changed = r.state[EVERY_EVENT]
    first, end = touched_sides(r, book)
    for side in range(first, end):
        changed |= show_side(m, r, side)
    if changed:
        write_record(m, r, book)
    return True


@inlined
def ends_event(r: Records, book: int, flags: int) -> bool:
    """Whether a record of a book is the last of its event."""
    if flags & LAST:
        r.books[book * RECORD_BOOK_WORDS + ENDS_ARE_FLAGGED] = 1
        return True
    return r.books[book * RECORD_BOOK_WORDS + ENDS_ARE_FLAGGED] == 0 and flags & SNAPSHOT == 0


@kernel
def apply_and_record(address: int, records_address: int, events: int, count: int) -> int:
    """`apply_events` that also writes the records of what changes. Returns how many events were applied.

    Stops as well when a book is due that has no head or no room for its record; calling again goes on from there.
    """
    m = memory(address)
    r = records_at(records_address)
    words = int64s(events)
    end = count * EVENT_WORDS
    large = m.state[USED] >= PREFETCH_NODES
    if m.state[UNTOLD]:
        for side in range(2 * m.state[BOOKS]):
            touch(r, side, ABOVE_KEYS)
        m.state[UNTOLD] = 0
    at = 0
    while True:
        if r.state[DUE] >= 0:
            if not tell(m, r, r.state[DUE]):
                break
            r.state[DUE] = -1
        if at == end or not has_room(m):
            break
        if large:
            prefetch_ahead(m, words, at, end)
        book, change = apply_event(m, words, at)
        touch(r, change.left_side, change.left_key)
        touch(r, change.joined_side, change.joined_key)
        if book >= 0 and ends_event(r, book, m.books[book * BOOK_WORDS + FLAGS]):
            r.state[DUE] = book
        at += EVENT_WORDS
    return at // EVENT_WORDS


# --- Frames: price levels as decimal text ---

PRICE_SCALE, PRICE_DIGITS = 10**9, 9  # prices are integers of 1e-9

MAX_FRAME_ENDS = 64
MAX_FRAME_LEVEL = 144
"""Of `{"price":…,"quantity":…,"order_count":…,"total_quantity":…},` with the longest numbers, and eight bytes more."""

write_frame_start = _constant_text('{"format":"MBP","bids":[')
write_frame_end = _constant_text("]}")
write_frame_price = _constant_text('{"price":')
write_frame_quantity = _constant_text(',"quantity":')
write_frame_count = _constant_text(',"order_count":')
write_frame_total = _constant_text(',"total_quantity":')
write_point = _constant_text(".")


@outlined
def write_decimal(text: Pointer, at: int, whole: int, fraction: int, precision: int) -> int:
    """Write `whole`.`fraction`, which has `precision` digits, at most nine; none if that is 0."""
    at = write_number(text, at, whole)
    if precision == 0:
        return at
    at = write_point(text, at)
    if precision > 8:
        first = fraction // EIGHT_DIGITS
        at = write_short(text, at, first)
        fraction -= first * EIGHT_DIGITS
        precision = 8
    store_eight(text, at, (digits(fraction) | ZEROS) >> (8 * (8 - precision)))
    return at + precision


@inlined
def write_price(text: Pointer, at: int, price: int, precision: int) -> int:
    """Write a price exactly: with `precision` decimals, or with as many more as it needs."""
    if price < 0:
        at = write_minus(text, at)
        price = -price
    whole = price // PRICE_SCALE
    fraction, decimals = price - whole * PRICE_SCALE, PRICE_DIGITS
    while decimals > precision and fraction % 10 == 0:
        fraction //= 10
        decimals -= 1
    return write_decimal(text, at, whole, fraction, decimals)


@kernel
def write_price_levels(
    levels: int, bids: int, asks: int, price_precision: int, precision: int, lot: int, text_address: int
) -> int:
    """Write the `data` of an MBP frame. Returns its length.

    Takes: addresses, of rows of (price, size, count) of the bids and then the asks, best first, and of room for the
    text; `lot` is what a size of 1 is as a number of 10**-precision. No sum may reach 2**63 of these.
    """
    rows, text = int64s(levels), chars(text_address)
    unit = 1
    for _ in range(precision):
        unit *= 10
    at = write_frame_start(text, 0)
    total = 0
    for row in range(bids + asks):
        if row == bids:
            at = write_asks_name(text, at - 1 if bids > 0 else at)
            total = 0
        size = rows[3 * row + 1] * lot
        total += size
        at = write_price(text, write_frame_price(text, at), rows[3 * row], price_precision)
        whole = size // unit
        at = write_decimal(text, write_frame_quantity(text, at), whole, size - whole * unit, precision)
        at = write_number(text, write_frame_count(text, at), rows[3 * row + 2])
        whole = total // unit
        at = write_decimal(text, write_frame_total(text, at), whole, total - whole * unit, precision)
        at = write_level_end(text, at)
    if asks > 0:
        return write_frame_end(text, at - 1)
    return write_frame_end(text, write_asks_name(text, at - 1 if bids > 0 else at))
