"""A recording that can be set to any instant, with the books of that instant.

While it is read, an engine of its own follows the books, and now and then they are kept: a *checkpoint* is a snapshot
of the books with the place in the recording to which it belongs. To go to an instant, the books are taken from the
last checkpoint before it, and what lies between is applied at full speed.

Everything here waits for the disk and the processor and belongs in a thread, a step at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError
from market_depth.feeds.pacing import recorded_times
from protocol.events import ORDER_EVENT, Flag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from market_depth.book.engine import BookEngine
    from market_depth.feeds.pacing import Times
    from market_depth.feeds.recording import Place, Recording
    from protocol.events import OrderEvents

CHECKPOINT_RECORDS = 1 << 18
"""Records between two checkpoints, at first: applied again in 20 ms or so."""

RECORDS_PER_ORDER = 16
"""For so many records at least there is no checkpoint after one that holds an order: to keep an order in a checkpoint
takes as long as to apply ten events."""

MAX_CHECKPOINTS = 128
MAX_CHECKPOINT_BYTES = 128 * 1024 * 1024
"""When there are more, every second one goes, and from then on they are made half as often."""

STEP_CHUNKS = 8
"""Chunks of some 16,384 records that one step on the way to an instant reads: 10 ms."""


class Chunk(NamedTuple):
    """Successive records, and when each was recorded: ns since the epoch, never falling."""

    events: OrderEvents
    times: Times

    def whole(self) -> int:
        """How many records make up whole events; all where none says that an event ends there and a batch is full."""
        ends = np.flatnonzero(self.events["flags"] & Flag.LAST)
        if len(ends):
            return int(ends[-1]) + 1
        return len(self.events) if len(self.events) >= MAX_BATCH_RECORDS else 0

    def within(self, end_ns: int) -> int:
        """How many records make up the events that are over at `end_ns`.

        Where no event ends in a whole batch, as many as were recorded until then.
        """
        count = int(np.searchsorted(self.times, end_ns, side="right"))
        if count == len(self.events):
            return count
        ends = np.flatnonzero(self.events["flags"] & Flag.LAST) + 1
        if not len(ends) and len(self.events) >= MAX_BATCH_RECORDS:
            return count
        return int(ends[ends <= count].max(initial=0))

    def split(self, count: int) -> tuple[Chunk, Chunk]:
        """The first `count` records, and the others."""
        return Chunk(self.events[:count], self.times[:count]), Chunk(self.events[count:], self.times[count:])

    def followed_by(self, other: Chunk) -> Chunk:
        """Both in one."""
        if not len(self.events) or not len(other.events):
            return other if len(other.events) else self
        return Chunk(np.concatenate([self.events, other.events]), np.concatenate([self.times, other.times]))

    def copy(self) -> Chunk:
        """The same in memory of its own."""
        return Chunk(self.events.copy(), self.times.copy())


NOTHING = Chunk(np.empty(0, ORDER_EVENT), np.empty(0, np.int64))


class Checkpoint(NamedTuple):
    """The books after some records, and how the recording is read on from there."""

    records: int
    position_ns: int
    books: OrderEvents
    place: Place
    ahead: Chunk
    """Read before `place`, but not part of the books yet: an event that ends after it."""

    @property
    def size_bytes(self) -> int:
        """The memory it takes."""
        return self.books.nbytes + self.ahead.events.nbytes + self.ahead.times.nbytes


class SeekableRecording:
    """Reads a recording event by event, from any instant on."""

    def __init__(self, recording: Recording, limit: int | None = None) -> None:
        """`limit`: the recording ends after so many records."""
        self.recording = recording
        self.records = 0
        """How many records lie before the next one."""
        self.position_ns = recording.start_ns
        """When the last of them was recorded, ns since the epoch; at the beginning, when the first one was."""
        self.end_ns: int | None = None
        """Events that are over later are not read."""
        self._limit = limit
        self._ahead = NOTHING  # read from the recording, but not handed on
        self._is_read_out = False
        self._is_on_the_way = False  # to a place: the recording is somewhere, and not where `records` says
        self._damage: FeedError | None = None
        self._engine: BookEngine | None = None
        self._checkpoints = [Checkpoint(0, recording.start_ns, NOTHING.events, recording.place(), NOTHING)]
        self._spacing = CHECKPOINT_RECORDS

    def read(self) -> Chunk:
        """The next records, those of whole events; nothing at the end. What breaks off inside an event comes last.

        Raises: FeedError where the recording is damaged, after everything before has been returned.
        """
        chunk = self._next_chunk()
        if self.end_ns is not None:
            chunk, later = chunk.split(chunk.within(self.end_ns))
            self._put_back(later)
        self._follow(chunk)
        if not len(chunk.events) and not len(self._ahead.events) and self._damage is not None:
            raise self._damage
        return chunk

    @property
    def is_at_end(self) -> bool:
        """Whether it is known that no record follows."""
        return self._is_read_out and not len(self._ahead.events)

    def share(self) -> float:
        """How much of the recording as it is stored lies before the next record, from 0 to 1, about."""
        read = self.recording.bytes_read / max(1, self.recording.size_bytes)
        return min(1.0, read * self.records / max(1, self.records + len(self._ahead.events)))

    def go_to(self, instant_ns: int | None) -> Iterator[None]:
        """Let the next `read` begin after the last event that is over at an instant; None: at the first event.

        Each step of the iterator takes some 10 ms; one who does not want to arrive any more leaves it there and goes
        elsewhere. An instant after the end or after damage leads there.
        """
        start = self._start_for(instant_ns)
        if start is not None:
            self._is_on_the_way = True
            yield from self.recording.go_to(start.place)
            self._take_up(start)
        if instant_ns is not None:
            while not self._pass(instant_ns):
                yield

    def snapshot(self) -> OrderEvents:
        """The books before the next record, as events that make them of whatever was before."""
        # Imported late, as below: the books load numba, which takes longer than a server may take to accept.
        from market_depth.book.snapshot import snapshot

        return snapshot(self._books(), self.position_ns)

    def _start_for(self, instant_ns: int | None) -> Checkpoint | None:
        """The checkpoint from which to go to an instant; None where it is best to go on from here."""
        if instant_ns is None:
            return self._checkpoints[0]
        before = [checkpoint for checkpoint in self._checkpoints[1:] if checkpoint.position_ns <= instant_ns]
        last = before[-1] if before else self._checkpoints[0]
        is_ahead = self.position_ns <= instant_ns and last.records <= self.records
        # What is damaged may be repaired: it is read again.
        is_here = bool(self.records) and not self._is_on_the_way and self._damage is None
        return None if is_ahead and is_here else last

    def _take_up(self, checkpoint: Checkpoint) -> None:
        from market_depth.book.snapshot import cleared

        engine = self._books()
        engine.apply(cleared(engine, checkpoint.position_ns))
        engine.apply(checkpoint.books)
        self.records = checkpoint.records
        self.position_ns = checkpoint.position_ns
        # What is handed on belongs to the receiver, who may change it.
        self._ahead = checkpoint.ahead.copy()
        self._is_read_out = False
        self._is_on_the_way = False
        self._damage = None

    def _pass(self, instant_ns: int) -> bool:
        """Apply the next events up to an instant, a bounded number. Returns: whether it is reached."""
        for _ in range(STEP_CHUNKS):
            chunk = self._next_chunk()
            if not len(chunk.events):
                return True
            passed, later = chunk.split(chunk.within(instant_ns))
            self._put_back(later)
            self._follow(passed)
            if len(later.events):
                return True
        return False

    def _next_chunk(self) -> Chunk:
        """The next whole events, or what there is at the end."""
        while not (count := len(self._ahead.events) if self._is_read_out else self._ahead.whole()):
            if self._is_read_out:
                return NOTHING
            self._read_on()
        chunk, self._ahead = self._ahead.split(count)
        return chunk

    def _put_back(self, later: Chunk) -> None:
        self._ahead = later.followed_by(self._ahead)

    def _read_on(self) -> None:
        try:
            events = self.recording.read()
        except FeedError as damage:
            self._damage = damage
            self._is_read_out = True
            return
        read = self.records + len(self._ahead.events)
        if self._limit is not None:
            events = events[: self._limit - read]
        self._is_read_out = not len(events) or read + len(events) == self._limit
        if len(events):
            before_ns = int(self._ahead.times[-1]) if len(self._ahead.times) else self.position_ns
            self._ahead = self._ahead.followed_by(Chunk(events, recorded_times(events, before_ns)))

    def _follow(self, chunk: Chunk) -> None:
        """Apply records that are handed on or passed."""
        if not len(chunk.events):
            return
        self._books().apply(chunk.events)
        self.records += len(chunk.events)
        self.position_ns = int(chunk.times[-1])
        last = self._checkpoints[-1]
        if self.records - last.records >= max(self._spacing, RECORDS_PER_ORDER * len(last.books)):
            self._keep()

    def _keep(self) -> None:
        """Make a checkpoint of where we are, the last of all."""
        place = self.recording.place()
        self._checkpoints.append(
            Checkpoint(self.records, self.position_ns, self.snapshot(), place, self._ahead.copy())
        )
        while len(self._checkpoints) > 2 and self._keeps_too_much():
            self._checkpoints = [self._checkpoints[0], *self._checkpoints[:1:-2][::-1]]
            self._spacing *= 2

    def _keeps_too_much(self) -> bool:
        size = sum(checkpoint.size_bytes for checkpoint in self._checkpoints)
        return len(self._checkpoints) > MAX_CHECKPOINTS or size > MAX_CHECKPOINT_BYTES

    def _books(self) -> BookEngine:
        if self._engine is None:
            from market_depth.book.engine import BookEngine

            self._engine = BookEngine()
        return self._engine
