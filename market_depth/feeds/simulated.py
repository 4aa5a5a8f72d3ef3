"""A simulated market as a feed: one synthetic venue a symbol, whose time is the wall clock."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import trio

import simulator
from market_depth.clock import Clock
from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError, FeedState, Source
from protocol.events import OrderEvents

TICK_S = 0.01
"""How often the venues are asked what has happened."""

MAX_LAG_NS = 1_000_000_000


class SimulatedFeed:
    """Events of simulated instruments, as they happen. It never completes."""

    source: Source = "simulated"
    name = "simulator"

    def __init__(
        self, symbols: Sequence[str], scenario: str, seed: int, events_per_second: float | None, clock: Clock
    ) -> None:
        try:
            chosen = simulator.scenario(scenario)
            listings = [simulator.listing(symbol) for symbol in symbols]
        except simulator.SimulatorError as error:
            raise FeedError(self.name, str(error), "see --help") from error
        self._clock = clock
        self._venues = [
            simulator.Venue(listing, chosen, seed, clock.wall_ns(), events_per_second) for listing in listings
        ]
        self.instruments = tuple(venue.instrument for venue in self._venues)
        self.state = FeedState.WAITING

    def market_time(self) -> int:
        return self._clock.wall_ns()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        if self.state is FeedState.WAITING:
            self.state = FeedState.RUNNING
            await trio.lowlevel.checkpoint()
            return np.concatenate([venue.open() for venue in self._venues])
        while True:
            await trio.sleep(TICK_S)
            now = self._clock.wall_ns()
            batches = [venue.advance(now, MAX_BATCH_RECORDS // len(self._venues)) for venue in self._venues]
            if any(len(batch) for batch in batches):
                return np.concatenate(batches)

    async def aclose(self) -> None:
        self.state = FeedState.CLOSED
        await trio.lowlevel.checkpoint()
