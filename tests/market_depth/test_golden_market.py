"""The whole line from a seed to a client's frame: the same bytes on every run.

A change of the simulated flow changes these files too: `pytest --regenerate-golden` writes them anew.
"""

import pytest

from market_depth.book.engine import BookEngine
from market_depth.stream.market import Market
from market_depth.stream.publisher import Publisher, Topic
from protocol.codecs import decode_answer, market_data_head
from protocol.messages import DataType, MarketData
from protocol.timestamp import NS_PER_S
from simulator.listings import listing
from simulator.scenarios import SCENARIOS
from simulator.venue import Venue
from tests.conftest import Golden

SEED = 7
START_NS = 1_795_193_263 * NS_PER_S  # 2026-11-20T16:47:43Z
MINUTE_NS = 60 * NS_PER_S


@pytest.fixture
def publisher() -> Publisher:
    """What the server would send one minute after the opening of a busy BTCUSD."""
    venue = Venue(listing("BTCUSD"), SCENARIOS["busy"], SEED, START_NS)
    market = Market([venue.instrument], market_time=lambda: venue.now_ns)
    market.warm(BookEngine())
    market.apply(venue.open())
    market.apply(venue.advance(START_NS + MINUTE_NS))
    market.open()
    return Publisher([market])


@pytest.mark.parametrize(("data_type", "max_levels"), [("MBP", 20), ("MBO", 5)])
def test_a_seed_and_a_clock_give_the_same_frame_byte_for_byte(
    publisher: Publisher, golden: Golden, data_type: DataType, max_levels: int
) -> None:
    body = publisher.body(Topic("BTCUSD", data_type, max_levels), now=0.0, max_age_s=0.0)
    assert body is not None
    frame = market_data_head("btc") + body
    golden(f"btcusd_{data_type.lower()}.json", frame)

    message = decode_answer(frame)
    assert isinstance(message, MarketData)
    assert message.timestamp == "2026-11-20T16:48:43.000000Z"
    for side in (message.data.bids, message.data.asks):
        assert len({level.price for level in side}) == max_levels
    assert message.data.bids[0].price < message.data.asks[0].price
