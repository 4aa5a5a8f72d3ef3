import random

import numpy as np
import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.records import SnapshotRecords
from market_depth.book.tops import TopOfBook
from market_depth.store.rows import BBO_ROW, TRADE_ROW, Found, Rows, Series
from market_depth.store.sampling import Sampler, Sampling
from market_depth.store.snapshot_text import snapshot_lines
from market_depth.store.texts import Text, bbo_texts, level_texts, mid_text, time_texts, trade_texts
from market_depth.store.tops import ends_of_events, snapshots_of_tops
from protocol.events import UNDEF_PRICE, Action, Flag, OrderEvents, Side, order_events
from protocol.instrument import Instrument
from tests.market_depth.store.stores import snapshot_rows

FINE = Instrument("FINE", "X", 1, 10_000_000, 100_000)
TINY = Instrument("TINY", "X", 2, 1)
SERIES = {10: Series(FINE), 11: Series(TINY)}


def found(rows: Rows) -> Found:
    return Found(rows, np.arange(len(rows)), SERIES)


def table(columns: dict[str, Text]) -> list[tuple[str | None, ...]]:
    return list(zip(*columns.values(), strict=True))


def test_best_bids_and_offers_are_exact_text_and_nothing_where_a_side_is_empty() -> None:
    rows = np.array(
        [
            (10, 1, 102_450_000_000, 15, 102_460_000_000, 3),
            (10, 2, UNDEF_PRICE, 0, 102_460_000_000, 3),
            (11, 3, -1, 1, 2, 2**40),
            (10, 4, 102_450_000_000, 1, UNDEF_PRICE, 0),
        ],
        BBO_ROW,
    )
    times = [f"1970-01-01T00:00:00.00000000{number}Z" for number in (1, 2, 3, 4)]
    assert table(bbo_texts(found(rows))) == [
        (times[0], "FINE", "102.45", "0.0015", "102.46", "0.0003", "102.455", "0.01"),
        (times[1], "FINE", None, None, "102.46", "0.0003", None, None),
        (times[2], "TINY", "-0.000000001", "1", "0.000000002", str(2**40), "0.0000000005", "0.000000003"),
        (times[3], "FINE", "102.45", "0.0001", None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("bid", "ask", "text"),
    [
        (2, 4, "0.000000003"),
        (1, 2, "0.0000000015"),
        (-2, -1, "-0.0000000015"),
        (2**62 - 1, 2**62, "4611686018.4273879035"),
    ],
)
def test_a_mid_between_two_steps_is_exact(bid: int, ask: int, text: str) -> None:
    assert mid_text(bid, ask, 9) == text


def test_trades_are_exact_text() -> None:
    rows = np.array([(10, 1, 102_450_000_000, 15, Side.BID), (11, 2, -5, 1, Side.NONE)], TRADE_ROW)
    assert table(trade_texts(found(rows))) == [
        ("1970-01-01T00:00:00.000000001Z", "FINE", "102.45", "0.0015", "bid"),
        ("1970-01-01T00:00:00.000000002Z", "TINY", "-0.000000005", "1", None),
    ]


def test_every_level_of_a_snapshot_is_a_row_of_text() -> None:
    rows = snapshot_rows(1, 2)
    rows["series"], rows["ts_event"] = 11, [1, 2]
    rows["bids"]["size"] = 7
    rows["asks"]["size"] = 8
    one, two = (f"1970-01-01T00:00:00.00000000{number}Z" for number in (1, 2))
    assert table(level_texts(found(rows))) == [
        (one, "TINY", "bid", "1", "0.000000001", "7", "1"),
        (two, "TINY", "bid", "1", "0.000000002", "7", "1"),
        (two, "TINY", "bid", "2", "0.000000001", "7", "2"),
        (two, "TINY", "ask", "1", "0.000000003", "8", "1"),
    ]


def test_times_have_nanoseconds() -> None:
    ts = np.array([1_790_000_000_123_456_789, 2**63 - 1])
    assert time_texts(ts).tolist() == ["2026-09-21T14:13:20.123456789Z", "2262-04-11T23:47:16.854775807Z"]


@pytest.mark.parametrize("seed", range(3))
def test_stored_snapshots_are_written_as_the_records_of_a_rebuilt_file_byte_for_byte(seed: int) -> None:
    events = few_orders(seed)
    expected = SnapshotRecords(BookEngine(), {7: 'Ä"B'}, 3).apply(events)
    engine = BookEngine()
    tops = TopOfBook(engine, 3)
    rows, counts = [], []
    for event in range(len(events)):
        rows.append(tops.apply(events[event : event + 1]))
        book = engine.book(0)
        counts.append((book.orders, book.bid_levels, book.ask_levels))
    ends = ends_of_events(events)
    snapshots = snapshots_of_tops(
        events[ends], np.concatenate(rows)[ends], np.zeros(len(ends), np.int32), np.array(counts)[ends]
    )
    changes = Sampler(Sampling()).pick(snapshots)
    series = {0: Series(Instrument('Ä"B', "X", 7, 1), 5)}
    assert snapshot_lines(Found(changes, np.arange(len(changes)), series)) == expected


def few_orders(seed: int) -> OrderEvents:
    """Adds and cancels at few prices, so that levels come and go and sides are empty at times."""
    rng = random.Random(seed)
    events = order_events(400)
    events["instrument_id"], events["publisher_id"], events["flags"] = 7, 5, Flag.LAST
    events["ts_event"] = np.arange(400) + 1_790_000_000_000_000_000
    resting: list[tuple[int, int, int]] = []
    for number, event in enumerate(events):
        if resting and rng.random() < 0.5:
            order_id, side, price = resting.pop(rng.randrange(len(resting)))
            event["action"], event["size"] = Action.CANCEL, 5
        else:
            order_id, side = number + 1, rng.choice([Side.BID, Side.ASK])
            price = rng.randrange(1, 6) + (6 if side == Side.ASK else 0)
            event["action"], event["size"] = Action.ADD, 5
            resting.append((order_id, side, price))
        event["order_id"], event["side"], event["price"] = order_id, side, price
    return events
