"""An ASGI application's life: made when it is wanted, started, served, told to end.

    unmade ──► making ──► starting ──► serving ──► ending
                  └───────────┴──► failed: the log says why, and every request is told 503

It is made in a thread, because to import a web framework takes longer than a server may take to accept, and not while
something more important starts: the thread would take half the interpreter's time. A request that comes before waits.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from market_depth.server.asgi import Application, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 10.0
"""How long a request waits for the application."""

PATIENCE_S = 1.0
"""How long the application is not made although a request waits for it, if nobody has said that now is a good time."""


class HostedApplication:
    """An application as a server can hold it before it exists. Itself an ASGI application for HTTP requests."""

    def __init__(self, make: Callable[[], Application]) -> None:
        """`make` is called once, in a thread."""
        self._make = make
        self._application: Application | None = None
        self._state: dict[str, Any] = {}
        self._wanted = trio.Event()
        self._hurried = trio.Event()
        self._decided = trio.Event()
        self._ending = trio.Event()
        self._ended = trio.Event()

    def hurry(self) -> None:
        """Make it now: whatever is more important has been done."""
        self._hurried.set()
        self._wanted.set()

    async def shut_down(self) -> None:
        """Tell the application that no more requests come. Returns when `run` does."""
        self._ending.set()
        self.hurry()
        await self._ended.wait()

    async def run(self) -> None:
        """Let it live until `shut_down`. What it raises is logged, and goes no further."""
        try:
            await self._wanted.wait()
            with trio.move_on_after(PATIENCE_S):
                await self._hurried.wait()
            if not self._ending.is_set():
                application = await trio.to_thread.run_sync(self._make, abandon_on_cancel=True)
                await self._live(application)
        except* Exception:
            logger.exception("the HTTP application failed")
        finally:
            self._application = None
            self._decided.set()
            self._ended.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._wanted.set()
        with trio.move_on_after(START_TIMEOUT_S):
            await self._decided.wait()
        if self._application is not None:
            await self._application({**scope, "state": self._state.copy()}, receive, send)
        else:
            is_early = not self._decided.is_set()
            await _send_unavailable(
                send, "the server is starting" if is_early else "the HTTP part has failed"
            )

    async def _live(self, application: Application) -> None:
        """Take the application through its lifespan, if it cares for that.

        Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
        """
        asked: list[str] = []
        answered: list[str] = []
        failures: list[str] = []

        async def receive() -> Message:
            if asked:
                await self._ending.wait()
            asked.append("lifespan.shutdown" if asked else "lifespan.startup")
            return {"type": asked[-1]}

        async def send(message: Message) -> None:
            answered.append(message["type"])
            if answered == ["lifespan.startup.complete"]:
                self._begin(application)
            elif answered[-1].endswith(".failed"):
                failures.append(message.get("message", ""))

        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await application(scope, receive, send)
        except Exception:
            if asked:
                raise
            logger.debug("the application has no lifespan")
        if failures:
            raise RuntimeError(failures[0])
        if not self._ending.is_set():
            self._begin(application)
            await self._ending.wait()

    def _begin(self, application: Application) -> None:
        self._application = application
        self._decided.set()


async def _send_unavailable(send: Send, detail: str) -> None:
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": [*headers, (b"retry-after", b"1")]})
    await send({"type": "http.response.body", "body": body})
