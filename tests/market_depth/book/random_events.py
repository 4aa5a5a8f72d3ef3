"""Random events: of few things, so that they meet; of any bytes; of many things, so that everything grows."""

import numpy as np

from protocol.events import ORDER_EVENT, UNDEF_PRICE, OrderEvents, order_events

ACTIONS = list(b"AAAAAACCCMMMRTFNx")
SIDES = list(b"BBBBAAAANx")
FLAGS = [0, 0, 0, 0, 0, 128, 64, 64 | 128, 255]
ORDER_IDS = np.array([*range(40), 2**63, 2**64 - 1], np.uint64)
PRICES = [*range(-3, 4), 10**9, UNDEF_PRICE, UNDEF_PRICE - 1, -(2**63), -(2**63) + 1]
SIZES = [0, 1, 1, 2, 3, 10, 2**31, 2**32 - 1]


def narrow_events(rng: np.random.Generator, count: int) -> OrderEvents:
    """Random events of few ids, prices and books, so that they meet."""
    events = order_events(count)
    events["instrument_id"] = rng.choice([0, 7, 2**32 - 1], count)
    events["publisher_id"] = rng.choice([0, 1, 2**16 - 1], count)
    events["order_id"] = rng.choice(ORDER_IDS, count)
    events["ts_event"] = rng.integers(0, 2**64, count, np.uint64)
    events["ts_recv"] = rng.integers(0, 2**64, count, np.uint64)
    events["price"] = rng.choice(PRICES, count)
    events["size"] = rng.choice(SIZES, count)
    events["flags"] = rng.choice(FLAGS, count)
    events["action"] = rng.choice(ACTIONS, count)
    events["side"] = rng.choice(SIDES, count)
    return events


def wide_events(rng: np.random.Generator, count: int) -> OrderEvents:
    """Random bytes, with actions and sides that mostly mean something; every event its own book."""
    events = rng.integers(0, 256, count * ORDER_EVENT.itemsize, np.uint8).view(ORDER_EVENT)
    events["action"] = rng.choice(ACTIONS, count)
    events["side"] = rng.choice(SIDES, count)
    return events


def many_events(seed: int, count: int) -> OrderEvents:
    """Events of many orders, levels and books, so that everything grows; cancels and modifies mostly find theirs."""
    rng = np.random.default_rng(seed)
    events = order_events(count)
    events["instrument_id"] = rng.integers(0, 40, count)
    events["order_id"] = rng.integers(0, count // 80, count)
    events["price"] = rng.normal(0, 300, count).astype(np.int64)
    events["size"] = rng.integers(1, 10, count)
    events["action"] = rng.choice(list(b"AAAACMM"), count)
    events["side"] = rng.choice(list(b"AB"), count)
    return events
