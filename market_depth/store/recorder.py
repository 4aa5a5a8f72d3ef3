"""A feed's way into the store while it is served: one session, from the first row until the feed or the server ends."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

import trio

from market_depth.store.base import SessionEnding, SessionOpening, SessionState, StoreError
from market_depth.store.sampled_books import SampledBooks

if TYPE_CHECKING:
    from market_depth.book.engine import BookEngine
    from market_depth.clock import Clock
    from market_depth.feeds.base import Feed
    from market_depth.store.sampled_books import SampledRows
    from market_depth.store.sampling import Sampling
    from market_depth.store.writer import StoreWriter
    from protocol.events import OrderEvents

logger = logging.getLogger(__name__)


class StoreRecorder:
    """Applies a feed's events to the engine, and has the store keep what the books then show.

    A replay waits for a store that is full; other feeds cannot, and what they leave out is counted. A store that has failed
    ends the recording alone.
    """

    def __init__(self, writer: StoreWriter, clock: Clock, feed: Feed, sampling: Sampling) -> None:
        opening = SessionOpening(secrets.token_hex(8), feed.name, clock.wall_ns())
        self._session = writer.open_session(opening)
        self._clock = clock
        self._waits = feed.source == "replay"
        self._books = SampledBooks(feed.instruments, sampling)
        self._told = 0  # of the books, to the session
        self._engine: BookEngine | None = None
        self._is_applying = False
        self._is_over = False

    async def apply(self, engine: BookEngine, events: OrderEvents) -> None:
        """Apply a batch, and store what is to be stored of it."""
        if self._is_over:
            engine.apply(events)
            return
        self._engine = engine
        self._is_applying = True
        # The whole batch is applied, whatever becomes of its rows.
        for number, rows in enumerate(self._books.apply(engine, events)):
            if number:
                await trio.lowlevel.checkpoint()
            try:
                await self._store(rows)
            except StoreError as error:
                self._give_up(error)
        self._is_applying = False

    async def aclose(self, error: str | None) -> None:
        """Store the last state of the books, and the session's end; `error` is what went wrong with the feed."""
        if self._is_over:
            return
        self._is_over = True
        if self._engine is None or not self._books.series:
            return
        state = SessionState.COMPLETED if error is None else SessionState.FAILED
        try:
            if not self._is_applying:  # else the books are not yet where the last end of an event is
                await self._keep(self._books.finish(self._engine))
            await self._session.end(SessionEnding(state, self._clock.wall_ns(), error))
        except StoreError as problem:
            self._give_up(problem)

    async def _store(self, rows: SampledRows) -> None:
        if not self._is_over:  # it may have ended while this batch waited
            await self._keep(rows)

    async def _keep(self, rows: SampledRows) -> None:
        self._session.add_series(self._books.series[self._told :])
        self._told = len(self._books.series)
        if not len(rows):
            return
        if self._waits:
            await self._session.write(bbo=rows.bbo, snapshots=rows.snapshots, trades=rows.trades)
        else:
            self._session.offer(bbo=rows.bbo, snapshots=rows.snapshots, trades=rows.trades)

    def _give_up(self, error: StoreError) -> None:
        self._is_over = True
        logger.error("no longer stored feed=%s error=%s", self._session.opening.source, error)
