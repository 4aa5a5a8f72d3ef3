"""What the databases have in common: the statements that keep sessions and their counters, and the order of a write.

A database adds how it connects, how rows get in by the hundred thousand, and how they come out as arrays.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from market_depth.store.base import (
    MAX_HISTORY_ROWS,
    Batch,
    Extent,
    Place,
    Retention,
    Selection,
    SessionState,
    StoredSession,
    StoreError,
)
from market_depth.store.columns import Columns, Known, bbo_columns, joined, snapshot_columns, trade_columns
from market_depth.store.cursor import Cursor, numbers, one
from market_depth.store.rows import BBO_ROW, TRADE_ROW, Found, Rows, Series, depth_of, snapshot_row
from market_depth.store.tally import Tally
from market_depth.store.trimming import trim
from protocol.events import UNDEF_PRICE
from protocol.instrument import Instrument

Int64s = npt.NDArray[np.int64]

BBO_FROM_NULLS = (
    f"coalesce(best_bid_px, {UNDEF_PRICE}), coalesce(best_bid_sz, 0), "
    f"coalesce(best_ask_px, {UNDEF_PRICE}), coalesce(best_ask_sz, 0)"
)

SESSION_COLUMNS = "session, id, source, state, created_ns, ended_ns, error, statistics, final_book, batches"
SERIES_COLUMNS = "series, symbol, venue, instrument_id, tick_size, lot_size, publisher_id"


class SqlStore(ABC):
    """A store in a database that speaks SQL."""

    locking = ""
    """What makes a SELECT wait for a transaction that may still be committing, and then see what it did."""

    def __init__(self, name: str, owner: int) -> None:
        """`owner` is the number that tells our sessions from those of other processes."""
        self.name = name
        self._owner = owner
        self._known: dict[str, Known] = {}

    # What a database adds.

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Cursor]:
        """A transaction of the writing thread, committed at the end. Raises: StoreUnavailableError."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Cursor]:
        """A cursor for reads, in any thread. Raises: StoreUnavailableError."""

    @abstractmethod
    def _copy(self, cursor: Cursor, table: str, columns: Columns) -> None:
        """Insert rows into a table."""

    @abstractmethod
    def _copy_snapshots(self, cursor: Cursor, columns: Columns, rows: Rows) -> None:
        """Insert snapshots: `columns` is all of them but their levels."""

    @abstractmethod
    def _select_in_time(
        self, table: str, values: str, series: Sequence[int], bounds: "Bounds", limit: int
    ) -> str:
        """The statement that selects series, position, ts_event and `values` of some series in the order of reads."""

    @abstractmethod
    def _fetch(self, cursor: Cursor, statement: str) -> list[npt.NDArray[Any]]:
        """The columns of a query's answer, of integers that are not null."""

    @abstractmethod
    def _fetch_snapshots(self, cursor: Cursor, condition: str, limit: int, depth: int) -> tuple[Rows, Int64s]:
        """Snapshots that meet a condition, by position; and their positions."""

    @abstractmethod
    def _abandoned(self) -> str:
        """The condition that a session's process is there no more."""

    # Writing.

    def write(self, batches: Sequence[Batch]) -> None:
        try:
            with self._writing() as cursor:
                known = self._store(cursor, batches)
        except BaseException:
            self._known.clear()  # whether it was committed, the database knows
            raise
        self._known.update(known)
        for batch in batches:
            if batch.ending:
                self._known.pop(batch.session.id, None)

    def recover(self, now_ns: int) -> None:
        with self._writing() as cursor:
            cursor.execute(
                f"UPDATE sessions SET state = $1, ended_ns = $2, error = $3 WHERE state = $4 AND {self._abandoned()}",
                ["failed", now_ns, "the server ended before the session did", "processing"],
            )

    def _store(self, cursor: Cursor, batches: Sequence[Batch]) -> dict[str, Known]:
        known: dict[str, Known] = {}
        tally = Tally()
        bbo: list[Columns] = []
        trades: list[Columns] = []
        for batch in batches:
            session = known.get(batch.session.id) or self._session_to_write(cursor, batch)
            if batch.number <= session.batches:
                continue
            if batch.number != session.batches + 1:
                raise StoreError(
                    f"{self.name}: batch {batch.number} of session {batch.session.id!r} came after {session.batches}"
                )
            session = self._with_series(cursor, session, batch.series)
            if len(batch.bbo):
                bbo.append(bbo_columns(batch.bbo, session))
                tally.count_bbo(bbo[-1])
            if len(batch.trades):
                trades.append(trade_columns(batch.trades, session))
                tally.count_trades(trades[-1])
            if len(batch.snapshots):
                columns = snapshot_columns(batch.snapshots, session)
                self._copy_snapshots(cursor, columns, batch.snapshots)
                tally.count_snapshots(columns, depth_of(batch.snapshots))
            known[batch.session.id] = self._advance(cursor, session, batch)
        if bbo:
            self._copy(cursor, "bbo", joined(bbo))
        if trades:
            self._copy(cursor, "trades", joined(trades))
        tally.store(cursor)
        return known

    def _session_to_write(self, cursor: Cursor, batch: Batch) -> Known:
        opening = batch.session
        if opening.id in self._known:
            return self._known[opening.id]
        cursor.execute(
            "SELECT session, batches, bbo_written, trades_written, snapshots_written, depth FROM sessions WHERE id = $1"
            + self.locking,
            [opening.id],
        )
        row = cursor.fetchone()
        if row is not None:
            cursor.execute("SELECT series FROM series WHERE session = $1 ORDER BY place", [row[0]])
            keys = np.array([key for (key,) in cursor.fetchall()], np.int32)
            return Known(row[0], row[1], row[2], row[3], row[4], row[5], keys)
        cursor.execute("SELECT nextval('session_keys')")
        key = one(cursor)
        cursor.execute(
            "INSERT INTO sessions (session, id, owner, source, state, created_ns, batches, bbo_written, trades_written, "
            "snapshots_written, depth, is_trimmed) VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, 0, 1, FALSE)",
            [key, opening.id, self._owner, opening.source, SessionState.PROCESSING.value, opening.created_ns],
        )
        return Known(key, 0, 0, 0, 0, 1, np.empty(0, np.int32))

    def _with_series(self, cursor: Cursor, session: Known, series: Sequence[Series]) -> Known:
        """The same after the series are stored that have come since."""
        keys = session.series.tolist()
        for place in range(len(keys), len(series)):
            cursor.execute("SELECT nextval('series_keys')")
            keys.append(one(cursor))
            book = series[place]
            instrument = book.instrument
            cursor.execute(
                "INSERT INTO series (series, session, place, symbol, venue, instrument_id, publisher_id, tick_size, lot_size, "
                "bbo_rows, trade_rows, snapshot_rows, snapshot_bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, 0, 0)",
                [
                    *(
                        keys[-1],
                        session.key,
                        place,
                        instrument.symbol,
                        instrument.venue,
                        instrument.instrument_id,
                    ),
                    *(book.publisher_id, instrument.tick_size, instrument.lot_size),
                ],
            )
        return replace(session, series=np.array(keys, np.int32))

    def _advance(self, cursor: Cursor, session: Known, batch: Batch) -> Known:
        """The session after a batch, as it is stored in the same transaction."""
        after = replace(
            session,
            batches=batch.number,
            bbo_written=session.bbo_written + len(batch.bbo),
            trades_written=session.trades_written + len(batch.trades),
            snapshots_written=session.snapshots_written + len(batch.snapshots),
            depth=max(session.depth, depth_of(batch.snapshots)),
        )
        cursor.execute(
            "UPDATE sessions SET batches = $2, bbo_written = $3, trades_written = $4, snapshots_written = $5, depth = $6 "
            "WHERE session = $1",
            [
                *(after.key, after.batches, after.bbo_written),
                *(after.trades_written, after.snapshots_written, after.depth),
            ],
        )
        if ending := batch.ending:
            cursor.execute(
                "UPDATE sessions SET state = $2, ended_ns = $3, error = $4, statistics = $5, final_book = $6 WHERE session = $1",
                [
                    *(after.key, ending.state.value, ending.ended_ns),
                    *(ending.error, ending.statistics, ending.final_book),
                ],
            )
        return after

    def trim(self, retention: Retention, now_ns: int, max_rows: int) -> bool:
        with self._writing() as cursor:
            return trim(cursor, retention, now_ns, max_rows)

    # Reading.

    def sessions(self, limit: int | None = 1000) -> list[StoredSession]:
        return self._sessions("", [], limit)

    def session(self, session_id: str) -> StoredSession | None:
        found = self._sessions("WHERE id = $1", [session_id], 1)
        return found[0] if found else None

    def _sessions(self, condition: str, parameters: list[Any], limit: int | None) -> list[StoredSession]:
        with self._reading() as cursor:
            cursor.execute(
                f"SELECT {SESSION_COLUMNS} FROM sessions {condition} ORDER BY session DESC"
                + ("" if limit is None else f" LIMIT {limit}"),
                parameters,
            )
            rows = cursor.fetchall()
            if not rows:
                return []
            cursor.execute(
                f"SELECT session, bbo_rows, snapshot_rows, trade_rows, {SERIES_COLUMNS} FROM series "
                f"WHERE session IN ({numbers(row[0] for row in rows)}) ORDER BY session, place"
            )
            series_of: dict[int, list[tuple[Any, ...]]] = {}
            for session, *values in cursor.fetchall():
                series_of.setdefault(session, []).append(tuple(values))
        return [stored_session(row, series_of.get(row[0], [])) for row in rows]

    def symbols(self) -> list[str]:
        with self._reading() as cursor:
            cursor.execute("SELECT DISTINCT symbol FROM series")
            return sorted(symbol for (symbol,) in cursor.fetchall())

    def extent(self, symbol: str) -> Extent | None:
        with self._reading() as cursor:
            cursor.execute(
                "SELECT min(start_ts), max(end_ts), sum(bbo_rows) FROM series WHERE symbol = $1 AND bbo_rows > 0",
                [symbol],
            )
            row = cursor.fetchone()
        return None if row is None or row[0] is None else Extent(row[0], row[1], int(row[2]))

    def latest(self, symbol: str) -> Found:
        with self._reading() as cursor:
            cursor.execute(
                f"SELECT end_ts, {SERIES_COLUMNS} FROM series WHERE symbol = $1 AND bbo_rows > 0 "
                "ORDER BY end_ts DESC, series DESC LIMIT 1",
                [symbol],
            )
            row = cursor.fetchone()
            if row is None:
                return Found(np.empty(0, BBO_ROW), np.empty(0, np.int64), {})
            end_ts, *values = row
            columns = self._fetch(
                cursor,
                f"SELECT series, position, ts_event, {BBO_FROM_NULLS} FROM bbo "
                f"WHERE series = {values[0]} AND ts_event = {end_ts} ORDER BY position DESC LIMIT 1",
            )
        return found_rows(columns, BBO_ROW, [tuple(values)])

    def bbo(self, selection: Selection, limit: int, after: Place | None = None) -> Found:
        return self._in_time("bbo", BBO_FROM_NULLS, BBO_ROW, "bbo_rows", selection, limit, after)

    def trades(self, selection: Selection, limit: int, after: Place | None = None) -> Found:
        return self._in_time(
            "trades", "price, size, aggressor", TRADE_ROW, "trade_rows", selection, limit, after
        )

    def _in_time(
        self,
        table: str,
        values: str,
        kind: np.dtype[np.void],
        counter: str,
        selection: Selection,
        limit: int,
        after: Place | None,
    ) -> Found:
        bounds = Bounds(selection.start_ns, selection.end_ns, after)
        with self._reading() as cursor:
            series = select_series(
                cursor,
                selection,
                f"{counter} > 0 AND last_ts >= $1 AND first_ts <= $2",
                bounds.first,
                bounds.last,
            )
            if not series:
                return Found(np.empty(0, kind), np.empty(0, np.int64), {})
            statement = self._select_in_time(
                table, values, [key for key, *_ in series], bounds, min(limit, MAX_HISTORY_ROWS)
            )
            columns = self._fetch(cursor, statement)
        return found_rows(columns, kind, series)

    def snapshots(self, session_id: str, selection: Selection, limit: int, after: int = -1) -> Found:
        with self._reading() as cursor:
            cursor.execute("SELECT session, depth FROM sessions WHERE id = $1", [session_id])
            row = cursor.fetchone()
            wanted = replace(selection, session_id=session_id)
            series = select_series(
                cursor,
                wanted,
                "snapshot_rows > 0 AND last_ts >= $1 AND first_ts <= $2",
                wanted.start_ns,
                wanted.end_ns,
            )
            if row is None or not series:
                return Found(np.empty(0, snapshot_row(1)), np.empty(0, np.int64), {})
            session, depth = row
            condition = (
                f"session = {session} AND position > {after} AND series IN ({numbers(key for key, *_ in series)}) "
                f"AND ts_event BETWEEN {wanted.start_ns} AND {wanted.end_ns}"
            )
            rows, positions = self._fetch_snapshots(cursor, condition, min(limit, MAX_HISTORY_ROWS), depth)
        return Found(rows, positions, series_by_key(series))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The times of which rows are wanted, both included, and the place behind which they stand."""

    start_ns: int
    end_ns: int
    after: Place | None

    @property
    def first(self) -> int:
        """The earliest time that there is to read."""
        return self.start_ns if self.after is None else max(self.start_ns, self.after.ts_event)

    @property
    def last(self) -> int:
        """The latest."""
        return self.end_ns

    def condition(self) -> str:
        """As SQL."""
        text = f"ts_event BETWEEN {self.first} AND {self.last}"
        if self.after is None:
            return text
        ts, series, position = self.after.ts_event, self.after.series, self.after.position
        return f"{text} AND (ts_event > {ts} OR series > {series} OR (series = {series} AND position > {position}))"


def select_series(
    cursor: Cursor, selection: Selection, condition: str, start: int, end: int
) -> list[tuple[Any, ...]]:
    """SERIES_COLUMNS of the series that a selection wants."""
    parameters: list[Any] = [start, end]
    if selection.symbol is not None:
        parameters.append(selection.symbol)
        condition += f" AND symbol = ${len(parameters)}"
    if selection.session_id is not None:
        parameters.append(selection.session_id)
        condition += f" AND session IN (SELECT session FROM sessions WHERE id = ${len(parameters)})"
    cursor.execute(f"SELECT {SERIES_COLUMNS} FROM series WHERE {condition} ORDER BY series", parameters)
    return cursor.fetchall()


def found_rows(
    columns: list[npt.NDArray[Any]], kind: np.dtype[np.void], series: Iterable[tuple[Any, ...]]
) -> Found:
    """The answer to a read, from its columns: series, position, and the values of the kind."""
    rows = np.empty(len(columns[0]), kind)
    names = kind.names or ()
    for name, column in zip(names, [columns[0], *columns[2:]], strict=True):
        rows[name] = column
    return Found(rows, np.asarray(columns[1], np.int64), series_by_key(series))


def series_by_key(rows: Iterable[tuple[Any, ...]]) -> dict[int, Series]:
    """Series from their SERIES_COLUMNS."""
    return {key: read_series(*values) for key, *values in rows}


def read_series(
    symbol: str, venue: str, instrument_id: int, tick_size: int, lot_size: int, publisher_id: int
) -> Series:
    """A series as it was stored."""
    return Series(Instrument(symbol, venue, instrument_id, tick_size, lot_size), publisher_id)


def stored_session(row: tuple[Any, ...], series: list[tuple[Any, ...]]) -> StoredSession:
    """A session from its SESSION_COLUMNS, and of each series the three counts of rows and its SERIES_COLUMNS."""
    _, session_id, source, state, created_ns, ended_ns, error, statistics, final_book, batches = row
    bbo_rows, snapshot_rows, trade_rows = (sum(counts[kind] for counts in series) for kind in range(3))
    return StoredSession(
        *(
            session_id,
            source,
            SessionState(state),
            created_ns,
            ended_ns,
            error,
            statistics,
            final_book,
            batches,
        ),
        *(bbo_rows, snapshot_rows, trade_rows),
        tuple(read_series(*values[4:]) for values in series),
    )
