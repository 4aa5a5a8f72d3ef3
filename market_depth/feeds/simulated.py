"""Simulated markets, one synthetic venue for each symbol: trading in real time, or made as fast as they are read."""

import logging
import math
import sys
from collections.abc import Sequence
from typing import Self

import numpy as np
import trio

import simulator
from market_depth.clock import Clock
from market_depth.feeds.base import FeedOptionError, FeedState, Source
from protocol.events import ORDER_EVENT, Flag, OrderEvents
from protocol.timestamp import NS_PER_S

logger = logging.getLogger(__name__)


STEP_NS = 50_000_000
"""How often the venues trade. What happened meanwhile comes in one batch: at three symbols, steps of 10 ms cost 57 ms
of CPU a second, steps of 50 ms 25, and snapshots every 300 ms show no difference."""

MAX_STEP_NS = 100_000_000
"""The most market time in one step: after a hiccup of the machine the market catches up in a few of them."""

MAX_LAG_NS = 1_000_000_000
"""A market that is later than this lets its clock run slower than the wall clock: the events stay the same, and no
debt builds up."""

LAST_NS = 2**63 - 1
"""The last time that a venue can tell, in 2262."""

CHUNK_EVENTS = 8_192
"""About so many events are made at a time where nobody waits for them: a few hundredths of a second's work."""

BATCH_RECORDS = 500
"""About so many records at a time, so that other tasks wait 2 to 4 ms at most: a venue takes 4 to 7 µs for each."""

MIN_RATE = 0.001
MAX_RATE = 1_000_000
"""Events a second. In rarer ones the venue's activity would change thousands of times from one to the next, and more
than so many nobody can make."""

TOLD_SLOWED_NS = 1_000_000_000
"""When the log mentions it: a hiccup of the machine is no news."""


class SimulationError(FeedOptionError):
    """There can be no such simulated market."""


class SimulatedFeed:
    """The order events of simulated instruments as they happen, from a snapshot of each book on; it never completes.

    The same symbols, scenario, seed and rate give the same events, later by as much as the start is later.
    """

    name = "simulator"
    source: Source = "simulated"

    def __init__(
        self,
        symbols: Sequence[str],
        scenario: str,
        seed: int,
        events_per_second: float | None,
        clock: Clock,
    ) -> None:
        """`events_per_second`: for each symbol, the scenario's own unless given; `clock`: dates the openings.

        Raises: SimulationError for an unknown scenario, a malformed or repeated symbol, an impossible rate.
        """
        self._scenario = _scenario(scenario)
        self._listings = _listings(symbols)
        _check_rate(events_per_second)
        self.instruments = tuple(listing.instrument for listing in self._listings)
        self.state = FeedState.WAITING
        self.slowed_ns = 0
        """By how much the market's clock is behind the wall clock because events were not made in time."""
        self._seed = seed
        self._events_per_second = events_per_second
        self._clock = clock
        self._venues: list[simulator.Venue] = []
        self._trading: list[simulator.Venue] = []  # those not yet at the end of the present step
        self._step_end_ns = 0
        self._opened_ns = 0  # when the last venue opened, by the market's clock
        self._opened_at = 0.0  # and by the event loop's

    def market_time(self) -> int:
        if not self._venues:
            return self._clock.wall_ns()
        # Between two steps time goes on; a market that lags behind does not get further ahead of its events.
        return min(self._now_ns(), self._step_end_ns + STEP_NS)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        while self._is_open():
            if len(self._venues) < len(self._listings):
                return await self._open_next()
            await self._wait_for_step()
            batch = self._trade()
            if len(batch):
                return batch
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.state = FeedState.CLOSED
        await trio.lowlevel.checkpoint()

    def _is_open(self) -> bool:
        return self.state is not FeedState.CLOSED

    async def _open_next(self) -> OrderEvents:
        """The opening snapshot of the next venue."""
        # Each venue opens at its own moment, and in a thread: it trades for some 70 ms before it opens.
        listing = self._listings[len(self._venues)]
        opening_ns = max(self._clock.wall_ns(), self._step_end_ns)
        opening_at = trio.current_time()
        venue = await trio.to_thread.run_sync(
            simulator.Venue, listing, self._scenario, self._seed, opening_ns, self._events_per_second
        )
        self._venues.append(venue)
        self._step_end_ns = self._opened_ns = opening_ns
        self._opened_at = opening_at
        if len(self._venues) == len(self._listings) and self._is_open():
            self.state = FeedState.RUNNING
        return venue.open()

    async def _wait_for_step(self) -> None:
        """Let others run, at least once; when the present step is done, wait for the next one and begin it."""
        if self._trading:
            await trio.lowlevel.checkpoint()
            return
        next_ns = self._step_end_ns + STEP_NS
        await trio.sleep(max(0, next_ns - self._now_ns()) / NS_PER_S)
        late_ns = self._now_ns() - self._step_end_ns - MAX_LAG_NS
        if late_ns > 0:
            self._slow_down(late_ns)
        self._step_end_ns = max(min(self._now_ns(), self._step_end_ns + MAX_STEP_NS), next_ns)
        self._trading = self._venues[::-1]

    def _now_ns(self) -> int:
        """What the market's clock shows."""
        return self._opened_ns + round((trio.current_time() - self._opened_at) * NS_PER_S) - self.slowed_ns

    def _slow_down(self, late_ns: int) -> None:
        was_told = self.slowed_ns > TOLD_SLOWED_NS
        self.slowed_ns += late_ns
        if self.slowed_ns > TOLD_SLOWED_NS and not was_told:
            logger.warning("%s: cannot keep up; its market runs slower than the clock", self.name)

    def _trade(self) -> OrderEvents:
        """What happens next in the present step, at most about BATCH_RECORDS."""
        batches: list[OrderEvents] = []
        room = BATCH_RECORDS
        while self._trading and room > 0:
            batch = self._trading[-1].advance(self._step_end_ns, room)
            if len(batch) < room:
                self._trading.pop()
            room -= len(batch)
            if len(batch) or not batches:
                batches.append(batch)
        return batches[0] if len(batches) == 1 else np.concatenate(batches)


