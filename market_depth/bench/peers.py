"""Other order books, measured on the same events in the same run: one in C++, and nautilus_trader's where installed.

The C++ book is a source file with a C interface. It keeps one book whatever the instruments are:

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
from protocol.events import Action, Side

if TYPE_CHECKING:
    from protocol.events import OrderEvents

NAUTILUS_EVENTS = 100_000
"""Each is made a Python object before the clock starts."""

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

    first = events[:NAUTILUS_EVENTS]
    first = first[np.isin(first["action"], list(actions)) & np.isin(first["side"], list(sides))]
    names = list(first.dtype.names or ())
    deltas = [delta(dict(zip(names, row, strict=True))) for row in first.tolist()]
    orders = book.OrderBook(instrument, enums.BookType.L3_MBO)
    apply = orders.apply_delta
    began_s = time.process_time()
    for each in deltas:
        apply(each)
    return (time.process_time() - began_s) / max(len(deltas), 1) * 1e9
