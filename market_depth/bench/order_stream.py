"""A synthetic stream of order events to measure with: as many as wanted, of as many instruments, from a seed.

It is made for speed of making, not for realism: every order's life is drawn at once and all events are then sorted by
time, so it needs no book. Prices stand around a fixed mid, and no bid is ever above an ask.
"""

import numpy as np
import numpy.typing as npt

from protocol.events import Action, Flag, OrderEvents, Side, order_events

FIRST_INSTRUMENT = 1000
MID = 5_000 * 10**9
TICK = 250_000_000

EVENTS_OF_AN_ORDER = 1.9
"""On average, those that still fall into the stream: its add, and mostly its cancel; at times a modify or a fill."""

SHORT_LIVED = 0.7
SHORT_LIFE = 0.001
LONG_LIFE = 0.7
"""Mean lifetimes, as shares of the stream; short-lived orders are most of the traffic, long-lived ones of the book."""

MODIFIED = 0.25
FILLED = 0.06
NEAR = 0.8
NEAR_TICKS = 12.0
"""Most orders are placed near the mid, exponentially; the others anywhere in FAR_TICKS."""
FAR_TICKS = 500
MEAN_SIZE = 5.0
POPULARITY = 0.9
"""Zipf's exponent: how much more is traded in the first instrument than in the last."""


def order_stream(seed: int, count: int, instruments: int) -> OrderEvents:
    """`count` events of `instruments` instruments, ids from FIRST_INSTRUMENT on; the same for the same arguments.

    About 46 % adds, 39 % cancels, 10 % modifies, the rest trades and fills. A tenth of the events is resting at the end.
    """
    rng = np.random.default_rng(seed)
    orders = int(count / EVENTS_OF_AN_ORDER) + 1
    born = np.sort(rng.random(orders))
    life = rng.exponential(np.where(rng.random(orders) < SHORT_LIVED, SHORT_LIFE, LONG_LIFE))
    is_modified = rng.random(orders) < MODIFIED
    is_filled = rng.random(orders) < FILLED

    every = np.arange(orders)
    adds = _events(rng, Action.ADD, every, instruments)
    modifies = _modifies(rng, adds[is_modified])
    cancels = adds.copy()
    cancels[is_modified] = modifies
    cancels["action"] = Action.CANCEL
    fills = cancels[is_filled]
    fills["action"] = Action.FILL
    trades = fills.copy()
    trades["action"] = Action.TRADE
    trades["order_id"] = 0
    trades["side"] = np.where(fills["side"] == Side.BID, Side.ASK, Side.BID)

    died = born + life
    changed = born + life * rng.random(orders)
    events = np.concatenate([adds, modifies, trades, fills, cancels])
    times = np.concatenate([born, changed[is_modified], died[is_filled], died[is_filled], died])
    # Stable: at one time a trade comes before its fill, and the fill before its cancel.
    stream = events[np.argsort(times, kind="stable")[:count]]
    stream["ts_event"] = stream["ts_recv"] = np.arange(1, count + 1) * 1_000
    return stream


def _events(
    rng: np.random.Generator, action: Action, orders: npt.NDArray[np.int64], instruments: int
) -> OrderEvents:
    """One event for each order, with a side, a price, a size and an instrument drawn for it."""
    count = len(orders)
    events = order_events(count)
    weights = np.arange(1, instruments + 1) ** -POPULARITY
    events["instrument_id"] = FIRST_INSTRUMENT + rng.choice(instruments, count, p=weights / weights.sum())
    events["publisher_id"] = 1
    events["order_id"] = orders + 1
    events["action"] = action
    events["side"] = np.where(rng.random(count) < 0.5, Side.BID, Side.ASK)
    events["price"] = _prices(rng, events["side"])
    events["size"] = rng.geometric(1 / MEAN_SIZE, count)
    events["flags"] = Flag.LAST
    return events


def _prices(rng: np.random.Generator, sides: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    count = len(sides)
    ticks = 1 + np.where(
        rng.random(count) < NEAR,
        rng.exponential(NEAR_TICKS, count).astype(np.int64),
        rng.integers(0, FAR_TICKS, count),
    )
    return MID + TICK * np.where(sides == Side.BID, -ticks, ticks)


def _modifies(rng: np.random.Generator, adds: OrderEvents) -> OrderEvents:
    """A modify for each of the orders: half of them keep the place with a smaller size, half lose it for a new price."""
    modifies = adds.copy()
    modifies["action"] = Action.MODIFY
    keeps_place = rng.random(len(adds)) < 0.5
    modifies["size"] = np.where(keeps_place, (adds["size"] + 1) // 2, adds["size"])
    modifies["price"] = np.where(keeps_place, adds["price"], _prices(rng, adds["side"]))
    return modifies
