"""One client's way through a recording: its records when they are due."""

from collections.abc import Awaitable, Callable
from typing import Protocol, Self

import numpy as np
import trio

from market_depth.feeds.base import MAX_BATCH_RECORDS
from market_depth.feeds.books_seen import BooksSeen
from market_depth.feeds.pacing import LAST_NS, Pacing, Times, recorded_times
from protocol.events import ORDER_EVENT, OrderEvents
from protocol.timestamp import NS_PER_S

WAKE_INTERVAL_NS = 1_000_000
"""Records go out at most once in this time, unless they are late: a wake-up for each costs more than it is worth."""


class Records(Protocol):
    """Order events that are read once, oldest first: an open DbnFile."""

    @property
    def start_ns(self) -> int:
        """The first `ts_recv`, ns since the epoch; 0 when there is none."""

    @property
    def blocks(self) -> bool:
        """Whether `read` may wait for a disk, and so belongs in a thread."""

    def read(self) -> OrderEvents:
        """The next order events, a bounded number; none at the end. Raises: FeedError."""

    def close(self) -> None:
        """Let go of the file."""


OpenRecords = Callable[[], Awaitable[Records]]
"""Raises: FeedError."""


class Playback:
    """Iterates over the records of a recording in batches, each when it is due. Its time starts with the first.

    A receiver that takes long holds it up; what is due then follows at once, so that the whole keeps its pace.
    """

    def __init__(
        self, open_records: OpenRecords, pacing: Pacing, *, loop: bool = False, from_ns: int = 0
    ) -> None:
        """`loop`: start again at the end, with a Clear for each book. `from_ns`: leave out what comes before the
        first record with that `ts_event` (ns since the epoch) or a later one. `open_records` is called for each round.
        """
        self._open_records = open_records
        self._pacing = pacing
        self._loops = loop
        self._from_ns = from_ns
        self._records: Records | None = None
        self._books = BooksSeen()
        self._events = np.empty(0, ORDER_EVENT)
        self._times: Times = np.empty(0, np.int64)
        self._clears = np.empty(0, ORDER_EVENT)
        self._delivered = 0
        self._started_at: float | None = None
        self._next_wake_ns = 0
        self._rounds_ns = 0  # how long the rounds before this one were, in recorded time
        self._start_ns: int | None = None  # of this round, ns since the epoch; None before its first record
        self._reached_ns = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        """The next batch. A cancelled call has lost nothing. Raises: FeedError, after all before the damage."""
        await trio.lowlevel.checkpoint()
        while not len(self._events) and not len(self._clears):
            if not await self._read_on():
                raise StopAsyncIteration
        if len(self._clears):
            batch, self._clears = self._clears, np.empty(0, ORDER_EVENT)
            return batch
        if self._started_at is None:
            self._started_at = trio.current_time()
        times = self._times[:MAX_BATCH_RECORDS]
        now_ns = await self._wait_until(
            max(self._pacing.due_at(self._delivered + 1, int(times[0])), self._next_wake_ns)
        )
        due = self._pacing.due(now_ns, self._delivered, times)
        # Where everything at hand was due, more may be: then this is behind and goes on at once.
        self._next_wake_ns = 0 if due == len(times) else now_ns + WAKE_INTERVAL_NS
        count = max(due, 1)
        batch, self._events, self._times = self._events[:count], self._events[count:], self._times[count:]
        self._delivered += count
        return batch

    def close(self) -> None:
        """Let go of the file."""
        if self._records is not None:
            self._records.close()

    async def _wait_until(self, wake_ns: int) -> int:
        """Let others run until the playback's time is `wake_ns` or later. Returns: its time then, in ns."""
        assert self._started_at is not None
        now_ns = round((trio.current_time() - self._started_at) * NS_PER_S)
        if now_ns >= wake_ns:
            return now_ns
        await trio.sleep((wake_ns - now_ns) / NS_PER_S)
        # The loop's clock counts in fractions of a second and may stop a nanosecond short.
        return max(round((trio.current_time() - self._started_at) * NS_PER_S), wake_ns)

    async def _read_on(self) -> bool:
        """Read the next records, or make ready for another round. Returns: False at the end."""
        if self._records is None:
            self._records = await self._open_records()
            self._start_ns = None
            self._reached_ns = self._records.start_ns
        read = self._records.read
        events = await trio.to_thread.run_sync(read) if self._records.blocks else read()
        if not len(events):
            if not self._loops or self._start_ns is None:
                return False
            self._rounds_ns = min(self._rounds_ns + self._reached_ns - self._start_ns, LAST_NS)
            self._clears = self._books.clears(self._start_ns)
            self._records.close()
            self._records = None
            return True
        times = recorded_times(events, self._reached_ns)
        self._reached_ns = int(times[-1])
        if self._start_ns is None:
            late = np.flatnonzero(events["ts_event"] >= self._from_ns)
            if not len(late):
                return True
            events, times = events[late[0] :], times[late[0] :]
            self._start_ns = int(times[0])
        self._events = events
        self._times = np.minimum(times - self._start_ns, LAST_NS - self._rounds_ns) + self._rounds_ns
        if self._loops:
            self._books.note(events)
        return True
