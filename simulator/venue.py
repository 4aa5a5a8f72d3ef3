"""The simulated venue: a listing, a scenario and a seed in, DBN order events out.

What happens depends on the arguments of Venue alone. How the calls of `advance` and `run` cut it into batches changes
nothing: the batches joined are the same bytes.
"""

from array import array
from itertools import groupby

import numpy as np

from protocol.events import UNDEF_PRICE, Action, Flag, OrderEvents, Side, order_events
from protocol.instrument import Instrument
from simulator.flow import (
    NS,
    Activity,
    Chance,
    HawkesClock,
    ParentOrders,
    Trend,
    distances,
    marketable_share,
    sizes,
)
from simulator.listings import Listing
from simulator.matching import MatchingBook, Order
from simulator.scenarios import Scenario

PUBLISHER_ID = 60_000
"""The venue's publisher id in every record: far above those that DBN's publishers have."""

ADD_SHARE = 0.4
UPDATE_SHARE = 0.3
"""Participants' actions: 40 % adds, marketable ones included, 30 % updates; the rest are cancels."""

SMALLER_SHARE = 0.7
LARGER_SHARE = 0.2
"""Updates: most take size away, some add size, the rest move the order to another price."""

FARTHEST_SWEEP = 5
"""Ticks beyond the best price that the largest marketable order reaches."""

WARM_UP = 10
"""Events before the opening, as a multiple of the resting orders: by then every order of the first layout is gone
or has had its turn, and the book has the shape that its flow gives it."""


