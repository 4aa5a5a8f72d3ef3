"""Whoever leaves, however that happens, leaves nothing behind in the server: over weeks it would add up."""

from __future__ import annotations

import gc
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio
from wsproto.frame_protocol import FrameProtocol

from market_depth.server.gate import Gate
from tests.market_depth.server.local_server import LocalServer, WrittenMarket, local_server, reset
from tests.market_depth.server.test_websocket import HANDSHAKE, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SUBSCRIBE = text(json.dumps({"type": "Subscribe", "stream_id": "a", "symbol": "BTCUSD", "data_type": "MBP"}))
HELLO = text(json.dumps({"type": "Hello", "heartbeat_interval_s": 5}))
CLOSE = bytes(FrameProtocol(client=True, extensions=[]).close(1000))
CLIENTS = 3

OURS = ("market_depth.", "protocol.", "tests.market_depth.server.local_server")
THEIRS = ("trio.", "trio_websocket.", "wsproto.", "h11.", "ssl", "_ssl", "socket")

KEPT_BY_TRIO = {"trio.CancelScope", "trio._core._run.CancelReason"}
"""Deadlines of tasks that have ended stay in its heap until there are a thousand more than are awaited."""

REFER_TO_THEMSELVES = ("wsproto.frame_protocol.", "trio.Cancelled")
"""Only the collector finds them: wsproto's parser until a close frame has come, and the end of a wait by the frames that it
passed."""


def living() -> Counter[str]:
    """How many objects there are of each kind that a connection needs."""
    kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return Counter(
        {
            kind: count
            for kind, count in kinds.items()
            if kind.startswith(OURS + THEIRS) and kind not in KEPT_BY_TRIO
        }
    )


async def watch(stream: trio.abc.Stream) -> None:
    await stream.send_all(HANDSHAKE)
    received = await stream.receive_some()
    await stream.send_all(HELLO + SUBSCRIBE)
    while received.count(b"MarketData") < 2:
        received += await stream.receive_some()


async def read_to_the_end(stream: trio.abc.Stream) -> None:
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


async def reset_it(server: LocalServer) -> None:
    stream = await server.connect()
    await watch(stream)
    reset(stream)


async def close_it(server: LocalServer) -> None:
    async with await server.connect() as stream:
        await watch(stream)
        await stream.send_all(CLOSE)
        await read_to_the_end(stream)


async def end_it(server: LocalServer) -> None:
    async with await server.connect() as stream:
        await watch(stream)
        await stream.send_eof()
        await read_to_the_end(stream)


async def break_the_rules(server: LocalServer) -> None:
    async with await server.connect() as stream:
        await watch(stream)
        await stream.send_all(b"\xff" * 100)
        await read_to_the_end(stream)


async def never_read(server: LocalServer) -> None:
    assert isinstance(server.market, WrittenMarket)
    stream = await server.connect()
    await watch(stream)
    server.market.padding = 4_000_000  # more than any socket takes
    skipped = server.counts.frames_skipped
    while server.counts.frames_skipped == skipped:
        await trio.lowlevel.checkpoint()
    reset(stream)
    server.market.padding = 0


async def leave_before_the_handshake(server: LocalServer) -> None:
    stream = await server.connect()
    await stream.send_all(HANDSHAKE[:-2])
    await trio.lowlevel.checkpoint()
    reset(stream)


async def shake_hands_wrongly(server: LocalServer) -> None:
    await server.exchange(HANDSHAKE.replace(b"Version: 13", b"Version: 12"))


async def ask_over_http(server: LocalServer) -> None:
    await server.exchange(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


async def ask_nonsense(server: LocalServer) -> None:
    await server.exchange(b"\0\r\n\r\n")


@pytest.mark.parametrize(
    "leave",
    [
        reset_it,
        close_it,
        end_it,
        break_the_rules,
        never_read,
        leave_before_the_handshake,
        shake_hands_wrongly,
        ask_over_http,
        ask_nonsense,
    ],
    ids=lambda leave: leave.__name__,
)
async def test_a_client_that_leaves_leaves_nothing_behind(
    leave: Callable[[LocalServer], Awaitable[None]],
) -> None:
    async with local_server(gate=Gate(max_connections=1)) as server:

        async def come_and_leave() -> None:
            tasks = trio.lowlevel.current_statistics().tasks_living
            with trio.fail_after(20):
                await leave(server)
                while trio.lowlevel.current_statistics().tasks_living > tasks:
                    await trio.lowlevel.checkpoint()

        await come_and_leave()  # what the first one needs may stay
        gc.collect()
        gc.disable()
        try:
            before = living()
            for _ in range(CLIENTS):
                await come_and_leave()
            uncollected = living() - before
        finally:
            gc.enable()
        if (
            leave is not ask_nonsense
        ):  # an error of h11 refers to itself, and by its traceback to all it passed
            assert {kind for kind in uncollected if not kind.startswith(REFER_TO_THEMSELVES)} == set()
        gc.collect()
        assert living() - before == Counter()
        assert dict(server.broadcaster.topics) == {}
