"""Rows as a database takes them: column by column, under the keys that it has given to their series."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from market_depth.store.rows import Rows
from protocol.events import UNDEF_PRICE

Columns = dict[str, npt.NDArray[Any]]
"""Rows column by column. A masked array has nulls."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the writing side has to know of a session that is being written."""

    key: int
    batches: int
    bbo_written: int
    trades_written: int
    snapshots_written: int
    depth: int
    series: npt.NDArray[np.int32]
    """The keys of its series, in their places."""


def bbo_columns(rows: Rows, session: Known) -> Columns:
    """Best bids and offers as they are stored."""
    columns = placed(rows, session, session.bbo_written)
    for side in ("bid", "ask"):
        price, size = f"best_{side}_px", f"best_{side}_sz"
        is_empty = rows[price] == UNDEF_PRICE
        columns[price] = np.ma.masked_array(rows[price], is_empty)
        columns[size] = np.ma.masked_array(rows[size], is_empty)
    return columns


def trade_columns(rows: Rows, session: Known) -> Columns:
    """Trades as they are stored."""
    return placed(rows, session, session.trades_written) | {
        "price": rows["price"],
        "size": rows["size"],
        "aggressor": rows["aggressor"].astype(np.int16),
    }


def snapshot_columns(rows: Rows, session: Known) -> Columns:
    """Snapshots as they are stored, without their levels."""
    names = ("orders", "bid_levels", "ask_levels")
    return {
        "session": np.full(len(rows), session.key, np.int32),
        **placed(rows, session, session.snapshots_written),
        **{name: np.ascontiguousarray(rows[name]) for name in names},
    }


def placed(rows: Rows, session: Known, written: int) -> Columns:
    """Whose rows they are, where they stand, and when."""
    return {
        "series": session.series[rows["series"]],
        "position": np.arange(written, written + len(rows), dtype=np.int64),
        "ts_event": np.ascontiguousarray(rows["ts_event"]),
    }


def joined(parts: list[Columns]) -> Columns:
    """Several runs of rows as one."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.ma.concatenate([part[name] for part in parts]) for name in parts[0]}  # type: ignore[no-untyped-call]
