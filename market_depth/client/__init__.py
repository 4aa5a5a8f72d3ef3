"""The client side: what connects to a depth server."""

from market_depth.client.connection import (
    Connecting,
    ConnectionLost,
    Denied,
    Live,
    Update,
    Waiting,
    follow,
    open_socket,
    websocket_url,
)

__all__ = [
    "Connecting",
    "ConnectionLost",
    "Denied",
    "Live",
    "Update",
    "Waiting",
    "follow",
    "open_socket",
    "websocket_url",
]
