"""Prints the top of several books from one WebSocket, and reconnects by itself.

pip install trio-websocket
python depth.py ws://127.0.0.1:8080/ BTCUSD,ETHUSD
python depth.py ws://127.0.0.1:8080/ BTCUSD --frames 10       ends after 10 frames of market data

A server that asks for a token is shown the one in MARKET_DEPTH_TOKEN.
"""

import argparse
import json
import os
import random
from decimal import Decimal

import trio
from trio_websocket import ConnectionClosed, HandshakeError, open_websocket_url


async def main(url: str, symbols: list[str], frames: float) -> None:
    """Read, and read again after a random pause that grows from 0.5 s to 30 s while nobody answers."""
    failures = seen = 0
    token = os.environ.get("MARKET_DEPTH_TOKEN")
    headers = [("Authorization", f"Bearer {token}")] if token else []
    while seen < frames:
        try:
            async with open_websocket_url(
                url, extra_headers=headers, connect_timeout=5, disconnect_timeout=1
            ) as socket:
                for symbol in symbols:
                    stream = {"stream_id": symbol, "symbol": symbol, "data_type": "MBP", "max_levels": 10}
                    await socket.send_message(json.dumps({"type": "Subscribe"} | stream))
                while seen < frames:
                    with trio.fail_after(45):  # the server sends a HeartBeat every 30 s
                        message = json.loads(await socket.get_message(), parse_float=Decimal)
                    if message["type"] == "MarketData":
                        seen, failures = seen + 1, 0
                        print(top_of_book(message), flush=True)
                    elif message["type"] == "Error":
                        print(f"error {message['code']}: {message['message']}", flush=True)
                        if message["code"] in {400, 401, 404, 422}:  # the same request would be refused again
                            raise SystemExit(1)
        except (ConnectionClosed, HandshakeError, trio.TooSlowError) as error:
            failures += 1
            pause = random.uniform(0.5, min(30, 0.5 * 2**failures))
            print(f"disconnected ({error.__cause__ or error!r}), again in {pause:.1f} s", flush=True)
            await trio.sleep(pause)


def top_of_book(message: dict) -> str:
    """The best level of both sides. Each frame is a full snapshot, best first: there is nothing to keep."""
    sides = [message["data"][side][:1] for side in ("bids", "asks")]
    texts = [f"{side[0]['quantity']} at {side[0]['price']}" if side else "empty" for side in sides]
    return f"{message['symbol']} #{message['sequence']}  {'  |  '.join(texts)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("symbols", help="for example BTCUSD,ETHUSD")
    parser.add_argument("--frames", type=int, default=float("inf"), help="end after so many frames")
    options = parser.parse_args()
    trio.run(main, options.url, options.symbols.split(","), options.frames)
