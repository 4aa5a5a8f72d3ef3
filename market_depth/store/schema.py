"""The tables of a store, and how an older database becomes one of today.

    sessions 1 ── n series 1 ── n bbo, trades, snapshots

`series` is one book of a session. It counts its rows and knows their extent, so that nobody has to count millions. `bbo`
and `trades` are read by series and time, `snapshots` in the order in which they came. `position` numbers a session's rows
of a kind from 0. Prices are integers of 1e-9, sizes lots, times ns since the epoch; an empty side is null.

The view `snapshot_levels` has a row for each level of each side of a snapshot: the levels themselves are kept as each
database reads and writes them fastest. `{text}`, `{levels}` and `{snapshot_levels}` stand for what differs.
"""

from market_depth.store.base import StoreError
from market_depth.store.cursor import Cursor

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE SEQUENCE session_keys",
        "CREATE SEQUENCE series_keys",
        """
        CREATE TABLE sessions (
            session INTEGER NOT NULL,
            id {text} NOT NULL,
            owner BIGINT NOT NULL,
            source {text} NOT NULL,
            state {text} NOT NULL,
            error {text},
            created_ns BIGINT NOT NULL,
            ended_ns BIGINT,
            statistics {text},
            final_book {text},
            batches BIGINT NOT NULL,
            bbo_written BIGINT NOT NULL,
            trades_written BIGINT NOT NULL,
            snapshots_written BIGINT NOT NULL,
            depth INTEGER NOT NULL,
            is_trimmed BOOLEAN NOT NULL
        )
        """,
        """
        CREATE TABLE series (
            series INTEGER NOT NULL,
            session INTEGER NOT NULL,
            place INTEGER NOT NULL,
            symbol {text} NOT NULL,
            venue {text} NOT NULL,
            instrument_id BIGINT NOT NULL,
            publisher_id INTEGER NOT NULL,
            tick_size BIGINT NOT NULL,
            lot_size BIGINT NOT NULL,
            bbo_rows BIGINT NOT NULL,
            trade_rows BIGINT NOT NULL,
            snapshot_rows BIGINT NOT NULL,
            snapshot_bytes BIGINT NOT NULL,
            start_ts BIGINT,
            end_ts BIGINT,
            first_ts BIGINT,
            last_ts BIGINT
        )
        """,
        """
        CREATE TABLE bbo (
            series INTEGER NOT NULL,
            position BIGINT NOT NULL,
            ts_event BIGINT NOT NULL,
            best_bid_px BIGINT,
            best_bid_sz BIGINT,
            best_ask_px BIGINT,
            best_ask_sz BIGINT
        )
        """,
        """
        CREATE TABLE trades (
            series INTEGER NOT NULL,
            position BIGINT NOT NULL,
            ts_event BIGINT NOT NULL,
            price BIGINT NOT NULL,
            size BIGINT NOT NULL,
            aggressor SMALLINT NOT NULL
        )
        """,
        """
        CREATE TABLE snapshots (
            session INTEGER NOT NULL,
            series INTEGER NOT NULL,
            position BIGINT NOT NULL,
            ts_event BIGINT NOT NULL,
            orders BIGINT NOT NULL,
            bid_levels BIGINT NOT NULL,
            ask_levels BIGINT NOT NULL,
            {levels}
        )
        """,
        "CREATE VIEW snapshot_levels AS {snapshot_levels}",
    ),
)
"""The statements that lead from each version to the next, beginning with an empty database."""

SCHEMA_VERSION = len(MIGRATIONS)

TABLES_IN_TIME = ("bbo", "trades", "snapshots")
"""The tables of rows with a time, which grow."""

BBO_BYTES = 48
TRADE_BYTES = 40
SNAPSHOT_BYTES = 40
LEVEL_BYTES = 24
"""What a row, and each level of each side of a snapshot, counts in `Retention.max_bytes`."""


def migrate(cursor: Cursor, name: str, types: dict[str, str]) -> bool:
    """Make the tables what they are today. Returns: whether something had to be done. Raises: StoreError."""
    cursor.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    cursor.execute("SELECT version FROM schema_version")
    row = cursor.fetchone()
    if row is None:
        cursor.execute("INSERT INTO schema_version VALUES (0)")
    version = 0 if row is None else int(row[0])
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{name}: made by a newer market-depth (schema {version}, this one knows {SCHEMA_VERSION}); install that one"
        )
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            cursor.execute(statement.format(**types))
    if version < SCHEMA_VERSION:
        cursor.execute("UPDATE schema_version SET version = $1", [SCHEMA_VERSION])
    return version < SCHEMA_VERSION
