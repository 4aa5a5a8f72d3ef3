"""Stored rows as exact text, column by column: made from integers alone, nothing is rounded. None where a side is empty.

Times are RFC 3339 in UTC with nanoseconds, prices and quantities decimals in units of their instrument.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from market_depth.store.rows import Found, shown_levels
from protocol.events import UNDEF_PRICE, Side
from protocol.instrument import Instrument, decimal_text

Text = npt.NDArray[np.object_]

BBO_COLUMNS = (
    *("ts", "symbol", "best_bid_px", "best_bid_sz", "best_ask_px", "best_ask_sz"),
    *("mid", "spread"),
)
TRADE_COLUMNS = ("ts", "symbol", "price", "size", "aggressor")
LEVEL_COLUMNS = ("ts", "symbol", "side", "level", "price", "size", "count")

AGGRESSORS = {int(Side.BID): "bid", int(Side.ASK): "ask"}


def bbo_texts(found: Found) -> dict[str, Text]:
    """BBO_COLUMNS of best bids and offers."""
    rows = found.rows
    columns = {"ts": time_texts(rows["ts_event"]), "symbol": symbol_texts(found)}
    is_there = {side: rows[f"best_{side}_px"] != UNDEF_PRICE for side in ("bid", "ask")}
    for side in ("bid", "ask"):
        price, size = f"best_{side}_px", f"best_{side}_sz"
        columns[price] = texts(found, is_there[side], Instrument.price_texts, rows[price])
        columns[size] = texts(found, is_there[side], Instrument.quantity_texts, rows[size])
    both = is_there["bid"] & is_there["ask"]
    bids, asks = rows["best_bid_px"][both], rows["best_ask_px"][both]
    mids, spreads = (np.full(len(rows), None, object) for _ in range(2))
    precisions = [found.series[key].instrument.price_precision for key in rows["series"][both].tolist()]
    pairs = list(zip(bids.tolist(), asks.tolist(), precisions, strict=True))
    mids[both] = [mid_text(bid, ask, precision) for bid, ask, precision in pairs]
    spreads[both] = [spread_text(ask - bid, precision) for bid, ask, precision in pairs]
    return columns | {"mid": mids, "spread": spreads}


def trade_texts(found: Found) -> dict[str, Text]:
    """TRADE_COLUMNS of trades."""
    rows = found.rows
    everywhere = np.ones(len(rows), bool)
    return {
        "ts": time_texts(rows["ts_event"]),
        "symbol": symbol_texts(found),
        "price": texts(found, everywhere, Instrument.price_texts, rows["price"]),
        "size": texts(found, everywhere, Instrument.quantity_texts, rows["size"]),
        "aggressor": objects(map(AGGRESSORS.get, rows["aggressor"].tolist()), len(rows)),
    }


def level_texts(found: Found) -> dict[str, Text]:
    """LEVEL_COLUMNS of snapshots, a row for each level of each side: of a snapshot first its bids, best first."""
    parts = [side_texts(found, side) for side in ("bid", "ask")]
    order = np.argsort(np.concatenate([place for place, _ in parts]), kind="stable")
    return {name: np.concatenate([columns[name] for _, columns in parts])[order] for name in LEVEL_COLUMNS}


def side_texts(found: Found, side: str) -> tuple[npt.NDArray[np.int64], dict[str, Text]]:
    """The same of one side; and of each row, which snapshot it is of."""
    levels = found.rows[f"{side}s"]
    is_there = np.arange(levels.shape[1]) < shown_levels(levels)[:, None]
    places, numbers = np.nonzero(is_there)
    flat = levels[is_there]
    of_level = Found(found.rows[places], found.positions[places], found.series)
    everywhere = np.ones(len(places), bool)
    return places, {
        "ts": time_texts(of_level.rows["ts_event"]),
        "symbol": symbol_texts(of_level),
        "side": np.full(len(places), side, object),
        "level": objects((str(number + 1) for number in numbers.tolist()), len(places)),
        "price": texts(of_level, everywhere, Instrument.price_texts, flat["price"]),
        "size": texts(of_level, everywhere, Instrument.quantity_texts, flat["size"]),
        "count": objects(map(str, flat["count"].tolist()), len(places)),
    }


def time_texts(ts: npt.NDArray[np.int64]) -> Text:
    """Such as 2026-11-20T16:41:03.000250001Z."""
    times = np.datetime_as_string(ts.astype("datetime64[ns]"), unit="ns")
    return objects((f"{text}Z" for text in times.tolist()), len(ts))


def symbol_texts(found: Found) -> Text:
    """The symbol of each row."""
    symbol_of = {key: series.instrument.symbol for key, series in found.series.items()}
    return objects(map(symbol_of.__getitem__, found.rows["series"].tolist()), len(found))


def texts(
    found: Found,
    is_there: npt.NDArray[np.bool_],
    write: Callable[[Instrument, list[int]], list[str]],
    values: npt.NDArray[np.int64],
) -> Text:
    """Values as their instruments write them."""
    written = np.full(len(values), None, object)
    for key, series in found.series.items():
        places = is_there & (found.rows["series"] == key)
        written[places] = write(series.instrument, values[places].tolist())
    return written


@lru_cache(maxsize=16_384)  # prices come again and again: half the time of a history
def mid_text(bid: int, ask: int, precision: int) -> str:
    """Half way between two prices."""
    if (bid + ask) % 2 == 0:
        return decimal_text((bid + ask) // 2, precision)
    return f"{Decimal(bid + ask).scaleb(-9) / 2:f}"


@lru_cache(maxsize=16_384)
def spread_text(spread: int, precision: int) -> str:
    """The distance of two prices."""
    return decimal_text(spread, precision)


def objects(values: Iterable[Any], count: int) -> Text:
    """Values as an array."""
    return np.fromiter(values, object, count)
