"""A store in a PostgreSQL database, in the schema `market_depth`, which is made and kept up to date here.

Rows go in by binary COPY, a transaction for each write. Where TimescaleDB is installed in the database, the tables that
grow are hypertables.
"""

import select
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from market_depth.store.base import StoreError, StoreOptionError, StoreUnavailableError
from market_depth.store.columns import Columns
from market_depth.store.cursor import Cursor, numbers
from market_depth.store.levels import big_endian_levels, fill_levels, levels_of_bytes
from market_depth.store.rows import Rows, empty_snapshots, shown_levels
from market_depth.store.schema import TABLES_IN_TIME, migrate
from market_depth.store.sql import Bounds, Int64s, SqlStore
from protocol.timestamp import NS_PER_S

SCHEMA = "market_depth"

NETWORK: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
    "application_name": "market-depth",
}
"""A server that is gone without a word is noticed within seconds."""

WRITING = {"synchronous_commit": "on"}  # whatever the server's own setting: acknowledged means committed

READING = {
    # Every read is bounded, by an index and a limit. Before its first ANALYZE the server guesses otherwise, and sorts
    # millions of rows to return some thousands.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "statement_timeout": "10s",
}

IDLE_CONNECTIONS = 4
"""Kept for the next reads."""

LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # the database has moved to another server
    psycopg.errors.UniqueViolation,  # a session was committed after all over the connection that broke
)
"""After these the database is asked anew over another connection."""

COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"
NULL = -1

LEVEL_BYTES = 24
CHUNK_INTERVAL_NS = 86_400 * NS_PER_S

INDEXES = (
    # Not BRIN: rows of many books and of recordings of any day lie mixed, and a read wants the rows of one book in order.
    "CREATE UNIQUE INDEX sessions_by_id ON sessions (id)",
    "CREATE UNIQUE INDEX sessions_by_key ON sessions (session)",
    "CREATE UNIQUE INDEX series_by_key ON series (series)",
    "CREATE INDEX series_by_session ON series (session, place)",
    "CREATE INDEX series_by_symbol ON series (symbol)",
    "CREATE INDEX bbo_in_time ON bbo (series, ts_event)",
    "CREATE INDEX trades_in_time ON trades (series, ts_event)",
    "CREATE INDEX snapshots_in_order ON snapshots (session, position)",
)


def int8_of_level(column: str, place: int) -> str:
    """SQL for one of the numbers of the level `level`."""
    start = f"{LEVEL_BYTES} * level - {LEVEL_BYTES - 1 - 8 * place}"
    return f"('x' || encode(substring({column} FROM {start} FOR 8), 'hex'))::bit(64)::bigint"


