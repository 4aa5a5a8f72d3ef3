"""Other order books, measured on the same events in the same run: one in C++, and those of packages where installed.

Each keeps one book whatever the instruments are. The C++ book is a source file with a C interface:

    uint64_t t_apply(const int64_t *events, int64_t count, uint32_t *ticks);   // ticks of each event, unless null
    uint64_t t_json(const int64_t *events, int64_t count);                     // also a JSON text for each event

An event is seven 64-bit words, DBN's MBO record.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from market_depth.bench.errors import BenchError, BenchOptionError
from protocol.events import UNDEF_PRICE, Action, Side

if TYPE_CHECKING:
    from protocol.events import OrderEvents

NAUTILUS_BATCH = 50_000
"""So many events at a time are made Python objects before the clock runs."""

PRICE_DIGITS = 9


class CppBook:
    """A C++ book, compiled from its source by the machine's compiler."""

    def __init__(self, source: Path) -> None:
        """Raises: BenchError without a source, without a compiler, or when it does not compile."""
        compiler = shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            raise BenchError("a C++ book needs g++ or clang++")
        if not source.is_file():
            raise BenchOptionError(f"there is no C++ book at {source}")
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "book.so"
            options = ["-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(source)]
            compiled = subprocess.run([compiler, *options], capture_output=True, text=True, check=False)  # noqa: S603
            if compiled.returncode:
                raise BenchError(f"{source} does not compile: {compiled.stderr.strip().splitlines()[0]}")
            functions = ctypes.CDLL(str(library))
        try:
            self._apply, self._json = functions.t_apply, functions.t_json
        except AttributeError as error:
            raise BenchError(f"{source} is no C++ book: {error}") from None
        self._apply.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
        self._json.argtypes = [ctypes.c_void_p, ctypes.c_int64]
        self._apply.restype = self._json.restype = ctypes.c_uint64

    def apply_s(self, events: OrderEvents) -> float:
        """CPU time to apply all events."""
        began_s = time.process_time()
        self._apply(events.ctypes.data, len(events), None)
        return time.process_time() - began_s

    def json_s(self, events: OrderEvents) -> float:
        """CPU time to apply all events, with a JSON text after each."""
        began_s = time.process_time()
        self._json(events.ctypes.data, len(events))
        return time.process_time() - began_s

    def ticks(self, events: OrderEvents) -> npt.NDArray[np.uint32]:
        """What each event took, in ticks of the processor's cycle counter."""
        ticks = np.zeros(len(events), np.uint32)
        self._apply(events.ctypes.data, len(events), ticks.ctypes.data)
        return ticks


def nautilus_ns(events: OrderEvents) -> float | None:
    """CPU time an event of nautilus_trader's order book, one a call; None where it is not installed."""
    if find_spec("nautilus_trader") is None:
        return None
    # Imported by name: mypy runs where it is not installed.
    book, data, enums, identifiers, objects = (
        import_module(f"nautilus_trader.model.{name}")
        for name in ("book", "data", "enums", "identifiers", "objects")
    )
    instrument = identifiers.InstrumentId.from_str("BOOK.BENCH")
    actions = {
        int(Action.ADD): enums.BookAction.ADD,
        int(Action.MODIFY): enums.BookAction.UPDATE,
        int(Action.CANCEL): enums.BookAction.DELETE,
    }
    sides = {int(Side.BID): enums.OrderSide.BUY, int(Side.ASK): enums.OrderSide.SELL}

    def delta(row: dict[str, Any]) -> Any:
        price = objects.Price(row["price"] / 10**PRICE_DIGITS, PRICE_DIGITS)
        size = objects.Quantity.from_int(row["size"])
        order = data.BookOrder(sides[row["side"]], price, size, row["order_id"])
        return data.OrderBookDelta(instrument, actions[row["action"]], order, 0, 0, row["ts_event"], 0)

    known = events[np.isin(events["action"], list(actions)) & np.isin(events["side"], list(sides))]
    names = list(known.dtype.names or ())
    apply = book.OrderBook(instrument, enums.BookType.L3_MBO).apply_delta
    elapsed_s = 0.0
    for start in range(0, len(known), NAUTILUS_BATCH):
        rows = known[start : start + NAUTILUS_BATCH].tolist()
        deltas = [delta(dict(zip(names, row, strict=True))) for row in rows]
        began_s = time.process_time()
        for each in deltas:
            apply(each)
        elapsed_s += time.process_time() - began_s
    return elapsed_s / max(len(known), 1) * 1e9


def hftbacktest_ns(events: OrderEvents) -> float | None:
    """CPU time an event of hftbacktest's order-level book, all in one call; None where it is not installed.

    It is a backtest in which nobody trades: the venue's book and the trader's are both rebuilt.
    """
    if find_spec("hftbacktest") is None:
        return None
    package, kinds = import_module("hftbacktest"), import_module("hftbacktest.types")
    rows = hftbacktest_rows(events, kinds)
    if not len(rows):
        return None
    asset = (
        package.BacktestAsset()
        .data(rows)
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .l3_fifo_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(float(np.gcd.reduce(events["price"][events["price"] != UNDEF_PRICE])) / 10**PRICE_DIGITS)
        .lot_size(1)
    )
    backtest = package.HashMapMarketDepthBacktest([asset])
    backtest.depth(0)  # compiles what it needs
    began_s = time.process_time()
    backtest.elapse(len(rows))
    elapsed_s = time.process_time() - began_s
    backtest.close()
    return elapsed_s / len(rows) * 1e9


def hftbacktest_rows(events: OrderEvents, kinds: Any) -> npt.NDArray[np.void]:
    """The events in its layout, a nanosecond apart; without those of orders it does not know, at which it would stop."""
    actions = {
        int(Action.ADD): kinds.ADD_ORDER_EVENT,
        int(Action.MODIFY): kinds.MODIFY_ORDER_EVENT,
        int(Action.CANCEL): kinds.CANCEL_ORDER_EVENT,
    }
    sides = {int(Side.BID): kinds.BUY_EVENT, int(Side.ASK): kinds.SELL_EVENT}
    resting: set[int] = set()
    taken: list[int] = []
    columns = (events[name].tolist() for name in ("action", "side", "order_id", "price"))
    for at, (action, side, order_id, price) in enumerate(zip(*columns, strict=True)):
        if action not in actions or side not in sides or price == UNDEF_PRICE:
            continue
        if (action == Action.ADD) == (order_id in resting):
            continue
        if action == Action.ADD:
            resting.add(order_id)
        elif action == Action.CANCEL:
            resting.remove(order_id)  # whatever size is cancelled
        taken.append(at)
    known = events[taken]
    rows = np.zeros(len(known), kinds.event_dtype)
    rows["ev"] = kinds.EXCH_EVENT | kinds.LOCAL_EVENT
    for name, kind_of in (("action", actions), ("side", sides)):
        for byte, kind in kind_of.items():
            rows["ev"][known[name] == byte] |= np.uint64(kind)
    rows["exch_ts"] = rows["local_ts"] = np.arange(1, len(known) + 1)
    rows["px"], rows["qty"] = known["price"] / 10**PRICE_DIGITS, known["size"]
    rows["order_id"] = known["order_id"]
    return rows
