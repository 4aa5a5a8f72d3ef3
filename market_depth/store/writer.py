"""Writes into a store while the server runs: one bounded queue, one thread, many sessions.

    up ⇄ down        the database cannot be reached: it is tried again and again, and what is queued stays queued
     ├─────► closed  everything that was taken is committed, or the time for that is over
     └─────► failed  a bug of ours, or a database that is not what it was; the server goes on without its store

What is taken is committed in the order in which it came, every COMMIT_INTERVAL_S or as soon as there is COMMIT_BYTES of it.
`SessionWriter.write` waits while half of the queue is taken, so replays and uploads go as fast as the database; `offer`, for
feeds that cannot wait, takes the other half too, and then counts what it leaves out. Who has to know that something is safe
waits for its position: what is acknowledged is committed, and stays so if the process is killed the next moment.

Each batch keeps its number until it is committed. When a connection breaks in the middle of a commit, the same batch is
written again, and the store passes over it if it was committed then.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from math import inf
from typing import Any

import numpy as np
import trio

from market_depth.clock import Clock
from market_depth.store.base import (
    Batch,
    Retention,
    SessionEnding,
    SessionOpening,
    Store,
    StoreError,
    StoreUnavailableError,
)
from market_depth.store.rows import BBO_ROW, TRADE_ROW, Rows, Series, no_rows, snapshot_row

logger = logging.getLogger(__name__)

QUEUE_BYTES = 64 << 20
"""More than a million best bids and offers: seconds of any feed, while a DuckDB checkpoint takes some tenths."""

COMMIT_BYTES = 8 << 20
COMMIT_INTERVAL_S = 0.2
"""How long what is taken waits for company: a commit costs milliseconds, whatever its size."""

ENTRY_BYTES = 256
"""What an entry of the queue takes besides its rows."""

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 2.0
"""The longest that a database may be back before we notice."""

TRIM_INTERVAL_S = 60.0
TRIM_ROWS = 50_000
"""Deleted between two commits: some tenths of a second at most."""

CLOSE_S = 5.0


class StoreState(StrEnum):
    """How the writing stands. The last two are final."""

    UP = "up"
    DOWN = "down"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(slots=True)
class StoreCounts:
    """What was written since the start."""

    rows: Counter[str] = field(default_factory=Counter)
    """Committed, by table."""
    dropped_rows: int = 0
    """Not taken by `offer`, because the queue was full."""
    commits: int = 0
    commit_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What a session wrote at once."""

    session: "SessionWriter"
    series: tuple[Series, ...]
    bbo: Rows
    snapshots: Rows
    trades: Rows
    ending: SessionEnding | None

    @property
    def rows(self) -> int:
        return len(self.bbo) + len(self.snapshots) + len(self.trades)

    @property
    def size(self) -> int:
        return ENTRY_BYTES + self.bbo.nbytes + self.snapshots.nbytes + self.trades.nbytes


NO_BBO = no_rows(BBO_ROW)
NO_SNAPSHOTS = no_rows(snapshot_row(1))
NO_TRADES = no_rows(TRADE_ROW)


