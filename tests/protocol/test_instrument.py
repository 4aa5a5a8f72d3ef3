"""Prices and sizes become text without losing a digit."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.instrument import SCALE, Instrument, decimal_text, decimals_of

PRICES = st.integers(-(2**63), 2**63 - 1)
STEPS = st.builds(lambda digit, zeros: digit * 10**zeros, st.integers(1, 999), st.integers(0, 9))


def an_instrument(tick_size: int = 10_000_000, lot_size: int = 100_000) -> Instrument:
    return Instrument("BTCUSD", "SIM", 1, tick_size, lot_size)


@pytest.mark.parametrize(
    ("value", "precision", "text"),
    [
        (0, 0, "0"),
        (0, 2, "0.00"),
        (1, 0, "0.000000001"),
        (-1, 2, "-0.000000001"),
        (5 * SCALE, 0, "5"),
        (5 * SCALE, 3, "5.000"),
        (102_450_000_000, 2, "102.45"),
        (102_400_000_000, 2, "102.40"),
        (102_455_000_000, 2, "102.455"),
        (102_450_000_000, 9, "102.450000000"),
        (-37_630_000_000, 2, "-37.63"),
        (-500_000_000, 1, "-0.5"),
        (2**63 - 1, 0, "9223372036.854775807"),
        (-(2**63), 0, "-9223372036.854775808"),
    ],
)
def test_decimal_text_has_the_precision_and_more_only_where_the_value_needs_it(
    value: int, precision: int, text: str
) -> None:
    assert decimal_text(value, precision) == text


@given(PRICES, st.integers(0, 9))
def test_decimal_text_is_exact(value: int, precision: int) -> None:
    text = decimal_text(value, precision)
    assert Decimal(text).scaleb(9) == value
    assert len(text.partition(".")[2]) >= precision


@pytest.mark.parametrize(
    ("step", "decimals"),
    [
        (1, 9),
        (10, 8),
        (50_000, 5),
        (10_000_000, 2),
        (250_000_000, 2),
        (SCALE, 0),
        (5 * SCALE, 0),
        (1500 * SCALE, 0),
    ],
)
def test_decimals_of_a_step(step: int, decimals: int) -> None:
    assert decimals_of(step) == decimals


@given(STEPS, st.integers(0, 10**9))
def test_no_multiple_of_a_step_needs_more_than_its_decimals(step: int, count: int) -> None:
    fraction = decimal_text(step * count).partition(".")[2]
    assert len(fraction) <= decimals_of(step)


def test_an_instrument_knows_its_precisions() -> None:
    instrument = an_instrument(tick_size=250_000_000, lot_size=100_000)
    assert (instrument.price_precision, instrument.quantity_precision) == (2, 4)


def test_a_quantity_is_lots_times_the_lot_size() -> None:
    assert an_instrument(lot_size=100_000).quantity_text(150) == "0.0150"
    assert an_instrument(lot_size=25 * SCALE).quantity_text(3) == "75"


@given(STEPS, st.lists(PRICES | st.integers(0, 10**6).map(lambda n: n * 10_000_000), max_size=5))
def test_price_texts_are_the_text_of_each_price(tick_size: int, prices: list[int]) -> None:
    instrument = an_instrument(tick_size=tick_size)
    assert instrument.price_texts(prices) == [instrument.price_text(price) for price in prices]


@given(STEPS, st.lists(st.integers(0, 2**64 - 1), max_size=5))
def test_quantity_texts_are_the_text_of_each_size(lot_size: int, sizes: list[int]) -> None:
    instrument = an_instrument(lot_size=lot_size)
    assert instrument.quantity_texts(sizes) == [instrument.quantity_text(size) for size in sizes]


@pytest.mark.parametrize(
    ("symbol", "tick_size", "lot_size", "complaint"),
    [
        ("", 1, 1, "needs a symbol"),
        ("BTCUSD", 0, 1, "BTCUSD: tick size and lot size must be positive"),
        ("BTCUSD", -5, 1, "must be positive"),
        ("BTCUSD", 1, 0, "must be positive"),
    ],
)
def test_an_instrument_without_symbol_or_steps_is_refused(
    symbol: str, tick_size: int, lot_size: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Instrument(symbol, "SIM", 1, tick_size, lot_size)
