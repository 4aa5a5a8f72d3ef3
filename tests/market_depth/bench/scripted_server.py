"""A server that shakes hands with every client; what it sends them, a test says."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from market_depth.config import Address
from market_depth.server.frames import text_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
HEARTBEAT = text_frame(b'{"type":"HeartBeat","timestamp":"2026-11-20T12:00:00.000000Z"}')


def market_data(
    stream_id: str, sequence: int, padding: int = 200, timestamp: str = "2020-01-01T00:00:00.000000Z"
) -> bytes:
    """A frame of a stream; by default of a time that is no latency's beginning."""
    message = {
        "type": "MarketData",
        "stream_id": stream_id,
        "sequence": sequence,
        "timestamp": timestamp,
        "data": "x" * padding,
    }
    return text_frame(json.dumps(message, separators=(",", ":")).encode())


def now_text() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class ScriptedServer:
    """`clients` are the connected sockets, in the order in which they came."""

    def __init__(self, listener: socket.socket, answer: bytes) -> None:
        self.address = Address(*listener.getsockname())
        self.clients: list[socket.socket] = []
        self._listener = listener
        self._answer = answer

    def accept(self) -> None:
        """Answer everybody's handshake, until the listener is closed."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(10)
            client.recv(4096)
            self.clients.append(client)
            client.sendall(self._answer)

    def send(self, data: bytes) -> None:
        """Send the same to every client."""
        for client in self.clients:
            client.sendall(data)


@contextmanager
def scripted_server(answer: bytes = ANSWER) -> Iterator[ScriptedServer]:
    """A server on a free port, until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ScriptedServer(listener, answer)
        thread = threading.Thread(target=server.accept)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in server.clients:
                client.close()