TYPES = {
    "text": "TEXT",
    # Not arrays of numbers: the server takes and gives those one by one, at half the speed.
    "levels": "bids BYTEA NOT NULL, asks BYTEA NOT NULL",
    "snapshot_levels": " UNION ALL ".join(
        f"SELECT series, position, ts_event, '{side}' AS side, level, {int8_of_level(f'{side}s', 0)} AS price, "
        f"{int8_of_level(f'{side}s', 1)} AS size, {int8_of_level(f'{side}s', 2)} AS count "
        f"FROM snapshots CROSS JOIN generate_series(1, length({side}s) / {LEVEL_BYTES}) AS level"
        for side in ("bid", "ask")
    ),
}

Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresStore(SqlStore):
    """Sessions in PostgreSQL."""

    # When a connection breaks in the middle of a commit, the server may go on with it while we are back already.
    locking = " FOR UPDATE"

    def __init__(self, url: str, owner: int) -> None:
        """Connect, and make the tables or bring them up to date.

        Raises: StoreOptionError for a wrong URL, StoreUnavailableError, StoreError.
        """
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise StoreOptionError(f"--store: not a PostgreSQL URL: {first_line(error)}") from error
        host, port = parts.get("host") or "localhost", parts.get("port")
        super().__init__(
            f"postgresql://{host}{f':{port}' if port else ''}/{parts.get('dbname') or ''}", owner
        )
        self._url = url
        self._connection: Connection | None = None
        self._idle: list[Connection] = []
        self._taking = threading.Lock()
        try:
            with self._writing() as cursor:
                self._migrate(cursor)
        except psycopg.Error as error:
            self.close()
            raise StoreError(f"{self.name}: {first_line(error)}") from error
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        with self._taking:
            connections, self._idle = self._idle, []
        if self._connection is not None:
            connections.append(self._connection)
            self._connection = None
        for connection in connections:
            close(connection)

    def _migrate(self, cursor: Cursor) -> None:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext($1))", [SCHEMA]
        )  # two servers may start at once
        cursor.execute("SELECT to_regnamespace($1) IS NULL", [SCHEMA])
        if cursor.fetchall() == [(True,)]:
            cursor.execute(f"CREATE SCHEMA {SCHEMA}")
        if not migrate(cursor, self.name, TYPES):
            return
        for statement in INDEXES:
            cursor.execute(statement.replace(" INDEX ", " INDEX IF NOT EXISTS ", 1))
        cursor.execute(
            "SELECT nspname FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace "
            "WHERE proname = 'create_hypertable' LIMIT 1"
        )
        for (timescale,) in cursor.fetchall():
            for table in TABLES_IN_TIME:
                cursor.execute(
                    f'SELECT "{timescale}".create_hypertable($1::regclass, $2::name, chunk_time_interval => $3::bigint, '
                    "create_default_indexes => FALSE, if_not_exists => TRUE)",
                    [f"{SCHEMA}.{table}", "ts_event", CHUNK_INTERVAL_NS],
                )

    @contextmanager
    def _writing(self) -> Iterator[Cursor]:
        try:
            if self._connection is None:
                self._connection = self._connect(WRITING)
                # Held as long as we are there: who finds it free knows that our sessions are nobody's.
                self._connection.execute("SELECT pg_try_advisory_lock($1)", [self._owner])
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor
        except LOST as error:
            self._drop_writing()
            raise StoreUnavailableError(f"{self.name}: {first_line(error)}") from error
        except BaseException:
            self._drop_writing()
            raise

    def _drop_writing(self) -> None:
        if self._connection is not None:
            close(self._connection)
            self._connection = None

    @contextmanager
    def _reading(self) -> Iterator[Cursor]:
        connection = None
        try:
            connection = self._take_idle() or self._connect(READING)
            with connection.cursor(binary=True) as cursor:
                yield cursor
        except LOST as error:
            if connection is not None:
                close(connection)
            raise StoreUnavailableError(f"{self.name}: {first_line(error)}") from error
        except BaseException:
            if connection is not None:
                close(connection)
            raise
        with self._taking:
            if len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        close(connection)

    def _take_idle(self) -> Connection | None:
        while True:
            with self._taking:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            # A server that has something to say to nobody's question says good-bye.
            if not select.select([connection.fileno()], [], [], 0)[0]:
                return connection
            close(connection)

    def _connect(self, settings: dict[str, str]) -> Connection:
        connection = psycopg.connect(
            self._url, autocommit=True, cursor_factory=psycopg.RawCursor, **(NETWORK | given(self._url))
        )
        try:
            for name, value in {"search_path": SCHEMA, **settings}.items():
                connection.execute(
                    sql.SQL("SET {} TO {}").format(sql.Identifier(name), sql.Literal(value)).as_bytes(None)
                )
        except BaseException:
            close(connection)
            raise
        return connection

    def _copy(self, cursor: Cursor, table: str, columns: Columns) -> None:
        copy_in(cursor, table, {name: number_field(column) for name, column in columns.items()})

    def _copy_snapshots(self, cursor: Cursor, columns: Columns, rows: Rows) -> None:
        fields = {name: number_field(column) for name, column in columns.items()}
        for side in ("bids", "asks"):
            fields[side] = big_endian_levels(rows[side]), LEVEL_BYTES * shown_levels(rows[side])
        copy_in(cursor, "snapshots", fields)

    def _select_in_time(
        self, table: str, values: str, series: Sequence[int], bounds: Bounds, limit: int
    ) -> str:
        # Book by book, so that the index gives the first rows of each in order, and no more than wanted are sorted.
        return (
            f"SELECT found.* FROM unnest(ARRAY[{numbers(series)}]) AS wanted (series) CROSS JOIN LATERAL ("
            f"SELECT series, position, ts_event, {values} FROM {table} WHERE {table}.series = wanted.series AND "
            f"{bounds.condition()} ORDER BY ts_event, position LIMIT {limit}) AS found "
            f"ORDER BY ts_event, series, position LIMIT {limit}"
        )

    def _fetch(self, cursor: Cursor, statement: str) -> list[npt.NDArray[Any]]:
        answer = cursor.execute(statement)
        rows = np.array(answer.fetchall(), np.int64).reshape(-1, len(answer.description))
        return list(rows.T)

    def _fetch_snapshots(self, cursor: Cursor, condition: str, limit: int, depth: int) -> tuple[Rows, Int64s]:
        names = ("series", "ts_event", "orders", "bid_levels", "ask_levels")
        cursor.execute(
            f"SELECT bids, asks, position, {', '.join(names)} FROM snapshots WHERE {condition} ORDER BY position LIMIT {limit}"
        )
        found = cursor.fetchall()
        bids, asks, *columns = zip(*found, strict=True) if found else [()] * (3 + len(names))
        rows = empty_snapshots(len(found), depth)
        for name, column in zip(names, columns[1:], strict=True):
            rows[name] = column
        for side, texts in (("bids", bids), ("asks", asks)):
            counts = np.fromiter(map(len, texts), np.int64, len(texts)) // LEVEL_BYTES
            fill_levels(rows[side], counts, levels_of_bytes(b"".join(texts)))
        return rows, np.array(columns[0], np.int64)

    def _abandoned(self) -> str:
        return f"owner <> {self._owner} AND pg_try_advisory_xact_lock(owner)"


