"""Two books must agree: the simulated venue's own, and the engine's, rebuilt from what the venue published.

They share no code. After every batch they have the same levels and the same orders in the same queues, each as old,
and the invariants of a simulated market hold: neither crossed nor locked, no side empty.
"""

import pytest

from market_depth.book.engine import BookEngine
from market_depth.book.views import best_bid_offer, price_levels, resting_orders
from protocol.events import Side
from simulator.listings import listing
from simulator.scenarios import SCENARIOS
from simulator.venue import Venue
from tests.market_depth.book.written_events import ALL

SYMBOL = "BTCUSD"
START_NS = 1_700_000_000 * 10**9


def assert_same_book(engine: BookEngine, venue: Venue, seed: int) -> None:
    instrument_id = venue.instrument.instrument_id
    for side in (Side.BID, Side.ASK):
        levels = [tuple(level) for level in price_levels(engine, instrument_id, side, ALL).tolist()]
        assert levels == venue.book.levels(side), f"seed {seed}"
        queue = [
            (order.order_id, order.price, order.size, order.ts_event) for order in venue.book.orders(side)
        ]
        assert resting_orders(engine, instrument_id, side, ALL).tolist() == queue, f"seed {seed}"
    top = best_bid_offer(engine, instrument_id)
    assert top.bid is not None
    assert top.ask is not None
    assert top.bid.price < top.ask.price, f"seed {seed}"


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", SCENARIOS)
def test_engine_and_venue_agree_after_every_batch(name: str, seed: int) -> None:
    venue = Venue(listing(SYMBOL), SCENARIOS[name], seed, START_NS)
    engine = BookEngine()
    engine.apply(venue.open())
    assert_same_book(engine, venue, seed)

    for count in (1, 2, 3, 10, 100, 1_000, 1_000, 1_000):
        engine.apply(venue.run(count))
        assert_same_book(engine, venue, seed)

    counters = engine.counters
    assert (counters.unknown_orders, counters.duplicate_orders, counters.invalid_events) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3, 8))
@pytest.mark.parametrize("name", SCENARIOS)
def test_engine_and_venue_agree_for_long(name: str, seed: int) -> None:
    venue = Venue(listing(SYMBOL), SCENARIOS[name], seed, START_NS)
    engine = BookEngine()
    engine.apply(venue.open())

    for _ in range(100):
        engine.apply(venue.run(2_000))
        assert_same_book(engine, venue, seed)


def test_several_symbols_share_an_engine() -> None:
    venues = [
        Venue(listing(symbol), SCENARIOS["busy"], 1, START_NS) for symbol in ("BTCUSD", "ETHUSD", "ADAUSD")
    ]
    engine = BookEngine()
    for venue in venues:
        engine.apply(venue.open())

    for _ in range(5):
        for venue in venues:
            engine.apply(venue.run(300))

    for venue in venues:
        assert_same_book(engine, venue, seed=1)
