"""The books of a running server as order events, for as long as somebody wants them.

    opening ──► following ◄──► lost        a frame of every book came; the connection broke; the first frame after it
                    └────────────┴──► over    enough was recorded; or refused, lost for too long: a FeedError

A server shows its books and not what happened to them: see `frame_changes` for what can be told of that. A lost server
is looked for; what it then shows of a book is a snapshot again.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from math import inf
from typing import Self

import trio
from pydantic import ValidationError

from market_depth.client import Denied, Update, Waiting
from market_depth.client.connection import COME_LATER
from market_depth.feeds.base import FeedError, FeedOptionError
from market_depth.record.frame_changes import FrameChanges, FrameError
from market_depth.record.frame_instrument import instrument_in
from protocol.errors import UnknownSymbol
from protocol.events import OrderEvents, order_events
from protocol.instrument import Instrument
from protocol.messages import MAX_LEVELS, Error, MarketData, Subscribe

logger = logging.getLogger(__name__)

VENUE = "SERVER"
"""What stands for the venue: the base protocol does not tell it."""

FIRST_BOOKS_LIMIT_S = 30.0
"""A server answers before it has books: its first start compiles for some seconds. A book that stays empty for so long
is recorded in whole lots."""

LOST_LIMIT_S = 300.0
"""How long a lost server is looked for: a restart of its machine takes less."""

OPTIONS = {"symbol": "--symbols", "max_levels": "--levels"}
"""A subscription's fields as the person at the terminal names them."""

NOTHING = order_events(0)


def subscriptions(symbols: Sequence[str], levels: int = MAX_LEVELS) -> list[Subscribe]:
    """What to ask a server for: the orders of so many price levels a side. Raises: FeedOptionError."""
    for symbol in symbols:
        if symbols.count(symbol) > 1:
            raise FeedOptionError("--symbols", f"{symbol!r} is listed more than once", "name it once")
    try:
        return [
            Subscribe(stream_id=str(number), symbol=symbol, data_type="MBO", max_levels=levels)
            for number, symbol in enumerate(symbols)
        ]
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0])
        raise FeedOptionError(
            OPTIONS[field],
            f"{first['input']!r} cannot be",
            f"give {Subscribe.model_fields[field].description}",
        ) from error


