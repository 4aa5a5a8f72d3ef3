"""Recorded markets served for real: what a client sees last, and at known instants, is what others have published."""

from __future__ import annotations

import json
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
import trio

from market_depth.book.engine import BookEngine
from market_depth.book.views import resting_orders
from market_depth.feeds.dbn import DbnFile
from market_depth.record.server_feed import subscriptions
from market_depth.record.server_recording import record_server
from protocol.events import Side
from protocol.messages import MarketData, PriceLevel, PriceLevels, RestingOrders
from protocol.timestamp import NS_PER_US
from tests.depth_server import DepthServer
from tests.market_depth.server.local_server import Client, websocket_client
from tests.market_depth.test_serve_replay import control

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.realdata

Level = tuple[str, int, int]


@contextmanager
def replaying(path: Path, *options: str) -> Iterator[DepthServer]:
    server = DepthServer("--replay", str(path), "--interval-ms", "100", *options)
    try:
        yield server
    finally:
        server.stop()


async def book_of(client: Client, stream_id: str, ready: str) -> PriceLevels | RestingOrders:
    """The stream's book once its time is `ready` or later."""
    while True:
        frame = await client.receive()
        if isinstance(frame, MarketData) and frame.stream_id == stream_id and frame.timestamp >= ready:
            return frame.data


def plain(level: PriceLevel) -> Level:
    return str(level.price), int(level.quantity), level.order_count


async def test_the_last_frame_of_clx5_is_the_published_final_book(realdata: Path) -> None:
    published = json.loads((realdata / "dbn/CLX5_final_book.json").read_text())
    with replaying(realdata / "dbn/CLX5_mbo.dbn", "--speed", "max") as server:
        async with websocket_client(int(server.addr.rpartition(":")[2])) as client:
            await client.subscribe("levels", "CLX5", "MBP", 1000)
            await client.subscribe("orders", "CLX5", "MBO", 1000)
            levels = await book_of(client, "levels", "2025-09-24T21:59:59.999")
            orders = await book_of(client, "orders", "2025-09-24T21:59:59.999")
    assert isinstance(levels, PriceLevels)
    assert isinstance(orders, RestingOrders)
    for side in ("bids", "asks"):
        expected = [(Decimal(str(row["px_f"])), row["sz"], row["ct"]) for row in published[side]]
        shown = [(row.price, row.quantity, row.order_count) for row in getattr(levels, side)]
        assert shown == expected
        queued = getattr(orders, side)
        assert sum(order.quantity for order in queued) == getattr(levels, side)[-1].total_quantity
        assert len(queued) == sum(count for _, _, count in expected)
    assert len(orders.bids) + len(orders.asks) == 147


async def test_clx5_shows_the_known_tops_at_their_instants(realdata: Path) -> None:
    # With the minute before: a frame is dated by the last record up to its instant.
    marks: list[tuple[str, str, Level, Level]] = [
        ("20:00", "19:59", ("64.80", 13, 9), ("64.81", 20, 10)),
        ("20:30", "20:29", ("64.81", 6, 5), ("64.82", 8, 6)),
        ("20:59", "20:58", ("64.81", 10, 9), ("64.83", 12, 8)),
    ]
    with replaying(realdata / "dbn/CLX5_mbo.dbn") as server:
        async with websocket_client(int(server.addr.rpartition(":")[2])) as client:
            assert (await control(server, "pause"))[0] == 200
            await client.subscribe("top", "CLX5", "MBP", 1)
            for time, minute_before, bid, ask in marks:
                status, _ = await control(server, "seek", {"to": f"2025-09-24T{time}:00Z"})
                assert status == 200
                top = await book_of(client, "top", f"2025-09-24T{minute_before}")
                assert isinstance(top, PriceLevels)
                assert (plain(top.bids[0]), plain(top.asks[0])) == (bid, ask)


@pytest.mark.parametrize(
    ("name", "symbol", "bid", "ask", "depth"),
    [
        ("dbeq-basic-20240403.mbo.dbn.zst", "GOOGL", ("152.950", 700, 1), ("154.530", 700, 1), None),
        ("dbeq-basic-20240403.mbo.dbn.zst", "GOOG", ("154.620", 700, 1), ("155.670", 700, 1), None),
        ("esh4-glbx-mdp3-20231224.mbo.dbn.zst", "ESH4", ("4799.00", 16, 4), ("4799.50", 23, 4), (892, 559)),
    ],
)
async def test_the_last_frames_of_other_recordings_show_their_known_tops(
    realdata: Path, name: str, symbol: str, bid: Level, ask: Level, depth: tuple[int, int] | None
) -> None:
    with replaying(realdata / "dbn" / name, "--speed", "max") as server:
        async with websocket_client(int(server.addr.rpartition(":")[2])) as client:
            while (await control(server, "status"))[1]["state"] != "DONE":
                await trio.lowlevel.checkpoint()
            await client.subscribe("book", symbol, "MBP", 1000)
            book = await book_of(client, "book", "")
    assert isinstance(book, PriceLevels)
    assert (plain(book.bids[0]), plain(book.asks[0])) == (bid, ask)
    if depth is not None:
        assert (len(book.bids), len(book.asks)) == depth


@pytest.mark.parametrize(
    ("name", "symbol"),
    [("esh4-glbx-mdp3-20231224.mbo.dbn.zst", "ESH4"), ("dbeq-basic-20240403.mbo.dbn.zst", "GOOGL")],
)
async def test_a_served_recording_recorded_again_has_the_same_last_book(
    realdata: Path, tmp_path: Path, name: str, symbol: str
) -> None:
    copy = tmp_path / "copy.dbn.zst"
    with replaying(realdata / "dbn" / name, "--speed", "max") as server:
        while (await control(server, "status"))[1]["state"] != "DONE":
            await trio.lowlevel.checkpoint()
        await record_server(
            copy, server.url, server.addr, subscriptions([symbol]), max_records=1, duration_s=60
        )
    original, again = last_orders(realdata / "dbn" / name, symbol), last_orders(copy, symbol)
    assert len(original) > 10
    assert again == original


def last_orders(path: Path, symbol: str) -> list[tuple[int, ...]]:
    """Side, price, size and time of every order of a file's last book, in queue order, best first."""
    engine = BookEngine()
    with DbnFile(path) as file:
        numbers = {instrument.symbol: instrument.instrument_id for instrument in file.instruments}
        while len(events := file.read()):
            engine.apply(events)
    return [
        (side, order["price"], order["size"], order["ts_event"] // NS_PER_US)
        for side in (Side.BID, Side.ASK)
        for order in resting_orders(engine, numbers[symbol], side, 1000)
    ]
