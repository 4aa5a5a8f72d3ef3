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
from simulator.matching import Fill, MatchingBook, Order
from simulator.scenarios import Scenario

PUBLISHER_ID = 60_000
"""The venue's publisher id in every record: far above those that DBN's publishers have."""

ADD_SHARE = 0.4
UPDATE_SHARE = 0.3
"""Participants' actions: 40 % adds, marketable ones included, 30 % updates; the rest are cancels."""

SMALLER_SHARE = 0.7
LARGER_SHARE = 0.2
"""Updates: most take size away, some add size, the rest move the order to another price."""

FARTHEST_SWEEP = 8
"""Ticks beyond the best price that the largest marketable order reaches."""

WIDEST_CROSSED = 4
"""Ticks of spread that somebody still pays to trade at once; in a wider one the order improves its own side."""

EVENNESS = 0.5
"""How firmly new orders go to the side with fewer of them: as often as its lack, times this."""

HOME = 4
RETURN = 0.3
"""A price further than a HOME-th of the opening price away from it is led back, by a lean of this much."""

WARM_UP = 10
"""Events before the opening, as a multiple of the resting orders: by then the book has the shape that its flow gives
it, and not that of the first layout."""

# On Python 3.11 a member of an enumeration costs as much as a tenth of an event each time it is looked up in its class.
_BID, _ASK = Side.BID, Side.ASK
_ADD, _MODIFY, _CANCEL = int(Action.ADD), int(Action.MODIFY), int(Action.CANCEL)
_LAST = int(Flag.LAST)


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
        rate = scenario.events_per_second if events_per_second is None else events_per_second
        self.listing = listing
        self.scenario = scenario
        self.book = MatchingBook()
        first_ns = start_ns - int(WARM_UP * scenario.resting_orders / rate * NS)
        self._now_ns = max(0, first_ns)
        self._tick = listing.instrument.tick_size

        chance = Chance(seed, listing.instrument.instrument_id)
        self._activity = Activity(chance, scenario.activity_periods_s, scenario.activity_swing, first_ns)
        self._clock = HawkesClock(
            chance,
            self._activity,
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

        self._pressure = 0.0
        self._bid_excess = 0
        self._tape = _Tape(listing.instrument)
        # A list to draw from at random, and where each order stands in it.
        self._resting: list[Order] = []
        self._places: dict[int, int] = {}
        self._last_order_id = listing.instrument.instrument_id << 32
        self._lay_out()
        while self._clock.next_ns <= start_ns:
            self.step()
        self._tape = _Tape(listing.instrument)
        self._now_ns = start_ns

    @property
    def instrument(self) -> Instrument:
        return self.listing.instrument

    @property
    def descendant_share(self) -> float:
        """The share of events so far that earlier events brought about: the branching ratio, counted."""
        clock = self._clock
        return clock.descendants / max(1, clock.descendants + clock.immigrants)

    @property
    def now_ns(self) -> int:
        """Up to when everything has happened, in ns since the epoch."""
        return self._now_ns

    def open(self) -> OrderEvents:
        """The book as it stands: a Clear, then each order as an Add flagged SNAPSHOT, the last one also LAST.

        Best price first and in queue order, so that adding them one after the other gives the same book. The records
        carry the number of the event before them; to look changes nothing.
        """
        tape = _Tape(self.instrument, (self._tape.sequence - 1) & 0xFFFF_FFFF)
        tape.record(self._now_ns, Action.CLEAR, Side.NONE, 0, UNDEF_PRICE, 0, Flag.SNAPSHOT)
        for side in (_BID, _ASK):
            for order in self.book.orders(side):
                tape.record(
                    order.ts_event, _ADD, side, order.order_id, order.price, order.size, Flag.SNAPSHOT
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
            self.step()
        if clock.next_ns > until_ns:
            self._now_ns = max(self._now_ns, until_ns)
        return tape.take()

    def run(self, count: int) -> OrderEvents:
        """The next `count` records or a few more, up to the end of an event, however long that takes."""
        tape = self._tape
        while len(tape) < count:
            self.step()
        return tape.take()

    def take(self) -> OrderEvents:
        """The records of the steps since the last batch."""
        return self._tape.take()

    def step(self) -> None:
        """Let the next event happen, for those who look at the book after each; its records join the next batch."""
        clock = self._clock
        self._now_ns = max(0, clock.next_ns)  # the warm-up of a market that opens at the epoch lies before it
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

    def _lay_out(self) -> None:
        """A first book around the opening price, for the flow to work on before the opening."""
        tick = self._tick
        opening = self.listing.opening_price
        for _ in range(self.scenario.resting_orders // 2):
            self._rest(_BID, opening - tick * (1 + next(self._distances)), next(self._sizes))
            self._rest(_ASK, opening + tick * (1 + next(self._distances)), next(self._sizes))

    def _add(self) -> None:
        # Whoever sees buyers at work offers to sell, which is what keeps persistent buying from becoming persistent
        # rising: without it returns over ten seconds are correlated by 0.1 to 0.2.
        bid_share = 0.5 - self.scenario.replenishment * self._pressure
        # The side with fewer orders gets more of them: a long parent order else takes a side away, and the price with it.
        bid_share -= EVENNESS * self._bid_excess / len(self._resting)
        side = _BID if next(self._uniforms) < bid_share else _ASK
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
                price += -self._tick if order.side is _BID else self._tick
        self.book.modify(order.order_id, price, size, self._now_ns)
        self._tape.record(self._now_ns, _MODIFY, order.side, order.order_id, price, size)

    def _cancel(self) -> None:
        resting = self._resting
        order = resting[int(next(self._uniforms) * len(resting))]
        if next(self._uniforms) < self.scenario.near_cancel_share:
            other = resting[int(next(self._uniforms) * len(resting))]
            if self._distance(other) < self._distance(order):
                order = other
        if self.book.level_count(order.side) == 1:
            # Neither side is ever left empty.
            self._add()
            return
        self.book.cancel(order.order_id)
        self._forget(order)
        self._tape.record(self._now_ns, _CANCEL, order.side, order.order_id, order.price, order.size)

    def _trade(self) -> None:
        """A marketable order: takes a part of the best level, that level whole, or sweeps through the next ones."""
        book = self.book
        best_bid, best_ask = book.best(_BID), book.best(_ASK)
        aggressor = self._parents.next_side(0.5 + 0.5 * self._lean(best_bid))
        is_buy = aggressor is _BID
        resting_side = _ASK if is_buy else _BID
        self._pressure += ((1 if is_buy else -1) - self._pressure) / self.scenario.pressure_trades
        if best_ask - best_bid > WIDEST_CROSSED * self._tick:
            price = best_bid + self._tick if is_buy else best_ask - self._tick
            self._rest(aggressor, price, next(self._sizes))
            return
        if book.level_count(resting_side) <= FARTHEST_SWEEP + 1:
            # A sweep could empty the side: whoever trades on a thin market makes it instead.
            self._add()
            return
        size, reach = self._marketable_size(book.size_at(resting_side, best_ask if is_buy else best_bid))
        limit = best_ask + reach * self._tick if is_buy else best_bid - reach * self._tick
        fills = book.match(aggressor, size, limit)
        self._tell(aggressor, fills)
        size -= sum(fill.size for fill in fills)
        if size and next(self._uniforms) < self.scenario.remainder_share:
            self._rest(aggressor, limit, size)

    def _lean(self, price: int) -> float:
        """How much likelier than not a new parent order buys: with the trend, and never far from the opening price."""
        opening = self.listing.opening_price
        if abs(price - opening) * HOME > opening:
            return RETURN if price < opening else -RETURN
        trend = self.scenario.trend
        return trend * self._trend.at(self._now_ns) if trend else 0.0

    def _marketable_size(self, available: int) -> tuple[int, int]:
        """The size of a marketable order, given what rests at the best price, and its reach in ticks beyond."""
        scenario = self.scenario
        choice = next(self._uniforms)
        sweep_share = scenario.sweep_share * self._activity.factor
        if choice < sweep_share:
            position = next(self._uniforms)
            reach = 1 + int(position * position * FARTHEST_SWEEP)
            return available * (1 + reach), reach
        if choice < sweep_share + scenario.whole_level_share:
            return available + (next(self._sizes) if next(self._uniforms) < 0.5 else 0), 0
        return min(available, next(self._sizes)), 0

    def _tell(self, aggressor: Side, fills: list[Fill]) -> None:
        """A trade as DBN tells it: for each price what traded, then each fill and what became of the resting order."""
        record = self._tape.record
        now_ns = self._now_ns
        for price, at_price in groupby(fills, key=lambda fill: fill.order.price):
            level = list(at_price)
            record(now_ns, Action.TRADE, aggressor, 0, price, sum(fill.size for fill in level))
            for order, size, left in level:
                record(now_ns, Action.FILL, order.side, order.order_id, price, size)
                if left:
                    record(now_ns, _MODIFY, order.side, order.order_id, price, left)
                else:
                    record(now_ns, _CANCEL, order.side, order.order_id, price, size)
                    self._forget(order)

    def _passive_price(self, side: Side) -> int:
        """Where a new order rests: inside a wide spread or behind the best price, and never across it."""
        tick = self._tick
        best_bid, best_ask = self.book.best(_BID), self.book.best(_ASK)
        spread = (best_ask - best_bid) // tick
        if spread > 1 and next(self._uniforms) < self.scenario.inside_share:
            behind = -1 - int(next(self._uniforms) * (spread - 1))
        else:
            behind = next(self._distances)
        return best_bid - behind * tick if side is _BID else best_ask + behind * tick

    def _distance(self, order: Order) -> int:
        return abs(order.price - self.book.best(order.side))

    def _rest(self, side: Side, price: int, size: int) -> None:
        self._last_order_id += 1
        order = self.book.add(self._last_order_id, side, price, size, self._now_ns)
        self._places[order.order_id] = len(self._resting)
        self._resting.append(order)
        self._bid_excess += 1 if side is _BID else -1
        self._tape.record(self._now_ns, _ADD, side, order.order_id, price, size)

    def _forget(self, order: Order) -> None:
        place = self._places.pop(order.order_id)
        self._bid_excess -= 1 if order.side is _BID else -1
        last = self._resting.pop()
        if last is not order:
            self._resting[place] = last
            self._places[last.order_id] = place


class _Tape:
    """The records of a batch, kept as one flat row of integers until somebody takes them."""

    # A structured array filled row by row costs ten times the whole event; an array of integers, cut into columns
    # once for each batch, costs a fifteenth of it.
    _COLUMNS = ("ts_event", "action", "side", "order_id", "price", "size", "flags", "sequence")

    def __init__(self, instrument: Instrument, sequence: int = 1) -> None:
        """`sequence`: the number of the first event."""
        self.sequence = sequence
        self._instrument_id = instrument.instrument_id
        self._cells = array("q")

    def __len__(self) -> int:
        return len(self._cells) // len(self._COLUMNS)

    def record(
        self, ts_event: int, action: int, side: int, order_id: int, price: int, size: int, flags: int = 0
    ) -> None:
        self._cells.extend((ts_event, action, side, order_id, price, size, flags, self.sequence))

    def end_event(self) -> None:
        """Mark the record told last as the last of its event."""
        self._cells[-2] |= _LAST
        self.sequence = (self.sequence + 1) & 0xFFFF_FFFF

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
