"""The terminal watcher: one symbol's ladder, drawn again and again until the user leaves."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Protocol

import trio
from pydantic import ValidationError
from rich.console import Console
from rich.live import Live as LiveScreen

from market_depth.client.connection import (
    SILENCE_TEXT,
    Connect,
    ConnectionLost,
    Denied,
    Live,
    Waiting,
    follow,
    open_socket,
    websocket_url,
)
from market_depth.client.keyboard import pressed_keys
from market_depth.client.ladder import ladder
from market_depth.client.replay_keys import orders_for
from market_depth.client.replay_remote import RemoteError, ReplayRemote, ReplayStatus
from market_depth.client.view import MarketView
from market_depth.config import checked_token
from market_depth.exits import complain
from protocol.messages import DEFAULT_LEVELS, DataType, Error, Subscribe

DEFAULT_SYMBOL = "BTCUSD"
"""Watched when none is named: the base protocol lists no symbols, and this one is served unless others are chosen."""

OPTIONS = {"symbol": "SYMBOL", "data_type": "--data-type", "max_levels": "--levels"}
"""A subscription's fields as the person at the terminal names them."""

DRAW_INTERVAL_S = 0.1

CONNECT_LIMIT_S = 5.0
FIRST_BOOK_LIMIT_S = 30.0
"""A server answers before it has a book: its first start compiles for some seconds."""

REPLAY_POLL_S = 0.5
REPLAY_SEARCH_S = 5.0
"""How often the server is asked where its replay stands, and whether it has one."""

MAX_KEYS_WAITING = 100

Keys = Callable[[], AbstractAsyncContextManager[trio.abc.ReceiveChannel[str]]]


class Remote(Protocol):
    """Controls the replay of one symbol, if there is one. ReplayRemote does."""

    async def status(self) -> ReplayStatus | None: ...

    async def tell(self, control: str, content: dict[str, object]) -> ReplayStatus: ...


def run_watch(
    addr: str,
    symbol: str | None = None,
    data_type: DataType = "MBP",
    levels: int = DEFAULT_LEVELS,
    once: bool = False,
    token: str | None = None,
) -> int:
    """Show a symbol's book in the terminal until the user leaves, or once. `token` is what the server may ask for.

    Returns: the exit code: 0, or 1 when the server refuses or cannot be reached, or 2 when the call was wrong;
    why stands on standard error.
    """
    console = Console()
    try:
        url = websocket_url(addr)
        if token is not None:
            checked_token(token)
        subscription = Subscribe(
            stream_id="watch", symbol=symbol or DEFAULT_SYMBOL, data_type=data_type, max_levels=levels
        )
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        return _fail(f"{OPTIONS[field]}: must be {Subscribe.model_fields[field].description}", 2)
    except ValueError as error:
        return _fail(str(error), 2)
    if not once and (console.is_dumb_terminal or not sys.stdout.isatty()):
        return _fail("watch draws on a terminal; add --once for one frame as text", 2)
    view = MarketView(subscription, addr)
    connect = partial(open_socket, token=token)
    try:
        if once:
            trio.run(partial(watch_once, url, view, console, connect=connect))
        else:
            remote = ReplayRemote(url, subscription.symbol, token)
            keys = _stdin_keys if sys.stdin.isatty() else None
            trio.run(partial(watch, url, view, console, keys, remote, connect=connect))
    except ConnectionLost as error:
        return _fail(f"cannot watch {subscription.symbol} at {addr}: {error}", 1)
    except KeyboardInterrupt:
        return 130  # as a shell reports it; the full screen leaves by Ctrl-C as by q
    match view.refusal:
        case None:
            return 0
        case Denied(message=message, remedy=remedy):
            return _fail(f"{message}: {remedy}", 1)
        case Error(message=message):
            return _fail(message, 1)


