"""The page at `/`, for people who open the port in a browser."""

from html import escape
from http import HTTPStatus

from market_depth.server.http import Page

_TEMPLATE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>market-depth</title>
<style>
  :root {{ color-scheme: light dark }}
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 42rem; margin: 3rem auto; padding: 0 1rem }}
  code, pre {{ font: 14px/1.5 ui-monospace, monospace }}
  pre {{ padding: .75rem 1rem; white-space: pre-wrap; background: color-mix(in srgb, CanvasText 7%, Canvas) }}
</style>
<h1>market-depth</h1>
<p>This server sends order-level (MBO) and price-level (MBP) books of
{symbols} over a WebSocket at this very address. After connecting, send:</p>
<pre>{{"type": "Subscribe", "stream_id": "1", "symbol": "{first}", "data_type": "MBP", "max_levels": 20}}</pre>
<p>In a terminal: <code>market-depth watch {first}</code>. How the server is: <a href="/api/health">/api/health</a>.</p>
</html>
"""


def front_page(symbols: list[str]) -> Page:
    """What this port is, and how to use it."""
    names = [escape(symbol) for symbol in symbols]
    body = _TEMPLATE.format(
        symbols=", ".join(f"<code>{name}</code>" for name in names), first=names[0] if names else "SYMBOL"
    )
    return Page(HTTPStatus.OK, "text/html; charset=utf-8", body.encode())
