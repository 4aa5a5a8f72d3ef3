"""What is stored of books while they are rebuilt, compared with a book that is read after every single event."""

import numpy as np
import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.views import price_levels
from market_depth.store.sampled_books import MAX_ENDS, SampledBooks, SampledRows
from market_depth.store.sampling import Sampling, SamplingKind, parse_sampling
from protocol.events import UNDEF_PRICE, Action, Flag, OrderEvents, Side, order_events
from protocol.instrument import SCALE, Instrument

BOOKS = (Instrument("ACME", "XTEST", 7, SCALE), Instrument("OTHER", "XTEST", 9, SCALE))
START_NS = 1_790_000_000_000_000_000
STEP_NS = 1_000_000


def flow(seed: int, count: int) -> OrderEvents:
    """Adds, cancels and trades of two books at two publishers, 1 ms apart; two of three records end an event."""
    rng = np.random.default_rng(seed)
    events = order_events(count)
    events["instrument_id"] = rng.choice([7, 9], count)
    events["publisher_id"] = rng.choice([1, 2], count)
    events["order_id"] = np.arange(count)
    events["action"] = rng.choice([Action.ADD, Action.ADD, Action.CANCEL, Action.TRADE], count)
    is_cancel = events["action"] == Action.CANCEL
    events["order_id"][is_cancel] = rng.integers(0, count, is_cancel.sum())
    events["side"] = rng.choice([Side.BID, Side.ASK], count)
    events["price"] = (
        np.where(events["side"] == Side.BID, 90, 110) * SCALE + rng.integers(-5, 5, count) * SCALE
    )
    events["size"] = rng.integers(1, 9, count)
    events["flags"] = rng.choice([Flag.LAST, Flag.LAST, 0], count)
    events["ts_event"] = events["ts_recv"] = START_NS + STEP_NS * np.arange(count)
    return events


def going_back(to_ns: int) -> OrderEvents:
    """What a source says that is elsewhere from here on."""
    events = order_events(1)
    events["instrument_id"], events["action"] = 7, Action.CLEAR
    events["flags"] = Flag.SNAPSHOT | Flag.LAST
    events["ts_event"] = to_ns
    return events


