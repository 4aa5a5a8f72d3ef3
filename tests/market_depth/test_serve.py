"""The server as users start it, in a process of its own, and real clients."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections import defaultdict
from decimal import Decimal
from itertools import groupby, pairwise
from typing import IO, TYPE_CHECKING, Any

import pytest
import trio

from protocol.messages import (
    DATA_TYPES,
    Error,
    HeartBeat,
    MarketData,
    PriceLevels,
    RestingOrders,
    Subscribed,
    Unsubscribed,
)
from tests.depth_server import DepthServer
from tests.market_depth.server.local_server import SYMBOLS, Client, websocket_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

PING = '{"type": "Ping", "timestamp": "2026-11-20T16:41:03Z"}'


@pytest.fixture(scope="module")
def server() -> Iterator[DepthServer]:
    """A server that tests leave as it is."""
    server = DepthServer("--interval-ms", "20", "--seed", "7")
    yield server
    server.stop()


@pytest.fixture
def log() -> Iterator[IO[bytes]]:
    """Takes what a server writes to standard error."""
    with tempfile.TemporaryFile() as file:
        yield file


def text_of(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode()


def client_of(server: DepthServer) -> AbstractAsyncContextManager[Client]:
    """A client that has been greeted."""
    return websocket_client(int(server.addr.rpartition(":")[2]))


async def get(server: DepthServer, path: str) -> tuple[int, Any]:
    """Status and content of a page in JSON."""

    def request() -> tuple[int, Any]:
        with urllib.request.urlopen(f"http://{server.addr}{path}", timeout=10) as response:
            return response.status, json.load(response)

    return await trio.to_thread.run_sync(request)


# Streams


async def test_a_stream_begins_with_its_answer_and_its_first_book(server: DepthServer) -> None:
    async with client_of(server) as client:
        expected = Subscribed(stream_id="my stream", symbol="BTCUSD", data_type="MBP")
        assert await client.subscribe("my stream") == expected
        first = await client.receive()
    assert isinstance(first, MarketData)
    assert (first.stream_id, first.symbol) == ("my stream", "BTCUSD")
    assert len(first.data.bids) == len(first.data.asks) == 20


async def test_one_connection_carries_both_kinds_of_three_symbols(server: DepthServer) -> None:
    frames: dict[str, list[MarketData]] = defaultdict(list)
    async with client_of(server) as client:
        for symbol in SYMBOLS:
            for data_type in DATA_TYPES:
                await client.subscribe(f"{symbol} {data_type}", symbol, data_type)
        while len(frames) < 6 or min(map(len, frames.values())) < 15:
            frame = await client.receive()
            assert isinstance(frame, MarketData)
            frames[frame.stream_id].append(frame)
    for stream_id, received in frames.items():
        assert {f"{frame.symbol} {frame.data.format}" for frame in received} == {stream_id}
        for before, after in pairwise(received):
            assert before.sequence <= after.sequence
            if before.sequence == after.sequence:
                assert shown(before) == shown(after)
        for frame in received:
            best_bid, best_ask = frame.data.bids[0].price, frame.data.asks[0].price
            assert best_bid < best_ask
    for symbol in SYMBOLS:
        by_price = {frame.sequence: frame.data for frame in frames[f"{symbol} MBP"]}
        both = [frame for frame in frames[f"{symbol} MBO"] if frame.sequence in by_price]
        assert both
        for frame in both:
            levels = by_price[frame.sequence]
            assert isinstance(frame.data, RestingOrders)
            assert isinstance(levels, PriceLevels)
            assert sums(frame.data) == [
                [(level.price, level.quantity, level.order_count) for level in side]
                for side in (levels.bids, levels.asks)
            ]


def shown(frame: MarketData) -> object:
    """The book in a frame, without the orders' ages."""
    return frame.data.model_dump(exclude={"bids": {"__all__": {"age_ms"}}, "asks": {"__all__": {"age_ms"}}})


