"""The HTTP application: its routes put together, and its manners, which are the same for all of them.

Errors are `{"detail": "text"}`; HEAD is answered wherever GET is. `/openapi.json` describes it, and `/docs` shows that.
Importing this takes longer than a server may take to accept: see `lifespan`.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.cors import CORSMiddleware

from market_depth.server.about import About
from market_depth.server.books import book_router
from market_depth.server.docs_page import docs_page
from market_depth.server.json_body import first_problem
from market_depth.server.page import SECURITY_HEADERS, page_router
from market_depth.server.replay_control import ReplayControl
from market_depth.server.stored import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from market_depth.feeds.replay import ReplayFeed
    from market_depth.server.about import ServedFeed
    from market_depth.server.asgi import Application, Receive, Scope, Send
    from market_depth.server.exposition import Measured
    from market_depth.stream.publisher import Publisher


class Problem(BaseModel):
    """What is wrong with a request."""

    detail: str


def make_application(
    feeds: Sequence[ServedFeed],
    replays: Sequence[ReplayFeed],
    publisher: Publisher,
    measured: Measured,
    uptime_s: Callable[[], float],
    allowed_origins: Sequence[str] = (),
) -> FastAPI:
    """The application of one server. It may be made in a thread; its routes run in the event loop that calls it.

    Browsers are told that pages of `allowed_origins` may read the answers, `*` standing for all.
    """
    application = FastAPI(
        title="market-depth",
        summary="A market's depth feed: what is not the WebSocket",
        version=version("market-depth"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": Problem, "description": "What is wrong"}},
    )
    application.add_exception_handler(StarletteHTTPException, _tell)
    application.add_exception_handler(RequestValidationError, _tell_invalid)
    application.add_exception_handler(Exception, _tell_failure)
    application.add_middleware(_HeadAsGet)
    if allowed_origins:
        application.add_middleware(
            CORSMiddleware,
            allow_origins=allowed_origins,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("Authorization", "Content-Type"),
        )
    for router in (
        About(feeds, measured, uptime_s).router(),
        book_router(feeds, publisher),
        ReplayControl(replays).router(),
        Stored(feeds, measured.store).router(),
        page_router(),
    ):
        application.include_router(router)

    @application.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(application.openapi()), headers=SECURITY_HEADERS)

    return application


class _HeadAsGet:
    """Lets routes know GET alone: to HEAD the server gives the same answer, and leaves the body out.

    A route whose body is long may look for `is_head` in the scope.
    """

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "is_head": True}
        await self._app(scope, receive, send)


async def _tell(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    headers = dict(error.headers or {})
    if headers.get("Allow") == "GET":
        headers["Allow"] = "GET, HEAD"
    return JSONResponse({"detail": error.detail}, error.status_code, headers)


async def _tell_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    # The first step says where the field stands: in the query, in the path.
    return JSONResponse({"detail": first_problem(error.errors(), skip=1)}, HTTPStatus.UNPROCESSABLE_ENTITY)


async def _tell_failure(_: Request, __: Exception) -> JSONResponse:
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return JSONResponse({"detail": status.phrase}, status)
