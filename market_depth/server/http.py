"""Answers to plain HTTP requests on the WebSocket's port: one request a connection, then it closes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import h11
import trio

from market_depth.server.linger import linger

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 16 * 1024


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


Routes = dict[str, Callable[[], Page]]
"""What `GET path` answers."""


async def answer_request(
    stream: trio.abc.HalfCloseableStream, head: bytes, routes: Mapping[str, Callable[[], Page]]
) -> None:
    """Answer the one request that begins with `head`, and end the conversation."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    parser.receive_data(head)
    try:
        request = parser.next_event()
    except h11.RemoteProtocolError as error:
        await send_page(stream, error_page(HTTPStatus(error.error_status_hint), str(error)))
        return
    assert isinstance(request, h11.Request), "the head is complete"
    page = _page_for(request, routes)
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


def _page_for(request: h11.Request, routes: Mapping[str, Callable[[], Page]]) -> Page:
    path = request.target.split(b"?", 1)[0].decode("ascii")
    if path not in routes:
        return error_page(HTTPStatus.NOT_FOUND)
    if request.method not in (b"GET", b"HEAD"):
        return error_page(HTTPStatus.METHOD_NOT_ALLOWED)._replace(headers=(("allow", "GET, HEAD"),))
    try:
        return routes[path]()
    except Exception:
        logger.exception("page failed path=%s", path)
        return error_page(HTTPStatus.INTERNAL_SERVER_ERROR)
