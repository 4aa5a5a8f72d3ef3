import json

import pytest

from market_depth.book.engine import BookEngine
from market_depth.stream.market import Market
from protocol.events import Action, Flag, OrderEvents, Side, order_events
from protocol.instrument import SCALE, Instrument

TS = 1_790_000_000_000_000_000
BTC = Instrument("BTCUSD", "SIM", 1, SCALE // 100)
ETH = Instrument("ETHUSD", "SIM", 2, SCALE // 100)


def adds(*orders: tuple[Instrument, int, Side, int, int]) -> OrderEvents:
    """One event of several adds: instrument, order id, side, price in cents, size in lots."""
    events = order_events(len(orders))
    for event, (instrument, order_id, side, cents, size) in zip(events, orders, strict=True):
        event["instrument_id"] = instrument.instrument_id
        event["order_id"] = order_id
        event["action"] = Action.ADD
        event["side"] = side
        event["price"] = cents * (SCALE // 100)
        event["size"] = size
        event["ts_event"] = event["ts_recv"] = TS
    events["flags"][-1] = Flag.LAST
    return events


@pytest.fixture
def market() -> Market:
    market = Market([BTC, ETH], lambda: TS + 1_500_000)
    market.warm(BookEngine())
    market.apply(
        adds(
            (BTC, 1, Side.BID, 10245, 3),
            (BTC, 2, Side.BID, 10245, 4),
            (BTC, 3, Side.BID, 10240, 5),
            (BTC, 4, Side.ASK, 10246, 6),
        )
    )
    return market


def test_a_market_is_warm_with_its_engine_and_shown_when_it_opens() -> None:
    market = Market([BTC], lambda: TS)
    assert (market.is_warm, market.is_open) == (False, False)
    market.warm(BookEngine())
    assert (market.is_warm, market.is_open) == (True, False)
    market.apply(adds((BTC, 1, Side.BID, 100, 1)))
    assert (market.is_warm, market.is_open) == (True, False)
    market.open()
    assert (market.is_warm, market.is_open) == (True, True)


def test_by_price_a_level_adds_up_its_orders_and_those_before_it(market: Market) -> None:
    assert market.book_text("BTCUSD", "MBP", 20) == (
        '{"format":"MBP","bids":[{"price":102.45,"quantity":7,"order_count":2,"total_quantity":7},'
        '{"price":102.40,"quantity":5,"order_count":1,"total_quantity":12}],'
        '"asks":[{"price":102.46,"quantity":6,"order_count":1,"total_quantity":6}]}'
    )


def test_by_order_the_queue_comes_first_come_first_with_ages_by_the_markets_time(market: Market) -> None:
    book = json.loads(market.book_text("BTCUSD", "MBO", 1))
    assert [(order["order_id"], order["quantity"]) for order in book["bids"]] == [("1", 3), ("2", 4)]
    assert book["asks"] == [
        {
            "order_id": "4",
            "price": 102.46,
            "quantity": 6,
            "side": "Ask",
            "timestamp": "2026-09-21T14:13:20.000000Z",
            "age_ms": 1,
        }
    ]


def test_depth_is_cut(market: Market) -> None:
    assert len(json.loads(market.book_text("BTCUSD", "MBP", 1))["bids"]) == 1


def test_sequence_counts_the_changes_of_that_symbol_alone(market: Market) -> None:
    before = market.sequence("BTCUSD")
    assert market.sequence("ETHUSD") == 0
    market.apply(adds((ETH, 9, Side.ASK, 5, 1)))
    assert (market.sequence("BTCUSD"), market.sequence("ETHUSD")) == (before, 1)
    market.apply(adds((BTC, 10, Side.ASK, 10300, 1)))
    assert market.sequence("BTCUSD") == before + 1


def test_a_symbol_without_events_has_an_empty_book(market: Market) -> None:
    for data_type in ("MBO", "MBP"):
        assert json.loads(market.book_text("ETHUSD", data_type, 5)) == {
            "format": data_type,
            "bids": [],
            "asks": [],
        }
