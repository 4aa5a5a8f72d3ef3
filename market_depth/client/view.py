"""What a client knows of one market: the newest book, what just changed in it, and how the stream is doing.

No clock and no socket: updates come in with the time of their arrival, in seconds of a clock that never goes back.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from math import gcd
from typing import Literal

from market_depth.client.connection import COME_LATER, Connecting, Denied, Live, Update, Waiting
from market_depth.client.replay_remote import ReplayStatus
from protocol.instrument import SCALE_DIGITS
from protocol.messages import Error, MarketData, PriceLevels, RestingOrder, RestingOrders, Subscribe
from protocol.timestamp import is_timestamp

Side = Literal["Bid", "Ask"]
Change = Literal["more", "less"]

FLASH_S = 0.2
"""How long a changed level stands out: shorter than the 0.3 s to the next frame, or a busy book would be lit for good."""

RATE_WINDOW_S = 5.0

MAX_RATE_FRAMES = 4096
"""Frames remembered for the rates: at most this many, however fast they come."""

LIVE_LATENCY_S = 60.0
"""A frame whose market time is further away than this is replayed, and its distance is no latency."""


@dataclass(frozen=True, slots=True)
class Level:
    """All orders at one price; `queue` holds their quantities, first in line first, where the stream is by order."""

    price: Decimal
    quantity: Decimal
    order_count: int
    total_quantity: Decimal
    queue: tuple[Decimal, ...] = ()


def levels_of(data: PriceLevels | RestingOrders) -> tuple[list[Level], list[Level]]:
    """Bids and asks by price level, best first, whichever way the stream sends them."""
    match data:
        case PriceLevels():
            return (
                [
                    Level(level.price, level.quantity, level.order_count, level.total_quantity)
                    for level in data.bids
                ],
                [
                    Level(level.price, level.quantity, level.order_count, level.total_quantity)
                    for level in data.asks
                ],
            )
        case RestingOrders():
            return _levels_of_orders(data.bids), _levels_of_orders(data.asks)


def _levels_of_orders(orders: Iterable[RestingOrder]) -> list[Level]:
    levels = []
    total = Decimal(0)
    for price, group in groupby(orders, key=lambda order: order.price):
        queue = tuple(order.quantity for order in group)
        quantity = sum(queue, Decimal(0))
        total += quantity
        levels.append(Level(price, quantity, len(queue), total, queue))
    return levels


class MarketView:
    """One subscription as a screen shows it. `server` is the name under which the screen speaks of the server."""

    def __init__(self, subscription: Subscribe, server: str) -> None:
        self.subscription = subscription
        self.server = server
        self.connection: Connecting | Live | Waiting = Connecting()
        self.refusal: Error | Denied | None = None
        """The server's last word on the subscription, when it will not serve it."""
        self.notice: str | None = None
        """The server's last complaint since the connection opened."""
        self.replay: ReplayStatus | None = None
        """Where the replay stands that the market comes from, if it is one."""
        self.replay_notice: str | None = None
        """Why the last key did nothing to the replay."""
        self.frame: MarketData | None = None
        self.bids: list[Level] = []
        self.asks: list[Level] = []
        self.latency_s: float | None = None
        """From the market's time to the arrival of the newest frame; None before it, and for a replay."""
        self._arrivals: deque[tuple[float, int]] = deque(maxlen=MAX_RATE_FRAMES)
        self._changes: dict[Decimal, tuple[float, Change]] = {}
        self._arrived: float | None = None
        self._tick_size = 0

    def apply(self, update: Update, now: float, wall_ns: int) -> None:
        """Take in what `follow` reported, at `now` and at `wall_ns` nanoseconds since the epoch."""
        match update:
            case Connecting() | Waiting():
                self.connection = update
            case Denied():
                self.refusal = update
            case Live():
                self.connection = update
                self.notice = None
                # Another run of the server counts its changes from the start.
                self._arrivals.clear()
            case MarketData(stream_id=self.subscription.stream_id):
                self._apply_frame(update, now, wall_ns)
            case Error():
                self.notice = f"{update.code}: {update.message}"
                if update.stream_id == self.subscription.stream_id and update.code not in COME_LATER:
                    self.refusal = update
            case _:
                pass  # a HeartBeat or the answer to a request changes nothing on the screen

    def _apply_frame(self, frame: MarketData, now: float, wall_ns: int) -> None:
        bids, asks = levels_of(frame.data)
        changes: dict[Decimal, Change] = {}
        if self.frame is not None:
            changes = _changes(self.bids, bids, "Bid") | _changes(self.asks, asks, "Ask")
        shown = {level.price for level in (*bids, *asks)}
        self._changes = {price: seen for price, seen in self._changes.items() if price in shown}
        self._changes |= {price: (now, change) for price, change in changes.items()}
        self.frame, self.bids, self.asks = frame, bids, asks
        self.latency_s = _latency_s(frame.timestamp, wall_ns)
        self._arrived = now
        self._arrivals.append((now, frame.sequence))
        self._learn_tick_size(shown)

    @property
    def spread(self) -> Decimal | None:
        """Best ask less best bid; None while a side is empty."""
        return self.asks[0].price - self.bids[0].price if self.bids and self.asks else None

    @property
    def mid(self) -> Decimal | None:
        """Halfway between best bid and best ask; None while a side is empty."""
        return (self.asks[0].price + self.bids[0].price) / 2 if self.bids and self.asks else None

    @property
    def tick_size(self) -> Decimal | None:
        """The largest step of which every price seen is a multiple; None before two different prices.

        The base protocol does not tell the tick size. With a few levels in sight this is it, and a book so thin
        that it is not is corrected as soon as one more price is seen.
        """
        return Decimal(self._tick_size).scaleb(-SCALE_DIGITS) if self._tick_size else None

    def spread_ticks(self) -> int | None:
        """The spread as a number of ticks; None while either is unknown."""
        spread, tick_size = self.spread, self.tick_size
        return None if spread is None or tick_size is None else round(spread / tick_size)

    def age_s(self, now: float) -> float | None:
        """Seconds since the newest frame; None before the first."""
        return None if self._arrived is None else now - self._arrived

    def rates(self, now: float) -> tuple[float, float] | None:
        """Frames and book changes a second over the last five seconds; None before the second frame."""
        recent = [arrival for arrival in self._arrivals if now - arrival[0] <= RATE_WINDOW_S]
        if len(self._arrivals) < 2:
            return None
        if len(recent) < 2:
            return 0.0, 0.0
        (start, first), (end, last) = recent[0], recent[-1]
        elapsed = max(end - start, 1e-3)
        return (len(recent) - 1) / elapsed, max(0, last - first) / elapsed

    def recent_change(self, price: Decimal, now: float) -> Change | None:
        """How the quantity at a price changed a moment ago, if it did."""
        seen = self._changes.get(price)
        return seen[1] if seen is not None and now - seen[0] < FLASH_S else None

    def _learn_tick_size(self, prices: Iterable[Decimal]) -> None:
        scaled = {int(price.scaleb(SCALE_DIGITS)) for price in prices}
        if self._tick_size or len(scaled) > 1:
            self._tick_size = gcd(self._tick_size, *scaled)


def _latency_s(timestamp: str, wall_ns: int) -> float | None:
    if not is_timestamp(timestamp):
        return None
    latency_s = wall_ns / 1e9 - datetime.fromisoformat(timestamp).timestamp()
    return max(0.0, latency_s) if abs(latency_s) < LIVE_LATENCY_S else None


def _changes(before: Sequence[Level], after: Sequence[Level], side: Side) -> dict[Decimal, Change]:
    """Prices whose quantity differs. A level that only moved into the requested depth did not change."""
    quantities = {level.price: level.quantity for level in before}
    changes: dict[Decimal, Change] = {}
    for level in after:
        old = quantities.get(level.price)
        if old is None:
            if not before or _is_better(level.price, before[-1].price, side):
                changes[level.price] = "more"
        elif old != level.quantity:
            changes[level.price] = "more" if level.quantity > old else "less"
    return changes


def _is_better(price: Decimal, other: Decimal, side: Side) -> bool:
    return price > other if side == "Bid" else price < other