Field = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
"""A column for COPY: bytes, a row each; and how many of them count, or NULL."""


def number_field(column: npt.NDArray[Any]) -> Field:
    """A column of integers."""
    size = column.dtype.itemsize
    data = np.ma.getdata(column).astype(column.dtype.newbyteorder(">"))
    is_null = np.ma.getmaskarray(column)
    return data.view(np.uint8).reshape(-1, size), np.where(is_null, NULL, size)


def copy_in(cursor: Cursor, table: str, fields: dict[str, Field]) -> None:
    """Insert rows by COPY, in its binary format."""
    database: Any = cursor
    with database.copy(f"COPY {table} ({', '.join(fields)}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(COPY_HEAD)
        copy.write(copy_rows(list(fields.values())))
        copy.write(COPY_END)


def copy_rows(fields: list[Field]) -> bytes:
    """Rows in the format of COPY: the number of fields, then each field's length and bytes.

    All rows are laid out in full width; then the bytes that some lack are left out, of all rows at once.
    """
    count = len(fields[0][0])
    rows = np.empty((count, 2 + sum(4 + data.shape[1] for data, _ in fields)), np.uint8)
    rows[:, 0], rows[:, 1] = divmod(len(fields), 256)
    at = 2
    left_out: list[tuple[int, int, npt.NDArray[np.int64]]] = []
    for data, lengths in fields:
        width = data.shape[1]
        rows[:, at : at + 4] = lengths.astype(">i4").view(np.uint8).reshape(-1, 4)
        at += 4
        rows[:, at : at + width] = data
        if (lengths != width).any():
            left_out.append((at, width, lengths))
        at += width
    if not left_out:
        return rows.tobytes()
    is_kept = np.ones(rows.shape, bool)
    for at, width, lengths in left_out:
        is_kept[:, at : at + width] = np.arange(width) < lengths[:, None]
    return rows[is_kept].tobytes()


def given(url: str) -> dict[str, Any]:
    """What the URL itself says about NETWORK, which then holds."""
    parts = conninfo_to_dict(url)
    return {name: parts[name] for name in NETWORK if name in parts}


def close(connection: Connection) -> None:
    """Let go of a connection, broken or not."""
    with suppress(psycopg.Error):
        connection.close()


def first_line(error: Exception) -> str:
    """What is wrong, without the server's hints."""
    return str(error).strip().partition("\n")[0]
