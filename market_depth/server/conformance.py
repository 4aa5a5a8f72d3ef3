"""A path whose WebSocket sends every message back, on the same stack as the streams: what a fuzzing client runs against."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from wsproto.frame_protocol import FrameProtocol

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

    from market_depth.server.direct_stream import DirectStream

ECHO_PATH = "/conformance-echo"


async def echo(stream: DirectStream, connection: WebSocketConnection) -> NoReturn:
    """Send every message back as it came, text as text. Raises: ConnectionClosed at the end."""
    writer = FrameProtocol(client=False, extensions=[])
    while True:
        message = await connection.get_message()
        # Past trio-websocket, as market data goes: it writes nothing any more when it has read on to a broken frame.
        await stream.send_all(writer.send_data(message))
