"""One feed's books, from the first event to what may be shown of them.

    warming ──► waiting ◄──► open        the engine is compiled or loaded; the feed has handed over its books

Nothing is shown before `open`: a subscriber that comes early waits for its first snapshot, it never sees a book that
is empty only because we have just started. While a feed hands over other books instead, the market waits again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.codecs import resting_orders_text
from protocol.events import Side

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from market_depth.book.engine import BookEngine
    from market_depth.book.views import BestBidOffer
    from protocol.events import OrderEvents
    from protocol.instrument import Instrument
    from protocol.messages import DataType

BOTH_SIDES = (Side.BID, Side.ASK)


class Market:
    """The instruments of one feed and the engine that rebuilds their books."""

    def __init__(self, instruments: Sequence[Instrument], market_time: Callable[[], int]) -> None:
        """`market_time` tells what time it is in the market, in ns since the epoch."""
        self.instruments = {instrument.symbol: instrument for instrument in instruments}
        self.market_time = market_time
        self.is_open = False
        self._engine: BookEngine | None = None

    @property
    def is_warm(self) -> bool:
        """Whether events can be applied."""
        return self._engine is not None

    def warm(self, engine: BookEngine) -> None:
        """Take the engine that will hold the books."""
        self._engine = engine

    def apply(self, events: OrderEvents) -> None:
        """Change the books by a batch that ends with an event's last record."""
        assert self._engine is not None, "no events before the engine is there"
        self._engine.apply(events)

    def open(self) -> None:
        """Show the books from now on."""
        assert self._engine is not None, "nothing is shown before the engine is there"
        self.is_open = True

    def close(self) -> None:
        """Show nothing until the books are whole again."""
        self.is_open = False

    def sequence(self, symbol: str) -> int:
        """How often the symbol's book has changed; equal sequence means equal book."""
        assert self._engine is not None, "nothing is shown before the first events"
        return self._engine.sequence(self.instruments[symbol].instrument_id)

    def best_bid_offer(self, symbol: str) -> tuple[BestBidOffer, int]:
        """The top of the symbol's book, and when its last event was, in ns since the epoch; 0 before any."""
        from market_depth.book.views import best_bid_offer

        engine = self._engine
        assert engine is not None, "nothing is shown before the first events"
        instrument_id = self.instruments[symbol].instrument_id
        times = [engine.book(index).ts_event for index in engine.books(instrument_id)]
        return best_bid_offer(engine, instrument_id), max(times, default=0)

    def book_text(self, symbol: str, data_type: DataType, depth: int) -> str:
        """The symbol's book as JSON text, the `data` of a `MarketData` frame."""
        # Imported late: the views load numba, which takes longer than a server may take to accept.
        from market_depth.book.frames import price_levels_frame
        from market_depth.book.views import resting_orders

        engine = self._engine
        assert engine is not None, "nothing is shown before the first events"
        instrument = self.instruments[symbol]
        match data_type:
            case "MBP":
                return price_levels_frame(engine, instrument, depth)
            case "MBO":
                bids, asks = (
                    resting_orders(engine, instrument.instrument_id, side, depth) for side in BOTH_SIDES
                )
                return resting_orders_text(instrument, bids, asks, self.market_time())
