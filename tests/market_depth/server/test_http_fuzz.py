"""Requests that nobody should send, each in pieces of random size: whatever comes, the server ends the conversation well."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

import pytest
import trio

from tests.market_depth.server.applications import echo, hello
from tests.market_depth.server.test_asgi import statuses, talk

if TYPE_CHECKING:
    from trio.testing import MockClock

SEED = 20261120
ROUNDS = 40
REQUESTS = 25
"""A round's requests go to one server each, in one clock: that is what takes time."""

HOST = b"Host: localhost\r\n"
SEEDLINGS = (
    b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"HEAD /a?b=c HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n\r\nhello world",
    b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: t\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
    b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Connection: close, upgrade\r\nUpgrade: h2c\r\n\r\n",
)
BITS = (
    *(bytes([byte]) for byte in range(256)),
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\r\n \t",
    b"Content-Length: 7\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Connection: close\r\n",
    b"FFFFFFFFFFFFFFFF\r\n",
    b"-1\r\n",
    b"GET / HTTP/1.1\r\n",
    b"A: " + b"b" * 20_000 + b"\r\n",
)

ALLOWED = {100, 200, 400, 408, 431, 505}


def hostile(chance: random.Random) -> bytes:
    """One to three requests, some of which were damaged."""
    said = bytearray(b"".join(chance.choices(SEEDLINGS, k=chance.randint(1, 3))))
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        start = chance.randint(0, len(said))
        match chance.randrange(4):
            case 0:
                said[start : start + chance.randint(0, 5)] = b""
            case 1:
                said[start:start] = chance.choice(BITS)
            case 2:
                said[start : start + 1] = chance.choice(BITS)
            case 3:
                said[start:start] = said[start : start + chance.randint(0, 60)]
    if chance.random() < 0.1:
        del said[chance.randint(0, len(said)) :]
    return bytes(said) if chance.random() < 0.95 else chance.randbytes(chance.randint(0, 2000))


@pytest.mark.parametrize("round_number", range(ROUNDS))
async def test_hostile_requests_are_answered_or_cut_and_leave_nothing(
    round_number: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(SEED + round_number)
    tasks = trio.lowlevel.current_statistics().tasks_living
    for _ in range(REQUESTS):
        said = hostile(chance)
        application = chance.choice((echo, hello))
        received = b""
        async with talk(application) as talking, trio.open_nursery() as nursery:

            async def speak(said: bytes = said, stream: trio.abc.SendStream = talking.stream) -> None:
                rest = said
                try:
                    while rest:
                        size = chance.randint(1, len(rest))
                        await stream.send_all(rest[:size])
                        rest = rest[size:]
                        if chance.random() < 0.1:
                            await trio.sleep(chance.random() * 12)
                except trio.BrokenResourceError:
                    pass  # the server has had enough

            nursery.start_soon(speak)
            received = await talking.end()
            await talking.ended.wait()
            assert not talking.server._busy
        assert set(statuses(received)) <= ALLOWED, (SEED + round_number, said)
        # A conversation ends with the first error.
        assert len([status for status in statuses(received) if status not in {100, 200}]) <= 1, said
        assert not re.search(rb"Traceback|market_depth", received), said
        assert not caplog.records, (SEED + round_number, said)
    assert trio.lowlevel.current_statistics().tasks_living == tasks