class SimulatedMarkets:
    """The order events of simulated instruments from their openings on, made as fast as they are read.

    They are those of a SimulatedFeed that starts at `start_ns`, in the order of their times over all symbols. The same
    arguments give the same events. Plain synchronous code, to be read in a thread.
    """

    name = SimulatedFeed.name

    def __init__(
        self,
        symbols: Sequence[str],
        scenario: str,
        seed: int,
        events_per_second: float | None,
        start_ns: int,
        *,
        max_records: int | None = None,
        duration_s: float = math.inf,
        max_step_s: float = math.inf,
    ) -> None:
        """`max_records`: end with the event that makes it so many, the opening snapshots included; `duration_s`: end
        after so much market time, or in the year 2262; `max_step_s`: the most market time between two reads.

        Raises: SimulationError, as SimulatedFeed does, and for a maximum or duration that is not positive.
        """
        self._scenario = _scenario(scenario)
        self._listings = _listings(symbols)
        _check_rate(events_per_second)
        if max_records is not None and max_records < 1:
            raise SimulationError(self.name, f"{max_records} events are too few", "give 1 or more")
        if not duration_s > 0:
            raise SimulationError(self.name, f"{duration_s:g} seconds are too short", "give more than 0")
        self.instruments = tuple(listing.instrument for listing in self._listings)
        self.start_ns = start_ns
        self.now_ns = start_ns
        """Up to when everything has been read, in ns since the epoch."""
        self._end_ns = min(start_ns + _whole_ns(duration_s), LAST_NS)
        rate = (events_per_second or self._scenario.events_per_second) * len(self._listings)
        self._step_ns = max(1, _whole_ns(min(CHUNK_EVENTS / rate, max_step_s)))
        self._seed = seed
        self._events_per_second = events_per_second
        self._max_records = max_records
        self._records = 0
        self._is_complete = False
        self._venues: list[simulator.Venue] = []

    def read(self) -> OrderEvents:
        """The next order events, some thousands of them; none at the end."""
        while self.now_ns < self._end_ns and not self._is_complete:
            events = self._next_events()
            if self._max_records is not None and self._records + len(events) >= self._max_records:
                events = events[: _event_end(events, self._max_records - self._records)]
                self._is_complete = True
            self._records += len(events)
            if len(events):
                return events
        return np.empty(0, ORDER_EVENT)

    def _next_events(self) -> OrderEvents:
        if len(self._venues) < len(self._listings):
            listing = self._listings[len(self._venues)]
            venue = simulator.Venue(
                listing, self._scenario, self._seed, self.start_ns, self._events_per_second
            )
            self._venues.append(venue)
            return venue.open()
        self.now_ns = min(self.now_ns + self._step_ns, self._end_ns)
        events = np.concatenate([venue.advance(self.now_ns, sys.maxsize) for venue in self._venues])
        # A venue's records of one event have one time, so a stable sort keeps them together.
        in_order: OrderEvents = events[np.argsort(events["ts_recv"], kind="stable")]
        return in_order


def _event_end(events: OrderEvents, count: int) -> int:
    """Where the event ends whose record is the one number `count`, from 1."""
    return count + int(np.argmax((events["flags"][count - 1 :] & Flag.LAST) != 0))


def _whole_ns(seconds: float) -> int:
    return round(min(seconds * NS_PER_S, LAST_NS))


def _check_rate(events_per_second: float | None) -> None:
    if events_per_second is not None and not MIN_RATE <= events_per_second <= MAX_RATE:
        raise SimulationError(
            SimulatedFeed.name,
            f"{events_per_second} events a second are not possible",
            f"give {MIN_RATE} to {MAX_RATE:,}",
        )


def _scenario(name: str) -> simulator.Scenario:
    try:
        return simulator.scenario(name)
    except simulator.UnknownScenarioError as error:
        raise SimulationError(
            SimulatedFeed.name, f"there is no scenario {name!r}", f"choose one of {', '.join(error.known)}"
        ) from error


def _listings(symbols: Sequence[str]) -> list[simulator.Listing]:
    if not symbols:
        raise SimulationError(SimulatedFeed.name, "there is nothing to trade", "name a symbol")
    by_id: dict[int, simulator.Listing] = {}
    for symbol in symbols:
        try:
            listing = simulator.listing(symbol)
        except simulator.MalformedSymbolError as error:
            raise SimulationError(SimulatedFeed.name, str(error), "choose another") from error
        if other := by_id.get(listing.instrument.instrument_id):
            # A repeated symbol, or two names out of billions that are given the same number.
            raise SimulationError(
                SimulatedFeed.name,
                f"{other.symbol} and {symbol} have the same instrument id",
                "drop one of them",
            )
        by_id[listing.instrument.instrument_id] = listing
    return list(by_id.values())
