"""One port: WebSocket connections, plain HTTP, and the broadcaster that writes to them."""
