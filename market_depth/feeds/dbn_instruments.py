"""What trades in a DBN file: symbols from its mappings, tick sizes from its prices."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from math import gcd

import numpy as np
import numpy.typing as npt
from databento_dbn import Metadata, SType

from protocol.events import UNDEF_PRICE, OrderEvents
from protocol.instrument import SCALE, SCALE_DIGITS, Instrument, decimals_of

NO_PRICES_TICK_SIZE = SCALE // 100
MAX_INSTRUMENT_ID = 2**32 - 1
BY_ID = str(SType.INSTRUMENT_ID)


def instruments_in(
    symbols: Mapping[int, str], venue: str, events: OrderEvents, *, taken: Collection[str] = ()
) -> tuple[Instrument, ...]:
    """The instruments that `symbols` (by id) names, in its order, then those that only `events` have, by id.

    An id without a symbol is its own symbol. Where several ids share a symbol, the first keeps it (if it is not one of
    those `taken` before) and the others are called `SYMBOL#ID`. Tick sizes are inferred from the prices in `events`; an
    instrument without prices gets the step that fits all the others, and 0.01 if there are none. The lot size is 1.
    """
    tick_sizes = inferred_tick_sizes(events)
    other_tick_size = gcd(*filter(None, tick_sizes.values())) or NO_PRICES_TICK_SIZE
    unnamed = (i for i in tick_sizes if i not in symbols)
    id_of: dict[str, int] = {}
    for instrument_id, symbol in [*symbols.items(), *((i, str(i)) for i in unnamed)]:
        distinct = symbol
        while distinct in id_of or distinct in taken:
            distinct = f"{distinct}#{instrument_id}"
        id_of[distinct] = instrument_id
    return tuple(
        Instrument(symbol, venue, instrument_id, tick_sizes.get(instrument_id) or other_tick_size)
        for symbol, instrument_id in id_of.items()
    )


def mapped_symbols(metadata: Metadata) -> dict[int, str]:
    """The symbol of every instrument id in a file's metadata; by symbol, those valid when the file begins first.

    An id may stand for several symbols (it was given away again, or was asked for under two names): it gets the one
    valid when the file begins, else the first of them in the alphabet.
    """
    begin = datetime.fromtimestamp(metadata.start // 1_000_000_000, UTC).date()
    valid: dict[int, str] = {}
    others: dict[int, str] = {}
    for asked, intervals in sorted(
        metadata.mappings.items()
    ):  # the decoder's own order changes from run to run
        for interval in intervals:
            if str(metadata.stype_out) == BY_ID:
                id_text, symbol = interval["symbol"], asked
            elif str(metadata.stype_in) == BY_ID:
                id_text, symbol = asked, interval["symbol"]
            else:
                continue
            if not symbol or not id_text.isdecimal() or int(id_text) > MAX_INSTRUMENT_ID:
                continue
            chosen = valid if interval["start_date"] <= begin < interval["end_date"] else others
            chosen.setdefault(int(id_text), symbol)
    return valid | {
        instrument_id: symbol for instrument_id, symbol in others.items() if instrument_id not in valid
    }


def ids_in(events: OrderEvents) -> list[int]:
    """The instrument ids of `events`, ascending."""
    ids = events["instrument_id"]
    # The heads of runs first: of one instrument's events, that takes a sixth of the time. Not by np.unique, which at
    # its first call loads numpy.ma for 10 ms.
    heads = np.sort(ids[_run_starts(ids)])
    return [int(i) for i in heads[_run_starts(heads)]]


def inferred_tick_sizes(events: OrderEvents) -> dict[int, int | None]:
    """The coarsest step (1e-9) that all prices of an instrument are multiples of, by instrument id, ascending.

    None where it has no prices. DBN's order records do not carry the tick size. A step above 1 says that few prices
    were seen and not how they move, so it gives way to the power of ten that their decimals need: 0.01 for the one
    price 3720.25.
    """
    if not len(events):
        return {}
    # By column: picking whole rows takes three times as long.
    ids, prices = events["instrument_id"], events["price"]
    starts = _run_starts(ids)
    if len(starts) > 1:
        order = np.argsort(ids, kind="stable")
        ids, prices = ids[order], prices[order]
        starts = _run_starts(ids)
    prices = np.where(prices == UNDEF_PRICE, 0, prices)  # every step fits 0
    steps: npt.NDArray[np.int64] = np.gcd.reduceat(prices, starts)
    return dict(zip(ids[starts].tolist(), map(_tick_size, steps.tolist()), strict=True))


def _run_starts(ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    """Where in `ids` an id stands that is not the one before."""
    return np.flatnonzero(np.append(True, ids[1:] != ids[:-1])[: len(ids)])


def _tick_size(step: int) -> int | None:
    step = abs(step)
    if step <= SCALE:
        return step or None
    return int(10 ** (SCALE_DIGITS - decimals_of(step)))
