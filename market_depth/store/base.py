"""What every store looks like from outside: sessions, and what was seen in them.

A store is written by one thread at a time, in batches. A batch belongs to a session and has a number, and the store keeps
the number of the session's last one in the same transaction: so a batch that is written again, because nobody knows
whether it was committed, changes nothing. What `write` has returned from is on the disk.

Reads may come from any thread, many at a time, beside the writing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from market_depth.store.rows import (
    BBO_ROW,
    MAX_TS,
    TRADE_ROW,
    Found,
    Rows,
    Series,
    check_text,
    no_rows,
    snapshot_row,
)

MAX_HISTORY_ROWS = 20_000
"""The most rows that one read returns: longer histories are read in parts."""

MIN_TS = -(2**63)


class StoreError(Exception):
    """The store cannot do what it was asked; the text is the one line to tell."""


class StoreOptionError(StoreError):
    """There can be no such store: the call was wrong."""


class StoreUnavailableError(StoreError):
    """The database cannot be reached, or not be written, now: later it may."""


class SessionState(StrEnum):
    """How far a session has come. The last two are final."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SessionOpening:
    """What is known of a session from its first moment."""

    id: str
    source: str
    """What its events come from: a file's name, or a feed's."""
    created_ns: int
    """Of the wall clock."""

    def __post_init__(self) -> None:
        check_text(self.id)
        check_text(self.source)


@dataclass(frozen=True, slots=True)
class SessionEnding:
    """What is known of a session at its end. Texts in JSON are kept as they are."""

    state: SessionState
    ended_ns: int
    error: str | None = None
    statistics: str | None = None
    final_book: str | None = None

    def __post_init__(self) -> None:
        for text in (self.error, self.statistics, self.final_book):
            check_text(text or "")


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of a session, stored whole or not at all."""

    session: SessionOpening
    number: int
    """Rises from 1 in a session, without gaps."""
    series: Sequence[Series] = ()
    """The books of the session, all that came so far, which the rows name by their places."""
    bbo: Rows = field(default_factory=lambda: no_rows(BBO_ROW))
    snapshots: Rows = field(default_factory=lambda: no_rows(snapshot_row(1)))
    trades: Rows = field(default_factory=lambda: no_rows(TRADE_ROW))
    ending: SessionEnding | None = None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as the store has it."""

    id: str
    source: str
    state: SessionState
    created_ns: int
    ended_ns: int | None
    error: str | None
    statistics: str | None
    final_book: str | None
    batches: int
    """The number of the last batch stored."""
    bbo_rows: int
    """Rows stored and not trimmed."""
    snapshot_rows: int
    trade_rows: int
    series: tuple[Series, ...]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much best bid and offer is stored of a symbol: from when, until when."""

    start_ts: int
    end_ts: int
    rows: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows are wanted: of a session, of a symbol, both included from `start_ns` to `end_ns`."""

    session_id: str | None = None
    symbol: str | None = None
    start_ns: int = MIN_TS
    end_ns: int = MAX_TS


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept. Ended sessions go whole, the oldest first; one that runs loses its oldest rows.

    `max_age_s`: of an ended session since its end, on the wall clock; in one that runs, of a row against the newest of
    its book, on the market's clock. `max_bytes` counts the values alone, 8 bytes each: DuckDB takes a third of that on the
    disk, PostgreSQL twice as much.
    """

    max_age_s: float | None = None
    max_bytes: int | None = None


class Store(Protocol):
    """A database of sessions. Every method raises StoreUnavailableError when it cannot be reached."""

    @property
    def name(self) -> str:
        """What logs, health and errors call it; without a password."""

    def write(self, batches: Sequence[Batch]) -> None:
        """Store batches in one transaction, those of a session in the order of their numbers.

        Returns when they are committed. Batches that are stored already are passed over.
        """

    def recover(self, now_ns: int) -> None:
        """End the sessions whose process ended before they did: they failed, at `now_ns` of the wall clock."""

    def trim(self, retention: Retention, now_ns: int, max_rows: int) -> bool:
        """Delete about `max_rows` of the rows that need not be kept. Returns: whether there may be more of them.

        Belongs to the thread that writes.
        """

    def sessions(self, limit: int | None = 1000) -> list[StoredSession]:
        """The newest sessions, newest first; all of them for None."""

    def session(self, session_id: str) -> StoredSession | None:
        """One session, or None if there is none of that id."""

    def symbols(self) -> list[str]:
        """All symbols of which something is stored, sorted."""

    def extent(self, symbol: str) -> Extent | None:
        """How much best bid and offer there is of a symbol, in all sessions; None if there is none."""

    def latest(self, symbol: str) -> Found:
        """The newest best bid and offer of a symbol: one row, or none."""

    def bbo(self, selection: Selection, limit: int, after: "Place | None" = None) -> Found:
        """Best bids and offers, ordered by time; of equal times by session and as they came.

        At most `limit` rows (and MAX_HISTORY_ROWS), those behind the place `after`.
        """

    def trades(self, selection: Selection, limit: int, after: "Place | None" = None) -> Found:
        """Trades, in the same way."""

    def snapshots(self, session_id: str, selection: Selection, limit: int, after: int = -1) -> Found:
        """A session's snapshots, as they came, behind the position `after`; `selection` says which of them.

        The rows have room for as many levels as the deepest snapshot of the session.
        """

    def close(self) -> None:
        """Let go of the database."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in the order of reads."""

    ts_event: int
    series: int
    position: int


def place_of_last(found: Found) -> Place:
    """Where to go on reading after what was found, which is something."""
    row = found.rows[-1]
    return Place(int(row["ts_event"]), int(row["series"]), int(found.positions[-1]))


def all_bbo(store: Store, selection: Selection, part: int = MAX_HISTORY_ROWS) -> Iterator[Found]:
    """All best bids and offers of a selection, in parts. No transaction stays open between two of them."""
    after = None
    while len(found := store.bbo(selection, part, after)):
        yield found
        after = place_of_last(found)


def all_trades(store: Store, selection: Selection, part: int = MAX_HISTORY_ROWS) -> Iterator[Found]:
    """All trades of a selection, in the same way."""
    after = None
    while len(found := store.trades(selection, part, after)):
        yield found
        after = place_of_last(found)


def all_snapshots(store: Store, selection: Selection, part: int = 5_000) -> Iterator[Found]:
    """All snapshots of a selection, session by session (oldest first), in the same way."""
    sessions = (
        [session.id for session in reversed(store.sessions(None))]
        if selection.session_id is None
        else [selection.session_id]
    )
    for session_id in sessions:
        after = -1
        while len(found := store.snapshots(session_id, selection, part, after)):
            yield found
            after = int(found.positions[-1])
