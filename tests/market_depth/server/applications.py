"""ASGI applications as plain functions, each with one habit that a server has to live with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from market_depth.server.asgi import Application, Message, Receive, Scope, Send

JSON_HEADERS = [(b"content-type", b"application/json")]


async def hello(_: Scope, __: Receive, send: Send) -> None:
    """Greets whoever comes, and reads no body."""
    await answer(send, {"hello": "world"})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what it was asked."""
    body = await read(receive)
    await answer(send, {"method": scope["method"], "path": scope["path"], "body": body.decode("latin-1")})


async def answer(send: Send, content: Any, status: int = 200) -> None:
    """Send a whole answer in JSON."""
    body = json.dumps(content).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*JSON_HEADERS, length]})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Receive) -> bytes:
    """The whole body of a request. Raises: ConnectionError when the client leaves in the middle."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has left")
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


class Answer(NamedTuple):
    """What an application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


async def ask(
    application: Application,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),),
) -> Answer:
    """Ask an application without a server between."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8080),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await application(scope, receive, send)
    start, *rest = sent
    return Answer(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in rest),
    )