class Venue:
    """One instrument's market: its book, and the order events that made it."""

    def __init__(
        self,
        listing: Listing,
        scenario: Scenario,
        seed: int,
        start_ns: int,
        events_per_second: float | None = None,
    ) -> None:
        """`start_ns`: when the market opens, in ns since the epoch; `events_per_second`: the scenario's unless given."""
        rate = events_per_second or scenario.events_per_second
        self.listing = listing
        self.scenario = scenario
        self.book = MatchingBook()
        self._start_ns = start_ns
        warm_up_ns = int(WARM_UP * scenario.resting_orders / rate * NS)
        first_ns = max(0, start_ns - warm_up_ns)
        self._now_ns = first_ns
        self._tick = listing.instrument.tick_size

        chance = Chance(seed, listing.instrument.instrument_id)
        activity = Activity(chance, scenario.activity_periods_s, scenario.activity_swing, first_ns)
        self._clock = HawkesClock(
            chance,
            activity,
            rate=rate,
            branching=scenario.branching,
            kernels=scenario.kernels,
            shock_share=scenario.shock_share,
            shock_size=scenario.shock_size,
            start_ns=first_ns,
        )
        self._uniforms = chance.uniforms()
        self._distances = distances(
            chance, exponent=scenario.placement_exponent, offset=scenario.placement_offset
        )
        self._sizes = sizes(chance, typical_size=listing.typical_size, spread=scenario.size_spread)
        self._parents = ParentOrders(chance, concurrent=scenario.parents, exponent=scenario.parent_exponent)
        self._trend = Trend(chance, period_s=scenario.trend_period_s, start_ns=first_ns)

        self._tape = _Tape(listing.instrument)
        # A list to draw from at random, and where each order stands in it.
        self._resting: list[Order] = []
        self._places: dict[int, int] = {}
        self._last_order_id = listing.instrument.instrument_id << 32
        self._lay_out()
        while self._clock.next_ns <= start_ns:
            self._act()
        self._tape = _Tape(listing.instrument)
        self._now_ns = start_ns

    @property
    def instrument(self) -> Instrument:
        return self.listing.instrument

    @property
    def now_ns(self) -> int:
        """Up to when everything has happened, in ns since the epoch."""
        return self._now_ns

    def open(self) -> OrderEvents:
        """The book as it stands: a Clear, then each order as an Add flagged SNAPSHOT, the last one also LAST.

        Best price first and in queue order, so that adding them one after the other gives the same book.
        """
        tape = self._tape
        tape.record(self._now_ns, Action.CLEAR, Side.NONE, 0, UNDEF_PRICE, 0, Flag.SNAPSHOT)
        for side in (Side.BID, Side.ASK):
            for order in self.book.orders(side):
                tape.record(
                    order.ts_event, Action.ADD, side, order.order_id, order.price, order.size, Flag.SNAPSHOT
                )
        tape.end_event()
        events = tape.take()
        events["ts_recv"] = self._now_ns
        return events

    def advance(self, until_ns: int, max_events: int = 1_000_000) -> OrderEvents:
        """Everything that happens up to and including `until_ns`, oldest first.

        A batch ends early, after a complete event, once it has `max_events` records; the next call goes on there.
        """
        clock = self._clock
        tape = self._tape
        while clock.next_ns <= until_ns and len(tape) < max_events:
            self._act()
        if clock.next_ns > until_ns:
            self._now_ns = max(self._now_ns, until_ns)
        return tape.take()

    def run(self, count: int) -> OrderEvents:
        """The next `count` records or a few more, up to the end of an event, however long that takes."""
        tape = self._tape
        while len(tape) < count:
            self._act()
        return tape.take()

    def _lay_out(self) -> None:
        """A first book around the opening price, for the flow to work on before the opening."""
        tick = self._tick
        opening = self.listing.opening_price
        for _ in range(self.scenario.resting_orders // 2):
            self._rest(Side.BID, opening - tick * (1 + next(self._distances)), next(self._sizes))
            self._rest(Side.ASK, opening + tick * (1 + next(self._distances)), next(self._sizes))

    def _act(self) -> None:
        """One participant's action: the event that is due, told on the tape."""
        clock = self._clock
        self._now_ns = max(0, clock.next_ns)
        clock.advance()
        choice = next(self._uniforms)
        if choice < ADD_SHARE:
            scenario = self.scenario
            share = marketable_share(scenario.marketable_share, len(self._resting), scenario.resting_orders)
            if choice < ADD_SHARE * share:
                self._trade()
            else:
                self._add()
        elif choice < ADD_SHARE + UPDATE_SHARE:
            self._update()
        else:
            self._cancel()
        self._tape.end_event()

    def _add(self) -> None:
        side = Side.BID if next(self._uniforms) < 0.5 else Side.ASK
        self._rest(side, self._passive_price(side), next(self._sizes))

    def _update(self) -> None:
        order = self._resting[int(next(self._uniforms) * len(self._resting))]
        choice = next(self._uniforms)
        price, size = order.price, order.size
        if choice < SMALLER_SHARE and size > 1:
            size -= 1 + int(next(self._uniforms) * (size // 2))
        elif choice < SMALLER_SHARE + LARGER_SHARE:
            size += next(self._sizes)
        else:
            price = self._passive_price(order.side)
            if price == order.price:
                price += -self._tick if order.side is Side.BID else self._tick
        self.book.modify(order.order_id, price, size, self._now_ns)
        self._tape.record(self._now_ns, Action.MODIFY, order.side, order.order_id, price, size)

    def _cancel(self) -> None:
        resting = self._resting
        order = resting[int(next(self._uniforms) * len(resting))]
        if next(self._uniforms) < self.scenario.near_cancel_share:
            other = resting[int(next(self._uniforms) * len(resting))]
            if self._distance(other) < self._distance(order):
                order = other
        if self.book.level_count(order.side) == 1:
            # A market maker stays: neither side is ever left empty.
            self._add()
            return
        self.book.cancel(order.order_id)
        self._forget(order)
        self._tape.record(self._now_ns, Action.CANCEL, order.side, order.order_id, order.price, order.size)

    def _trade(self) -> None:
        """A marketable order: takes a part of the best level, exactly that level, or sweeps through the next ones."""
        scenario = self.scenario
        if scenario.trend:
            self._parents.buy_share = 0.5 + 0.5 * scenario.trend * self._trend.at(self._now_ns)
        aggressor = self._parents.next_side()
        resting_side = Side.ASK if aggressor is Side.BID else Side.BID
        if self.book.level_count(resting_side) <= FARTHEST_SWEEP + 1:
            self._add()
            return
        limit = self.book.best(resting_side)
        available = self.book.size_at(resting_side, limit)
        choice = next(self._uniforms)
        if choice < scenario.sweep_share:
            reach = 1 + int(next(self._uniforms) * FARTHEST_SWEEP)
            limit += reach * self._tick if aggressor is Side.BID else -reach * self._tick
            size = available + 4 * next(self._sizes)
        elif choice < scenario.sweep_share + scenario.whole_level_share:
            size = available
            if next(self._uniforms) < 0.5:
                size += next(self._sizes)
        else:
            size = min(available, next(self._sizes))
        fills = self.book.match(aggressor, size, limit)
        tape = self._tape
        now_ns = self._now_ns
        for price, at_price in groupby(fills, key=lambda fill: fill.order.price):
            level_fills = list(at_price)
            traded = sum(fill.size for fill in level_fills)
            size -= traded
            tape.record(now_ns, Action.TRADE, aggressor, 0, price, traded)
            for order, filled, left in level_fills:
                tape.record(now_ns, Action.FILL, resting_side, order.order_id, price, filled)
                if left:
                    tape.record(now_ns, Action.MODIFY, resting_side, order.order_id, price, left)
                else:
                    tape.record(now_ns, Action.CANCEL, resting_side, order.order_id, price, filled)
                    self._forget(order)
        if size and next(self._uniforms) < scenario.remainder_share:
            self._rest(aggressor, limit, size)

    def _passive_price(self, side: Side) -> int:
        """Where a new order rests: inside a wide spread or behind the best price, and never across it."""
        tick = self._tick
        best_bid, best_ask = self.book.best(Side.BID), self.book.best(Side.ASK)
        spread = (best_ask - best_bid) // tick
        if spread > 1 and next(self._uniforms) < self.scenario.inside_share:
            behind = -1 - int(next(self._uniforms) * (spread - 1))
        else:
            behind = next(self._distances)
        return max(tick, best_bid - behind * tick) if side is Side.BID else best_ask + behind * tick

    def _distance(self, order: Order) -> int:
        return abs(order.price - self.book.best(order.side))

    def _rest(self, side: Side, price: int, size: int) -> None:
        self._last_order_id += 1
        order = self.book.add(self._last_order_id, side, price, size, self._now_ns)
        self._places[order.order_id] = len(self._resting)
        self._resting.append(order)
        self._tape.record(self._now_ns, Action.ADD, side, order.order_id, price, size)

    def _forget(self, order: Order) -> None:
        place = self._places.pop(order.order_id)
        last = self._resting.pop()
        if last is not order:
            self._resting[place] = last
            self._places[last.order_id] = place


class _Tape:
    """The records of a batch, kept as one flat row of integers until somebody takes them."""

    # A structured array filled row by row costs ten times the whole event; an array of integers, cut into columns
    # once for each batch, costs a fifteenth of it.
    _COLUMNS = ("ts_event", "action", "side", "order_id", "price", "size", "flags", "sequence")

    def __init__(self, instrument: Instrument) -> None:
        self._instrument_id = instrument.instrument_id
        self._cells = array("q")
        self._sequence = 1

    def __len__(self) -> int:
        return len(self._cells) // len(self._COLUMNS)

    def record(
        self, ts_event: int, action: int, side: int, order_id: int, price: int, size: int, flags: int = 0
    ) -> None:
        self._cells.extend((ts_event, action, side, order_id, price, size, flags, self._sequence))

    def end_event(self) -> None:
        """Mark the record told last as the last of its event."""
        self._cells[-2] |= Flag.LAST
        self._sequence = (self._sequence + 1) & 0xFFFF_FFFF

    def take(self) -> OrderEvents:
        """The records told since the last call."""
        cells = np.frombuffer(self._cells, np.int64).reshape(-1, len(self._COLUMNS))
        events = order_events(len(cells))
        for number, column in enumerate(self._COLUMNS):
            events[column] = cells[:, number]
        events["publisher_id"] = PUBLISHER_ID
        events["instrument_id"] = self._instrument_id
        events["ts_recv"] = events["ts_event"]
        self._cells = array("q")
        return events
