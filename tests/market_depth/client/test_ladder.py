"""Screens as text. `pytest --regenerate-golden` writes the tables anew; read them before you commit them."""

from io import StringIO

import pytest
from rich.console import Console

from market_depth.client.connection import Connecting, Live, Waiting
from market_depth.client.ladder import ladder
from market_depth.client.view import MarketView
from protocol.messages import Error, Subscribe
from tests.conftest import Golden
from tests.market_depth.client.conftest import WALL_NS, Levels, MakeView, market_data


def levels(best: float, step: float, number: int) -> Levels:
    """A side of many levels, whose sizes and queues differ."""
    return [
        (f"{best + step * n:.2f}", [f"{(n * 37 + place * 11) % 90 + 1}.50" for place in range(1 + n % 4)])
        for n in range(number)
    ]


BIDS = levels(64_999.50, -0.50, 8)
ASKS = levels(65_000.00, 0.50, 8)


def screen(view: MarketView, width: int, height: int | None, now: float = 10.12, color: bool = False) -> str:
    console = Console(
        file=StringIO(),
        width=width,
        height=height,
        force_terminal=color,
        color_system="standard" if color else None,
        _environ={},
    )
    with console.capture() as capture:
        console.print(ladder(view, now, width, height))
    return capture.get()


@pytest.mark.parametrize(
    ("name", "bids", "asks", "data_type", "width", "height"),
    [
        ("normal", BIDS, ASKS, "MBP", 80, 24),
        ("narrow", BIDS, ASKS, "MBP", 60, 24),
        ("very_narrow", BIDS, ASKS, "MBP", 34, 24),
        ("wide", BIDS, ASKS, "MBP", 120, 24),
        ("deep", levels(64_999.50, -0.50, 50), levels(65_000.00, 0.50, 50), "MBP", 80, 16),
        ("low", BIDS, ASKS, "MBP", 80, 5),
        ("thin", BIDS[:2], ASKS[:1], "MBP", 80, 24),
        ("bids_only", BIDS[:3], [], "MBP", 80, 16),
        ("empty", [], [], "MBP", 80, 12),
        ("once", BIDS[:3], ASKS[:2], "MBP", 80, None),
        ("by_order", BIDS, ASKS, "MBO", 80, 24),
        ("by_order_narrow", BIDS, ASKS, "MBO", 60, 24),
        ("by_order_wide", BIDS, ASKS, "MBO", 120, 24),
        ("by_order_long_queue", [("99.00", ["1.50"] * 200)], [("100.00", ["12.25", "0.75"])], "MBO", 80, 12),
    ],
)
def test_screens(
    name: str,
    bids: Levels,
    asks: Levels,
    data_type: str,
    width: int,
    height: int | None,
    make_view: MakeView,
    golden: Golden,
) -> None:
    text = screen(make_view(bids, asks, data_type), width, height)
    lines = text.splitlines()
    assert all(len(line) <= width for line in lines)
    if height is not None:
        assert len(lines) == height
    golden(f"{name}.txt", "\n".join(line.rstrip() for line in lines).encode())


@pytest.mark.parametrize("width", [10, 20, 34, 60, 79, 80, 81, 100, 200])
@pytest.mark.parametrize("height", [4, 5, 7, 24, 25, 100])
@pytest.mark.parametrize("data_type", ["MBP", "MBO"])
def test_a_screen_never_leaves_the_terminal(
    make_view: MakeView, data_type: str, width: int, height: int
) -> None:
    lines = screen(make_view(BIDS, ASKS, data_type), width, height).splitlines()
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)


def test_the_spread_keeps_its_line_when_a_side_gets_thin(make_view: MakeView) -> None:
    def line_of_spread(asks: Levels) -> int:
        lines = screen(make_view(BIDS, asks), 80, 24).splitlines()
        return next(number for number, line in enumerate(lines) if "spread" in line)

    assert line_of_spread(ASKS) == line_of_spread(ASKS[:1]) == line_of_spread([])


def test_before_the_first_book() -> None:
    view = MarketView(Subscribe(stream_id="watch", symbol="BTCUSD", data_type="MBP"), "127.0.0.1:8080")
    assert "◌ connecting" in screen(view, 80, 24)
    view.apply(Live(), 1, WALL_NS)
    text = screen(view, 80, 24)
    assert "● live" in text
    assert "waiting for the first book of BTCUSD" in text


def test_a_lost_connection_counts_down_and_says_why(make_view: MakeView) -> None:
    view = make_view(BIDS, ASKS)
    view.apply(Waiting("connection refused", until=15.0), 11, WALL_NS)
    assert "disconnected, again in 3.2 s" in screen(view, 80, 24, now=11.8)
    assert "disconnected, again in 0.5 s" in screen(view, 80, 24, now=14.5)
    assert screen(view, 80, 24, now=14.5).splitlines()[-1].strip() == "connection refused"
    view.apply(Connecting(), 15, WALL_NS)
    assert "◌ connecting" in screen(view, 80, 24, now=15)


def test_a_notice_of_the_server_is_one_line(make_view: MakeView) -> None:
    view = make_view(BIDS, ASKS)
    view.apply(Error(code=429, message="over the rate " * 20, stream_id=None), 11, WALL_NS)
    foot = screen(view, 80, 24).splitlines()[-1]
    assert foot.startswith(" 429: over the rate")
    assert foot.rstrip().endswith("…")


def test_a_changed_size_stands_out_in_colour_for_a_moment(make_view: MakeView) -> None:
    view = make_view([("99.00", ["5.00"])], [("100.00", ["5.00"])])
    view.apply(market_data([("99.00", ["6.00"])], [("100.00", ["4.00"])]), 11, WALL_NS)
    at_once = screen(view, 80, None, now=11.1, color=True)
    assert "\x1b[1;7m6.00\x1b[0m" in at_once
    assert "\x1b[1;33m4.00\x1b[0m" in at_once
    later = screen(view, 80, None, now=11.6, color=True)
    assert "\x1b[1;7m" not in later
    assert "\x1b[1;33m" not in later
