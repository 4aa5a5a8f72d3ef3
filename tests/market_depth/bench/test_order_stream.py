import numpy as np

from market_depth.bench.order_stream import FIRST_INSTRUMENT, order_stream
from market_depth.book.engine import BookEngine
from market_depth.book.views import best_bid_offer
from protocol.events import Action


def test_one_seed_gives_one_stream() -> None:
    assert order_stream(1, 500, 3).tobytes() == order_stream(1, 500, 3).tobytes()
    assert order_stream(1, 500, 3).tobytes() != order_stream(2, 500, 3).tobytes()


def test_every_event_finds_its_order() -> None:
    engine = BookEngine()

    engine.apply(order_stream(1, 20_000, 5))

    counters = engine.counters
    assert counters.events == 20_000
    assert (counters.unknown_orders, counters.duplicate_orders, counters.invalid_events) == (0, 0, 0)
    assert set(engine.instruments()) == set(range(FIRST_INSTRUMENT, FIRST_INSTRUMENT + 5))
    for instrument_id in engine.instruments():
        top = best_bid_offer(engine, instrument_id)
        assert top.bid is not None
        assert top.ask is not None
        assert top.bid.price < top.ask.price


def test_a_fill_stands_between_its_trade_and_its_cancel() -> None:
    events = order_stream(1, 5_000, 1)

    (fills,) = np.nonzero(events["action"][1:-1] == Action.FILL)
    before, after = events[fills], events[fills + 2]

    assert len(fills) > 50
    assert (before["action"] == Action.TRADE).all()
    assert (after["action"] == Action.CANCEL).all()
    assert (after["order_id"] == events["order_id"][fills + 1]).all()
