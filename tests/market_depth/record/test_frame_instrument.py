from decimal import Decimal

import pytest

from market_depth.record.frame_instrument import instrument_in, scaled
from protocol.codecs import decode_answer
from protocol.instrument import SCALE, Instrument
from protocol.messages import MarketData
from tests.market_depth.record.frames import Resting, book, frame_of


def frame_with(orders: list[tuple[str, str]]) -> MarketData:
    """A frame of bids with these prices and quantities, as they stand in JSON."""
    text = ",".join(
        f'{{"order_id":"{number}","price":{price},"quantity":{quantity},"side":"Bid","timestamp":"","age_ms":0}}'
        for number, (price, quantity) in enumerate(orders)
    )
    frame = decode_answer(
        f'{{"type":"MarketData","stream_id":"a","symbol":"X","sequence":1,"timestamp":"","data":{{"format":"MBO","bids":[{text}],"asks":[]}}}}'
    )
    assert isinstance(frame, MarketData)
    return frame


@pytest.mark.parametrize(
    ("orders", "tick_size", "lot_size"),
    [
        ([], "0.01", "1"),
        ([("64249.0", "7.2624"), ("64248.5", "4.0000")], "0.5", "0.0001"),
        ([("64.81", "3"), ("64.80", "200")], "0.01", "1"),
        ([("0.4512", "10"), ("0.4510", "10")], "0.0002", "1"),
        # What one price is a multiple of says little.
        ([("64.75", "1")], "0.01", "1"),
        ([("100.00", "1"), ("102.00", "1")], "0.01", "1"),
        ([("4800", "1"), ("4750", "1")], "1", "1"),
        ([("-0.5", "1"), ("0.0", "1")], "0.5", "1"),
        ([("0.0", "1")], "0.1", "1"),
        ([("1e3", "2e1")], "1", "1"),
        ([("1e999999", "1e-999999")], "1", "0.000000001"),
    ],
)
def test_steps_are_those_that_the_numbers_are_printed_with(
    orders: list[tuple[str, str]], tick_size: str, lot_size: str
) -> None:
    steps = (int(Decimal(tick_size) * SCALE), int(Decimal(lot_size) * SCALE))
    assert instrument_in(frame_with(orders), "SERVER", 3) == Instrument("X", "SERVER", 3, *steps)


@pytest.mark.parametrize(
    "tick_size", [SCALE, SCALE // 2, SCALE // 4, SCALE // 100, SCALE // 10**5, 5 * SCALE]
)
@pytest.mark.parametrize("lot_size", [SCALE, SCALE // 10**4, 1, 50 * SCALE, SCALE // 20])
def test_every_price_and_size_of_an_instrument_is_whole_in_the_steps_that_its_frame_tells(
    tick_size: int, lot_size: int
) -> None:
    instrument = Instrument("ACME", "TEST", 7, tick_size, lot_size)
    sides = book(Resting(1, -2, 30), Resting(2, -1, 7), Resting(3, 3, 1))
    for side in sides:
        side["price"] = side["price"] // (SCALE // 4) * tick_size
    told = instrument_in(frame_of(*sides, 1, 0, instrument), "SERVER", 7)
    assert told.price_precision == instrument.price_precision
    assert told.quantity_precision == instrument.quantity_precision
    assert tick_size % told.tick_size == lot_size % told.lot_size == 0


@pytest.mark.parametrize(
    ("number", "price"),
    [
        ("102.45", 102_450_000_000),
        ("-0.000000001", -1),
        ("9223372036.854775806", 2**63 - 2),
        ("9223372036.854775807", None),
        ("0.0000000001", None),
        ("1e999999999", None),
        ("NaN", None),
        ("Infinity", None),
    ],
)
def test_a_number_is_scaled_exactly_or_not_at_all(number: str, price: int | None) -> None:
    assert scaled(Decimal(number)) == price