class StoreWriter:
    """The writing side of a store, at work in the task `run`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        retention: Retention | None = None,
        *,
        queue_bytes: int = QUEUE_BYTES,
        commit_bytes: int = COMMIT_BYTES,
        commit_interval_s: float = COMMIT_INTERVAL_S,
    ) -> None:
        self.counts = StoreCounts()
        self.state = StoreState.UP
        self.error: str | None = None
        """Why the state is what it is, in one line."""
        self._store = store
        self._clock = clock
        self._retention = retention
        self._queue_bytes = queue_bytes
        self._commit_bytes = commit_bytes
        self._commit_interval_s = commit_interval_s
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0  # what is being committed included
        self._queued_rows = 0
        self._taken = 0  # entries, which is also the last position
        self._committed = 0
        self._trim_at = inf if retention is None else -inf
        self._entrance = trio.Lock()
        self._arrived = trio.Event()  # there is something in the queue, or nothing comes any more
        self._hurry = trio.Event()  # there is enough for a commit
        self._changed = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._closing = trio.Event()
        self._running = trio.CancelScope(shield=True)
        self._done = trio.Event()

    def status(self) -> dict[str, Any]:
        """How the store is, as health tells it."""
        return {
            "state": self.state,
            "name": self._store.name,
            "error": self.error,
            "rows": dict(self.counts.rows),
            "queued_rows": self._queued_rows,
            "dropped_rows": self.counts.dropped_rows,
        }

    @property
    def is_ok(self) -> bool:
        """Whether what is taken is also written."""
        return self.state is StoreState.UP

    def open_session(self, opening: SessionOpening, batches: int = 0) -> "SessionWriter":
        """A new session; or one that has so many batches in the store, to go on with. Nothing is written yet."""
        return SessionWriter(self, opening, batches)

    async def committed(self, position: int) -> None:
        """Wait until everything up to a position is committed. Raises: StoreError when that will not happen any more."""
        await self._wait_until(lambda: self._committed >= position)

    async def run(self) -> None:
        """Write until `aclose`."""
        try:
            with self._running:
                await self._attempt(partial(self._store.recover, self._clock.wall_ns()))
                await self._write_all()
        except StoreError as error:
            self._end(StoreState.FAILED, str(error))
        except Exception:
            logger.exception("store failed store=%s", self._store.name)
            self._end(StoreState.FAILED, f"{self._store.name}: internal error")
        else:
            if self._running.cancelled_caught:
                self._end(
                    StoreState.FAILED,
                    f"{self._store.name}: {self._queued_rows} rows were not written in time",
                )
            else:
                self._end(StoreState.CLOSED, None)
        finally:
            self._done.set()

    async def aclose(self, patience_s: float = CLOSE_S) -> None:
        """Take nothing more, and commit what was taken, also where the caller is cancelled; at most for `patience_s`.

        What then is not committed was not acknowledged either. The store itself stays open, for reads.
        """
        self._closing.set()
        self._arrived.set()
        self._hurry.set()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + patience_s) as waiting:
            await self._done.wait()
        if waiting.cancelled_caught:
            self._running.cancel()
            with trio.CancelScope(shield=True):
                await self._done.wait()

    # Of the sessions.

    async def take_when_there_is_room(self, entry: Entry) -> int:
        """Queue an entry. Returns: its position. Cancelled, it is not queued. Raises: StoreError."""
        async with self._entrance:
            await self._wait_until(lambda: self._has_room(entry, self._queue_bytes // 2))
            self._check_open()
            return self._take(entry)

    def take_if_there_is_room(self, entry: Entry) -> bool:
        """Queue an entry, or count it as dropped."""
        if self._closing.is_set() or self._is_over or not self._has_room(entry, self._queue_bytes):
            self.counts.dropped_rows += entry.rows
            return False
        self._take(entry)
        return True

    def _has_room(self, entry: Entry, room: int) -> bool:
        return not self._queued_bytes or self._queued_bytes + entry.size <= room

    def _take(self, entry: Entry) -> int:
        self._queue.append(entry)
        self._queued_bytes += entry.size
        self._queued_rows += entry.rows
        self._taken += 1
        self._arrived.set()
        if self._queued_bytes >= self._commit_bytes:
            self._hurry.set()
        return self._taken

    # Of the task.

    async def _write_all(self) -> None:
        while True:
            entries = await self._next_entries()
            if entries:
                began = trio.current_time()
                await self._attempt(partial(self._store.write, merged(entries)))
                self._count(entries, trio.current_time() - began)
            if self._closing.is_set():
                if not self._queue:
                    return
            elif self._retention and trio.current_time() >= self._trim_at:
                await self._trim(self._retention)

    async def _next_entries(self) -> list[Entry]:
        """What is to be committed next; nothing when it is time to trim, or to end."""
        with trio.move_on_at(self._trim_at):
            await self._arrived.wait()
        if self._queue:
            with trio.move_on_after(self._commit_interval_s):
                await self._hurry.wait()
        entries: list[Entry] = []
        size = 0
        while self._queue and size < self._commit_bytes:
            entries.append(self._queue.popleft())
            size += entries[-1].size
        if not self._closing.is_set():
            if not self._queue:
                self._arrived = trio.Event()
            if self._queued_bytes - size < self._commit_bytes:
                self._hurry = trio.Event()
        return entries

    def _count(self, entries: list[Entry], seconds: float) -> None:
        counts = self.counts
        counts.commits += 1
        counts.commit_seconds += seconds
        for entry in entries:
            counts.rows["bbo"] += len(entry.bbo)
            counts.rows["snapshots"] += len(entry.snapshots)
            counts.rows["trades"] += len(entry.trades)
            self._queued_bytes -= entry.size
            self._queued_rows -= entry.rows
        self._committed += len(entries)
        self._tell_change()

    async def _trim(self, retention: Retention) -> None:
        has_more = False

        def trim() -> None:
            nonlocal has_more
            has_more = self._store.trim(retention, self._clock.wall_ns(), TRIM_ROWS)

        await self._attempt(trim)
        self._trim_at = trio.current_time() + (0 if has_more else TRIM_INTERVAL_S)

    async def _attempt(self, work: Callable[[], None]) -> None:
        """Do something with the store, again and again until it can be done."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._thread)
            except StoreUnavailableError as error:
                if self.state is StoreState.UP:
                    logger.error("store down error=%s", error)
                self.state, self.error = StoreState.DOWN, str(error)
                if self._closing.is_set():
                    await trio.sleep(FIRST_RETRY_S)
                else:
                    with trio.move_on_after(retry_s):
                        await self._closing.wait()
                retry_s = min(2 * retry_s, LAST_RETRY_S)
            else:
                if self.state is StoreState.DOWN:
                    logger.info("store up again store=%s", self._store.name)
                    self.state, self.error = StoreState.UP, None
                return

    def _end(self, state: StoreState, error: str | None) -> None:
        self.state, self.error = state, error
        if error is not None:
            logger.error("store failed error=%s", error)
        self._tell_change()

    @property
    def _is_over(self) -> bool:
        return self.state in (StoreState.FAILED, StoreState.CLOSED)

    def _check_open(self) -> None:
        if self._closing.is_set() or self._is_over:
            raise StoreError(self.error or f"{self._store.name}: the store is closed")

    async def _wait_until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if self._is_over:
                raise StoreError(self.error or f"{self._store.name}: the store is closed")
            await self._changed.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class SessionWriter:
    """One session being written: by one task, in the order of the market."""

    def __init__(self, writer: StoreWriter, opening: SessionOpening, batches: int) -> None:
        self.opening = opening
        self.dropped_rows = 0
        """Left out by `offer`."""
        self._writer = writer
        self._series: tuple[Series, ...] = ()
        self._batches = batches

    @property
    def id(self) -> str:
        return self.opening.id

    def add_series(self, series: Iterable[Series]) -> None:
        """Let rows name further books, by the places that follow. Of a session to go on with: first those it has."""
        self._series += tuple(series)

    async def write(
        self, *, bbo: Rows = NO_BBO, snapshots: Rows = NO_SNAPSHOTS, trades: Rows = NO_TRADES
    ) -> int:
        """Have rows stored, waiting for room. Returns: the position to wait for. Raises: StoreError."""
        return await self._writer.take_when_there_is_room(self._entry(bbo, snapshots, trades))

    def offer(self, *, bbo: Rows = NO_BBO, snapshots: Rows = NO_SNAPSHOTS, trades: Rows = NO_TRADES) -> bool:
        """Have rows stored, or leave out all of them if there is no room. Returns: whether they were taken."""
        entry = self._entry(bbo, snapshots, trades)
        is_taken = self._writer.take_if_there_is_room(entry)
        if not is_taken:
            self.dropped_rows += entry.rows
        return is_taken

    async def end(self, ending: SessionEnding) -> int:
        """Have the session's end stored, after all of its rows. Returns: the position to wait for. Raises: StoreError."""
        return await self._writer.take_when_there_is_room(
            self._entry(NO_BBO, NO_SNAPSHOTS, NO_TRADES, ending)
        )

    async def committed(self, position: int) -> None:
        """See `StoreWriter.committed`."""
        await self._writer.committed(position)

    def _entry(self, bbo: Rows, snapshots: Rows, trades: Rows, ending: SessionEnding | None = None) -> Entry:
        return Entry(self, self._series, bbo, snapshots, trades, ending)

    def batch(self, entries: list[Entry]) -> Batch:
        """The session's next batch."""
        self._batches += 1
        return Batch(
            self.opening,
            self._batches,
            entries[-1].series,
            joined([entry.bbo for entry in entries], NO_BBO),
            joined([entry.snapshots for entry in entries], NO_SNAPSHOTS),
            joined([entry.trades for entry in entries], NO_TRADES),
            next((entry.ending for entry in entries if entry.ending), None),
        )


def merged(entries: list[Entry]) -> list[Batch]:
    """As few batches as the entries can be put into: one for each session, or more where snapshots differ in depth."""
    runs: dict[SessionWriter, list[list[Entry]]] = {}
    for entry in entries:
        of_session = runs.setdefault(entry.session, [[]])
        if of_session[-1] and not fits(of_session[-1], entry):
            of_session.append([])
        of_session[-1].append(entry)
    return [session.batch(run) for session, of_session in runs.items() for run in of_session]


def fits(run: list[Entry], entry: Entry) -> bool:
    """Whether an entry's snapshots are as deep as those before it."""
    if not len(entry.snapshots):
        return True
    return all(before.snapshots.dtype == entry.snapshots.dtype for before in run if len(before.snapshots))


def joined(parts: list[Rows], nothing: Rows) -> Rows:
    """Runs of rows as one."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return nothing
    return filled[0] if len(filled) == 1 else np.concatenate(filled)
