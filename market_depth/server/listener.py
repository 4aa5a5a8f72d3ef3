"""One port for everything: accept, answer HTTP requests, and hand the connection on when one asks for a WebSocket."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from typing import TYPE_CHECKING, Literal

import trio

from market_depth.server.asgi import Ends
from market_depth.server.error_answer import error_answer
from market_depth.server.gate import no_room

if TYPE_CHECKING:
    from collections.abc import Callable

    from market_depth.metrics import Refusal, ServerCounts
    from market_depth.server.asgi import AsgiServer
    from market_depth.server.direct_stream import DirectStream
    from market_depth.server.gate import Gate
    from market_depth.server.websocket import WebSocketServer

logger = logging.getLogger(__name__)

BACKLOG = 4096
ACCEPT_CHUNK = 16
"""So many new connections at a time, then the streams get their turn: each takes half a millisecond in all."""

OUT_OF_DESCRIPTORS_PAUSE_S = 0.1


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
        http: AsgiServer,
        gate: Gate,
        counts: ServerCounts,
        scheme: Literal["http", "https"] = "http",
    ) -> None:
        """`make_stream` takes over an accepted socket; the nursery may hold tasks of the stream."""
        self._make_stream = make_stream
        self._websocket = websocket
        self._http = http
        self._gate = gate
        self._counts = counts
        self._scheme = scheme

    async def run(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        """Accept from `listener`, which must not block, until cancelled; connections live in `nursery`."""
        is_short = False
        server = _host_and_port(listener.getsockname())
        with listener:
            while True:
                await trio.lowlevel.wait_readable(listener)
                for _ in range(ACCEPT_CHUNK):
                    try:
                        connection, address = listener.accept()
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
                    client = _host_and_port(address)
                    refusal = self._gate.enter(client[0])
                    if refusal is None:
                        nursery.start_soon(
                            self._serve, connection, Ends(client, server, self._scheme), nursery
                        )
                    else:
                        if self._gate.is_news(refusal, client[0]):
                            logger.warning("newcomers are refused reason=%s host=%s", refusal, client[0])
                        self._refuse(connection, refusal)

    def _refuse(self, connection: socket.socket, refusal: Refusal) -> None:
        self._counts.connections_refused[refusal] += 1
        answer = no_room(refusal)
        # For whom there is no room, there is no time either: it takes the answer now, or gets none. In TLS that takes
        # a handshake, so there it gets none.
        with connection, contextlib.suppress(OSError):
            if self._scheme == "http":
                connection.send(error_answer(answer.status, answer.detail, answer.headers))
                connection.shutdown(socket.SHUT_WR)

    async def _serve(self, connection: socket.socket, ends: Ends, nursery: trio.Nursery) -> None:
        """Serve one connection. Whatever goes wrong ends with it."""
        try:
            with contextlib.closing(self._make_stream(connection, nursery)) as stream:
                stream.is_framed = False
                request = await self._http.serve(stream, nursery, ends)
                if request is not None:
                    stream.is_framed = True
                    stream.unread(request.heard)
                    heard_bytes = len(request.heard)
                    _, welcome, extensions = request
                    del request  # it would stay as long as the client
                    await self._websocket.serve(stream, heard_bytes, welcome, extensions)
        except* Exception:  # a group: a failure may come together with the server's cancellation
            logger.exception("connection failed peer=%s", ends.peer)
        finally:
            self._gate.leave(ends.client[0])
            connection.close()


def _host_and_port(address: tuple[str, int, *tuple[int, ...]]) -> tuple[str, int]:
    return address[0], address[1]
