"""An ASGI application behind HTTP/1.1 on trio streams: the bridge between what h11 reads and what the application is told.

The application runs in a task of its own, so that what it does after its answer (background tasks) delays no further
request of the same connection. One task reads from a connection at a time: the application's while it is asked, the
connection's otherwise.

Source: the ASGI specification, version 3.0, HTTP 2.4: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import h11
import trio

from market_depth.metrics import Refusal
from market_depth.server.error_answer import FIXED_HEADERS, send_error
from market_depth.server.gate import Denied
from market_depth.server.http_connection import USUAL_TIMEOUTS, HttpConnection, RequestError, Timeouts
from market_depth.server.linger import linger

if TYPE_CHECKING:
    from market_depth.clock import Clock
    from market_depth.metrics import ServerCounts
    from market_depth.server.gate import Gate, Welcome

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_FIXED_HEADERS = [(name.encode(), value.encode()) for name, value in FIXED_HEADERS]
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


HANDSHAKE_HEADERS = frozenset(
    (
        b"upgrade",
        b"connection",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"sec-websocket-protocol",
    )
)
"""What a WebSocket's handshake consists of, beside the host."""


class Ends(NamedTuple):
    """Who talks with whom: host and port of both."""

    client: tuple[str, int]
    server: tuple[str, int]
    scheme: str = "http"

    @property
    def peer(self) -> str:
        """The client as the log has it."""
        host, port = self.client
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class WebSocketRequest(NamedTuple):
    """A request that is not for the application. The gate has let it pass."""

    heard: bytes
    """The request's head, with what matters for a WebSocket alone, and what has come after it."""
    welcome: Welcome
    extensions: list[bytes]
    """What the client offers; empty if it has not waited for the answer, since some of its frames are in `heard`."""


