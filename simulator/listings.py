"""The instruments that the simulated venue lists, and a plausible listing for any other well-formed symbol."""

import re
import zlib
from dataclasses import dataclass

from protocol.instrument import SCALE, Instrument
from simulator.errors import MalformedSymbolError

VENUE = "SIM"

SYMBOL_PATTERN = re.compile(r"[A-Z0-9._:/-]{1,32}")

FIRST_UNLISTED_ID = 1 << 20
"""Instrument ids below belong to the table; ids drawn from a name lie between here and 2**31."""


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument with what the venue needs to open it: the first price (1e-9) and a usual order's size (lots)."""

    instrument: Instrument
    opening_price: int
    typical_size: int

    @property
    def symbol(self) -> str:
        return self.instrument.symbol


def _listed(
    instrument_id: int, symbol: str, opening_price: str, tick_size: str, lot_size: str, typical_size: int
) -> Listing:
    return Listing(
        Instrument(symbol, VENUE, instrument_id, _scaled(tick_size), _scaled(lot_size)),
        _scaled(opening_price),
        typical_size,
    )


def _scaled(text: str) -> int:
    whole, _, decimals = text.partition(".")
    return int(whole) * SCALE + int(decimals.ljust(9, "0") or "0")


# Ticks are a realistic share of the price (0.1 to 2.5 basis points), so that spreads of one to three ticks look
# like the market each instrument is named after. Ids are written out: they are part of every recording.
LISTINGS: dict[str, Listing] = {
    listing.symbol: listing
    for listing in (
        _listed(1, "BTCUSD", "64250.0", "0.5", "0.0001", 850),
        _listed(2, "ETHUSD", "3120.50", "0.05", "0.001", 1400),
        _listed(3, "ADAUSD", "0.45120", "0.00001", "1", 2600),
        _listed(4, "SOLUSD", "148.35", "0.01", "0.01", 1900),
        _listed(5, "XRPUSD", "0.52340", "0.00001", "1", 3200),
        _listed(6, "EURUSD", "1.08450", "0.00001", "1000", 900),
        _listed(7, "AAPL", "187.42", "0.01", "1", 140),
        _listed(8, "ES-FUT", "5432.25", "0.25", "1", 6),
        _listed(9, "CL-FUT", "71.36", "0.01", "1", 9),
    )
}
"""Every instrument with a listing of its own, by symbol."""

# What an unlisted symbol may turn out to be: tick size, lot size, usual order in lots, fewest and most ticks of the
# opening price. The steps go together as they do on real venues.
_KINDS = (
    ("0.01", "1", 120, 2_000, 60_000),  # like a share
    ("0.25", "1", 8, 8_000, 40_000),  # like a future
    ("0.0001", "1", 2_400, 5_000, 90_000),  # like a small coin
    ("0.01", "0.001", 950, 5_000, 90_000),  # like a large coin
)


def listing(symbol: str) -> Listing:
    """The listing of `symbol`: from the table, or else drawn from the name alone, the same on every machine.

    Raises: MalformedSymbolError unless the name is 1 to 32 characters of `A-Z 0-9 . _ : / -`.
    """
    if not SYMBOL_PATTERN.fullmatch(symbol):
        raise MalformedSymbolError(symbol)
    return LISTINGS.get(symbol) or _drawn(symbol)


def _drawn(symbol: str) -> Listing:
    # CRC32 and not hash(): Python's own string hash differs from process to process.
    name = zlib.crc32(symbol.encode())
    instrument_id = FIRST_UNLISTED_ID + name % (2**31 - FIRST_UNLISTED_ID)
    draw = zlib.crc32(symbol[::-1].encode(), name)
    tick_text, lot_text, typical_size, fewest_ticks, most_ticks = _KINDS[draw % len(_KINDS)]
    tick_size = _scaled(tick_text)
    opening_price = tick_size * (fewest_ticks + draw // len(_KINDS) % (most_ticks - fewest_ticks))
    return Listing(
        Instrument(symbol, VENUE, instrument_id, tick_size, _scaled(lot_text)), opening_price, typical_size
    )
