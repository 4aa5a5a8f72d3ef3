import json

from market_depth.stream.publisher import REUSE_S, Publisher, Topic
from tests.market_depth.server.local_server import WrittenMarket

TOPIC = Topic("BTCUSD", "MBP", 20)


def test_body_is_a_market_data_frame_without_its_head() -> None:
    body = Publisher([WrittenMarket()]).body(TOPIC, 0.0, 0.0)
    assert body is not None
    assert json.loads(b'{"type":"MarketData","stream_id":"a"' + body) == {
        "type": "MarketData",
        "stream_id": "a",
        "symbol": "BTCUSD",
        "sequence": 0,
        "timestamp": "2026-09-21T14:13:20.000000Z",
        "data": {"format": "MBP", "bids": [], "asks": []},
    }


def test_there_is_no_body_before_the_market_opens() -> None:
    market = WrittenMarket(is_open=False)
    publisher = Publisher([market])
    assert publisher.body(TOPIC, 0.0, 1.0) is None
    market.is_open = True
    assert publisher.body(TOPIC, 0.0, 1.0) is not None


def test_a_body_is_used_again_until_it_is_too_old() -> None:
    market = WrittenMarket()
    publisher = Publisher([market])
    first = publisher.body(TOPIC, 5.0, REUSE_S)
    assert publisher.body(TOPIC, 5.0, 0.0) is first
    assert publisher.body(TOPIC, 5.0 + REUSE_S / 2, REUSE_S) is first
    assert len(market.encoded) == 1
    assert publisher.body(TOPIC, 5.0 + 2 * REUSE_S, REUSE_S) is not first
    assert len(market.encoded) == 2


def test_a_newer_body_serves_a_round_that_began_before_it_was_made() -> None:
    publisher = Publisher([WrittenMarket()])
    newer = publisher.body(TOPIC, 5.0, 0.0)
    assert publisher.body(TOPIC, 4.9, 0.0) is newer


def test_each_topic_has_its_own_body() -> None:
    market = WrittenMarket()
    publisher = Publisher([market])
    topics = [
        TOPIC,
        Topic("ETHUSD", "MBP", 20),
        Topic("BTCUSD", "MBO", 20),
        Topic("BTCUSD", "MBP", 5),
    ]
    assert len({publisher.body(topic, 0.0, 1.0) for topic in topics}) == 4
    assert market.encoded == [("BTCUSD", "MBP", 20), *(tuple(topic) for topic in topics[1:])]


def test_a_forgotten_body_is_made_anew() -> None:
    market = WrittenMarket()
    publisher = Publisher([market])
    publisher.body(TOPIC, 0.0, 1.0)
    publisher.forget(TOPIC)
    publisher.forget(TOPIC)
    publisher.body(TOPIC, 0.0, 1.0)
    assert len(market.encoded) == 2