class ServerFeed:
    """Iterates over the order events of these streams, in one task: a batch for each frame with changes."""

    def __init__(
        self,
        name: str,
        updates: AsyncIterator[Update],
        streams: Sequence[Subscribe],
        *,
        max_records: int | None = None,
        duration_s: float | None = None,
    ) -> None:
        """`updates`: what `follow` reports of these streams. `name`: what errors call the server.

        `max_records`: end with the frame that makes it so many; `duration_s`: end so long after `open`.
        """
        self.instruments: tuple[Instrument, ...] = ()
        """In the order of the streams, numbered from 1."""
        self.start_ns = 0
        """The market's time of the oldest first frame, in ns since the epoch."""
        self.notify: Callable[[str], None] = logger.info
        """Is told in a line when the server is lost and when it is back."""
        self._name = name
        self._updates = updates
        self._streams = streams
        self._max_records = inf if max_records is None else max_records
        self._duration_s = inf if duration_s is None else duration_s
        self._changes: dict[str, FrameChanges] = {}
        self._opening: deque[OrderEvents] = deque()
        self._records = 0
        self._opened_at = 0.0
        self._lost_at: float | None = None
        self._lost_reason = ""

    @property
    def elapsed_s(self) -> float:
        """How long ago it was opened."""
        return trio.current_time() - self._opened_at

    async def open(self) -> None:
        """Wait for a frame of every stream, and some time for one with orders. Raises: FeedError."""
        frames: dict[str, MarketData] = {}
        with trio.move_on_after(FIRST_BOOKS_LIMIT_S):
            while self._without_orders(frames):
                update = await anext(self._updates)
                match update:
                    case Waiting():
                        raise self._error(
                            f"cannot be reached: {update.reason}", "start it, or give its address with --addr"
                        )
                    case Error() | Denied():
                        self._check(update)
                    case MarketData():
                        self._check_stream(update)
                        frames[update.stream_id] = update
        for stream in self._without_orders(frames):
            if stream.stream_id not in frames:
                raise self._error(
                    f"shows no book of {stream.symbol} for {FIRST_BOOKS_LIMIT_S:g} s",
                    "try again when it does",
                )
        self.instruments = tuple(
            instrument_in(frames[stream.stream_id], VENUE, number)
            for number, stream in enumerate(self._streams, 1)
        )
        self._changes = {
            stream.stream_id: FrameChanges(instrument)
            for stream, instrument in zip(self._streams, self.instruments, strict=True)
        }
        snapshots = [self._take(frame) for frame in frames.values()]
        self._opening.extend(sorted(snapshots, key=lambda events: int(events["ts_recv"][0])))
        self.start_ns = int(self._opening[0]["ts_recv"][0])
        self._opened_at = trio.current_time()

    def _without_orders(self, frames: dict[str, MarketData]) -> list[Subscribe]:
        """The streams that showed no order yet: nobody knows how many decimals their quantities have."""

        def has_orders(frame: MarketData | None) -> bool:
            return frame is not None and bool(frame.data.bids or frame.data.asks)

        return [stream for stream in self._streams if not has_orders(frames.get(stream.stream_id))]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        """The next batch. Raises: StopAsyncIteration at the end; FeedError, after all before it."""
        while self._records < self._max_records:
            events = self._opening.popleft() if self._opening else await self._next()
            if len(events):
                self._records += len(events)
                return events
        raise StopAsyncIteration

    async def _next(self) -> OrderEvents:
        """What the next update tells, perhaps nothing."""
        lost_until = inf if self._lost_at is None else self._lost_at + LOST_LIMIT_S
        end = self._opened_at + self._duration_s
        with trio.move_on_at(min(lost_until, end)) as waiting:
            update = await anext(self._updates)
        if waiting.cancelled_caught:
            if end <= lost_until:
                raise StopAsyncIteration
            raise self._error(
                f"was lost for {LOST_LIMIT_S:g} s: {self._lost_reason}", "see what became of it"
            )
        match update:
            case MarketData():
                if self._lost_at is not None:
                    self._lost_at = None
                    self.notify(f"{self._name}: is back; its books are recorded anew")
                return self._take(update)
            case Waiting():
                self._lose(update.reason)
            case Error() | Denied():
                self._check(update)
        return NOTHING

    def _lose(self, reason: str) -> None:
        self._lost_reason = reason
        if self._lost_at is None:
            self._lost_at = trio.current_time()
            self.notify(f"{self._name}: lost, {reason}; looking for it, for {LOST_LIMIT_S:g} s at most")
        for changes in self._changes.values():
            changes.restart()

    def _take(self, frame: MarketData) -> OrderEvents:
        self._check_stream(frame)
        try:
            return self._changes[frame.stream_id].take(frame)
        except FrameError as error:
            raise self._error(f"{frame.symbol}: {error}", "record what DBN can hold") from error

    def _check_stream(self, frame: MarketData) -> None:
        if all(stream.stream_id != frame.stream_id for stream in self._streams):
            raise self._error("sends a stream that nobody asked for", "see whether it is a depth server")

    def _check(self, refusal: Error | Denied) -> None:
        if isinstance(refusal, Denied):
            raise self._error(refusal.message, refusal.remedy)
        if refusal.code not in COME_LATER:  # else the connection is lost next
            is_unknown = refusal.code == UnknownSymbol.code
            remedy = "choose others with --symbols" if is_unknown else "ask for something else"
            raise self._error(refusal.message, remedy)

    def _error(self, problem: str, remedy: str) -> FeedError:
        return FeedError(self._name, problem, remedy)
