"""Rows to store from what the book engine tells after each event: its best levels, `market_depth.book.tops`."""

import numpy as np
import numpy.typing as npt

from market_depth.store.rows import BBO_ROW, Rows, empty_snapshots, stored_times
from protocol.events import UNDEF_PRICE, Flag, OrderEvents


def ends_of_events(events: OrderEvents) -> npt.NDArray[np.int64]:
    """Where books may be read: the places of the records that end an event."""
    return np.flatnonzero(events["flags"] & Flag.LAST)


def bbo_of_tops(events: OrderEvents, tops: npt.NDArray[np.void], series: npt.NDArray[np.int32]) -> Rows:
    """Best bids and offers from tops of any depth; `series` is the place of each event's book."""
    best = tops[:, 0]
    rows = np.empty(len(events), BBO_ROW)
    rows["series"] = series
    rows["ts_event"] = stored_times(events["ts_event"])
    for side in ("bid", "ask"):
        rows[f"best_{side}_px"] = best[f"{side}_px"]
        rows[f"best_{side}_sz"] = np.where(best[f"{side}_px"] == UNDEF_PRICE, 0, best[f"{side}_sz"])
    return rows


def snapshots_of_tops(
    events: OrderEvents,
    tops: npt.NDArray[np.void],
    series: npt.NDArray[np.int32],
    counts: npt.NDArray[np.int64],
) -> Rows:
    """Snapshots as deep as the tops; `counts`, shape (events, 3), has each book's orders, bid levels and ask levels."""
    rows = empty_snapshots(len(events), tops.shape[1])
    rows["series"] = series
    rows["ts_event"] = stored_times(events["ts_event"])
    for place, name in enumerate(("orders", "bid_levels", "ask_levels")):
        rows[name] = counts[:, place]
    for side in ("bid", "ask"):
        levels = rows[f"{side}s"]
        for field, column in (("price", "px"), ("size", "sz"), ("count", "ct")):
            levels[field] = tops[f"{side}_{column}"]
    return rows
