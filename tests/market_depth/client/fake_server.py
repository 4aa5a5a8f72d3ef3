"""A small depth server for tests of clients: the real rules of a session, and a book that moves by a formula.

python -m tests.market_depth.client.fake_server [PORT]     to look at a client by hand
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from protocol.codecs import (
    encode,
    market_data_body,
    market_data_head,
    price_levels_text,
    resting_orders_text,
)
from protocol.events import RESTING_ORDER
from protocol.instrument import SCALE, Instrument
from protocol.messages import DATA_TYPES
from protocol.session import Limits, Session, Subscription

START_NS = 1_795_000_000_000_000_000

INSTRUMENTS = {
    "BTCUSD": (Instrument("BTCUSD", "FAKE", 1, tick_size=SCALE // 2, lot_size=SCALE // 10_000), 65_000),
    "ADAUSD": (Instrument("ADAUSD", "FAKE", 2, tick_size=SCALE // 10_000), 1),
}
"""Symbol: the instrument, and where its prices start."""

LEVELS = 40


def frame(subscription: Subscription, step: int) -> str:
    """The `MarketData` of one stream at one step. The book goes up and down a few ticks, and every step changes sizes."""
    instrument, start = INSTRUMENTS[subscription.symbol]
    mid_tick = start * SCALE // instrument.tick_size + round(6 * np.sin(step / 7))
    now_ns = START_NS + step * 300_000_000
    sides = {}
    for name, sign in (("bids", -1), ("asks", 1)):
        rows = []
        for depth in range(min(LEVELS, subscription.max_levels)):
            tick = mid_tick + sign * (depth + 1)
            count = 1 + (tick * 7) % 5
            # One level in four changes with a step.
            version = (step + tick) // 4
            sizes = [1 + (tick * 31 + version * 17 + 13 * place) % 400 * 50 for place in range(count)]
            rows += [
                (
                    tick * 100 + place,
                    tick * instrument.tick_size,
                    size,
                    now_ns - 1_000_000_000 * (count - place),
                )
                for place, size in enumerate(sizes)
            ]
        sides[name] = np.array(rows, dtype=RESTING_ORDER)
    if subscription.data_type == "MBO":
        text = resting_orders_text(instrument, sides["bids"], sides["asks"], now_ns)
    else:
        text = price_levels_text(instrument, _by_level(sides["bids"]), _by_level(sides["asks"]))
    head = market_data_head(subscription.stream_id)
    return (head + market_data_body(subscription.symbol, 100 + 37 * step, now_ns, text)).decode()


def _by_level(orders: np.ndarray) -> np.ndarray:
    levels: dict[int, list[int]] = {}
    for order in orders:
        level = levels.setdefault(int(order["price"]), [int(order["price"]), 0, 0])
        level[1] += int(order["size"])
        level[2] += 1
    return np.array(list(levels.values()), dtype=np.int64).reshape(-1, 3)


@asynccontextmanager
async def fake_depth_server(port: int = 0, interval_s: float = 0.02) -> AsyncIterator[str]:
    """A running server's address as HOST:PORT."""
    async with trio.open_nursery() as nursery:
        handler = partial(_serve_client, interval_s=interval_s)
        server = await nursery.start(serve_websocket, handler, "127.0.0.1", port, None)
        yield f"127.0.0.1:{server.port}"
        nursery.cancel_scope.cancel()


async def _serve_client(request: WebSocketRequest, interval_s: float) -> None:
    websocket = await request.accept()
    session = Session(dict.fromkeys(INSTRUMENTS, DATA_TYPES), Limits(), trio.current_time())
    await websocket.send_message(encode(session.heartbeat(START_NS)).decode())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_publish, websocket, session, interval_s)
        try:
            while True:
                data = await websocket.get_message()
                answer = session.receive(data, trio.current_time(), START_NS)
                await websocket.send_message(encode(answer.message).decode())
        except ConnectionClosed:
            nursery.cancel_scope.cancel()


async def _publish(websocket: WebSocketConnection, session: Session, interval_s: float) -> None:
    step = 0
    while True:
        for subscription in list(session.streams.values()):
            try:
                await websocket.send_message(frame(subscription, step))
            except ConnectionClosed:
                return
        step += 1
        await trio.sleep(interval_s)


async def _serve_by_hand(port: int) -> None:
    async with fake_depth_server(port, interval_s=0.3) as addr:
        print(f"serving {', '.join(INSTRUMENTS)} at {addr}", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(_serve_by_hand, int(sys.argv[1]) if len(sys.argv) > 1 else 8080)
