"""One port for everything: accept, read the head of the request, and hand the connection to WebSocket or HTTP."""

from __future__ import annotations

import errno
import logging
import re
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from market_depth.server.gate import Welcome
from market_depth.server.http import MAX_HEAD_BYTES, answer_request, error_page, send_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from market_depth.server.direct_stream import DirectStream
    from market_depth.server.http import Routes
    from market_depth.server.websocket import WebSocketServer

logger = logging.getLogger(__name__)

HEAD_TIMEOUT_S = 10.0
"""How long a client may take to say what it wants."""

BACKLOG = 4096
ACCEPT_CHUNK = 64
"""So many new connections at a time, then the streams get their turn."""

OUT_OF_DESCRIPTORS_PAUSE_S = 0.1

_HEAD_END = b"\r\n\r\n"
_WEBSOCKET_UPGRADE = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)


async def open_listeners(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of `host`; port 0 takes a free one.

    Raises: OSError when the name is unknown or the port is taken.
    """
    listeners: list[socket.socket] = []
    addresses = await trio.socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
    )
    try:
        for family, kind, protocol, _, resolved in dict.fromkeys(addresses):
            address = resolved
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(listeners) > 1:
                # All addresses of one host share the port that the first was given.
                address = (resolved[0], listeners[0].getsockname()[1], *resolved[2:])
            listener.bind(address)
            listener.listen(BACKLOG)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


class Listener:
    """Accepts connections and serves each until it ends."""

    def __init__(
        self,
        make_stream: Callable[[socket.socket, trio.Nursery], DirectStream],
        websocket: WebSocketServer,
        routes: Routes,
    ) -> None:
        """`make_stream` takes over an accepted socket; the nursery may hold tasks of the stream."""
        self._make_stream = make_stream
        self._websocket = websocket
        self._routes = routes

    async def run(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Accept from `listener`, which must not block, until cancelled; connections live in `nursery`."""
        is_short = False
        with listener:
            while True:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(ACCEPT_CHUNK):
                    try:
                        connection, _ = listener.accept()
                    except BlockingIOError:
                        break
                    except OSError as error:
                        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                            if not is_short:  # once is enough in the log, until it is over
                                logger.warning("cannot accept: %s", error.strerror)
                            is_short = True
                            await trio.sleep(OUT_OF_DESCRIPTORS_PAUSE_S)
                        break  # otherwise that connection was gone before we had it
                    is_short = False
                    connection.setblocking(False)
                    nursery.start_soon(self._serve, connection, nursery)

    async def _serve(self, connection: socket.socket, nursery: trio.Nursery) -> None:
        """Serve one connection. Whatever goes wrong ends with it."""
        stream = self._make_stream(connection, nursery)
        try:
            await self._converse(stream)
        except* Exception:  # a group: a failure may come together with the server's cancellation
            logger.exception("connection failed peer=%s", stream.peer)
        finally:
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: DirectStream) -> None:
        head: bytes | None = None
        with trio.move_on_after(HEAD_TIMEOUT_S) as limit:
            try:
                head = await _read_head(stream)
            except trio.BrokenResourceError:
                return
        if limit.cancelled_caught:
            await send_page(stream, error_page(HTTPStatus.REQUEST_TIMEOUT))
        elif head is None:
            await send_page(stream, error_page(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        elif head and _WEBSOCKET_UPGRADE.search(head, 0, head.index(_HEAD_END) + 2):
            stream.unread(head)
            await self._websocket.serve(stream, Welcome(is_authorised=True, subprotocol=None))
        elif head:
            await answer_request(stream, head, self._routes)


async def _read_head(stream: DirectStream) -> bytes | None:
    """What the client sent up to the end of the request's head, and perhaps more.

    Returns: None when the head is too large, nothing when the client left before.
    """
    received = b""
    while (end := received.find(_HEAD_END)) < 0 and len(received) <= MAX_HEAD_BYTES:
        data = await stream.receive_some()
        if not data:
            return b""
        received += data
    return received if 0 <= end <= MAX_HEAD_BYTES else None
