"""What the venue lists, and what it makes of names it does not know."""

import pytest

from simulator.errors import MalformedSymbolError, SimulatorError
from simulator.listings import FIRST_UNLISTED_ID, LISTINGS, listing


def test_the_default_symbols_are_listed_in_their_order() -> None:
    assert list(LISTINGS)[:3] == ["BTCUSD", "ETHUSD", "ADAUSD"]


def test_every_listing_has_an_id_of_its_own() -> None:
    ids = [entry.instrument.instrument_id for entry in LISTINGS.values()]
    assert len(set(ids)) == len(ids)
    assert max(ids) < FIRST_UNLISTED_ID


@pytest.mark.parametrize("symbol", [*LISTINGS, "DOGEUSD", "A", "ES.FUT", "BINANCE:BTC/USDT-PERP_2"])
def test_an_opening_price_is_a_multiple_of_the_tick_far_from_zero(symbol: str) -> None:
    entry = listing(symbol)
    assert entry.symbol == symbol
    assert entry.instrument.venue == "SIM"
    ticks, remainder = divmod(entry.opening_price, entry.instrument.tick_size)
    assert remainder == 0
    assert ticks >= 2_000
    assert entry.typical_size > 0


def test_an_unlisted_symbol_gets_the_same_listing_every_time() -> None:
    # Written out, so that a change of the drawing, or of the machine, shows.
    entry = listing("DOGEUSD")
    assert entry == listing("DOGEUSD")
    assert (entry.instrument.instrument_id, entry.instrument.tick_size, entry.opening_price) == (
        528448958,
        10_000_000,
        249_300_000_000,
    )


def test_unlisted_symbols_differ() -> None:
    entries = [listing(f"S{number}") for number in range(200)]
    assert len({entry.instrument.instrument_id for entry in entries}) == 200
    assert len({entry.opening_price for entry in entries}) > 150


@pytest.mark.parametrize("symbol", ["", "btcusd", "BTC USD", "BTC\n", "A" * 33, "BTC€", "$"])
def test_a_malformed_symbol_is_refused(symbol: str) -> None:
    with pytest.raises(MalformedSymbolError, match="malformed") as caught:
        listing(symbol)
    assert caught.value.symbol == symbol
    assert isinstance(caught.value, SimulatorError)
