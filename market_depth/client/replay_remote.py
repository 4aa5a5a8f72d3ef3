"""The controls of a replay on a depth server, over its HTTP interface: one request a connection."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Literal
from urllib.parse import urlencode, urlsplit

import h11
import trio
from pydantic import BaseModel, ValidationError

from market_depth.client.connection import ConnectionLost, open_stream

PATH = "/api/control/replay/"

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024
RECEIVE_BYTES = 16 * 1024


class RemoteError(Exception):
    """The server cannot be asked, or refuses. The text says why, in words for the person at the screen."""


class ReplayStatus(BaseModel):
    """What a replay is doing, and how far it has come."""

    file: str
    state: Literal["IDLE", "RUNNING", "PAUSED", "DONE", "FAILED"]
    position_ns: int
    speed: float | Literal["max"] | None = None
    rate: float | None = None
    percent: float


class ReplayRemote:
    """The replay of a symbol."""

    def __init__(self, websocket_url: str, symbol: str, token: str | None = None) -> None:
        """`websocket_url`: where the server's WebSocket is; HTTP is on the same port. `token`: what it may ask for."""
        self._url = urlsplit(websocket_url)
        self._symbol = symbol
        self._token = token

    async def status(self) -> ReplayStatus | None:
        """Where it stands; None when the server replays no such symbol.

        Raises: RemoteError.
        """
        query = urlencode({"symbol": self._symbol})
        status, answer = await self._ask("GET", f"status?{query}", b"")
        return None if status == HTTPStatus.NOT_FOUND else _status_in(status, answer)

    async def tell(self, control: str, content: dict[str, object]) -> ReplayStatus:
        """Control it: `content` is what the route of that name takes. Returns: where it stands then.

        Raises: RemoteError.
        """
        status, answer = await self._ask("POST", control, json.dumps(content).encode())
        return _status_in(status, answer)

    async def _ask(self, method: str, name: str, body: bytes) -> tuple[int, bytes]:
        try:
            with trio.fail_after(TIMEOUT_S):
                return await self._exchange(method, name, body)
        except trio.TooSlowError:
            raise RemoteError("the server does not answer") from None
        except ConnectionLost as error:
            raise RemoteError(str(error)) from error
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise RemoteError("the server's answer broke off") from error

    async def _exchange(self, method: str, name: str, body: bytes) -> tuple[int, bytes]:
        parser = h11.Connection(h11.CLIENT)
        headers = [("host", self._url.netloc), ("content-type", "application/json")]
        if self._token is not None:
            headers.append(("authorization", f"Bearer {self._token}"))
        head = h11.Request(
            method=method, target=PATH + name, headers=[*headers, ("content-length", str(len(body)))]
        )
        request = [parser.send(event) or b"" for event in (head, h11.Data(data=body), h11.EndOfMessage())]
        status, answer = 0, b""
        async with await open_stream(self._url) as stream:
            await stream.send_all(b"".join(request))
            while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                match event:
                    case h11.NEED_DATA:
                        parser.receive_data(bytes(await stream.receive_some(RECEIVE_BYTES)))
                    case h11.Response():
                        status = event.status_code
                    case h11.Data():
                        answer += event.data
                        if len(answer) > MAX_ANSWER_BYTES:
                            raise RemoteError("the server's answer is too large")
                    case h11.ConnectionClosed():
                        raise RemoteError("the server's answer broke off")
        return status, answer


def _status_in(status: int, answer: bytes) -> ReplayStatus:
    try:
        if status == HTTPStatus.OK:
            return ReplayStatus.model_validate_json(answer)
        raise RemoteError(str(json.loads(answer)["detail"]))
    except (ValidationError, ValueError, KeyError, TypeError) as error:
        raise RemoteError(f"the server answers something else (HTTP status {status})") from error