class Storing:
    """Books at work, and all rows of them."""

    def __init__(self, sampling: str) -> None:
        self.engine = BookEngine()
        self.books = SampledBooks(BOOKS, parse_sampling(sampling))
        self._parts: list[SampledRows] = []

    def apply(self, *batches: OrderEvents) -> "Storing":
        for batch in batches:
            self._parts += self.books.apply(self.engine, batch)
        return self

    def finish(self) -> "Storing":
        self._parts.append(self.books.finish(self.engine))
        return self

    def rows(self, kind: str) -> np.ndarray:
        """In the order of time, and naming instruments: places in the session depend on which comes first."""
        rows = np.concatenate([getattr(part, kind) for part in self._parts])
        ids = np.array([series.instrument.instrument_id for series in self.books.series], np.int32)
        rows["series"] = ids[rows["series"]]
        return rows[np.lexsort((rows["series"], rows["ts_event"]))]

    def times(self, kind: str = "bbo") -> list[int]:
        return list((self.rows(kind)["ts_event"] - START_NS) // STEP_NS)


@pytest.mark.parametrize("sampling", ["change", "events:1", "events:7", "ms:1", "ms:40"])
@pytest.mark.parametrize("batch", [1, 50, 300])
def test_rows_show_the_book_at_their_time_however_the_events_are_batched(sampling: str, batch: int) -> None:
    events = flow(batch, 300)
    storing = Storing(sampling)
    storing.apply(*(events[first : first + batch] for first in range(0, len(events), batch))).finish()
    one_by_one = (
        Storing(sampling).apply(*(events[place : place + 1] for place in range(len(events)))).finish()
    )
    for kind in ("bbo", "snapshots", "trades"):
        assert (storing.rows(kind) == one_by_one.rows(kind)).all()
    slow = BookEngine()
    best = {}
    for place in range(len(events)):
        slow.apply(events[place : place + 1])
        levels = [sorted(prices(slow, 7, side)) for side in (Side.BID, Side.ASK)]
        best[place] = levels[0][-1:] + levels[1][:1]
    of_acme = storing.rows("bbo")[storing.rows("bbo")["series"] == 7]
    assert len(of_acme)
    for row in of_acme:
        shown = [int(row[name]) for name in ("best_bid_px", "best_ask_px") if row[name] != UNDEF_PRICE]
        assert shown == best[(int(row["ts_event"]) - START_NS) // STEP_NS]


def prices(engine: BookEngine, instrument_id: int, side: Side) -> list[int]:
    """All prices of a side of an instrument."""
    return list(price_levels(engine, instrument_id, side, 100)[:, 0])


def test_every_trade_is_kept_whatever_the_sampling() -> None:
    events = flow(1, 500)
    storing = Storing("ms:1000000").apply(events)
    told = events[events["action"] == Action.TRADE]
    trades = storing.rows("trades")
    assert trades["price"].tolist() == told["price"].tolist()
    assert trades["aggressor"].tolist() == told["side"].tolist()
    assert trades["series"].tolist() == told["instrument_id"].tolist()


def test_by_change_the_same_state_is_stored_once() -> None:
    events = flow(2, 400)
    events["action"] = Action.TRADE  # which changes no book
    events["flags"] = Flag.LAST
    assert len(Storing("change").apply(events[:200], events[200:]).finish().rows("bbo")) == len(BOOKS)


def test_a_snapshot_counts_the_whole_book_and_shows_ten_levels() -> None:
    events = order_events(24)
    events["instrument_id"], events["action"], events["flags"] = 7, Action.ADD, Flag.LAST
    events["order_id"] = np.arange(24)
    events["side"] = np.where(np.arange(24) < 12, Side.BID, Side.ASK)
    events["price"] = np.where(np.arange(24) < 12, 80, 100) * SCALE + np.arange(24) * SCALE
    events["size"], events["ts_event"] = 3, START_NS
    row = Storing("events:1").apply(events).rows("snapshots")[-1]
    assert (row["orders"], row["bid_levels"], row["ask_levels"]) == (24, 12, 12)
    assert row["bids"]["price"].tolist() == [(91 - level) * SCALE for level in range(10)]
    assert set(row["asks"]["size"].tolist()) == {3}


def test_what_a_snapshot_hands_over_is_not_stored_but_what_follows_shows_it() -> None:
    events = flow(3, 40)
    events["action"], events["flags"] = Action.ADD, Flag.SNAPSHOT
    events["flags"][-1] |= Flag.LAST
    storing = Storing("events:1").apply(events)
    assert len(storing.rows("bbo")) == 0
    after = flow(3, 41)[40:]
    after["flags"], after["action"] = Flag.LAST, Action.TRADE
    assert storing.apply(after).rows("snapshots")["orders"].tolist()[0] > 0


def test_a_source_that_goes_back_stores_nothing_until_it_is_past_what_was_stored() -> None:
    events = flow(4, 300)
    events["flags"] = Flag.LAST
    storing = Storing("events:1").apply(events[:200], going_back(START_NS), events)
    assert storing.times() == list(range(300))
    assert sorted(set(storing.times("trades"))) == storing.times("trades")


def test_an_event_without_a_time_is_not_stored() -> None:
    events = flow(5, 20)
    events["flags"] = Flag.LAST
    events["ts_event"][::2] = 2**64 - 1
    assert Storing("events:1").apply(events, going_back(START_NS)).times() == list(range(1, 20, 2))


def test_a_long_batch_comes_in_parts() -> None:
    events = flow(6, 3 * MAX_ENDS)
    events["flags"] = Flag.LAST
    books = SampledBooks(BOOKS, Sampling(SamplingKind.EVENTS, 1))
    assert [len(part.bbo) for part in books.apply(BookEngine(), events)] == [MAX_ENDS] * 3
