"""The answer to what is refused before any application hears of it: an error in JSON, and the end of the connection."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import trio

from market_depth.server.linger import linger

if TYPE_CHECKING:
    from http import HTTPStatus

logger = logging.getLogger(__name__)

FIXED_HEADERS = (("x-content-type-options", "nosniff"),)
"""Every answer of this server has them: what it calls JSON is not to be taken for a script."""


async def send_error(
    stream: trio.abc.HalfCloseableStream,
    status: HTTPStatus,
    detail: str | None = None,
    headers: tuple[tuple[str, str], ...] = (),
) -> None:
    """Say what is wrong, if the client is still there, and let it finish what it is saying."""
    try:
        await stream.send_all(error_answer(status, detail, headers))
        await linger(stream)
    except trio.BrokenResourceError:
        logger.debug("client left before its answer")


def error_answer(
    status: HTTPStatus, detail: str | None = None, headers: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """The whole answer as bytes."""
    body = json.dumps({"detail": detail or status.phrase}).encode()
    fields = (
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("connection", "close"),
        *FIXED_HEADERS,
        *headers,
    )
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        *(f"{name}: {value}" for name, value in fields),
        "\r\n",
    )
    return "\r\n".join(lines).encode() + body
