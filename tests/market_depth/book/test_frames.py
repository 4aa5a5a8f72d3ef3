"""Price levels as text, made in the kernel: byte for byte what the codec makes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.book.engine import BookEngine
from market_depth.book.frames import frame_text, price_levels_frame
from market_depth.book.views import price_levels
from protocol.codecs import price_levels_text
from protocol.events import Side
from protocol.instrument import Instrument
from simulator.listings import listing
from simulator.scenarios import SCENARIOS
from simulator.venue import Venue


def instrument_with(tick_size: int, lot_size: int) -> Instrument:
    return Instrument(symbol="X", venue="TEST", instrument_id=1, tick_size=tick_size, lot_size=lot_size)


STEPS = [1, 5, 10, 25_000, 10**7, 250_000_000, 10**9, 5 * 10**9, 1_234_567_891]
PRICES = st.one_of(
    st.sampled_from([0, 1, -1, 10**9, -(10**9), 102_450_000_000, 2**63 - 2, -(2**63) + 1]),
    st.integers(-(2**63) + 1, 2**63 - 2),
    st.integers(-(10**6), 10**6).map(lambda ticks: ticks * 10**7),
)
LEVELS = st.lists(st.tuples(PRICES, st.integers(1, 2**40), st.integers(1, 2**31 - 1)), max_size=4)


@given(LEVELS, LEVELS, st.sampled_from(STEPS), st.sampled_from(STEPS))
def test_any_levels_are_what_the_codec_writes(
    bids: list[tuple[int, int, int]], asks: list[tuple[int, int, int]], tick_size: int, lot_size: int
) -> None:
    sides = [np.array(side, np.int64).reshape(-1, 3) for side in (bids, asks)]
    instrument = instrument_with(tick_size, lot_size)

    assert frame_text(instrument, *sides) == price_levels_text(instrument, *sides)


@pytest.mark.parametrize("size", [2**32 - 1, 2**53 + 1, 2**62, 2**63 - 1])
def test_quantities_beyond_64_bits_are_exact(size: int) -> None:
    levels = np.array([(5, size, 1), (4, size, 1), (3, size, 1)])
    instrument = instrument_with(1, 1_234_567_891)

    assert frame_text(instrument, levels, levels) == price_levels_text(instrument, levels, levels)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_simulated_market_is_what_the_codec_writes(name: str) -> None:
    venue = Venue(listing("ADAUSD"), SCENARIOS[name], 1, 1_700_000_000 * 10**9)
    engine = BookEngine()
    engine.apply(venue.open())
    for depth in (0, 1, 10, 50, 10_000):
        engine.apply(venue.run(100))
        sides = [
            price_levels(engine, venue.instrument.instrument_id, side, depth) for side in (Side.BID, Side.ASK)
        ]

        frame = price_levels_frame(engine, venue.instrument, depth)

        assert frame == price_levels_text(venue.instrument, *sides)


def test_an_instrument_without_events_has_an_empty_frame() -> None:
    assert (
        price_levels_frame(BookEngine(), instrument_with(1, 1), 20) == '{"format":"MBP","bids":[],"asks":[]}'
    )
