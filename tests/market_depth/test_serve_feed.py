"""A file published over TCP, served from there, and followed by a WebSocket client: three processes, as users run them."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import trio

from protocol.messages import MarketData
from tests.depth_server import DepthServer
from tests.market_depth.feeds.dbn_files import adds, encoded, write
from tests.market_depth.publish.publish_process import PublishProcess
from tests.market_depth.server.local_server import websocket_client

if TYPE_CHECKING:
    from pathlib import Path


def feed_state(server: DepthServer) -> str:
    """Its state as health tells it, which is 503 while the source is lost."""
    try:
        answer = urllib.request.urlopen(f"http://{server.addr}/api/health", timeout=10)
    except HTTPError as error:
        answer = error
    with answer:
        health = json.load(answer)
        assert health["ok"] == (answer.status == HTTPStatus.OK)
        state = str(health["feeds"][0]["state"])
        assert health["ok"] == (state != "stale")
        return state


async def test_a_market_stays_served_while_its_gateway_is_away(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(adds(200_000)))
    with tempfile.TemporaryFile() as log, PublishProcess(path, "--rate", "2000", log=log) as published:
        url = f"tcp://127.0.0.1:{published.port}?symbols=ACME"
        server = DepthServer("--feed", url, "--interval-ms", "20", log=log)
        try:
            async with websocket_client(int(server.addr.rpartition(":")[2])) as client:
                await client.subscribe("book", "ACME")
                before = await client.receive()
                assert isinstance(before, MarketData)
                published.stop()
                while await trio.to_thread.run_sync(feed_state, server) != "stale":
                    await client.receive()
                published.start()
                while await trio.to_thread.run_sync(feed_state, server) != "running":
                    await client.receive()
                after = await client.receive()
                assert isinstance(after, MarketData)
                assert after.sequence >= before.sequence
                assert after.data.bids
        finally:
            server.stop()
