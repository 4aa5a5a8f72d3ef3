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

SNAPSHOT_LEVELS = 10

END = np.dtype([("series", "<i4"), ("ts_event", "<i8"), ("place", "<i8")])
"""Where in a batch an event ends, and whose it is."""

MAX_ENDS = 256
"""Books are read at most so often in one part of a batch: 5 ms, in which nothing else runs."""


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
        self._ends = Sampler(sampling)
        self._bbo = Sampler(sampling)
        self._snapshots = Sampler(sampling)
        self._newest_ns = -1
        self._known_until_ns = -1

    def apply(self, engine: BookEngine, events: OrderEvents) -> Iterator[SampledRows]:
        """Apply a batch part by part; of each part the rows. After the last one the whole batch is applied."""
        if events["action"][0] == Action.CLEAR and events["flags"][0] & Flag.SNAPSHOT:
            self._known_until_ns = self._newest_ns
        ts = stored_times(events["ts_event"])
        is_new = (events["flags"] & Flag.SNAPSHOT == 0) & (ts > self._known_until_ns) & (ts < MAX_TS)
        ends = self._picked_ends(events, ts, is_new)
        is_trade = is_new & (events["action"] == Action.TRADE) & (events["price"] != UNDEF_PRICE)
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
                self._read(engine, int(events["instrument_id"][end]), snapshots[row : row + 1])
            snapshots["series"], snapshots["ts_event"] = some["series"], some["ts_event"]
            yield self._kept(snapshots, trades)
        if done < len(events):
            engine.apply(events[done:])
            yield self._kept(
                empty_snapshots(0, SNAPSHOT_LEVELS), self._trades(events[done:], ts[done:], is_trade[done:])
            )

    def finish(self, engine: BookEngine) -> SampledRows:
        """The last state of each book, where it was not among the rows."""
        ends = self._ends.finish()
        snapshots = empty_snapshots(len(ends), SNAPSHOT_LEVELS)
        for row, end in enumerate(ends):
            instrument_id = self.series[end["series"]].instrument.instrument_id
            self._read(engine, instrument_id, snapshots[row : row + 1])
            snapshots[row]["series"], snapshots[row]["ts_event"] = end["series"], end["ts_event"]
        return SampledRows(bbo_of(snapshots), snapshots, np.empty(0, TRADE_ROW))

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

    def _series_of(self, instrument_ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        ids, inverse = np.unique(instrument_ids, return_inverse=True)
        return np.array([self._place(instrument_id) for instrument_id in ids.tolist()], np.int32)[inverse]

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
