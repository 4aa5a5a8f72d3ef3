"""The client side: what connects to a depth server."""

from market_depth.client.connection import (
    Connecting,
    ConnectionLost,
    Live,
    Update,
    Waiting,
    follow,
    websocket_url,
)

__all__ = ["Connecting", "ConnectionLost", "Live", "Update", "Waiting", "follow", "websocket_url"]
