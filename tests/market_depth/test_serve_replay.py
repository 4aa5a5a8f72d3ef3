"""A served recording under control: over HTTP, seen over the WebSocket."""

from __future__ import annotations

import json
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio

from protocol.messages import MarketData, RestingOrders
from tests.depth_server import DepthServer
from tests.market_depth.feeds.dbn_files import START_NS, adds, compressed, encoded, write
from tests.market_depth.server.local_server import Client, websocket_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

S = 1_000_000_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DepthServer]:
    """Plays a hundred events, ten seconds apart. Its streams have an hour's rest, but for what cannot wait."""
    events = adds(100)
    events["ts_recv"] = events["ts_event"] = START_NS + 10 * S * np.arange(100)
    path = write(tmp_path, compressed(encoded(events)), "day.dbn.zst")
    server = DepthServer("--replay", str(path), "--interval-ms", "60000")
    yield server
    server.stop()


async def control(server: DepthServer, name: str, content: object = None) -> tuple[int, dict[str, Any]]:
    """Status and content of the answer."""

    def call() -> tuple[int, dict[str, Any]]:
        with closing(HTTPConnection(server.addr, timeout=10)) as connection:
            method = "GET" if name.startswith("status") else "POST"
            headers = {"Content-Type": "application/json"}
            connection.request(method, f"/api/control/replay/{name}", json.dumps(content or {}), headers)
            response = connection.getresponse()
            return response.status, json.load(response)

    return await trio.to_thread.run_sync(call)


async def next_frame(client: Client) -> tuple[int, list[int]]:
    """The sequence and the orders of the next frame."""
    frame = await client.receive()
    assert isinstance(frame, MarketData)
    assert isinstance(frame.data, RestingOrders)
    return frame.sequence, sorted(int(order.order_id) for order in frame.data.bids)


async def test_each_seek_brings_all_clients_a_fresh_snapshot_at_once(server: DepthServer) -> None:
    port = int(server.addr.rpartition(":")[2])
    async with websocket_client(port) as client, websocket_client(port) as other:
        for each in (client, other):
            await each.subscribe("book", "ACME", "MBO", 100)
        assert await next_frame(client) == await next_frame(other) == (1, [1])
        status, answer = await control(server, "pause")
        assert (status, answer["state"], answer["file"], answer["symbols"]) == (
            200,
            "PAUSED",
            "day.dbn.zst",
            ["ACME"],
        )
        sequences = [1]
        for seconds, orders in ((500, 51), (4, 1), (985, 99), (20, 3)):
            status, answer = await control(server, "seek", {"to": START_NS + seconds * S})
            assert (status, answer["state"], answer["records"]) == (200, "PAUSED", orders)
            frame = await next_frame(client)
            assert frame == await next_frame(other)
            assert frame[1] == list(range(1, orders + 1))
            sequences.append(frame[0])
        assert sequences == sorted(set(sequences))
        assert (await control(server, "seek", {"to": "2030-01-01T00:00:00Z"}))[1]["records"] == 100
        assert await next_frame(client) == (sequences[-1] + 101, list(range(1, 101)))
        assert (await control(server, "status?symbol=ACME"))[1]["state"] == "DONE"
        assert (await control(server, "start", {"speed": "max"}))[0] == 200


async def test_what_cannot_be_done_is_told_over_http(server: DepthServer) -> None:
    assert await control(server, "seek") == (422, {"detail": "to: Field required"})
    assert (await control(server, "pause", {"file": "night.dbn"}))[0] == 404
    assert (await control(server, "stop"))[1]["state"] == "IDLE"
    assert await control(server, "step") == (409, {"detail": "day.dbn.zst is IDLE: start it first"})
    assert (await control(server, "status"))[1]["state"] == "IDLE"


async def test_a_file_repaired_while_it_is_served_is_played_again(tmp_path: Path) -> None:
    content = encoded(adds(100))
    path = write(tmp_path, content[:-30], "torn.dbn")
    server = DepthServer("--replay", str(path), "--speed", "max")
    try:
        status, answer = await control(server, "step", {"events": 1000})
        assert status == 409
        assert answer["detail"].startswith(
            "torn.dbn is FAILED: torn.dbn: ends inside a record (26 bytes of it)"
        )
        assert (await control(server, "status"))[1]["records"] == 99
        assert await health(server) == 503

        path.write_bytes(content)
        assert (await control(server, "start", {"speed": "max"}))[0] == 200
        status, answer = await control(server, "seek", {"to": "2030-01-01T00:00:00Z"})
        assert (status, answer["records"], answer["error"]) == (200, 100, None)
        assert await health(server) == 200
    finally:
        server.stop()


async def health(server: DepthServer) -> int:
    def call() -> int:
        with closing(HTTPConnection(server.addr, timeout=10)) as connection:
            connection.request("GET", "/api/health")
            return connection.getresponse().status

    return await trio.to_thread.run_sync(call)
