from collections.abc import Mapping
from datetime import date

import pytest
from databento_dbn import SType

from market_depth.feeds.dbn_instruments import (
    ids_in,
    inferred_tick_sizes,
    instruments_in,
    mapped_symbols,
)
from protocol.events import UNDEF_PRICE
from protocol.instrument import SCALE, Instrument
from tests.market_depth.feeds.dbn_files import DAY, NEXT_DAY, Intervals, adds, metadata

LATER = date(2023, 11, 20)


@pytest.mark.parametrize(
    ("prices", "tick_size"),
    [
        ([65.40, 64.78, 64.81], 0.01),
        ([152.95, 154.535], 0.005),
        ([4799.00, 4799.50, 4800.25], 0.25),
        ([110.015625, 110.03125], 0.015625),
        ([-0.25, 0.5], 0.25),
        ([3720.25], 0.01),
        ([100, 200], 1),
        ([-1.5], 0.1),
        ([0, 3.25, 3.5], 0.25),
    ],
)
def test_tick_size_is_the_coarsest_step_that_fits_all_prices(prices: list[float], tick_size: float) -> None:
    events = adds(len(prices) + 1)
    events["price"] = [*(round(price * SCALE) for price in prices), UNDEF_PRICE]
    assert inferred_tick_sizes(events) == {7: round(tick_size * SCALE)}


def test_without_prices_there_is_no_tick_size() -> None:
    events = adds(2)
    events["price"] = [0, UNDEF_PRICE]
    assert inferred_tick_sizes(events) == {7: None}
    assert inferred_tick_sizes(events[:0]) == {}


@pytest.mark.parametrize("ids", [[], [5], [5, 5], [2, 9, 9, 2, 2, 1, 4_000_000_000], [7, 7, 7, 6]])
def test_ids_are_told_once_ascending(ids: list[int]) -> None:
    events = adds(len(ids))
    events["instrument_id"] = ids
    assert ids_in(events) == sorted(set(ids))


def test_each_instrument_has_its_own_tick_size_and_one_without_prices_gets_a_step_that_fits_the_others() -> (
    None
):
    events = adds(6, instrument_ids=(7, 8, 9))
    events["price"] = [round(price * SCALE) for price in (1.25, 2.5, 0, 1.5, 2.75, 0)]
    events["price"][1::3] = [2 * SCALE // 5, SCALE // 5]
    assert instruments_in({9: "NONE", 7: "QUARTERS"}, "TEST.MBO", events) == (
        Instrument("NONE", "TEST.MBO", 9, SCALE // 20),
        Instrument("QUARTERS", "TEST.MBO", 7, SCALE // 4),
        Instrument("8", "TEST.MBO", 8, SCALE // 5),
    )
    assert instruments_in({1: "X"}, "TEST.MBO", events[:0]) == (Instrument("X", "TEST.MBO", 1, SCALE // 100),)


def test_a_symbol_of_several_ids_stays_with_the_first_and_names_the_others_by_id() -> None:
    symbols = {5: "A", 6: "A", 7: "B", 8: "A#6"}
    instruments = instruments_in(symbols, "TEST.MBO", adds(0))
    assert [instrument.symbol for instrument in instruments] == ["A", "A#6", "B", "A#6#8"]


@pytest.mark.parametrize(
    ("mappings", "stype_in", "stype_out", "symbols"),
    [
        ({"ACME": [(DAY, NEXT_DAY, "7")]}, SType.RAW_SYMBOL, SType.INSTRUMENT_ID, {7: "ACME"}),
        ({"7": [(DAY, NEXT_DAY, "ACME")]}, SType.INSTRUMENT_ID, SType.RAW_SYMBOL, {7: "ACME"}),
        ({"7203": [(DAY, NEXT_DAY, "5")]}, SType.RAW_SYMBOL, SType.INSTRUMENT_ID, {5: "7203"}),
        (
            {"B": [(DAY, NEXT_DAY, "2")], "A": [(DAY, NEXT_DAY, "3"), (NEXT_DAY, LATER, "1")]},
            SType.RAW_SYMBOL,
            SType.INSTRUMENT_ID,
            {3: "A", 2: "B", 1: "A"},
        ),
        (
            {"OLD": [(DAY, NEXT_DAY, "1")], "NEW": [(NEXT_DAY, LATER, "1")]},
            SType.RAW_SYMBOL,
            SType.INSTRUMENT_ID,
            {1: "OLD"},
        ),
        (
            {
                "GONE": [(DAY, NEXT_DAY, "")],
                "HUGE": [(DAY, NEXT_DAY, "4294967296")],
                "ODD": [(DAY, NEXT_DAY, "x")],
            },
            SType.RAW_SYMBOL,
            SType.INSTRUMENT_ID,
            {},
        ),
        ({"ES.c.0": [(DAY, NEXT_DAY, "ESZ3")]}, SType.CONTINUOUS, SType.RAW_SYMBOL, {}),
        ({}, None, SType.INSTRUMENT_ID, {}),
    ],
    ids=[
        "by symbol",
        "by id",
        "numeric symbol",
        "ids change",
        "id given away again",
        "no id",
        "no ids",
        "live",
    ],
)
def test_symbols_come_from_the_mappings_valid_when_the_file_begins_first(
    mappings: Mapping[str, Intervals], stype_in: SType | None, stype_out: SType, symbols: dict[int, str]
) -> None:
    header = metadata(mappings=mappings, stype_in=stype_in, stype_out=stype_out)
    assert list(mapped_symbols(header).items()) == list(symbols.items())
