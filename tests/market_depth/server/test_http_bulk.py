"""A hundred megabytes up and down: whole, and never in memory at once."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.market_depth.server.applications import answer
from tests.market_depth.server.local_server import local_server

if TYPE_CHECKING:
    from market_depth.server.asgi import Receive, Scope, Send

PIECE = random.Random(20261120).randbytes(1_000_000)
PIECES = 100
LENGTH = b"Content-Length: %d\r\n" % (PIECES * len(PIECE))
DIGEST = hashlib.sha256(PIECES * PIECE).hexdigest()

RSS_GROWTH_BYTES = 16 * 1024 * 1024


async def digest(_: Scope, receive: Receive, send: Send) -> None:
    """Says what was uploaded."""
    hashed = hashlib.sha256()
    while (message := await receive())["more_body"]:
        hashed.update(message["body"])
    await answer(send, hashed.hexdigest())


async def send_pieces(_: Scope, __: Receive, send: Send) -> None:
    """A download."""
    await send({"type": "http.response.start", "status": 200})
    for number in range(PIECES):
        await send({"type": "http.response.body", "body": PIECE, "more_body": number < PIECES - 1})


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Memory:
    """What this process, which is server and client, takes more than at first."""

    def __init__(self) -> None:
        self.first = self.most = rss_bytes()

    def look(self) -> None:
        self.most = max(self.most, rss_bytes())

    @property
    def growth(self) -> int:
        return self.most - self.first


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads a process's memory from /proc"),
]


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_an_upload_is_taken_piece_by_piece(is_chunked: bool) -> None:
    framing = b"Transfer-Encoding: chunked\r\n" if is_chunked else LENGTH
    async with local_server(application=digest) as server, await server.connect() as stream:
        memory = Memory()
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n")
        for _ in range(PIECES):
            await stream.send_all(b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if is_chunked else PIECE)
            memory.look()
        if is_chunked:
            await stream.send_all(b"0\r\n\r\n")
        assert DIGEST.encode() in await stream.receive_some()
    assert memory.growth < RSS_GROWTH_BYTES


@pytest.mark.parametrize("read_bytes", [4096, 1_000_000])
async def test_a_download_waits_for_its_reader(read_bytes: int) -> None:
    async with local_server(application=send_pieces) as server, await server.connect() as stream:
        memory = Memory()
        await stream.send_all(b"GET / HTTP/1.0\r\n\r\n")
        received = await stream.receive_some(4096)
        hashed = hashlib.sha256(received.partition(b"\r\n\r\n")[2])
        while data := await stream.receive_some(read_bytes):
            hashed.update(data)
            memory.look()
    assert hashed.hexdigest() == DIGEST
    assert memory.growth < RSS_GROWTH_BYTES
