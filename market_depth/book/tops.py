"""The best levels of a book after each event, as numpy rows: BBO, MBP-10 or any other depth."""

import numpy as np
import numpy.typing as npt

from market_depth.book import kernels
from market_depth.book.engine import BookEngine, event_words
from protocol.events import ORDER_EVENT, UNDEF_PRICE, OrderEvents

LEVEL_PAIR = np.dtype(
    [
        ("bid_px", "<i8"),  # 1e-9; UNDEF_PRICE where there is no level
        ("ask_px", "<i8"),
        ("bid_sz", "<u4"),  # lots; the largest number there is, if they are more
        ("ask_sz", "<u4"),
        ("bid_ct", "<u4"),  # orders
        ("ask_ct", "<u4"),
    ]
)
"""One level of each side, in the layout of DBN's BidAskPair, of which its MBP-1 and MBP-10 have one and ten."""

LevelPairs = npt.NDArray[np.void]
"""An array of LEVEL_PAIR, shape (events, depth), best levels first."""


class TopOfBook:
    """Applies events to an engine and tells the best `depth` levels of each event's book after it.

    An engine has one of them at a time, or a `SnapshotRecords`. Events may also be applied to the engine past it.
    """

    def __init__(self, engine: BookEngine, depth: int) -> None:
        """Raises: ValueError when `depth` is less than one."""
        if depth < 1:
            raise ValueError(f"a top has at least one level, not {depth}")
        self._engine = engine
        self._depth = depth
        self._use(self._empty(len(engine.arrays.books)))
        engine.arrays.state[kernels.UNTOLD] = 1

    def apply(self, events: OrderEvents, out: LevelPairs | None = None) -> LevelPairs:
        """Apply a batch. Returns the tops, shape (events, depth): rows of `out` if it is given, else of a new array.

        Between an event's records a book may be crossed: read tops at those with the flag LAST. An event whose action
        is none has an empty top. Tops that fit into a core's cache, some thousands, are written twice as fast.
        Raises: as `BookEngine.apply`; ValueError when `out` is not a contiguous array of enough tops.
        """
        words = event_words(events)
        count = len(events)
        if out is None:
            out = np.empty((count, self._depth), LEVEL_PAIR)
        if out.dtype != LEVEL_PAIR or len(out) < count or out.shape[1:] != (self._depth,):
            raise ValueError(f"out must hold {count} tops of {self._depth} level pairs")
        if not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError("out must be contiguous and writable")
        address, top_address = kernels.address_of(words), kernels.address_of(out)
        left = count
        while True:
            self._follow()
            if self._depth == 1:
                applied = kernels.apply_and_show_best(self._engine.memory, address, left, top_address)
            else:
                applied = kernels.apply_and_show(
                    self._engine.memory,
                    self._tops_address,
                    self._depth,
                    address,
                    left,
                    top_address,
                )
            left -= applied
            if not left:
                return out[:count]
            address += applied * ORDER_EVENT.itemsize
            top_address += applied * self._depth * LEVEL_PAIR.itemsize
            self._engine.make_room()

    def _follow(self) -> None:
        """Have places for as many books as the engine has, and the empty top behind them."""
        known = len(self._tops) - 1
        if known < len(self._engine.arrays.books):
            tops = self._empty(len(self._engine.arrays.books))
            tops[:known] = self._tops[:known]
            self._use(tops)

    def _use(self, tops: LevelPairs) -> None:
        self._tops = tops
        self._tops_address = kernels.address_of(tops)

    def _empty(self, places: int) -> LevelPairs:
        tops = np.zeros((places + 1, self._depth), LEVEL_PAIR)
        tops["bid_px"] = tops["ask_px"] = UNDEF_PRICE
        return tops
