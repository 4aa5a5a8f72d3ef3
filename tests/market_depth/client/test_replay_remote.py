from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from trio.testing import MockClock

from market_depth.client.replay_remote import MAX_ANSWER_BYTES, RemoteError, ReplayRemote
from market_depth.server.replay_control import PATH
from tests.market_depth.server.local_server import local_server

STATUS = {"file": "day.dbn", "state": "PAUSED", "position_ns": 5, "speed": "max", "percent": 1.5, "more": 1}


@asynccontextmanager
async def remote_of(*routes: Route) -> AsyncIterator[ReplayRemote]:
    async with local_server(application=Starlette(routes=routes)) as server:
        yield ReplayRemote(f"ws://127.0.0.1:{server.port}/", "ACME")


async def test_the_status_is_that_of_the_symbols_replay() -> None:
    async def answer(request: Request) -> Response:
        return JSONResponse(STATUS | {"file": request.query_params["symbol"]})

    async with remote_of(Route(f"{PATH}/status", answer)) as remote:
        status = await remote.status()
    assert status is not None
    assert (status.file, status.state, status.speed, status.percent) == ("ACME", "PAUSED", "max", 1.5)


async def test_a_token_goes_with_every_request() -> None:
    heard = []

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            heard.append(bytes(await stream.receive_some()))
            await stream.send_all(
                b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 14\r\n\r\n" + b'{"detail":"x"}'
            )

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, answer, 0)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(RemoteError, match="x"):
            await ReplayRemote(f"ws://127.0.0.1:{port}/", "ACME", "guess").status()
        nursery.cancel_scope.cancel()
    assert b"\r\nauthorization: Bearer guess\r\n" in heard[0]


async def test_a_server_without_replays_has_no_status() -> None:
    async with remote_of() as remote:
        assert await remote.status() is None


async def test_a_control_is_told_with_its_content() -> None:
    async def answer(request: Request) -> Response:
        return JSONResponse(STATUS | {"file": (await request.json())["to"]})

    async with remote_of(Route(f"{PATH}/seek", answer, methods=["POST"])) as remote:
        assert (await remote.tell("seek", {"to": "there"})).file == "there"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (
            JSONResponse({"detail": "day.dbn is DONE: start it first"}, HTTPStatus.CONFLICT),
            r"^day\.dbn is DONE: start it first$",
        ),
        (JSONResponse({"hello": 1}), r"the server answers something else \(HTTP status 200\)"),
        (JSONResponse([], HTTPStatus.CONFLICT), r"something else \(HTTP status 409\)"),
        (HTMLResponse("<html>"), r"something else \(HTTP status 200\)"),
        (JSONResponse("x" * MAX_ANSWER_BYTES), "the server's answer is too large"),
    ],
)
async def test_what_is_refused_or_not_understood_is_told_in_words(response: Response, reason: str) -> None:
    async def answer(_: Request) -> Response:
        return response

    async with remote_of(Route(f"{PATH}/pause", answer, methods=["POST"])) as remote:
        with pytest.raises(RemoteError, match=reason):
            await remote.tell("pause", {})


async def test_nobody_there_is_told_in_words(unused_port: int) -> None:
    with pytest.raises(RemoteError, match=r"^connection refused$"):
        await ReplayRemote(f"ws://127.0.0.1:{unused_port}/", "ACME").status()


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
async def test_an_answer_that_breaks_off_is_told_in_words(said: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(said)
        await stream.send_eof()
        await stream.receive_some()

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        with pytest.raises(RemoteError, match="the server's answer broke off"):
            await ReplayRemote(f"ws://127.0.0.1:{port}/", "ACME").status()
        nursery.cancel_scope.cancel()


async def hang(*_: object) -> trio.SocketStream:
    await trio.sleep_forever()
    raise AssertionError


async def test_a_server_that_says_nothing_is_not_waited_for_long(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio, "open_tcp_stream", hang)
    start = trio.current_time()
    with pytest.raises(RemoteError, match="the server does not answer"):
        await ReplayRemote("ws://nowhere:1/", "ACME").status()
    assert trio.current_time() - start == 10
