"""Plays a recording: hands over its batches when they are due, at the chosen pace, and from wherever it is told to.

    running ◄──► paused        `pause`, `resume`; `step` hands over some events and leaves it paused
    running, paused, done, failed ──► idle        `stop`
    idle, done, failed ──► running        `start`; from done and failed also `seek`
    running, paused ──► done        the end is reached
    running, paused ──► failed        the recording is damaged here, or cannot be read

A replay that was opened to be controlled waits when it is idle, done or failed; any other one ends. `seek` and `start`
go elsewhere in the recording: the books there come as a snapshot, one event that clears and fills them (see
`market_depth.book.snapshot`), so that whoever follows the batches needs to know nothing of replays. They read again
what could not be read: the disk may be back, or the file repaired in its place, or its recorder further.

The methods for control may be called at any time from any task of the same event loop. They only leave word, and wake
`__anext__`, which does all the work.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np
import trio

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError, FeedState, Source
from market_depth.feeds.pacing import LAST_NS, PacingError
from market_depth.feeds.pending import PendingEvents
from market_depth.feeds.read_ahead import ReadAhead
from market_depth.feeds.schedule import Schedule
from market_depth.feeds.seekable import SeekableRecording
from protocol.events import ORDER_EVENT
from protocol.timestamp import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from market_depth.feeds.pacing import Pacing
    from market_depth.feeds.recording import Recording
    from market_depth.feeds.seekable import Chunk
    from protocol.events import OrderEvents

WAKE_INTERVAL_NS = 1_000_000
"""A replay that is on time hands over at most once in this time: waking for each event of a burst costs more than a
millisecond's delay is worth."""

NO_EVENTS = np.empty(0, ORDER_EVENT)
ARRIVED = object()

T = TypeVar("T")

logger = logging.getLogger(__name__)


class ReplayState(StrEnum):
    """What a replay is doing."""

    IDLE = "IDLE"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    DONE = "DONE"
    FAILED = "FAILED"


class ReplayStateError(Exception):
    """A replay cannot do this in its present state; in another it could."""

    def __init__(self, name: str, state: str, remedy: str) -> None:
        super().__init__(name, state, remedy)
        self.name = name
        self.state = state
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.name} is {self.state}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class Playing:
    """How a replay is played from its start: at which pace, how often, and which part. Times are ns since the epoch."""

    pacing: Pacing
    loops: bool = False
    start_ns: int | None = None
    """The books are those of this instant at first; None: empty, before the first event."""
    end_ns: int | None = None
    """Events that are over later are not played; None: all."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replay has come."""

    state: ReplayState
    position_ns: int
    """The recorded time that is played, ns since the epoch."""
    records: int
    """How many records of the recording lie before that."""
    share: float
    """How much of the recording lies before that, from 0 to 1, about."""
    playing: Playing
    error: str | None


