"""Answers to plain HTTP requests on the WebSocket's port: one request a connection, then it closes."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from typing import Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import h11
import trio

from market_depth.server.linger import linger

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 16 * 1024
MAX_BODY_BYTES = 64 * 1024
BODY_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
"""How long a client may take to send a body, and a route to answer."""

ALLOWED = {"GET": ("GET", "HEAD"), "POST": ("POST",)}
"""Methods that a path answers, by the one it is made for."""


class Page(NamedTuple):
    """What a route answers."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    """Those that this answer has besides the usual ones."""


def json_page(content: object, status: HTTPStatus = HTTPStatus.OK) -> Page:
    """An answer in JSON."""
    return Page(status, "application/json", json.dumps(content).encode())


def error_page(status: HTTPStatus, detail: str | None = None) -> Page:
    """An answer that says what is wrong with the request."""
    return json_page({"detail": detail or status.phrase}, status)


class Request(NamedTuple):
    """What a client asks of a route."""

    query: Mapping[str, str]
    """The fields after the `?`; of one that comes twice, the last."""
    body: bytes


class Route(NamedTuple):
    """A path that answers one method, and may wait before it does."""

    method: Literal["GET", "POST"]
    answer: Callable[[Request], Awaitable[Page]]


Routes = Mapping[str, Route | Callable[[], Page]]
"""What each path answers. A function alone is a page to GET."""


class RefusedError(Exception):
    """A request that gets no further; the text is for the client."""

    def __init__(self, status: HTTPStatus, detail: str | None = None) -> None:
        super().__init__(status, detail)
        self.page = error_page(status, detail)


async def answer_request(stream: trio.abc.HalfCloseableStream, head: bytes, routes: Routes) -> None:
    """Answer the one request that begins with `head`, and end the conversation."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    parser.receive_data(head)
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        await send_page(stream, error_page(HTTPStatus(error.error_status_hint), str(error)))
        return
    assert isinstance(request, h11.Request), "the head is complete"
    try:
        page = await _page_for(stream, parser, request, routes)
    except RefusedError as refused:
        page = refused.page
    except h11.RemoteProtocolError as error:
        page = error_page(HTTPStatus(error.error_status_hint), str(error))
    except trio.BrokenResourceError:
        logger.debug("client left before its request was whole")
        return
    logger.debug("%s %r -> %d", request.method.decode(), request.target, page.status)
    await send_page(stream, page, with_body=request.method != b"HEAD")


async def send_page(stream: trio.abc.HalfCloseableStream, page: Page, *, with_body: bool = True) -> None:
    """Write an answer, then let the client finish what it is saying."""
    headers = (
        ("content-type", page.content_type),
        ("content-length", str(len(page.body))),
        ("connection", "close"),
        ("x-content-type-options", "nosniff"),
        *page.headers,
    )
    status_line = f"HTTP/1.1 {page.status.value} {page.status.phrase}"
    head = "\r\n".join((status_line, *(f"{name}: {value}" for name, value in headers), "\r\n")).encode()
    try:
        await stream.send_all(head + page.body if with_body else head)
        await linger(stream)
    except trio.BrokenResourceError:
        logger.debug("client left before its answer")


async def _page_for(
    stream: trio.abc.HalfCloseableStream, parser: h11.Connection, request: h11.Request, routes: Routes
) -> Page:
    """Raises: RefusedError, h11.RemoteProtocolError; trio.BrokenResourceError when the client leaves."""
    path, _, query = request.target.decode("ascii").partition("?")
    if path not in routes:
        return error_page(HTTPStatus.NOT_FOUND)
    found = routes[path]
    allowed = found.method if isinstance(found, Route) else "GET"
    if request.method.decode() not in ALLOWED[allowed]:
        wrong = error_page(HTTPStatus.METHOD_NOT_ALLOWED)
        return wrong._replace(headers=(("allow", ", ".join(ALLOWED[allowed])),))
    body = b""
    if allowed == "POST":
        _check_sender(request)
        body = await _read_body(stream, parser, request)
    try:
        if not isinstance(found, Route):
            return found()
        with trio.move_on_after(ANSWER_TIMEOUT_S):
            return await found.answer(Request(dict(parse_qsl(query, keep_blank_values=True)), body))
        return error_page(HTTPStatus.SERVICE_UNAVAILABLE, f"no answer within {ANSWER_TIMEOUT_S:g} s")
    except RefusedError:
        raise
    except Exception:
        logger.exception("page failed path=%s", path)
        return error_page(HTTPStatus.INTERNAL_SERVER_ERROR)


def _check_sender(request: h11.Request) -> None:
    """Refuse a request that a web page from elsewhere makes its reader's browser send.

    A browser names the page's origin in every POST; programs name none. A page that comes from this very server is
    welcome, if it was fetched by an address and not by a name: a stranger's name may lead here too (DNS rebinding).
    """
    headers = dict(request.headers)
    origin = headers.get(b"origin")
    if origin is None:
        return
    host = headers.get(b"host", b"").decode("ascii", "replace")
    own = [f"{scheme}://{host}" for scheme in ("http", "https")]
    if origin.decode("ascii", "replace") not in own or not _is_own_name(host):
        raise RefusedError(HTTPStatus.FORBIDDEN, "pages from elsewhere may not control this server")


def _is_own_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False


async def _read_body(
    stream: trio.abc.HalfCloseableStream, parser: h11.Connection, request: h11.Request
) -> bytes:
    """What comes after the head. Raises: as `_page_for`."""
    headers = dict(request.headers)
    if int(headers.get(b"content-length", b"0")) > MAX_BODY_BYTES:
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT_S):
        if parser.they_are_waiting_for_100_continue:
            go_on = parser.send(h11.InformationalResponse(status_code=100, headers=[]))
            assert go_on is not None, "only a closed connection has nothing to send"
            await stream.send_all(go_on)
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY_BYTES:
                    raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            else:
                parser.receive_data(bytes(await stream.receive_some()))
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if body and content_type != b"application/json":
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-type: application/json is expected"
            )
        return bytes(body)
    raise RefusedError(HTTPStatus.REQUEST_TIMEOUT)
