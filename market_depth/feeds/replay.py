"""Plays a recording: hands over its batches when they are due, at the chosen pace."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import trio

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError, FeedState, Source
from market_depth.feeds.pacing import LAST_NS, NS_PER_S, Pacing, PacingError, Times
from market_depth.feeds.pending import PendingEvents
from protocol.events import ORDER_EVENT, UNDEF_PRICE, Action, Flag, OrderEvents, Side, order_events
from protocol.instrument import Instrument

WAKE_INTERVAL_NS = 1_000_000
"""A replay that is on time hands over at most once in this time: waking for each event of a burst costs more than a
millisecond's delay is worth."""

T = TypeVar("T")


class Recording(Protocol):
    """Order events that can be read from the start, as often as wanted."""

    @property
    def name(self) -> str:
        """What logs, health and errors call it."""

    @property
    def instruments(self) -> Sequence[Instrument]:
        """Every instrument in it."""

    @property
    def start_ns(self) -> int:
        """Its first `ts_recv`, ns since the epoch; 0 when there is none."""

    @property
    def blocks(self) -> bool:
        """Whether `read` and `rewind` may wait for a disk, and so belong in a thread."""

    def read(self) -> OrderEvents:
        """The next order events, contiguous and aligned, a bounded number; none at the end. Raises: FeedError."""

    def rewind(self) -> None:
        """Go back to the first order event."""

    def close(self) -> None:
        """Let go of the file. Closing again does nothing."""


