import numpy as np

from market_depth.book.engine import BookEngine
from market_depth.book.tops import TopOfBook
from market_depth.store.rows import MAX_TS
from market_depth.store.tops import bbo_of_tops, ends_of_events, snapshots_of_tops
from protocol.events import UNDEF_PRICE, Action, Flag, Side, order_events


def test_rows_of_the_book_engine_are_rows_of_the_store() -> None:
    events = order_events(4)
    events["instrument_id"], events["action"], events["size"] = 7, Action.ADD, 5
    events["order_id"] = [1, 2, 3, 4]
    events["side"] = [Side.BID, Side.BID, Side.ASK, Side.ASK]
    events["price"] = [100, 99, 103, 102]
    events["flags"] = [Flag.LAST, 0, Flag.LAST, Flag.LAST]
    events["ts_event"] = [10, 11, 12, 2**64 - 1]
    tops = TopOfBook(BookEngine(), 2).apply(events)
    ends = ends_of_events(events)
    assert ends.tolist() == [0, 2, 3]
    series = np.full(len(ends), 3, np.int32)
    rows = bbo_of_tops(events[ends], tops[ends], series)
    assert rows.tolist() == [
        (3, 10, 100, 5, UNDEF_PRICE, 0),
        (3, 12, 100, 5, 103, 5),
        (3, MAX_TS, 100, 5, 102, 5),
    ]
    counts = np.array([[1, 1, 0], [3, 2, 1], [4, 2, 2]])
    snapshots = snapshots_of_tops(events[ends], tops[ends], series, counts)
    assert snapshots["bids"][:2].tolist() == [
        [(100, 5, 1), (UNDEF_PRICE, 0, 0)],
        [(100, 5, 1), (99, 5, 1)],
    ]
    assert snapshots["asks"][2].tolist() == [(102, 5, 1), (103, 5, 1)]
    assert snapshots[["orders", "bid_levels", "ask_levels"]].tolist() == [tuple(row) for row in counts]
