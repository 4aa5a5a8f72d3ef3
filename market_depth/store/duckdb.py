"""A store in one file of this machine, with nothing to install or to run beside the server.

One process at a time has the file: the system's lock on it sees to that.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from market_depth.store.base import StoreError, StoreUnavailableError
from market_depth.store.columns import Columns
from market_depth.store.cursor import Cursor, numbers
from market_depth.store.levels import fill_levels
from market_depth.store.rows import Rows, depth_of, empty_snapshots, shown_levels
from market_depth.store.schema import migrate
from market_depth.store.sql import Bounds, Int64s, SqlStore

SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "512MB",
    "threads": "2",
    # Statements hold what others called their symbols: even a mistake of ours lets nobody read files.
    "enable_external_access": "false",
    # Each checkpoint holds up the writer for some tenths of a second; a start reads a log of this size in less than one.
    "checkpoint_threshold": "64MB",
}

LOST = (duckdb.IOException, duckdb.FatalException, duckdb.OutOfMemoryException, duckdb.ConnectionException)
"""After these the file is opened anew: the disk is full or gone, or a transaction ended half way."""

LEVEL_COLUMNS = tuple((side, name) for side in ("bid", "ask") for name in ("px", "sz", "ct"))

TYPES = {
    "text": "VARCHAR",
    "levels": ", ".join(f"{side}_{name} BIGINT[] NOT NULL" for side, name in LEVEL_COLUMNS),
    "snapshot_levels": " UNION ALL ".join(
        f"SELECT series, position, ts_event, '{side}' AS side, unnest(range(1, len({side}_px) + 1)) AS level, "
        f"unnest({side}_px) AS price, unnest({side}_sz) AS size, unnest({side}_ct) AS count FROM snapshots"
        for side in ("bid", "ask")
    ),
}


class DuckDBStore(SqlStore):
    """Sessions in a DuckDB file."""

    def __init__(self, path: Path, owner: int) -> None:
        """Open a file, or make it. Raises: StoreError, StoreUnavailableError."""
        super().__init__(path.name, owner)
        self._path = path
        self._opening = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None
        with self._writing() as cursor:
            migrate(cursor, self.name, TYPES)

    def close(self) -> None:
        with self._opening:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._opening:
            if self._database is None:
                self._database = open_database(self._path)
            return self._database.cursor()

    @contextmanager
    def _writing(self) -> Iterator[Cursor]:
        with self._reading() as cursor:
            cursor.execute("BEGIN")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                cursor.close()  # type: ignore[attr-defined]  # which rolls back
                raise

    @contextmanager
    def _reading(self) -> Iterator[Cursor]:
        cursor = self._cursor()
        try:
            yield cursor
        except LOST as error:
            self.close()
            raise StoreUnavailableError(f"{self.name}: {first_line(error)}") from error
        finally:
            cursor.close()

    def _copy(self, cursor: Cursor, table: str, columns: Columns) -> None:
        insert(cursor, table, columns, {name: name for name in columns})

    def _copy_snapshots(self, cursor: Cursor, columns: Columns, rows: Rows) -> None:
        values = dict(columns)
        expressions = {name: name for name in columns}
        for side in ("bid", "ask"):
            levels = rows[f"{side}s"]
            shown = shown_levels(levels)
            is_full = bool(shown.min() == depth_of(rows))
            values[f"{side}_shown"] = shown
            for column, field in (("px", "price"), ("sz", "size"), ("ct", "count")):
                names = [f"{side}_{column}_{place}" for place in range(depth_of(rows))]
                for place, name in enumerate(names):
                    values[name] = np.ascontiguousarray(levels[field][:, place])
                # A slice takes as long as everything else together: most books have as many levels as are shown.
                expressions[f"{side}_{column}"] = f"[{', '.join(names)}]" + (
                    "" if is_full else f"[:{side}_shown]"
                )
        insert(cursor, "snapshots", values, expressions)

    def _select_in_time(
        self, table: str, values: str, series: Sequence[int], bounds: Bounds, limit: int
    ) -> str:
        # No index: rows lie in the order of time, and DuckDB knows the extent of every 122,880 of them.
        return (
            f"SELECT series, position, ts_event, {values} FROM {table} WHERE series IN ({numbers(series)}) "
            f"AND {bounds.condition()} ORDER BY ts_event, series, position LIMIT {limit}"
        )

    def _fetch(self, cursor: Cursor, statement: str) -> list[npt.NDArray[Any]]:
        return list(cursor.execute(statement).fetchnumpy().values())

    def _fetch_snapshots(self, cursor: Cursor, condition: str, limit: int, depth: int) -> tuple[Rows, Int64s]:
        wanted = f"(SELECT * FROM snapshots WHERE {condition} ORDER BY position LIMIT {limit})"
        names = ("series", "ts_event", "orders", "bid_levels", "ask_levels")
        cursor.execute("BEGIN")  # so that all statements see the same
        head = cursor.execute(
            f"SELECT position, {', '.join(names)}, len(bid_px) AS bid, len(ask_px) AS ask FROM {wanted} ORDER BY position"
        ).fetchnumpy()
        rows = empty_snapshots(len(head["position"]), depth)
        for name in names:
            rows[name] = head[name]
        for side in ("bid", "ask"):
            levels = cursor.execute(
                f"SELECT unnest({side}_px) AS price, unnest({side}_sz) AS size, unnest({side}_ct) AS count FROM {wanted}"
            ).fetchnumpy()
            fill_levels(rows[f"{side}s"], head[side], levels)
        cursor.execute("COMMIT")
        return rows, np.asarray(head["position"], np.int64)

    def _abandoned(self) -> str:
        return f"owner <> {self._owner}"


def open_database(path: Path) -> duckdb.DuckDBPyConnection:
    """Raises: StoreError, StoreUnavailableError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return duckdb.connect(path, config=SETTINGS)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    except duckdb.Error as error:
        text = first_line(error)
        if "lock" in text:
            _, _, holder = text.partition("held in ")
            who = holder.partition(")")[0] + ")" if "(PID" in holder else "another process"
            raise StoreUnavailableError(
                f"{path}: {who} has it open, and only one process can; stop that, or name another file"
            ) from error
        raise StoreError(f"{path}: {text}") from error


def insert(cursor: Cursor, table: str, values: Columns, expressions: dict[str, str]) -> None:
    """Insert arrays, from which each column of the table is made by an expression."""
    database: Any = cursor
    # Under a name of its own: with external access off, DuckDB does not look for variables.
    database.register("arrived", {name: plain(column) for name, column in values.items()})
    database.execute(
        f"INSERT INTO {table} ({', '.join(expressions)}) SELECT {', '.join(expressions.values())} FROM arrived"
    )
    database.unregister("arrived")


def plain(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same, with as many masks as rows or none."""
    if isinstance(column, np.ma.MaskedArray) and not np.ma.is_masked(column):
        return np.asarray(column.data)
    return column


def first_line(error: Exception) -> str:
    """What is wrong, without DuckDB's explanations."""
    return str(error).strip().partition("\n")[0]
