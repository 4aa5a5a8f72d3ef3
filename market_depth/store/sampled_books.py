"""The rows to store of books that are being rebuilt: events go through here into the engine, rows come back.

Books are read where an event ends and the sampling asks for it, between two calls of the engine, so a row shows exactly
the book at its time however long the batch is. That costs 20 µs a row and nothing elsewhere.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from market_depth.book.engine import BookEngine
from market_depth.book.views import price_levels
from market_depth.store.rows import (
    BBO_ROW,
    MAX_TS,
    TRADE_ROW,
    Rows,
    Series,
    empty_snapshots,
    stored_times,
)
from market_depth.store.sampling import Sampler, Sampling, SamplingKind
from protocol.events import UNDEF_PRICE, Action, Flag, OrderEvents, Side
from protocol.instrument import Instrument
from protocol.timestamp import NS_PER_MS

SNAPSHOT_LEVELS = 10

END = np.dtype([("series", "<i4"), ("ts_event", "<i8"), ("place", "<i8")])
"""Where in a batch an event ends, and whose it is."""

NO_ENDS = np.empty(0, END)

MAX_ENDS = 256
"""Books are read at most so often in one part of a batch: 5 ms, in which nothing else runs."""

SHORT_BATCH = 256
"""Up to this size a look whether anything is due in a batch takes a tenth of the time of picking it: live feeds hand over some
records at a time, a hundred times a second."""


@dataclass(frozen=True, slots=True)
class SampledRows:
    """What is to be stored of a part of a batch."""

    bbo: Rows
    snapshots: Rows
    trades: Rows

    def __len__(self) -> int:
        return len(self.bbo) + len(self.snapshots) + len(self.trades)


class SampledBooks:
    """The books of one feed. Trades are kept all, best bids and offers and snapshots as the sampling has it.

    What a snapshot hands over is not kept, since it did not happen then. And when the source goes back in time (a
    replay that seeks, or begins again), nothing is kept until it is past what was kept already: a moment is there once.
    """

    def __init__(self, instruments: Iterable[Instrument], sampling: Sampling) -> None:
        self.series: list[Series] = []
        """The books of which there are rows, in their places."""
        self._instruments = {instrument.instrument_id: instrument for instrument in instruments}
        self._places: dict[int, int] = {}
        self._is_by_change = sampling.kind is SamplingKind.CHANGE
        self._interval_ns = sampling.every * NS_PER_MS if sampling.kind is SamplingKind.MILLISECONDS else 0
        self._due_ns: dict[int, int] = {}  # of an instrument, when the next row is due
        self._sequences: dict[int, int] = {}  # of an instrument's book, when it was last read
        self._ends = Sampler(sampling)
        self._bbo = Sampler(sampling)
        self._snapshots = Sampler(sampling)
        self._newest_ns = -1
        self._known_until_ns = -1

    def apply(self, engine: BookEngine, events: OrderEvents) -> Iterator[SampledRows]:
        """Apply a batch part by part; of each part the rows. After the last one the whole batch is applied."""
        is_idle = self._is_nothing_due(events)
        is_trade = (events["action"] == Action.TRADE) & (events["price"] != UNDEF_PRICE)
        if is_idle and not is_trade.any():
            engine.apply(events)
            return
        if events["action"][0] == Action.CLEAR and events["flags"][0] & Flag.SNAPSHOT:
            self._known_until_ns = self._newest_ns
        ts = stored_times(events["ts_event"])
        is_new = (events["flags"] & Flag.SNAPSHOT == 0) & (ts > self._known_until_ns) & (ts < MAX_TS)
        is_trade &= is_new
        ends = NO_ENDS if is_idle else self._picked_ends(events, ts, is_new)
        if is_new.any():
            self._newest_ns = max(self._newest_ns, int(ts[is_new].max()))
        done = 0
        for first in range(0, len(ends), MAX_ENDS):
            some = ends[first : first + MAX_ENDS]
            snapshots = empty_snapshots(len(some), SNAPSHOT_LEVELS)
            until = int(some["place"][-1]) + 1
            trades = self._trades(events[done:until], ts[done:until], is_trade[done:until])
            for row, end in enumerate(some["place"].tolist()):
                engine.apply(events[done : end + 1])
                done = end + 1
                instrument_id = int(events["instrument_id"][end])
                self._read(engine, instrument_id, snapshots[row : row + 1])
                if self._interval_ns:
                    self._due_ns[instrument_id] = (int(ts[end]) // self._interval_ns + 1) * self._interval_ns
            snapshots["series"], snapshots["ts_event"] = some["series"], some["ts_event"]
            yield self._kept(snapshots, trades)
        if done < len(events):
            engine.apply(events[done:])
            yield self._kept(
                empty_snapshots(0, SNAPSHOT_LEVELS), self._trades(events[done:], ts[done:], is_trade[done:])
            )

    def finish(self, engine: BookEngine) -> SampledRows:
        """The last state of each book, where it was not among the rows."""
        unread = [
            (place, series.instrument.instrument_id)
            for place, series in enumerate(self.series)
            if engine.sequence(series.instrument.instrument_id)
            != self._sequences.get(series.instrument.instrument_id, 0)
        ]
        snapshots = empty_snapshots(len(unread), SNAPSHOT_LEVELS)
        for row, (place, instrument_id) in enumerate(unread):
            self._read(engine, instrument_id, snapshots[row : row + 1])
            books = engine.books(instrument_id)
            snapshots[row]["ts_event"] = min(max(engine.book(index).ts_event for index in books), MAX_TS)
            snapshots[row]["series"] = place
        snapshots = snapshots[
            (snapshots["ts_event"] > self._known_until_ns) & (snapshots["ts_event"] < MAX_TS)
        ]
        return SampledRows(bbo_of(snapshots), snapshots, np.empty(0, TRADE_ROW))

    def _is_nothing_due(self, events: OrderEvents) -> bool:
        """Whether a batch is short, and surely has no end of an event that is to be stored."""
        if not self._interval_ns or len(events) > SHORT_BATCH or events["flags"][0] & Flag.SNAPSHOT:
            return False
        newest_ns = int(events["ts_event"].max())
        if any(self._due_ns.get(key, 0) <= newest_ns for key in set(events["instrument_id"].tolist())):
            return False
        self._newest_ns = max(self._newest_ns, newest_ns)
        return True

    def _picked_ends(
        self, events: OrderEvents, ts: npt.NDArray[np.int64], is_new: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.void]:
        """Where books are to be read."""
        places = np.flatnonzero(is_new & (events["flags"] & Flag.LAST != 0))
        ends = np.empty(len(places), END)
        ends["place"] = places
        ends["ts_event"] = ts[places]
        ends["series"] = self._series_of(events["instrument_id"][places])
        # What has changed is known only when it has been read.
        return ends if self._is_by_change else self._ends.pick(ends)

    def _series_of(self, instrument_ids: npt.NDArray[np.uint32]) -> list[int]:
        return [self._place(instrument_id) for instrument_id in instrument_ids.tolist()]

    def _place(self, instrument_id: int) -> int:
        place = self._places.get(instrument_id)
        if place is None:
            place = self._places[instrument_id] = len(self.series)
            self.series.append(Series(self._instruments[instrument_id]))
        return place

    def _trades(
        self, events: OrderEvents, ts: npt.NDArray[np.int64], is_trade: npt.NDArray[np.bool_]
    ) -> Rows:
        places = np.flatnonzero(is_trade)
        rows = np.empty(len(places), TRADE_ROW)
        if not len(places):
            return rows
        rows["series"] = self._series_of(events["instrument_id"][places])
        rows["ts_event"] = ts[places]
        for column, field in (("price", "price"), ("size", "size"), ("aggressor", "side")):
            rows[column] = events[field][places]
        return rows

    def _read(self, engine: BookEngine, instrument_id: int, row: Rows) -> None:
        """Fill a snapshot, which is empty, but for whose it is and when."""
        self._sequences[instrument_id] = engine.sequence(instrument_id)
        for side, name in ((Side.BID, "bids"), (Side.ASK, "asks")):
            levels = price_levels(engine, instrument_id, side, SNAPSHOT_LEVELS)
            shown = row[name][0, : len(levels)]
            for column, field in enumerate(("price", "size", "count")):
                shown[field] = levels[:, column]
        books = [engine.book(index) for index in engine.books(instrument_id)]
        row["orders"] = sum(book.orders for book in books)
        row["bid_levels"] = sum(book.bid_levels for book in books)
        row["ask_levels"] = sum(book.ask_levels for book in books)

    def _kept(self, snapshots: Rows, trades: Rows) -> SampledRows:
        bbo = bbo_of(snapshots)
        if self._is_by_change:
            return SampledRows(self._bbo.pick(bbo), self._snapshots.pick(snapshots), trades)
        return SampledRows(bbo, snapshots, trades)


def bbo_of(snapshots: Rows) -> Rows:
    """The best bids and offers of snapshots."""
    rows = np.empty(len(snapshots), BBO_ROW)
    rows["series"], rows["ts_event"] = snapshots["series"], snapshots["ts_event"]
    for side in ("bid", "ask"):
        best = snapshots[f"{side}s"][:, 0]
        rows[f"best_{side}_px"], rows[f"best_{side}_sz"] = best["price"], best["size"]
    return rows
