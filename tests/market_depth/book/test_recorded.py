"""Recorded markets, rebuilt, end where others' books of the same files end."""

import io
import json
import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import zstandard

from market_depth.book.engine import BookEngine
from market_depth.book.views import BestBidOffer, PriceLevel, best_bid_offer, price_levels
from protocol.events import ORDER_EVENT, Flag, OrderEvents, Side
from tests.market_depth.book.plain_book import PlainBooks
from tests.market_depth.book.test_agreement import assert_same_books
from tests.market_depth.book.written_events import ALL

pytestmark = pytest.mark.realdata

CLX5 = 432669
GOOG, GOOGL = 7151, 7152
ESH4 = 17077


def recorded(path: Path) -> OrderEvents:
    """The records of a DBN file of MBO records: magic and version, the metadata's length, metadata, records."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True)
        data = reader.read()
    (metadata_length,) = struct.unpack_from("<I", data, 4)
    return np.frombuffer(data, ORDER_EVENT, offset=8 + metadata_length)


@pytest.fixture(scope="session")
def clx5(realdata: Path) -> OrderEvents:
    return recorded(realdata / "dbn" / "CLX5_mbo.dbn")


@pytest.fixture(scope="session")
def dbeq(realdata: Path) -> OrderEvents:
    return recorded(realdata / "dbn" / "dbeq-basic-20240403.mbo.dbn.zst")


@pytest.fixture(scope="session")
def esh4(realdata: Path) -> OrderEvents:
    return recorded(realdata / "dbn" / "esh4-glbx-mdp3-20231224.mbo.dbn.zst")


def applied(events: OrderEvents) -> BookEngine:
    engine = BookEngine()
    engine.apply(events)
    return engine


def level(price: float, size: int, count: int) -> PriceLevel:
    return PriceLevel(round(price * 100) * 10**7, size, count)


def test_clx5_ends_with_the_same_book_as_elsewhere(clx5: OrderEvents, realdata: Path) -> None:
    expected = json.loads((realdata / "dbn" / "CLX5_final_book.json").read_text())

    engine = applied(clx5)

    for side, name in ((Side.BID, "bids"), (Side.ASK, "asks")):
        assert [PriceLevel(*row) for row in price_levels(engine, CLX5, side, ALL).tolist()] == [
            level(row["px_f"], row["sz"], row["ct"]) for row in expected[name]
        ]
    (index,) = engine.books(CLX5)
    book = engine.book(index)
    assert (book.orders, book.bid_levels, book.ask_levels) == (147, 61, 52)


def test_clx5_names_orders_from_before_its_start(clx5: OrderEvents) -> None:
    engine = BookEngine()
    unknown = dict.fromkeys("CM", 0)

    # Runs of one action each: what a run adds to the counter are that action's unknown orders.
    for run in np.split(clx5, np.flatnonzero(np.diff(clx5["action"].astype(int))) + 1):
        before = engine.counters.unknown_orders
        engine.apply(run)
        if engine.counters.unknown_orders > before:
            unknown[chr(run["action"][0])] += engine.counters.unknown_orders - before

    assert unknown == {"C": 1_224, "M": 216}
    counters = engine.counters
    assert (counters.adds, counters.cancels, counters.modifies) == (14_959, 16_252, 2_701)
    assert (counters.trades, counters.fills, counters.events) == (1_599, 2_701, 38_212)
    assert (counters.duplicate_orders, counters.invalid_events) == (0, 0)


def test_clx5_is_as_large_as_elsewhere_at_its_peak(clx5: OrderEvents) -> None:
    engine = BookEngine()
    peak = [0, 0, 0]

    for event in np.split(clx5, len(clx5)):
        engine.apply(event)
        book = engine.book(0)
        peak = [
            max(old, new)
            for old, new in zip(peak, (book.orders, book.bid_levels, book.ask_levels), strict=True)
        ]

    assert peak == [558, 111, 104]


@pytest.mark.parametrize(
    ("hour", "minute", "bid", "ask"),
    [
        (20, 0, (64.80, 13, 9), (64.81, 20, 10)),
        (20, 30, (64.81, 6, 5), (64.82, 8, 6)),
        (20, 59, (64.81, 10, 9), (64.83, 12, 8)),
    ],
)
def test_clx5_passes_its_marks(
    clx5: OrderEvents,
    hour: int,
    minute: int,
    bid: tuple[float, int, int],
    ask: tuple[float, int, int],
) -> None:
    mark_ns = int(datetime(2025, 9, 24, hour, minute, tzinfo=UTC).timestamp()) * 10**9

    engine = applied(clx5[clx5["ts_recv"] < mark_ns])

    assert best_bid_offer(engine, CLX5) == BestBidOffer(level(*bid), level(*ask))


def test_clx5_is_crossed_in_the_pre_open_alone(clx5: OrderEvents) -> None:
    pre_open_ns = int(datetime(2025, 9, 24, 21, 47, 19, tzinfo=UTC).timestamp()) * 10**9
    engine = BookEngine()
    crossed = []
    ends = np.flatnonzero(clx5["flags"] & Flag.LAST) + 1

    for event in np.split(clx5, ends[:-1]):
        engine.apply(event)
        top = best_bid_offer(engine, CLX5)
        if top.bid and top.ask and top.bid.price >= top.ask.price:
            crossed.append(int(event["ts_recv"][-1]))

    assert crossed
    assert min(crossed) >= pre_open_ns


def test_dbeq_publishers_are_one_market(dbeq: OrderEvents) -> None:
    engine = applied(dbeq)

    assert best_bid_offer(engine, GOOGL) == BestBidOffer(level(152.95, 700, 1), level(154.53, 700, 1))
    assert best_bid_offer(engine, GOOG) == BestBidOffer(level(154.62, 700, 1), level(155.67, 700, 1))
    for instrument_id in (GOOG, GOOGL):
        books = [engine.book(index) for index in engine.books(instrument_id)]
        assert {book.publisher_id for book in books} == {39, 40, 41}
        assert all(max(book.bid_levels, book.ask_levels) <= 1 for book in books if book.publisher_id != 39)
    counters = engine.counters
    assert (counters.unknown_orders, counters.duplicate_orders, counters.invalid_events) == (0, 0, 0)


def test_esh4_opens_from_a_snapshot(esh4: OrderEvents) -> None:
    engine = applied(esh4)

    assert best_bid_offer(engine, ESH4) == BestBidOffer(level(4799.00, 16, 4), level(4799.50, 23, 4))
    book = engine.book(0)
    assert (book.orders, book.bid_levels, book.ask_levels) == (8_725, 892, 559)


@pytest.mark.parametrize("name", ["clx5", "esh4"])
def test_a_recorded_market_agrees_with_the_plain_book(name: str, request: pytest.FixtureRequest) -> None:
    events = request.getfixturevalue(name)
    engine, plain = BookEngine(), PlainBooks()

    for batch in np.array_split(events, 10):
        engine.apply(batch)
        plain.apply(batch)
        assert_same_books(engine, plain)
