"""Which rows need not be kept, and how they go: a bounded part at a time, so that the writing never waits for long.

Ended sessions go first, the oldest first, and whole; then the oldest rows of those that run.
"""

from typing import Any

from market_depth.store.base import Retention
from market_depth.store.cursor import Cursor, one
from market_depth.store.schema import BBO_BYTES, TRADE_BYTES
from protocol.timestamp import NS_PER_S


def trim(cursor: Cursor, retention: Retention, now_ns: int, max_rows: int) -> bool:
    """Delete about `max_rows` of the rows that need not be kept. Returns: whether there may be more of them."""
    if trim_ended(cursor, "is_trimmed", [], max_rows):  # what was begun is brought to its end
        return True
    if retention.max_age_s is not None:
        age_ns = round(retention.max_age_s * NS_PER_S)
        if trim_ended(cursor, "ended_ns < $1", [now_ns - age_ns], max_rows):
            return True
        if trim_running(cursor, age_ns, max_rows):
            return True
    if retention.max_bytes is not None and stored_bytes(cursor) > retention.max_bytes:
        return trim_ended(cursor, "TRUE", [], max_rows) or trim_largest(cursor, max_rows)
    return False


def trim_ended(cursor: Cursor, condition: str, parameters: list[Any], max_rows: int) -> bool:
    """Delete a part of the oldest session that has ended and meets a condition, at last the session itself."""
    cursor.execute(
        f"SELECT session FROM sessions WHERE state <> 'processing' AND {condition} ORDER BY ended_ns, session LIMIT 1",
        parameters,
    )
    found = cursor.fetchone()
    if found is None:
        return False
    (session,) = found
    cursor.execute("UPDATE sessions SET is_trimmed = TRUE WHERE session = $1", [session])
    cursor.execute("SELECT series, bbo_rows, trade_rows FROM series WHERE session = $1", [session])
    for series, bbo_rows, trade_rows in cursor.fetchall():
        for table, rows in (("bbo", bbo_rows), ("trades", trade_rows)):
            if rows:
                delete_oldest(cursor, table, series, max_rows)
                return True
    if delete_oldest_snapshots(cursor, session, None, max_rows):
        return True
    cursor.execute("DELETE FROM series WHERE session = $1", [session])
    cursor.execute("DELETE FROM sessions WHERE session = $1", [session])
    return True


def trim_running(cursor: Cursor, age_ns: int, max_rows: int) -> bool:
    """Delete a part of what is older, in a book of a session that runs."""
    cursor.execute(
        "SELECT series, session, last_ts FROM series JOIN sessions USING (session) WHERE state = 'processing' AND "
        "last_ts - first_ts > $1 LIMIT 1",
        [age_ns],
    )
    found = cursor.fetchone()
    if found is None:
        return False
    series, session, last_ts = found
    before_ts = last_ts - age_ns
    for table in ("bbo", "trades"):
        if delete_oldest(cursor, table, series, max_rows, before_ts):
            return True
    if delete_oldest_snapshots(cursor, session, before_ts, max_rows):
        return True
    cursor.execute("UPDATE series SET first_ts = $2 WHERE series = $1", [series, before_ts])
    return True


def trim_largest(cursor: Cursor, max_rows: int) -> bool:
    """Delete a part of the oldest rows of the kind that takes most room in a book."""
    cursor.execute(
        f"SELECT series, session, {BBO_BYTES} * bbo_rows, {TRADE_BYTES} * trade_rows, snapshot_bytes FROM series "
        f"ORDER BY greatest({BBO_BYTES} * bbo_rows, {TRADE_BYTES} * trade_rows, snapshot_bytes) DESC LIMIT 1"
    )
    found = cursor.fetchone()
    if found is None:
        return False
    series, session, bbo_bytes, trade_bytes, snapshot_bytes = found
    largest = max(bbo_bytes, trade_bytes, snapshot_bytes)
    if largest == bbo_bytes:
        return delete_oldest(cursor, "bbo", series, max_rows) > 0
    if largest == trade_bytes:
        return delete_oldest(cursor, "trades", series, max_rows) > 0
    return delete_oldest_snapshots(cursor, session, None, max_rows) > 0


def delete_oldest(
    cursor: Cursor, table: str, series: int, max_rows: int, before_ts: int | None = None
) -> int:
    """Delete about so many of the oldest rows of a book, those before a time if one is given. Returns: how many."""
    cursor.execute(
        f"SELECT ts_event FROM {table} WHERE series = $1 ORDER BY ts_event LIMIT 1 OFFSET {max_rows - 1}",
        [series],
    )
    step = cursor.fetchone()
    # Rows of equal time go together: so a step deletes something, whatever the times are.
    until_ts = 2**63 - 1 if step is None else step[0]
    if before_ts is not None:
        until_ts = min(until_ts, before_ts - 1)
    cursor.execute(f"SELECT count(*) FROM {table} WHERE series = $1 AND ts_event <= $2", [series, until_ts])
    count = one(cursor)
    if count:
        cursor.execute(f"DELETE FROM {table} WHERE series = $1 AND ts_event <= $2", [series, until_ts])
        if table == "bbo":
            cursor.execute("SELECT min(ts_event), max(ts_event) FROM bbo WHERE series = $1", [series])
            cursor.execute(
                "UPDATE series SET bbo_rows = bbo_rows - $2, start_ts = $3, end_ts = $4 WHERE series = $1",
                [series, count, *(cursor.fetchone() or ())],
            )
        else:
            cursor.execute(
                "UPDATE series SET trade_rows = trade_rows - $2 WHERE series = $1", [series, count]
            )
    return int(count)


def delete_oldest_snapshots(cursor: Cursor, session: int, before_ts: int | None, max_rows: int) -> int:
    """Delete so many of a session's first snapshots, those before a time if one is given. Returns: how many."""
    cursor.execute("SELECT min(position) FROM snapshots WHERE session = $1", [session])
    first = one(cursor)
    if first is None:
        return 0
    condition = f"session = {session} AND position < {first + max_rows}"
    if before_ts is not None:
        condition += f" AND ts_event < {before_ts}"
    cursor.execute(f"SELECT series, count(*) FROM snapshots WHERE {condition} GROUP BY series")
    counts = cursor.fetchall()
    cursor.execute(f"DELETE FROM snapshots WHERE {condition}")
    for series, count in counts:
        cursor.execute(
            "UPDATE series SET snapshot_bytes = snapshot_bytes - snapshot_bytes * $2 / snapshot_rows, "
            "snapshot_rows = snapshot_rows - $2 WHERE series = $1",
            [series, count],
        )
    return sum(count for _, count in counts)


def stored_bytes(cursor: Cursor) -> int:
    """What all rows count together."""
    cursor.execute(
        f"SELECT coalesce(sum({BBO_BYTES} * bbo_rows + {TRADE_BYTES} * trade_rows + snapshot_bytes), 0) FROM series"
    )
    return int(one(cursor))