def sums(orders: RestingOrders) -> list[list[tuple[Decimal, Decimal, int]]]:
    """The price levels that the orders add up to."""
    return [
        [
            (price, sum((order.quantity for order in level), Decimal(0)), len(level))
            for price, level in (
                (price, list(level)) for price, level in groupby(side, lambda order: order.price)
            )
        ]
        for side in (orders.bids, orders.asks)
    ]


async def test_no_frame_follows_the_end_of_a_stream(server: DepthServer) -> None:
    async with client_of(server) as client:
        await client.subscribe("goes")
        await client.subscribe("stays")
        await client.send('{"type": "Unsubscribe", "stream_id": "goes"}')
        assert await client.answer() == Unsubscribed(stream_id="goes")
        later = [await client.receive() for _ in range(5)]
    assert {frame.stream_id for frame in later if isinstance(frame, MarketData)} == {"stays"}
    assert len(later) == 5


async def test_a_ping_is_answered_by_a_heartbeat(server: DepthServer) -> None:
    async with client_of(server) as client:
        await client.send(PING)
        assert isinstance(await client.answer(), HeartBeat)


async def test_a_client_that_misbehaves_disturbs_no_other(server: DepthServer) -> None:
    async with client_of(server) as good, client_of(server) as bad:
        await good.subscribe("a")
        await bad.send("x" * 70_000)
        assert await bad.close_code() == 1009
        assert [isinstance(await good.receive(), MarketData) for _ in range(5)] == [True] * 5


async def test_pages_tell_how_the_server_is_and_what_it_is(server: DepthServer) -> None:
    async with client_of(server) as client:
        await client.subscribe("a")
        await client.receive()
    status, health = await get(server, "/api/health")
    assert (status, health["ok"], health["state"]) == (200, True, "serving")
    [feed] = health["feeds"]
    assert (feed["name"], feed["state"], feed["symbols"]) == (
        "simulator",
        "running",
        ["BTCUSD", "ETHUSD", "ADAUSD"],
    )


async def test_a_strangers_name_for_this_machine_is_not_answered(server: DepthServer) -> None:
    def request() -> int:
        connection = http.client.HTTPConnection(server.addr, timeout=10)
        connection.request("GET", "/api/symbols", headers={"Host": "evil.example"})
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    assert await trio.to_thread.run_sync(request) == 421


# Starting and stopping


@pytest.mark.slow
async def test_a_client_may_subscribe_while_the_kernels_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: IO[bytes]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    server = DepthServer("--interval-ms", "20", log=log)
    try:
        async with client_of(server) as client:
            _, health = await get(server, "/api/health")
            assert (health["ok"], health["state"]) == (True, "warming")
            assert isinstance(await client.subscribe("a"), Subscribed)
            assert isinstance(await client.receive(), MarketData)
            _, health = await get(server, "/api/health")
            assert health["state"] == "serving"
    finally:
        server.stop()
    assert "compiling the book kernels: first start only" in text_of(log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_tells_the_clients_and_stops_in_order(number: signal.Signals, log: IO[bytes]) -> None:
    server = DepthServer("--interval-ms", "20", log=log)
    process = server.process
    try:
        async with client_of(server) as first, client_of(server) as second:
            await first.subscribe("a")
            process.send_signal(number)
            for client in (first, second):
                assert await client.answer() == Error(code=503, message="the server is shutting down")
                assert await client.close_code() == 1001
        assert await trio.to_thread.run_sync(process.wait, 5) == 0
    finally:
        server.stop()
    text = text_of(log)
    assert f"shutting down signal={number.name}" in text
    assert text.count(" code=1001 ") == 2
    assert text.splitlines()[-1].endswith("app: stopped")
    assert "Traceback" not in text
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", int(server.addr.rpartition(":")[2]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_kernels_compile_stops_at_once(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: IO[bytes]
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    server = DepthServer(log=log)
    try:
        server.process.send_signal(number)
        assert server.process.wait(5) == 0
    finally:
        server.stop()
    assert "Traceback" not in text_of(log)


def test_a_port_in_use_is_one_line_and_nothing_left_running(server: DepthServer) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "market_depth", "serve", "--addr", server.addr],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"market-depth: cannot listen on {server.addr}: Address already in use\n"
