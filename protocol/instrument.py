"""What trades, where, and in which steps: instruments, and exact decimal text for their prices and sizes.

Inside, a price is an integer of 1e-9 (DBN's scale) and a size an integer number of lots. Text is made once, at
the edge, from integers alone: no binary fraction ever stands between a venue's price and a client's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

SCALE = 1_000_000_000
"""How many units of a scaled integer make one: prices, tick sizes and lot sizes are integers of 1e-9."""

SCALE_DIGITS = 9


def decimal_text(value: int, precision: int = 0) -> str:
    """The number `value` × 1e-9 as exact decimal text with at least `precision` decimals.

    More decimals appear only when the value needs them, so nothing is ever rounded:
    `decimal_text(102_450_000_000, 2)` is `"102.45"`, `decimal_text(102_455_000_000, 2)` is `"102.455"`.
    """
    whole, fraction = divmod(abs(value), SCALE)
    sign = "-" if value < 0 else ""
    if fraction == 0:
        return f"{sign}{whole}.{'0' * precision}" if precision else f"{sign}{whole}"
    decimals = f"{fraction:09d}".rstrip("0").ljust(precision, "0")
    return f"{sign}{whole}.{decimals}"


@cache  # there are as many as distinct steps, and every printed column asks
def decimals_of(step: int) -> int:
    """How many decimals a multiple of `step` (1e-9) can have: 2 for a step of 0.01 or 0.25, 0 for 5."""
    digits = SCALE_DIGITS
    while digits and step % 10 == 0:
        step //= 10
        digits -= 1
    return digits


@dataclass(frozen=True, slots=True)
class Instrument:
    """One tradable thing at one venue, with the steps its prices and sizes move in.

    `tick_size` and `lot_size` are integers of 1e-9: a price is a multiple of the tick size, and a size of
    `n` in an event is a quantity of `n * lot_size` units.
    """

    symbol: str
    venue: str
    instrument_id: int
    tick_size: int
    lot_size: int = SCALE

    def __post_init__(self) -> None:
        if not self.symbol:
            raise ValueError("an instrument needs a symbol")
        if self.tick_size <= 0 or self.lot_size <= 0:
            raise ValueError(f"{self.symbol}: tick size and lot size must be positive")

    @property
    def price_precision(self) -> int:
        """Decimals of a price that is a multiple of the tick size."""
        return decimals_of(self.tick_size)

    @property
    def quantity_precision(self) -> int:
        """Decimals of a quantity that is a multiple of the lot size."""
        return decimals_of(self.lot_size)

    def price_text(self, price: int) -> str:
        """`price` (1e-9) as exact decimal text, e.g. `"102.45"`."""
        return decimal_text(price, self.price_precision)

    def quantity_text(self, size: int) -> str:
        """`size` (lots) as an exact quantity in units, e.g. `"0.0150"` for 150 lots of 0.0001."""
        return decimal_text(size * self.lot_size, self.quantity_precision)

    # A column of a book at once: 0.25 µs a number, where the two methods above take 1 µs each time.

    def price_texts(self, prices: Sequence[int]) -> list[str]:
        """`price_text` of each price."""
        precision = self.price_precision
        unit = 10 ** (SCALE_DIGITS - precision)
        # Spreads trade below zero, and odd venues between two ticks: rare enough to send their column the slow way.
        if any(price < 0 or price % unit for price in prices):
            return [decimal_text(price, precision) for price in prices]
        return _fixed_point_texts([price // unit for price in prices], precision)

    def quantity_texts(self, sizes: Iterable[int]) -> list[str]:
        """`quantity_text` of each size, none of which may be negative."""
        precision = self.quantity_precision
        units_per_lot = self.lot_size // 10 ** (SCALE_DIGITS - precision)
        return _fixed_point_texts([size * units_per_lot for size in sizes], precision)


def _fixed_point_texts(values: Iterable[int], precision: int) -> list[str]:
    """Each of `values` × 10^-precision with exactly `precision` decimals; none may be negative."""
    if precision == 0:
        return list(map(str, values))
    pattern, one = f"%d.%0{precision}d", 10**precision
    return [pattern % divmod(value, one) for value in values]