async def watch(
    url: str,
    view: MarketView,
    console: Console,
    keys: Keys | None = None,
    remote: Remote | None = None,
    *,
    connect: Connect = open_socket,
    wall_ns: Callable[[], int] = time.time_ns,
) -> None:
    """Keep the ladder on the whole screen until q, Ctrl-C or a signal, or until the server refuses the stream.

    `keys` opens the keyboard; `remote` controls the replay that the market may come from. The terminal is restored on leaving; a refusal is then found in `view`.
    """
    with LiveScreen(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    ) as screen:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_draw, screen, view)
            nursery.start_soon(_leave_on_signal, nursery.cancel_scope)
            to_replay, replay_keys = trio.open_memory_channel[str](MAX_KEYS_WAITING)
            if remote is not None:
                nursery.start_soon(_follow_replay, remote, view, replay_keys)
            if keys is not None:
                nursery.start_soon(_follow_keys, keys, to_replay, nursery.cancel_scope)
            async with follow(url, [view.subscription], connect=connect) as updates:
                async for update in updates:
                    view.apply(update, trio.current_time(), wall_ns())
                    if view.refusal is not None:
                        break
            nursery.cancel_scope.cancel()


async def watch_once(
    url: str,
    view: MarketView,
    console: Console,
    *,
    connect: Connect = open_socket,
    wall_ns: Callable[[], int] = time.time_ns,
) -> None:
    """Print the first frame, or nothing when the server refuses the stream: the refusal is then found in `view`.

    Raises: ConnectionLost when no connection, or no frame after it, comes in time.
    """
    reason = SILENCE_TEXT
    with trio.move_on_after(CONNECT_LIMIT_S) as limit:
        async with follow(url, [view.subscription], connect=connect) as updates:
            async for update in updates:
                view.apply(update, trio.current_time(), wall_ns())
                match update:
                    case Waiting():
                        reason = update.reason
                    case Live():
                        reason = "the server sent no book"
                        limit.relative_deadline = FIRST_BOOK_LIMIT_S
                if view.frame is not None or view.refusal is not None:
                    break
    if view.frame is not None:
        console.print(ladder(view, trio.current_time(), console.width))
    elif view.refusal is None:
        raise ConnectionLost(reason)


async def _draw(screen: LiveScreen, view: MarketView) -> None:
    while True:
        # The size is asked for each time: a resized terminal shows the new layout with the next frame.
        width, height = screen.console.size
        screen.update(ladder(view, trio.current_time(), width, height), refresh=True)
        await trio.sleep(DRAW_INTERVAL_S)


async def _follow_keys(keys: Keys, to_replay: trio.MemorySendChannel[str], scope: trio.CancelScope) -> None:
    """Leave on q; all other keys are the replay's."""
    async with keys() as pressed:
        async for key in pressed:
            if key in {"q", "Q"}:
                break
            with suppress(trio.WouldBlock):  # one who leans on a key is not followed for ever
                to_replay.send_nowait(key)
    scope.cancel()


async def _follow_replay(remote: Remote, view: MarketView, keys: trio.MemoryReceiveChannel[str]) -> None:
    """Keep the replay's status in the view, and do with the replay what the keys say."""
    pressed: list[str] = []
    while True:
        try:
            view.replay = await remote.status()
        except RemoteError:
            # The screen tells already whether the server is there.
            view.replay = None
        if view.replay is not None and pressed:
            await _control_replay(remote, view, view.replay, pressed)
        pressed.clear()
        with trio.move_on_after(REPLAY_POLL_S if view.replay is not None else REPLAY_SEARCH_S):
            pressed.append(await keys.receive())
        with suppress(trio.WouldBlock):
            while True:
                pressed.append(keys.receive_nowait())


async def _control_replay(remote: Remote, view: MarketView, status: ReplayStatus, pressed: list[str]) -> None:
    view.replay_notice = None
    try:
        for control, content in orders_for(pressed, status):
            view.replay = await remote.tell(control, content)
    except RemoteError as error:
        view.replay_notice = str(error)


async def _leave_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            scope.cancel()


def _stdin_keys() -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[str]]:
    return pressed_keys(sys.stdin.fileno())


def _fail(message: str, exit_code: int) -> int:
    complain(message)
    return exit_code
