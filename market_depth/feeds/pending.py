"""Records that a replay has read and not yet handed over, and where batches may be cut from them."""

import numpy as np

from market_depth.feeds.base import MAX_BATCH_RECORDS
from market_depth.feeds.pacing import Times
from protocol.events import ORDER_EVENT, Flag, OrderEvents


class PendingEvents:
    """A queue of records that is cut behind an event's last record (flag LAST) only, wherever there is one.

    A source that flags none among as many records as a batch may have is cut there, so that memory stays bounded.
    """

    def __init__(self) -> None:
        self._events = np.empty(0, ORDER_EVENT)
        self._times: Times = np.empty(0, np.int64)
        self._event_ends = np.empty(0, np.intp)
        self._taken = 0

    def __len__(self) -> int:
        return len(self._events) - self._taken

    @property
    def times(self) -> Times:
        """The recorded times of the next records, as many as a batch may have."""
        return self._times[self._taken : self._taken + MAX_BATCH_RECORDS]

    def append(self, events: OrderEvents, times: Times) -> None:
        """Add records that follow, with their recorded times."""
        if len(self):
            events = np.concatenate([self._events[self._taken :], events])
            times = np.concatenate([self._times[self._taken :], times])
        self._events = events
        self._times = times
        self._event_ends = np.flatnonzero(events["flags"] & Flag.LAST) + 1
        self._taken = 0

    def has_batch(self) -> bool:
        """Whether more records would not change where the next batch may be cut first."""
        return len(self) >= MAX_BATCH_RECORDS or self._event_ends_within(len(self)).size > 0

    def shortest_batch(self) -> int:
        """How many records up to the first cut: the first event, or else as many as there are and a batch may have."""
        most = min(len(self), MAX_BATCH_RECORDS)
        ends = self._event_ends_within(most)
        return int(ends[0]) - self._taken if ends.size else most

    def longest_batch(self, due: int) -> int:
        """How many records up to the last cut among the next `due`; never fewer than the shortest batch."""
        ends = self._event_ends_within(min(due, MAX_BATCH_RECORDS))
        return int(ends[-1]) - self._taken if ends.size else self.shortest_batch()

    def batch_of(self, events: int) -> tuple[int, int]:
        """How many records up to the end of so many events, or of as many as a batch may have, and how many events
        those are; at least one.
        """
        ends = self._event_ends_within(MAX_BATCH_RECORDS)[:events]
        return (int(ends[-1]) - self._taken, len(ends)) if ends.size else (self.shortest_batch(), 1)

    def take(self, count: int) -> OrderEvents:
        """The next `count` records, which are no longer pending."""
        batch = self._events[self._taken : self._taken + count]
        self._taken += count
        return batch

    def _event_ends_within(self, count: int) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
        """Where events end among the next `count` records."""
        first, last = np.searchsorted(self._event_ends, [self._taken, self._taken + count], side="right")
        return self._event_ends[first:last]
