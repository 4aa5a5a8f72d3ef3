from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from fastapi import FastAPI, Request
from trio.testing import wait_all_tasks_blocked

from market_depth.server.lifespan import PATIENCE_S, START_TIMEOUT_S, HostedApplication
from tests.market_depth.server.applications import ask, hello

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

    from market_depth.server.asgi import Application, Receive, Scope, Send


@asynccontextmanager
async def hosted(
    make: Callable[[], Application], *, in_good_time: bool = True
) -> AsyncIterator[HostedApplication]:
    """An application that lives until the end of the block."""
    application = HostedApplication(make)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application.run)
        if in_good_time:
            application.hurry()
        yield application
        await application.shut_down()


@pytest.mark.parametrize("is_asked", [True, False])
async def test_an_application_is_made_once_when_it_is_a_good_time(is_asked: bool) -> None:
    made = 0

    def make() -> Application:
        nonlocal made
        made += 1
        return hello

    async with hosted(make, in_good_time=False) as application, trio.open_nursery() as nursery:
        if is_asked:
            for _ in range(3):
                nursery.start_soon(ask, application, "GET", "/")
        await wait_all_tasks_blocked()
        assert made == 0
        application.hurry()
        assert (await ask(application, "GET", "/")).status == 200
    assert made == 1


async def test_a_request_brings_an_application_about_even_if_no_time_is_good(mock_clock: MockClock) -> None:
    async with hosted(lambda: hello, in_good_time=False) as application, trio.open_nursery() as nursery:
        nursery.start_soon(ask, application, "GET", "/")
        await wait_all_tasks_blocked()
        mock_clock.jump(PATIENCE_S)


async def test_an_application_nobody_wanted_is_never_made() -> None:
    def make() -> Application:
        raise AssertionError

    async with hosted(make, in_good_time=False):
        pass


async def test_an_application_is_started_and_ended_and_its_requests_see_its_state() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        steps.append("started")
        yield {"answer": 42}
        steps.append("ended")

    def make() -> Application:
        application = FastAPI(lifespan=lifespan)

        @application.get("/")
        async def get(request: Request) -> int:
            steps.append("asked")
            return int(request.state.answer)

        return application

    async with hosted(make) as application:
        assert (await ask(application, "GET", "/")).content == 42
    assert steps == ["started", "asked", "ended"]


async def refuse_all_but_http(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await hello(scope, receive, send)


async def ignore_all_but_http(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await hello(scope, receive, send)


@pytest.mark.parametrize("application", [refuse_all_but_http, ignore_all_but_http])
async def test_an_application_may_do_without_a_lifespan(
    application: Application, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted(lambda: application) as host:
        assert (await ask(host, "GET", "/")).status == 200
    assert not caplog.records


def fail_to_make() -> Application:
    raise ImportError("secret")


@asynccontextmanager
async def failing(application: FastAPI) -> AsyncIterator[None]:
    if application.title:
        raise RuntimeError("secret")
    yield


async def say_it_failed(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no luck"})


@pytest.mark.parametrize("make", [fail_to_make, lambda: FastAPI(lifespan=failing), lambda: say_it_failed])
async def test_an_application_that_fails_is_a_503_and_a_trace_in_the_log(
    make: Callable[[], Application], caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted(make) as application:
        got = await ask(application, "GET", "/")
        assert (got.status, got.content) == (503, {"detail": "the HTTP part has failed"})
    assert [record.getMessage() for record in caplog.records] == ["the HTTP application failed"]
    assert caplog.records[0].exc_info is not None


async def test_a_request_waits_only_so_long_for_the_application(autojump_clock: MockClock) -> None:
    async def never_started(_: Scope, __: Receive, ___: Send) -> None:
        await trio.sleep_forever()

    application = HostedApplication(lambda: never_started)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(application.run)
        got = await ask(application, "GET", "/")
        nursery.cancel_scope.cancel()
    assert (got.status, got.content) == (503, {"detail": "the server is starting"})
    assert trio.current_time() >= START_TIMEOUT_S