class ReplayFeed:
    """A Feed of recorded events. Its time starts with the first call for a batch, not before.

    A receiver that takes long holds the recording up; afterwards everything then due follows at once, so that the
    replay as a whole keeps its pace.
    """

    source: Source = "replay"

    def __init__(
        self, recording: Recording, pacing: Pacing, *, loop: bool = False, limit: int | None = None
    ) -> None:
        """`loop`: start again at the end; each round begins with a batch of Clears, one for every (instrument,
        publisher) in the recording, which pacing and limit do not count. `limit`: play the first so many records.

        Raises: PacingError for a limit below 1.
        """
        if limit is not None and limit < 1:
            raise PacingError(recording.name, f"a limit of {limit} records is not possible", "give 1 or more")
        self.name = recording.name
        self.instruments = tuple(recording.instruments)
        self.state = FeedState.WAITING
        self._recording = recording
        self._pacing = pacing
        self._limit = limit
        self._loops = loop
        self._books = BooksSeen()
        self._clears = np.empty(0, ORDER_EVENT)
        self._pending = PendingEvents()
        self._started_at: float | None = None
        self._delivered = 0
        self._next_wake_ns = 0
        self._market_time_ns = recording.start_ns

        self._rounds_ns = 0  # how long the rounds before this one were, in recorded time
        self._read = 0  # records of this round
        self._reached_ns = recording.start_ns  # recorded time of the last of them
        self._is_read_out = False
        self._is_reading = False
        self._damage: FeedError | None = None

    @classmethod
    async def open(cls, path: Path, pacing: Pacing, *, loop: bool = False, limit: int | None = None) -> Self:
        """The replay of a DBN file. Raises: the errors of DbnFile."""
        from market_depth.feeds.dbn import DbnFile  # its decoder is loaded only where a file is played

        return cls(await trio.to_thread.run_sync(DbnFile, path), pacing, loop=loop, limit=limit)

    def market_time(self) -> int:
        return self._market_time_ns

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        if self.state is FeedState.WAITING:
            self.state = FeedState.RUNNING
            self._started_at = trio.current_time()
        try:
            batch = await self._next_batch()
        except FeedError:
            self._end(FeedState.FAILED)
            raise
        if batch is None:
            self._end(FeedState.COMPLETED)
            raise StopAsyncIteration
        return batch

    async def aclose(self) -> None:
        self._end(FeedState.CLOSED)
        await trio.lowlevel.checkpoint()

    def _end(self, state: FeedState) -> None:
        if self._is_running():
            self.state = state
        if not self._is_reading:
            self._recording.close()

    def _is_running(self) -> bool:
        return self.state in (FeedState.WAITING, FeedState.RUNNING)

    async def _next_batch(self) -> OrderEvents | None:
        """The next batch when it is due, or None at the end. Cancelled, it has changed nothing that matters."""
        pending = self._pending
        while self._is_running() and not self._is_read_out and not pending.has_batch():
            await self._read_on()
        if self._is_running() and not len(pending) and self._damage:
            raise self._damage
        if self._is_running() and not len(pending) and self._loops and self._read:
            await self._start_next_round()
        if not self._is_running():
            return None
        if len(self._clears):
            return await self._next_clears()
        if not len(pending):
            return None
        shortest = pending.shortest_batch()
        due_ns = self._pacing.due_at(self._delivered + shortest, int(pending.times[shortest - 1]))
        now_ns = await self._wait_until(max(due_ns, self._next_wake_ns))
        if not self._is_running():
            return None
        due = self._pacing.due(now_ns, self._delivered, pending.times)
        count = pending.longest_batch(due)
        self._market_time_ns = self._recording.start_ns + int(pending.times[count - 1]) - self._rounds_ns
        self._delivered += count
        # Where everything at hand was due, more may be: then the replay is behind and goes on at once.
        self._next_wake_ns = 0 if due == len(pending.times) else now_ns + WAKE_INTERVAL_NS
        return pending.take(count)

    async def _wait_until(self, wake_ns: int) -> int:
        """Let others run, at least once, and until the replay's time is `wake_ns` or later. Returns: its time then."""
        now_ns = self._elapsed_ns()
        if wake_ns <= now_ns:
            await trio.lowlevel.checkpoint()
            return now_ns
        await trio.sleep((wake_ns - now_ns) / NS_PER_S)
        # The loop's clock counts in fractions of a second and may stop a nanosecond short.
        return max(self._elapsed_ns(), wake_ns)

    def _elapsed_ns(self) -> int:
        if self._started_at is None:
            return 0
        return round((trio.current_time() - self._started_at) * NS_PER_S)

    async def _read_on(self) -> None:
        """Read the next records of this round into `_pending`."""
        try:
            events = await self._run(self._recording.read)
        except FeedError as damage:
            # What was read before is good and goes out first.
            self._damage = damage
            events = np.empty(0, ORDER_EVENT)
        if self._limit is not None:
            events = events[: self._limit - self._read]
        self._read += len(events)
        self._is_read_out = not len(events) or self._read == self._limit
        if len(events):
            self._pending.append(events, self._times_of(events))
            if self._loops:
                self._books.note(events)

    def _times_of(self, events: OrderEvents) -> Times:
        """When events were recorded, in ns after the replay's first record and never falling.

        A record without a time, or with an earlier one than its predecessor, goes with its predecessor.
        """
        times = events["ts_recv"].astype(np.int64)  # "no time" becomes -1
        times[0] = max(times[0], self._reached_ns)
        np.maximum.accumulate(times, out=times)
        self._reached_ns = int(times[-1])
        times -= self._recording.start_ns
        return np.minimum(times, LAST_NS - self._rounds_ns) + self._rounds_ns

    async def _start_next_round(self) -> None:
        await self._run(self._recording.rewind)
        start_ns = self._recording.start_ns
        self._rounds_ns += self._reached_ns - start_ns
        self._reached_ns = start_ns
        self._read = 0
        self._is_read_out = False
        self._clears = self._books.clears(start_ns)

    async def _next_clears(self) -> OrderEvents:
        await trio.lowlevel.checkpoint()
        batch, self._clears = self._clears[:MAX_BATCH_RECORDS], self._clears[MAX_BATCH_RECORDS:]
        self._market_time_ns = self._recording.start_ns
        return batch

    async def _run(self, function: Callable[[], T]) -> T:
        """What `function` of the recording returns. A file that is closed meanwhile is closed afterwards."""
        self._is_reading = True
        try:
            return await trio.to_thread.run_sync(function) if self._recording.blocks else function()
        finally:
            self._is_reading = False
            if not self._is_running():
                self._recording.close()


class BooksSeen:
    """Which books, one for each (instrument, publisher), a recording has events of."""

    def __init__(self) -> None:
        self._headers: set[int] = set()

    def note(self, events: OrderEvents) -> None:
        """Remember the books of `events`."""
        self._headers.update(np.unique(_headers(events)).tolist())

    def clears(self, ts_ns: int) -> OrderEvents:
        """A Clear for every book seen, by instrument id and publisher, each an event of the time `ts_ns`."""
        events = order_events(len(self._headers))
        _headers(events)[:] = sorted(self._headers)
        events["ts_event"] = events["ts_recv"] = ts_ns
        events["price"] = UNDEF_PRICE
        events["action"] = Action.CLEAR
        events["side"] = Side.NONE
        events["flags"] = Flag.LAST
        return events


def _headers(events: OrderEvents) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    """The first eight bytes of each row as one integer: instrument id, publisher id, and what all rows share."""
    return events.view("<u8").reshape(len(events), -1)[:, 0]
