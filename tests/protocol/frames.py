"""One frame of every kind, from fixed books and a fixed clock. The golden files hold their bytes."""

import numpy as np
import numpy.typing as npt

from protocol.codecs import (
    encode,
    market_data_body,
    market_data_head,
    price_levels_text,
    resting_orders_text,
)
from protocol.errors import (
    BadRequest,
    InternalError,
    MessageTooBig,
    NotServed,
    ProtocolError,
    ShuttingDown,
    StreamInUse,
    TokenRequired,
    TooManyMessages,
    TooManyStreams,
    UnknownStream,
    UnknownSymbol,
    WrongToken,
)
from protocol.events import RESTING_ORDER
from protocol.instrument import SCALE, Instrument
from protocol.messages import (
    ClientMessage,
    HeartBeat,
    Hello,
    Ping,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from protocol.session import error_frame
from protocol.timestamp import NS_PER_MS, timestamp_text

NOW_NS = 1_795_193_263_000_250_000
"""2026-11-20T16:47:43.000250Z"""

TICK = SCALE // 2

BTCUSD = Instrument("BTCUSD", "SIM", 1, tick_size=TICK, lot_size=SCALE // 10_000)


def price_levels(*rows: tuple[int, int, int]) -> npt.NDArray[np.int64]:
    """One side of a book by price level: price (1e-9), size (lots), count (orders)."""
    return np.array(rows, np.int64).reshape(-1, 3)


def resting_orders(*rows: tuple[int, int, int, int]) -> npt.NDArray[np.void]:
    """One side of a book by order: order id, price (1e-9), size (lots), ns since the epoch."""
    return np.array(list(rows), RESTING_ORDER)


def market_data(stream_id: str, data: str) -> bytes:
    return market_data_head(stream_id) + market_data_body(BTCUSD.symbol, 48_213, NOW_NS, data)


MBP = market_data(
    "btc-levels",
    price_levels_text(
        BTCUSD,
        price_levels((130_864 * TICK, 15_000, 3), (130_863 * TICK, 150, 1)),
        price_levels((130_865 * TICK, 7_500, 2), (130_867 * TICK, 20_001, 1)),
    ),
)

MBO = market_data(
    "btc-orders",
    resting_orders_text(
        BTCUSD,
        resting_orders(
            (1_000_217, 130_864 * TICK, 10_000, NOW_NS - 1_250 * NS_PER_MS),
            (1_000_305, 130_864 * TICK, 5_000, NOW_NS - 40 * NS_PER_MS),
            (1_000_102, 130_863 * TICK, 150, NOW_NS - 90_000 * NS_PER_MS),
        ),
        resting_orders((1_000_311, 130_865 * TICK, 7_500, NOW_NS)),
        NOW_NS,
    ),
)

REQUESTS: dict[str, ClientMessage] = {
    "subscribe_mbp": Subscribe(stream_id="btc-levels", symbol="BTCUSD", data_type="MBP", max_levels=2),
    "subscribe_mbo": Subscribe(stream_id="btc-orders", symbol="BTCUSD", data_type="MBO"),
    "unsubscribe": Unsubscribe(stream_id="btc-levels"),
    "ping": Ping(timestamp="2026-11-20T16:47:42.999Z"),
    "hello": Hello(token="8Yd1wHv6Zrq2", client="ladder 1.4", heartbeat_interval_s=10),
}
"""What a client sends, by the name of its golden file."""

SYMBOLS = ("ADAUSD", "BTCUSD", "ETHUSD")

ERRORS: dict[str, ProtocolError] = {
    "error_400": BadRequest("max_levels: must be an integer between 1 and 1000", "btc-levels"),
    "error_400_no_stream": BadRequest("not a JSON object"),
    "error_401": TokenRequired("btc-levels"),
    "error_401_wrong": WrongToken(),
    "error_404_symbol": UnknownSymbol("DOGEUSD", SYMBOLS, "doge"),
    "error_404_stream": UnknownStream("btc-levels"),
    "error_409": StreamInUse("btc-levels"),
    "error_413": MessageTooBig(64 * 1024),
    "error_422": NotServed("BYBIT:XRPUSDT", "MBO", "xrp-orders"),
    "error_429_rate": TooManyMessages(50, 100, "btc-levels"),
    "error_429_streams": TooManyStreams(256, "one-more"),
    "error_500": InternalError(),
    "error_503": ShuttingDown(),
}

ANSWERS = {
    "heartbeat": encode(HeartBeat(timestamp=timestamp_text(NOW_NS))),
    "subscribed": encode(Subscribed(stream_id="btc-levels", symbol="BTCUSD", data_type="MBP")),
    "unsubscribed": encode(Unsubscribed(stream_id="btc-levels")),
    "market_data_mbp": MBP,
    "market_data_mbo": MBO,
    "market_data_empty": market_data("btc-levels", price_levels_text(BTCUSD, price_levels(), price_levels())),
    **{name: encode(error_frame(error)) for name, error in ERRORS.items()},
}
"""What a server sends, by the name of its golden file."""
