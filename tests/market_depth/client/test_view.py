from decimal import Decimal

import pytest

from market_depth.client.connection import Connecting, Live, Waiting
from market_depth.client.view import MAX_RATE_FRAMES, Level, levels_of
from protocol.messages import Error
from tests.market_depth.client.conftest import WALL_NS, Levels, MakeView, market_data

BIDS: Levels = [("100.25", ["2"]), ("100.00", ["1", "3"])]
ASKS: Levels = [("100.75", ["5"]), ("101.00", ["4"])]


def test_orders_add_up_to_price_levels_in_queue_order() -> None:
    bids, asks = levels_of(market_data(BIDS, ASKS, "MBO").data)
    assert bids == [
        Level(Decimal("100.25"), Decimal(2), 1, Decimal(2), (Decimal(2),)),
        Level(Decimal("100.00"), Decimal(4), 2, Decimal(6), (Decimal(1), Decimal(3))),
    ]
    assert asks == [
        Level(Decimal("100.75"), Decimal(5), 1, Decimal(5), (Decimal(5),)),
        Level(Decimal("101.00"), Decimal(4), 1, Decimal(9), (Decimal(4),)),
    ]


@pytest.mark.parametrize(
    ("bids", "asks", "spread", "mid", "ticks"),
    [
        (BIDS, ASKS, Decimal("0.50"), Decimal("100.5"), 2),
        ([("0.0000001", ["1"])], [("0.0000003", ["1"])], Decimal("0.0000002"), Decimal("0.0000002"), 2),
        ([("-0.75", ["1"])], [("0.25", ["1"])], Decimal("1.00"), Decimal("-0.25"), 4),
        (BIDS, [], None, None, None),
        ([], ASKS, None, None, None),
        ([], [], None, None, None),
    ],
)
def test_spread_and_mid(
    make_view: MakeView,
    bids: Levels,
    asks: Levels,
    spread: Decimal | None,
    mid: Decimal | None,
    ticks: int | None,
) -> None:
    view = make_view(bids, asks)
    assert (view.spread, view.mid, view.spread_ticks()) == (spread, mid, ticks)


def test_tick_size_is_unknown_before_two_prices_and_learnt_from_later_frames(make_view: MakeView) -> None:
    view = make_view([("100.00", ["1"])], [])
    assert view.tick_size is None
    view.apply(market_data([("100.00", ["1"])], [("100.50", ["1"])]), 11, WALL_NS)
    assert view.tick_size == Decimal("0.5")
    view.apply(market_data([("100.25", ["1"])], [("100.50", ["1"])]), 12, WALL_NS)
    assert view.tick_size == Decimal("0.25")


@pytest.mark.parametrize(
    ("bids", "changes"),
    [
        ([("100.25", ["2"]), ("100.00", ["4"])], {}),
        ([("100.25", ["3"]), ("100.00", ["1"])], {"100.25": "more", "100.00": "less"}),
        ([("100.50", ["1"]), ("100.25", ["2"])], {"100.50": "more"}),
        # The best level is gone, and the one that moved into the requested depth did not change.
        ([("100.00", ["4"]), ("99.75", ["9"])], {}),
    ],
)
def test_changed_levels_stand_out_for_a_moment(
    make_view: MakeView, bids: Levels, changes: dict[str, str]
) -> None:
    view = make_view(BIDS, ASKS)
    view.apply(market_data(bids, ASKS), 11, WALL_NS)
    prices = [price for price, _ in (*bids, *ASKS)]
    seen = {price: view.recent_change(Decimal(price), 11.1) for price in prices}
    assert {price: change for price, change in seen.items() if change} == changes
    assert not any(view.recent_change(Decimal(price), 11.5) for price in prices)


def test_nothing_stands_out_in_the_first_frame(make_view: MakeView) -> None:
    assert make_view(BIDS, ASKS).recent_change(Decimal("100.25"), 10.0) is None


def test_rates_are_those_of_the_last_five_seconds(make_view: MakeView) -> None:
    view = make_view(BIDS, ASKS, sequence=1000)
    assert view.rates(10.0) is None
    for step in range(1, 41):
        view.apply(market_data(BIDS, ASKS, sequence=1000 + 25 * step), 10 + step / 4, WALL_NS)
    assert view.rates(20.0) == pytest.approx((4, 100))
    assert view.age_s(22.0) == 2
    assert view.rates(30.0) == (0, 0)


def test_memory_for_rates_is_bounded(make_view: MakeView) -> None:
    view = make_view(BIDS, ASKS)
    frame = market_data(BIDS, ASKS)
    for _ in range(MAX_RATE_FRAMES + 10):
        view.apply(frame, 10.0, WALL_NS)
    assert len(view._arrivals) == MAX_RATE_FRAMES


def test_a_new_connection_starts_the_rates_anew_and_keeps_the_book(make_view: MakeView) -> None:
    view = make_view(BIDS, ASKS, sequence=1_000_000)
    view.apply(Waiting("the connection broke", until=12.0), 11.0, WALL_NS)
    view.apply(Connecting(), 12.0, WALL_NS)
    view.apply(Live(), 12.0, WALL_NS)
    assert view.bids
    assert view.age_s(12.0) == 2
    for second in (13, 14):
        view.apply(market_data(BIDS, ASKS, sequence=second), second, WALL_NS)
    assert view.rates(14.0) == pytest.approx((1, 1))


@pytest.mark.parametrize(
    ("wall_ns", "latency_s"),
    [
        (WALL_NS, 0.00125),
        (WALL_NS - 2_000_000_000, 0.0),
        (WALL_NS + 3600 * 1_000_000_000, None),
    ],
    ids=["live", "a clock behind the server's", "a replay"],
)
def test_latency_is_known_of_a_live_market_only(
    make_view: MakeView, wall_ns: int, latency_s: float | None
) -> None:
    view = make_view(BIDS, ASKS)
    view.apply(market_data(BIDS, ASKS), 11, wall_ns)
    assert view.latency_s == (None if latency_s is None else pytest.approx(latency_s, abs=1e-6))


@pytest.mark.parametrize(
    ("code", "stream_id", "is_refused"),
    [
        (404, "watch", True),
        (422, "watch", True),
        (429, "watch", False),
        (503, "watch", False),
        (400, None, False),
    ],
)
def test_an_error_is_a_notice_and_a_refusal_when_asking_again_is_useless(
    make_view: MakeView, code: int, stream_id: str | None, is_refused: bool
) -> None:
    view = make_view(BIDS, ASKS)
    view.apply(Error(code=code, message="no", stream_id=stream_id), 11, WALL_NS)
    assert view.notice == f"{code}: no"
    assert (view.refusal is not None) == is_refused


def test_frames_of_other_streams_are_not_shown(make_view: MakeView) -> None:
    view = make_view(BIDS, ASKS)
    view.apply(market_data([], []).model_copy(update={"stream_id": "other"}), 11, WALL_NS)
    assert view.bids
