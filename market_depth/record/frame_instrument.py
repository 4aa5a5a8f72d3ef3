"""What a frame of a book tells in decimals, in the integers of DBN: prices, and the steps of its instrument."""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException, Inexact, InvalidOperation, Overflow
from math import gcd

from protocol.events import UNDEF_PRICE
from protocol.instrument import SCALE, SCALE_DIGITS, Instrument, decimals_of
from protocol.messages import MarketData

UNSEEN_TICK_SIZE = SCALE // 100
"""Of an instrument whose first frame shows no order."""

MAX_PRICE = UNDEF_PRICE - 1

_EXACT = Context(28, ROUND_HALF_EVEN, traps=[Inexact, InvalidOperation, Overflow])


def scaled(number: Decimal) -> int | None:
    """`number` in 1e-9; None where that is no whole number, or too large for a price."""
    try:
        product = _EXACT.multiply(number, SCALE)
        # Without this check a number of a few characters could become an integer of a million digits.
        return int(_EXACT.to_integral_exact(product)) if abs(product) <= MAX_PRICE else None
    except DecimalException:
        return None


def instrument_in(frame: MarketData, venue: str, instrument_id: int) -> Instrument:
    """The instrument of a frame: the base protocol does not tell its steps.

    Its lot size is 1 of the last decimal that the frame prints, as a server prints all that there can be. Its tick size
    is the largest step with as many decimals that fits all prices of the frame. Of an empty book: 0.01, and lots of 1.
    """
    shown = [*frame.data.bids, *frame.data.asks]
    lot_size = _step(order.quantity for order in shown) or SCALE
    tick_size = _tick_size([order.price for order in shown])
    return Instrument(frame.symbol, venue, instrument_id, tick_size or UNSEEN_TICK_SIZE, lot_size)


def _tick_size(prices: list[Decimal]) -> int:
    printed = _step(prices)
    if not printed:
        return 0
    # One of a few prices is a multiple of much: a step that needs fewer decimals than are printed is too large.
    fitting = gcd(*(scaled(price) or 0 for price in prices))
    return fitting if 0 < fitting < SCALE and decimals_of(fitting) == decimals_of(printed) else printed


def _step(numbers: Iterable[Decimal]) -> int:
    """The last decimal that any of these numbers has, in 1e-9; 0 if there are none."""
    exponents = [exponent for number in numbers if isinstance(exponent := number.as_tuple().exponent, int)]
    return 10 ** (SCALE_DIGITS + max(-SCALE_DIGITS, min(0, *exponents))) if exponents else 0