class AsgiServer:
    """Serves one application on many connections."""

    def __init__(
        self,
        application: Application,
        gate: Gate,
        counts: ServerCounts,
        clock: Clock,
        timeouts: Timeouts = USUAL_TIMEOUTS,
    ) -> None:
        self._application = application
        self._gate = gate
        self._counts = counts
        self._clock = clock
        self._timeouts = timeouts
        self._waiting: set[trio.CancelScope] = set()
        self._busy = 0
        self._settled = trio.Event()
        self.is_closing = False

    async def serve(
        self, stream: trio.abc.HalfCloseableStream, nursery: trio.Nursery, ends: Ends
    ) -> WebSocketRequest | None:
        """Answer requests until one asks for a WebSocket, which is returned; None when the conversation is over.

        The stream is closed in neither case. The application's tasks start in `nursery`; what they raise stays in them.
        """
        connection = HttpConnection(stream, self._timeouts)
        self._busy += 1
        try:
            while (request := await self._next_request(connection)) is not None:
                is_websocket = _asks_for_websocket(connection.headers)
                welcome = self._admit(request, connection.headers, ends, is_websocket=is_websocket)
                if is_websocket:
                    if not connection.is_body_read:
                        raise RequestError(HTTPStatus.BAD_REQUEST, "a WebSocket's handshake has no body")
                    head = _handshake_head(request, connection.headers)
                    extensions = [] if connection.ahead else _extensions(connection.headers)
                    return WebSocketRequest(head + connection.ahead, welcome, extensions)
                if not await self._answer(connection, request, nursery, ends):
                    await linger(stream)
                    break
        except RequestError as error:
            self._counts.http_requests[error.status] += 1
            await send_error(stream, error.status, error.detail, error.headers)
        except trio.BrokenResourceError:
            logger.debug("client left")
        finally:
            self._end()
        return None

    async def shut_down(self) -> None:
        """Close what is idle, and return when all requests have their answers. Each says that it is the last."""
        self.is_closing = True
        for scope in self._waiting:
            scope.cancel()
        while self._busy:
            await self._settled.wait()

    async def _next_request(self, connection: HttpConnection) -> h11.Request | None:
        if self.is_closing:
            return None
        with trio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                return await connection.next_request()
            except RequestError as error:
                if error.status is HTTPStatus.REQUEST_TIMEOUT:
                    self._counts.connections_refused[Refusal.HEAD_TIMEOUT] += 1
                raise
            finally:
                self._waiting.remove(scope)
        return None

    def _admit(
        self, request: h11.Request, headers: list[tuple[bytes, bytes]], ends: Ends, *, is_websocket: bool
    ) -> Welcome:
        """Raises: RequestError when the gate denies the request."""
        is_preflight = request.method == b"OPTIONS"
        judged = self._gate.check(
            headers, is_websocket=is_websocket, is_preflight=is_preflight, target=request.target
        )
        if isinstance(judged, Denied):
            self._counts.connections_refused[judged.reason] += 1
            # At this level, as it ends the connection: whoever fills the log so could as well come and go.
            logger.info("denied peer=%s status=%d reason=%s", ends.peer, judged.status, judged.reason)
            raise RequestError(judged.status, judged.detail, judged.headers)
        return judged

    async def _answer(
        self, connection: HttpConnection, request: h11.Request, nursery: trio.Nursery, ends: Ends
    ) -> bool:
        """Have one request answered. Returns: whether another may follow. Raises: RequestError."""
        scope = _scope_of(request, connection.headers, ends)
        exchange = _Exchange(connection, request, self._answer_headers)
        self._busy += 1
        nursery.start_soon(self._run_application, exchange, scope)
        await exchange.wait_over()
        if exchange.status is not None:
            self._counts.http_requests[exchange.status] += 1
        logger.debug("%s %r -> %s", request.method.decode(), request.target, exchange.status)
        return exchange.is_answered and connection.is_reusable

    async def _run_application(self, exchange: _Exchange, scope: Scope) -> None:
        try:
            await self._application(scope, exchange.receive, exchange.send)
            if not (exchange.is_answered or exchange.is_left):
                logger.error("request failed path=%r: the application gave no whole answer", scope["path"])
        except* Exception as errors:
            if exchange.is_left:
                logger.debug("client left before its answer path=%r", scope["path"])
            else:
                [*causes] = errors.exceptions
                logger.error(
                    "request failed path=%r",
                    scope["path"],
                    exc_info=causes[0] if len(causes) == 1 else errors,
                )
        finally:
            exchange.end()
            self._end()

    def _answer_headers(self, connection: HttpConnection) -> list[tuple[bytes, bytes]]:
        """What an answer has besides the application's headers."""
        date = formatdate(self._clock.wall_ns() / 1e9, usegmt=True).encode()
        headers = [(b"date", date), *_FIXED_HEADERS]
        # What has not been read of a body may be long, or after `Expect: 100-continue` never come.
        if self.is_closing or not connection.is_body_read:
            headers.append((b"connection", b"close"))
        return headers

    def _end(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._settled.set()
            self._settled = trio.Event()


class _Exchange:
    """One request and its answer, as the application sees them.

    waiting ──► started ──► answered
        └────────┴──► over without an answer: the client has left, its body makes no sense, or the application failed
    """

    def __init__(
        self,
        connection: HttpConnection,
        request: h11.Request,
        further_headers: Callable[[HttpConnection], list[tuple[bytes, bytes]]],
    ) -> None:
        self._connection = connection
        self._is_head = request.method == b"HEAD"
        self._further_headers = further_headers
        self._is_body_told = False
        self._head: h11.Response | None = None
        self._error: RequestError | None = None
        self._is_broken = False
        self._reading: trio.CancelScope | None = None
        self._was_read = trio.Event()
        self._over = trio.Event()
        self.status: int | None = None
        """Of the answer, once it has begun."""
        self.is_answered = False
        self.is_left = False
        """Whether the application has been told that the client is gone."""

    # For the connection

    async def wait_over(self) -> None:
        """Return when the answer is complete or will not become so, and nobody reads from the connection any more.

        Raises: RequestError when an error must be told in place of an answer.
        """
        await self._over.wait()
        if self._reading is not None:
            self._reading.cancel()
            await self._was_read.wait()
        if self.status is None and (self._error is not None or not self.is_left):
            raise self._error or RequestError(HTTPStatus.INTERNAL_SERVER_ERROR)

    def end(self) -> None:
        """The application has ended."""
        self._over.set()

    # For the application

    async def receive(self) -> Message:
        """The next piece of the request's body; after it, and when the exchange is over, the news that the client left."""
        while self._reading is not None:  # another of the application's tasks asks
            await self._was_read.wait()
        self._was_read = trio.Event()
        message: Message = {"type": "http.disconnect"}
        try:
            with trio.CancelScope() as self._reading:
                message = await self._read()
        finally:
            self._reading = None
            self._was_read.set()
        return message

    async def _read(self) -> Message:
        if self._over.is_set() or self._error is not None:
            await trio.lowlevel.checkpoint()
        elif self._is_body_told:
            await self._connection.wait_left()
        else:
            try:
                piece = await self._connection.read_body()
            except RequestError as error:
                self._error = error
            except trio.BrokenResourceError:
                logger.debug("client left before its request was whole")
            else:
                # Was it there already, nothing has been waited for: others must get their turn.
                await trio.lowlevel.checkpoint()
                self._is_body_told = not piece
                return {"type": "http.request", "body": piece, "more_body": not self._is_body_told}
        self.is_left = True
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a part of the answer. Raises: OSError when the client is gone, RuntimeError when the part has no place."""
        if self._over.is_set():
            raise RuntimeError(f"{message['type']} after the end of the answer")
        if self._is_broken or self._error is not None:
            raise OSError("the client has left, or its request broke off")
        match message["type"]:
            case "http.response.start" if self._head is None:
                status = message["status"]
                self._head = h11.Response(
                    status_code=status,
                    headers=[*message.get("headers", ()), *self._further_headers(self._connection)],
                    reason=_REASONS.get(status, b""),
                )
                await trio.lowlevel.checkpoint()
            case "http.response.body" if self._head is not None:
                await self._send_body(message.get("body", b""), is_last=not message.get("more_body", False))
            case other:
                raise RuntimeError(f"{other} has no place here")

    async def _send_body(self, body: bytes, *, is_last: bool) -> None:
        assert self._head is not None, "checked before"
        events: list[h11.Event] = []
        if self.status is None:  # the head goes out with the first of the body
            events.append(self._head)
        if body and not self._is_head:
            events.append(h11.Data(data=body))
        if is_last:
            events.append(h11.EndOfMessage())
        try:
            await self._connection.send(*events)
        except trio.BrokenResourceError as error:
            self._is_broken = self.is_left = True
            raise OSError("the client has left") from error
        self.status = self._head.status_code
        if is_last:
            self.is_answered = True
            self._over.set()


def _scope_of(request: h11.Request, headers: list[tuple[bytes, bytes]], ends: Ends) -> Scope:
    """Raises: RequestError."""
    target = request.target
    if not target.startswith(
        b"/"
    ):  # the absolute form, which clients send to proxies (RFC 9112, section 3.2.2)
        try:
            whole = urlsplit(target)
        except ValueError as error:
            raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from error
        target = (
            (whole.path or b"/") + (b"?" + whole.query if whole.query else b"") if whole.netloc else target
        )
    path, _, query = target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": request.http_version.decode("ascii"),
        "method": request.method.decode("ascii"),
        "scheme": ends.scheme,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": headers,
        "client": ends.client,
        "server": ends.server,
    }


def _handshake_head(request: h11.Request, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The head to be parsed once more: without what a browser says besides, a third of the time."""
    lines = [b"%s %s HTTP/%s" % (request.method, request.target, request.http_version)]
    for name, value in headers:
        if name == b"host":
            # The gate has judged it. To wsproto it is an internationalised name: 80 ms of decoding if it is long.
            lines.append(b"host: -")
        elif name in HANDSHAKE_HEADERS:
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join((*lines, b"\r\n"))


def _extensions(headers: list[tuple[bytes, bytes]]) -> list[bytes]:
    return [value for name, value in headers if name == b"sec-websocket-extensions"]


def _asks_for_websocket(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the WebSocket side is to answer, be it with an error."""
    return any(name == b"upgrade" and b"websocket" in value.lower() for name, value in headers)
