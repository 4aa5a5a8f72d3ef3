"""Views filled by hand, for tests of what is made of them."""

import socket
from collections.abc import Callable, Iterator, Sequence

import pytest

from market_depth.client.connection import Live
from market_depth.client.view import MarketView
from protocol.codecs import decode_answer
from protocol.messages import DataType, MarketData, Subscribe

WALL_NS = 1_795_000_000_000_000_000

MakeView = Callable[..., MarketView]

Levels = Sequence[tuple[str, Sequence[str]]]
"""Price and the sizes in its queue, best price first, as they stand in JSON."""


def market_data(bids: Levels, asks: Levels, data_type: DataType = "MBP", sequence: int = 1) -> MarketData:
    """A frame with these levels, by way of its JSON text."""
    timestamp = "2026-11-18T11:06:39.998750Z"

    def text(levels: Levels, side: str) -> str:
        if data_type == "MBO":
            return ",".join(
                f'{{"order_id":"{price}-{place}","price":{price},"quantity":{size},"side":"{side}",'
                f'"timestamp":"{timestamp}","age_ms":0}}'
                for price, queue in levels
                for place, size in enumerate(queue)
            )
        total = 0.0
        rows = []
        for price, queue in levels:
            quantity = sum(float(size) for size in queue)
            total += quantity
            rows.append(
                f'{{"price":{price},"quantity":{quantity:.2f},"order_count":{len(queue)},"total_quantity":{total:.2f}}}'
            )
        return ",".join(rows)

    frame = decode_answer(
        f'{{"type":"MarketData","stream_id":"watch","symbol":"BTCUSD","sequence":{sequence},"timestamp":"{timestamp}",'
        f'"data":{{"format":"{data_type}","bids":[{text(bids, "Bid")}],"asks":[{text(asks, "Ask")}]}}}}'
    )
    assert isinstance(frame, MarketData)
    return frame


@pytest.fixture
def make_view() -> MakeView:
    """A live view that has received one frame with the given levels at second 10."""

    def make(
        bids: Levels, asks: Levels, data_type: DataType = "MBP", max_levels: int = 20, sequence: int = 12_345
    ) -> MarketView:
        subscription = Subscribe(
            stream_id="watch", symbol="BTCUSD", data_type=data_type, max_levels=max_levels
        )
        view = MarketView(subscription, "127.0.0.1:8080")
        view.apply(Live(), 9.9, WALL_NS)
        view.apply(market_data(bids, asks, data_type, sequence), 10.0, WALL_NS)
        return view

    return make


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that nobody listens on: bound here, so nobody else can take it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