class ReplayFeed:
    """A Feed of recorded events. Its time starts with the first call for a batch, not before.

    Under control, the FeedError that damage raises is not its end: whoever calls on waits until it is started again.

    A receiver that takes long holds the recording up; afterwards everything then due follows at once, so that the
    replay as a whole keeps its pace.
    """

    source: Source = "replay"

    def __init__(
        self,
        recording: Recording,
        pacing: Pacing,
        *,
        loop: bool = False,
        limit: int | None = None,
        is_controlled: bool = False,
    ) -> None:
        """`loop`: start again at the end; each round begins with a snapshot of empty books, which pacing and limit do
        not count. `limit`: there are only the first so many records. `is_controlled`: at the end wait to be told more.

        Raises: PacingError for a limit below 1.
        """
        if limit is not None and limit < 1:
            raise PacingError(recording.name, f"a limit of {limit} records is not possible", "give 1 or more")
        self.name = recording.name
        self.instruments = tuple(recording.instruments)
        self.state = FeedState.WAITING
        self._is_controlled = is_controlled
        self._recording = recording
        self._seekable = SeekableRecording(recording, limit)
        self._playing = Playing(pacing, loop)
        self._play = ReplayState.RUNNING
        self._is_over = False
        self._error: str | None = None

        # What control has left word of.
        self._changed = trio.Event()
        self._goal: _Goal | None = None
        self._steps = 0  # events still to be handed over while paused
        self._arrivals: list[_Arrival] = []  # of those who wait for goal and steps

        # What was read and is still to be handed over: first of all the snapshot.
        self._snapshot = NO_EVENTS
        self._pending = PendingEvents()
        self._is_read_out = False
        self._is_reading = False
        self._damage: FeedError | None = None
        self._records_read = 0
        self._share_read = 0.0

        self._schedule = Schedule(pacing)
        self._origin_s: float | None = None  # of the schedule's clock, on trio's
        self._next_wake_ns = 0
        self._delivered = 0  # records that the schedule has counted, of all rounds
        # Played time is ns after the recording's first record, and goes on from round to round.
        self._reached_ns = 0
        self._rounds_ns = 0  # by how much the present round is later than the recording
        self._has_played = False  # anything since the start: if not, there is nothing to play again
        self._market_time_ns = recording.start_ns

    @classmethod
    async def open(
        cls,
        path: Path,
        pacing: Pacing,
        *,
        loop: bool = False,
        limit: int | None = None,
        is_controlled: bool = False,
    ) -> Self:
        """The replay of a DBN file. Raises: the errors of DbnFile."""
        from market_depth.feeds.dbn import DbnFile  # its decoder is loaded only where a file is played

        recording = await trio.to_thread.run_sync(lambda: ReadAhead(DbnFile(path)))
        return cls(recording, pacing, loop=loop, limit=limit, is_controlled=is_controlled)

    def market_time(self) -> int:
        return self._market_time_ns

    def progress(self) -> Progress:
        """What the replay is doing, and how far it has come."""
        records = self._records_read - len(self._pending)
        share = self._share_read * records / self._records_read if self._records_read else 0.0
        return Progress(self._play, self._position_ns(), records, share, self._playing, self._error)

    def _position_ns(self) -> int:
        # Between two records the time played goes on, but never past the next one: that may be late.
        ahead = int(self._pending.times[0]) if len(self._pending) else self._reached_ns
        played = min(
            max(self._schedule.reached(self._now_ns()), self._reached_ns), max(ahead, self._reached_ns)
        )
        return self._recording.start_ns + played - self._rounds_ns

    # Control: may be called at any time, and only leaves word.

    def pause(self) -> None:
        """Let time stand still. A replay that is paused stays so.

        Raises: ReplayStateError when it is idle, done, failed or over.
        """
        self._check(ReplayState.RUNNING, ReplayState.PAUSED)
        self._play = ReplayState.PAUSED
        self._schedule.stop(self._now_ns())
        self._wake()

    def resume(self) -> None:
        """Let time go on. A replay that runs just runs on.

        Raises: ReplayStateError when it is idle, done, failed or over.
        """
        self._check(ReplayState.RUNNING, ReplayState.PAUSED)
        self._steps = 0
        self._run()

    async def step(self, events: int = 1) -> None:
        """Hand over the next events, however far away they are, and be paused. Returns when that is done.

        Raises: ReplayStateError when it is idle, done, failed or over, or becomes failed or over meanwhile.
        """
        self.pause()
        self._steps += events
        await self._arrive()

    async def seek(self, instant_ns: int) -> None:
        """Go on with what follows an instant (ns since the epoch). Returns when the books of that instant are there.

        They are those that playing up to there gives: before the first event empty; after the last one the replay is
        done, and behind damage it has failed. It stays paused or running; one that was done or failed runs.
        A later seek, start or stop takes its place: then it returns with that one, wherever it leads.
        Raises: ReplayStateError when it is idle or over, or becomes failed or over meanwhile.
        """
        self._check(ReplayState.RUNNING, ReplayState.PAUSED, ReplayState.DONE, ReplayState.FAILED)
        end_ns = LAST_NS if self._playing.end_ns is None else self._playing.end_ns
        self._set_goal(min(max(instant_ns, 0), end_ns))
        if self._play in (ReplayState.DONE, ReplayState.FAILED):
            self._run()
        await self._arrive()

    def set_pacing(self, pacing: Pacing) -> None:
        """Go on at another pace, from here and now.

        Raises: ReplayStateError when the replay is over.
        """
        self._check(*ReplayState)
        self._schedule.set_pacing(pacing, self._now_ns(), self._delivered, self._reached_ns)
        self._playing = replace(self._playing, pacing=pacing)
        self._next_wake_ns = 0
        self._wake()

    async def start(self, playing: Playing) -> bool:
        """Play from the start, if the replay is idle, done or failed. Returns when the books of the start are there.

        Returns: whether it was; a replay that runs or is paused goes on as it was told before.
        Raises: ReplayStateError when it is over, or becomes failed or over meanwhile.
        """
        self._check(*ReplayState)
        if self._play in (ReplayState.RUNNING, ReplayState.PAUSED):
            return False
        self.set_pacing(playing.pacing)
        self._playing = playing
        self._set_goal(playing.start_ns)
        self._run()
        await self._arrive()
        return True

    def stop(self) -> None:
        """Play no more; the books stay as they are. A replay that is idle stays so.

        Raises: ReplayStateError when it is over.
        """
        self._check(*ReplayState)
        self._play = ReplayState.IDLE
        self._error = None
        self._schedule.stop(self._now_ns())
        self._goal = None
        self._steps = 0
        self._wake()

    def _check(self, *states: ReplayState) -> None:
        if self._is_over:
            raise self._over()
        if self._play not in states:
            raise ReplayStateError(self.name, self._play, self._error or "start it first")

    def _over(self) -> ReplayStateError:
        return ReplayStateError(self.name, self.state.upper(), self._error or "it plays no more")

    def _run(self) -> None:
        self._play = ReplayState.RUNNING
        self._error = None
        if self.state in (FeedState.COMPLETED, FeedState.FAILED):
            self.state = FeedState.RUNNING
        if self.state is FeedState.RUNNING:  # before the first call for a batch, time has not begun
            self._schedule.run(self._now_ns())
        self._wake()

    def _set_goal(self, instant_ns: int | None) -> None:
        self._goal = _Goal(instant_ns)
        self._steps = 0
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _arrive(self) -> None:
        """Wait until goal and steps were handed over and taken."""
        arrival = _Arrival()
        self._arrivals.append(arrival)
        await arrival.event.wait()
        if arrival.refusal is not None:
            raise arrival.refusal

    def _tell_arrivals(self, refusal: ReplayStateError | None = None) -> None:
        for arrival in self._arrivals:
            arrival.refusal = refusal
            arrival.event.set()
        self._arrivals.clear()

    # Playing: all in the task that calls for batches.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        if self.state is FeedState.WAITING:
            self.state = FeedState.RUNNING
            if self._play is ReplayState.RUNNING:
                self._schedule.run(self._now_ns())
        try:
            batch = await self._next_batch()
        except FeedError as error:
            self._fail(str(error))
            if not self._is_controlled:
                self._end(FeedState.FAILED)
            raise
        except Exception:
            self._fail(f"{self.name}: internal error")
            self._end(FeedState.FAILED)
            raise
        if batch is None:
            self._end(FeedState.COMPLETED)
            raise StopAsyncIteration
        return batch

    def _fail(self, error: str) -> None:
        self._error = error
        self._play = ReplayState.FAILED
        self.state = FeedState.FAILED
        self._goal = None
        self._steps = 0
        self._schedule.stop(self._now_ns())
        self._tell_arrivals(ReplayStateError(self.name, self._play, error))

    async def aclose(self) -> None:
        self._end(FeedState.CLOSED)
        await trio.lowlevel.checkpoint()

    def _end(self, state: FeedState) -> None:
        if not self._is_over:
            self._is_over = True
            self.state = state
            self._wake()
            self._tell_arrivals(self._over())
        if not self._is_reading:
            self._recording.close()

    async def _next_batch(self) -> OrderEvents | None:
        """The next batch when it is due, or None at the end. Cancelled, it has changed nothing that matters."""
        while not self._is_over:
            # Whoever calls has taken everything that was handed over before.
            if self._goal is None and not len(self._snapshot) and not self._steps:
                self._tell_arrivals()
            batch: OrderEvents | None = None
            if len(self._snapshot):
                batch = await self._take_snapshot()
            elif self._goal is not None:
                await self._seek(self._goal)
            elif self._play is ReplayState.DONE and not self._is_controlled:
                break
            elif self._play in (ReplayState.IDLE, ReplayState.DONE, ReplayState.FAILED):
                await self._changed.wait()
            elif not self._pending.has_batch() and not self._is_read_out:
                await self._read_on()
            elif not len(self._pending):
                await self._finish_round()
            elif self._steps:
                batch = await self._take_steps()
            elif self._play is ReplayState.PAUSED:
                await self._changed.wait()
            else:
                batch = await self._take_due()
            if batch is not None:
                return batch
        return None

    async def _take_snapshot(self) -> OrderEvents:
        await trio.lowlevel.checkpoint()
        batch, self._snapshot = self._snapshot[:MAX_BATCH_RECORDS], self._snapshot[MAX_BATCH_RECORDS:]
        return batch

    async def _take_steps(self) -> OrderEvents | None:
        changed = self._changed
        await trio.lowlevel.checkpoint()
        if changed.is_set():
            return None
        count, events = self._pending.batch_of(self._steps)
        self._steps -= events
        batch = self._take(count)
        self._schedule.go_to(self._now_ns(), self._delivered, self._reached_ns)
        return batch

    async def _take_due(self) -> OrderEvents | None:
        """What is due, when something is; None when somebody has left word before."""
        pending, changed = self._pending, self._changed
        shortest = pending.shortest_batch()
        due_ns = self._schedule.due_at(self._delivered + shortest, int(pending.times[shortest - 1]))
        wake_ns = max(due_ns, self._next_wake_ns)
        now_ns = self._now_ns()
        if wake_ns <= now_ns:
            await trio.lowlevel.checkpoint()
        else:
            with trio.move_on_after((wake_ns - now_ns) / NS_PER_S):
                await changed.wait()
            # The loop's clock counts in fractions of a second and may stop a nanosecond short.
            now_ns = max(self._now_ns(), wake_ns)
        if changed.is_set():
            return None
        due = self._schedule.due(now_ns, self._delivered, pending.times)
        # Where everything at hand was due, more may be: then the replay is behind and goes on at once.
        self._next_wake_ns = 0 if due == len(pending.times) else now_ns + WAKE_INTERVAL_NS
        return self._take(pending.longest_batch(due))

    def _take(self, count: int) -> OrderEvents:
        self._reached_ns = int(self._pending.times[count - 1])
        self._market_time_ns = self._recording.start_ns + self._reached_ns - self._rounds_ns
        self._delivered += count
        self._has_played = True
        return self._pending.take(count)

    def _now_ns(self) -> int:
        if self._origin_s is None:
            self._origin_s = trio.current_time()
        return round((trio.current_time() - self._origin_s) * NS_PER_S)

    async def _read_on(self) -> None:
        """Read the next records of this round into `_pending`."""
        try:
            chunk, self._records_read, self._share_read = await self._call(self._read)
        except FeedError as damage:
            # What was read before is good and goes out first.
            self._damage = damage
            self._is_read_out = True
            return
        self._is_read_out = not len(chunk.events)
        times = chunk.times - self._recording.start_ns
        self._pending.append(chunk.events, np.minimum(times, LAST_NS - self._rounds_ns) + self._rounds_ns)

    def _read(self) -> tuple[Chunk, int, float]:
        chunk = self._seekable.read()
        return chunk, self._seekable.records, self._seekable.share()

    async def _finish_round(self) -> None:
        """Nothing is left: begin again, or be done."""
        if self._damage is not None:
            raise self._damage
        if self._playing.loops and self._has_played:
            goal = _Goal(self._playing.start_ns)
            if await self._travel(goal, is_wanted=lambda: self._goal is None and not self._is_over):
                # Time goes on as if the round were recorded after the one before.
                self._rounds_ns = min(self._reached_ns - self._played_ns(goal), LAST_NS)
            return
        self._play = ReplayState.DONE
        self.state = FeedState.COMPLETED
        self._steps = 0
        self._schedule.stop(self._now_ns())
        self._reached_ns = self._market_time_ns - self._recording.start_ns + self._rounds_ns
        logger.info("replay done feed=%s", self.name)

    async def _seek(self, goal: _Goal) -> None:
        if await self._travel(goal, is_wanted=lambda: self._goal is goal and not self._is_over):
            self._goal = None
            self._reached_ns = self._played_ns(goal) + self._rounds_ns
            now_ns = self._now_ns()
            self._schedule.go_to(now_ns, self._delivered, self._reached_ns)
            if self._play is ReplayState.RUNNING:
                self._schedule.run(now_ns)

    async def _travel(self, goal: _Goal, is_wanted: Callable[[], bool]) -> bool:
        """Go where the goal is, and have the snapshot of it to hand over.

        Returns: whether we are there; as soon as it is not wanted any more, we leave it.
        """
        self._seekable.end_ns = self._playing.end_ns
        way = self._seekable.go_to(goal.instant_ns)
        while await self._call(lambda: next(way, ARRIVED)) is not ARRIVED:
            if not is_wanted():
                return False
        snapshot, share = await self._call(lambda: (self._seekable.snapshot(), self._seekable.share()))
        if not is_wanted():
            return False
        self._snapshot = snapshot
        self._pending = PendingEvents()
        self._is_read_out = False
        self._damage = None
        self._has_played = goal.instant_ns != self._playing.start_ns
        self._next_wake_ns = 0
        self._records_read, self._share_read = self._seekable.records, share
        self._market_time_ns = self._seekable.position_ns
        return True

    def _played_ns(self, goal: _Goal) -> int:
        """The played time at which a goal that was reached lies, in the recording's first round."""
        if goal.instant_ns is None:
            return 0
        end_ns = self._seekable.position_ns if self._seekable.is_at_end else LAST_NS
        return max(0, min(goal.instant_ns, end_ns) - self._recording.start_ns)

    async def _call(self, function: Callable[[], T]) -> T:
        """What `function` of the recording returns. A file that is closed meanwhile is closed afterwards."""
        self._is_reading = True
        try:
            return await trio.to_thread.run_sync(function) if self._recording.blocks else function()
        finally:
            self._is_reading = False
            if self._is_over:
                self._recording.close()


@dataclass(frozen=True, slots=True)
class _Goal:
    """Where to go in the recording; None: to its beginning. Each is its own, however equal it looks."""

    instant_ns: int | None


class _Arrival:
    """Somebody who waits until something was handed over."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.refusal: ReplayStateError | None = None
        """Why it never will be."""
