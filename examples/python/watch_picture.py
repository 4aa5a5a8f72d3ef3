"""Draws one screen of `market-depth watch` as an SVG picture, after a few seconds of a running server.

pip install market-depth
python watch_picture.py 127.0.0.1:8080 BTCUSD watch.svg
"""

import argparse
import time
from pathlib import Path

import trio
from rich.console import Console

from market_depth.client import follow, websocket_url
from market_depth.client.ladder import ladder
from market_depth.client.view import MarketView
from protocol.messages import Subscribe

WIDTH, HEIGHT = 80, 26

SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="market-depth watch">
<style>
.{unique_id}-matrix {{ font: {char_height}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own template loads a font from the network; this one takes what the reader has."""


async def draw(console: Console, addr: str, symbol: str, seconds: float) -> None:
    """Print the screen of a watcher that has been running for so many seconds."""
    stream = Subscribe(stream_id="picture", symbol=symbol, data_type="MBP")
    view = MarketView(stream, addr)
    with trio.move_on_after(seconds):
        async with follow(websocket_url(addr), [stream]) as updates:
            async for update in updates:
                view.apply(update, trio.current_time(), time.time_ns())
    console.print(ladder(view, trio.current_time(), WIDTH, HEIGHT))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("addr")
    parser.add_argument("symbol")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    console = Console(record=True, width=WIDTH, height=HEIGHT)
    trio.run(draw, console, options.addr, options.symbol, options.seconds)
    title = f"market-depth watch {options.symbol}"
    picture = console.export_svg(title=title, code_format=SVG, unique_id="watch")
    options.picture.write_text(picture)
