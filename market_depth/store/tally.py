"""What a transaction adds to each series: counted beside the rows, so that a read of the counters need not count them."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from market_depth.store.columns import Columns
from market_depth.store.cursor import Cursor
from market_depth.store.schema import LEVEL_BYTES, SNAPSHOT_BYTES


class Tally:
    """Counts what is added to each series in a transaction."""

    def __init__(self) -> None:
        self._added: dict[int, list[Any]] = {}  # by series: rows of three kinds, bytes, four times

    def count_bbo(self, columns: Columns) -> None:
        """Count best bids and offers."""
        for series, count, first, last in counted(columns):
            self._add(series, (count, 0, 0, 0), first, last)
            entry = self._added[series]
            entry[4] = first if entry[4] is None else min(entry[4], first)
            entry[5] = last if entry[5] is None else max(entry[5], last)

    def count_trades(self, columns: Columns) -> None:
        """Count trades."""
        for series, count, first, last in counted(columns):
            self._add(series, (0, count, 0, 0), first, last)

    def count_snapshots(self, columns: Columns, depth: int) -> None:
        """Count snapshots."""
        for series, count, first, last in counted(columns):
            size = SNAPSHOT_BYTES + 2 * depth * LEVEL_BYTES
            self._add(series, (0, 0, count, count * size), first, last)

    def _add(self, series: int, counts: tuple[int, ...], first: int, last: int) -> None:
        entry = self._added.setdefault(series, [0, 0, 0, 0, None, None, first, last])
        entry[:4] = [before + more for before, more in zip(entry, counts, strict=False)]
        entry[6:] = min(entry[6], first), max(entry[7], last)

    def store(self, cursor: Cursor) -> None:
        """Add it all to the counters of the series."""
        if not self._added:
            return
        names = (
            *("series", "bbo_rows", "trade_rows", "snapshot_rows", "snapshot_bytes"),
            *("start_ts", "end_ts", "first_ts", "last_ts"),
        )
        columns = [
            f"unnest(${number}::{'integer' if name == 'series' else 'bigint'}[]) AS {name}"
            for number, name in enumerate(names, 1)
        ]
        sums = [f"{name} = series.{name} + added.{name}" for name in names[1:5]]
        extents = [
            f"{name} = {'least' if name in ('start_ts', 'first_ts') else 'greatest'}(series.{name}, added.{name})"
            for name in names[5:]
        ]
        values = zip(*((series, *entry) for series, entry in self._added.items()), strict=True)
        cursor.execute(
            f"UPDATE series SET {', '.join(sums + extents)} FROM (SELECT {', '.join(columns)}) AS added "
            "WHERE series.series = added.series",
            [list(column) for column in values],
        )


def counted(columns: Columns) -> Iterable[tuple[int, int, int, int]]:
    """Of each series among rows: its key, how many rows it has, their first and last time."""
    series, ts = columns["series"], columns["ts_event"]
    for key in np.unique(series).tolist():
        times = ts[series == key]
        yield key, len(times), int(times.min()), int(times.max())
