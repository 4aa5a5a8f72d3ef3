"""One feed at work: its events into its books and its recording, until it ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from market_depth.feeds.base import FeedError, FeedState
from market_depth.stream.market import Market
from protocol.events import Action, Flag

if TYPE_CHECKING:
    from market_depth.book.engine import BookEngine
    from market_depth.feeds.base import Feed
    from market_depth.record.recorder import Recorder
    from market_depth.server.broadcaster import Broadcaster
    from market_depth.store.recorder import StoreRecorder
    from protocol.events import OrderEvents

logger = logging.getLogger(__name__)


class LiveMarket:
    """A feed, the books it feeds, perhaps its recording and its way into the store, and what went wrong with them."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.market = Market(feed.instruments, feed.market_time)
        self.error: str | None = None
        self.recorder: Recorder | None = None
        self.storing: StoreRecorder | None = None
        """May come while the market runs: the store opens beside it."""

    def status(self) -> dict[str, Any]:
        """How the feed and its recording are, as health tells it."""
        return {
            "name": self.feed.name,
            "source": self.feed.source,
            "state": self.feed.state,
            "symbols": list(self.market.instruments),
            "error": self.error,
            "recording": self.recorder
            and {
                "file": self.recorder.path.name,
                "state": self.recorder.state,
                "records": self.recorder.records,
                "error": self.recorder.error,
            },
        }

    @property
    def is_ok(self) -> bool:
        """Whether the feed and its recording are up: nothing went wrong, and the source is not lost."""
        is_recorded = self.recorder is None or self.recorder.error is None
        return self.error is None and self.feed.state is not FeedState.STALE and is_recorded

    async def run(self, engine: BookEngine, broadcaster: Broadcaster) -> None:
        """Apply the feed's events until it ends. A feed that fails leaves its last books, and the others go on."""
        feed, market = self.feed, self.market
        market.warm(engine)
        try:
            while True:
                try:
                    await self._follow(engine, broadcaster)
                    break
                except FeedError as error:
                    self.error = str(error)
                    logger.error("feed failed feed=%s error=%s", feed.name, error)
                    # It is asked again, and is at its end, or waits to be started again.
        except Exception:
            # A bug of ours ends this feed alone: the others, and the last books of this one, are still served.
            self.error = f"{feed.name}: internal error"
            logger.exception("feed failed feed=%s", feed.name)
        finally:
            market.open()
            with trio.CancelScope(shield=True):
                await feed.aclose()
            if self.recorder is not None:
                await self.recorder.aclose()
        if self.storing is not None:
            await self.storing.aclose(self.error)

    async def _follow(self, engine: BookEngine, broadcaster: Broadcaster) -> None:
        feed, market = self.feed, self.market
        async for events in feed:
            self.error = None
            if begins_snapshot(events):
                market.close()
            if self.storing is None:
                market.apply(events)
            else:
                await self.storing.apply(engine, events)
            if not (market.is_open or feed.state is FeedState.WAITING or breaks_off_snapshot(events)):
                market.open()
                broadcaster.hurry()
            if self.recorder is not None:
                await self.recorder.write(events)
        if self.error is None:
            logger.info("feed completed feed=%s", feed.name)


def begins_snapshot(events: OrderEvents) -> bool:
    """Whether all that was known is void from here on: the source went elsewhere, or was lost and found."""
    return bool(events["action"][0] == Action.CLEAR and events["flags"][0] & Flag.SNAPSHOT)


def breaks_off_snapshot(events: OrderEvents) -> bool:
    """Whether the batch ends inside a snapshot that is too large for it: the books are not whole yet."""
    return bool(events["flags"][-1] & (Flag.SNAPSHOT | Flag.LAST) == Flag.SNAPSHOT)
