"""Hostile clients from a seed: what they say on a raw socket to a server, and how they leave. The same seed, the same input.

As a program, HOST PORT COUNT SECONDS SEED, it lets so many of them loose on a server within about so many seconds, and
ends with what became of the last: `COUNT done`.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
from dataclasses import dataclass
from enum import Enum

import trio

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_MASK = b"\0\0\0\0"  # leaves a payload as it is

AT_ONCE = 64
"""So many connections at a time, and as many more that take their time."""
SLOW_PAUSE_S = 0.2
"""Between two bytes of a slow head."""
PATIENCE_S = 0.05
"""How long to wait for an answer: to some inputs there is none before the server gives up."""
CONNECT_TIMEOUT_S = 10.0

_LINGER_NOT = struct.pack("ii", 1, 0)


class Exit(Enum):
    """How a hostile client leaves."""

    FINISHED = "says that it has said everything, and reads to the end"
    WAITED = "waits a moment for an answer, then closes"
    RESET = "resets the connection at once"


@dataclass(frozen=True, eq=False)
class Attack:
    """One hostile client."""

    said: bytes
    exit: Exit
    is_slow: bool = False
    """It says the beginning byte by byte, with pauses."""


def attack_of(seed: int) -> Attack:
    """The hostile client of a seed."""
    chance = random.Random(seed)
    if chance.random() < 0.01:
        return Attack(
            HANDSHAKE[: chance.randrange(5, 25)], chance.choice([Exit.WAITED, Exit.RESET]), is_slow=True
        )
    kind = chance.choices(
        [_noise, _broken_handshake, _broken_frame, _flood, _broken_request], weights=[2, 3, 8, 1, 4]
    )[0]
    return Attack(kind(chance), chance.choice(list(Exit)))


def broken_frame(chance: random.Random) -> bytes:
    """Bytes that no WebSocket client may send after its handshake, or the beginning of what goes wrong."""
    return chance.choice(
        [
            b"\xc1\x80" + _MASK,  # a reserved bit
            b"\x83\x80" + _MASK,  # a reserved opcode
            b"\x81\x02hi",  # not masked
            b"\x89\xfe\x00\x7e" + _MASK + b"x" * 126,  # a ping too long
            b"\x09\x80" + _MASK,  # a ping in pieces
            b"\x80\x80" + _MASK,  # a continuation of nothing
            b"\x01\x81" + _MASK + b"x\x81\x81" + _MASK + b"y",  # a message inside a message
            b"\x81\x82" + _MASK + b"\xff\xfe",  # not UTF-8
            b"\x81\xfe\x00\x01" + _MASK + b"x",  # a length in the wrong form
            b"\x81\xff" + struct.pack("!Q", 2**63) + _MASK,
            b"\x81\xff" + struct.pack("!Q", 2**40) + _MASK + b"x" * 1000,  # promises a terabyte
            b"\x81\xff" + struct.pack("!Q", 70_000) + _MASK + b"x" * 70_000,  # over the limit
            b"\x88\x81" + _MASK + b"x",  # half a close code
            b"\x88\x82" + _MASK + struct.pack("!H", 1006),
            b"\x88\x84" + _MASK + struct.pack("!H", 1000) + b"\xff\xff",
            b"\x88\x80" + _MASK + b"\x89\x80" + _MASK,  # a ping after the close
            b"\x8a\x80" + _MASK * 3,
            b"\x81",
            chance.randbytes(chance.choice([1, 20, 2000])),
        ]
    )


def _noise(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice([0, 1, 100, 5000]))


def _broken_handshake(chance: random.Random) -> bytes:
    if chance.random() < 0.5:
        return HANDSHAKE[: chance.randrange(len(HANDSHAKE))]
    head = bytearray(HANDSHAKE)
    for _ in range(chance.randint(1, 4)):
        head[chance.randrange(len(head))] = chance.randrange(256)
    return bytes(head)


def _broken_frame(chance: random.Random) -> bytes:
    return HANDSHAKE + _subscription(chance) * chance.randrange(3) + broken_frame(chance)


def _flood(chance: random.Random) -> bytes:
    """Far more than a client may ask."""
    asked = [
        _frame(0x89, chance.randbytes(125)),
        _frame(0x81, b'{"type":"Ping","timestamp":"2026-11-20T16:41:03Z"}'),
        _frame(0x01, b"") + _frame(0x00, b"") * 50 + _frame(0x80, b"{}"),
        _subscription(chance),
    ]
    return HANDSHAKE + chance.choice(asked) * chance.choice([200, 1000])


def _broken_request(chance: random.Random) -> bytes:
    head = b"%s %s HTTP/%s\r\nHost: localhost\r\n" % (
        chance.choice([b"GET", b"POST", b"get", b"", b"\x00", b"G" * 5000, b"CONNECT", b"TRACE"]),
        chance.choice(
            [b"/", b"/api/health", b"/../../etc/passwd", b"/" + b"a" * 60_000, b"*", b"", b"/%00", b"/\xff"]
        ),
        chance.choice([b"1.1", b"1.0", b"2.0", b"9.9", b"", b"1.1.1"]),
    )
    field = chance.choice(
        [
            b"Content-Length: 5\r\n\r\nhi",
            b"Content-Length: -1\r\n\r\n",
            b"Content-Length: 99999999999999999999\r\n\r\n",
            b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
            b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
            b"Transfer-Encoding: gzip, chunked\r\n\r\n",
            b"X: " + b"x" * 70_000 + b"\r\n\r\n",
            b"x: y\r\n" * 3000 + b"\r\n",
            b" folded\r\n\r\n",
            b"No colon here\r\n\r\n",
            b"Na\x00me: value\r\n\r\n",
            b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
            b"Upgrade: websocket\r\n\r\n",
            b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n",
            b"\r\n" * 100,
            b"\r\n" + chance.randbytes(500),
        ]
    )
    return (head + field) * chance.choice([1, 1, 20])


def _subscription(chance: random.Random) -> bytes:
    request = {
        "type": "Subscribe",
        "stream_id": str(chance.randrange(3)),
        "symbol": chance.choice(["BTCUSD", "ETHUSD", "NONE"]),
        "data_type": chance.choice(["MBO", "MBP"]),
        "max_levels": chance.choice([1, 1000]),
    }
    return _frame(0x81, json.dumps(request).encode())


def _frame(first: int, payload: bytes) -> bytes:
    length = len(payload)
    head = bytes((first, 0x80 | length)) if length < 126 else struct.pack("!BBH", first, 0xFE, length)
    return head + _MASK + payload


async def strike(host: str, port: int, attack: Attack) -> None:
    """Let one hostile client loose. Raises: OSError when the server does not accept."""
    with trio.fail_after(CONNECT_TIMEOUT_S):
        stream = await trio.open_tcp_stream(host, port)
    try:
        if attack.is_slow:
            for byte in attack.said:
                await stream.send_all(bytes((byte,)))
                await trio.sleep(SLOW_PAUSE_S)
        else:
            # The server need not read all of it: what is not taken in a moment is not sent.
            with trio.move_on_after(PATIENCE_S):
                await stream.send_all(attack.said)
        if attack.exit is Exit.FINISHED:
            await stream.send_eof()
        if attack.exit is not Exit.RESET:
            with trio.move_on_after(PATIENCE_S):
                while await stream.receive_some():
                    pass
    except (trio.BrokenResourceError, trio.BusyResourceError):
        pass  # the server has hung up first
    finally:
        if attack.exit is Exit.RESET:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        await trio.aclose_forcefully(stream)


async def strike_all(host: str, port: int, count: int, seconds: float, seed: int) -> None:
    """Let the hostile clients of `count` seeds loose, evenly over so many seconds or as fast as the server takes them."""
    turns, slow_turns = trio.CapacityLimiter(AT_ONCE), trio.CapacityLimiter(AT_ONCE)
    start = trio.current_time()

    async def strike_once(attack: Attack, turn: trio.CapacityLimiter) -> None:
        try:
            await strike(host, port, attack)
        finally:
            turn.release_on_behalf_of(attack)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            await trio.sleep_until(start + seconds * number / count)
            attack = attack_of(seed + number)
            turn = slow_turns if attack.is_slow else turns
            await turn.acquire_on_behalf_of(attack)
            nursery.start_soon(strike_once, attack, turn)


def main() -> None:
    """Run as a program."""
    host, port, count, seconds, seed = sys.argv[1:]
    trio.run(strike_all, host, int(port), int(count), float(seconds), int(seed))
    sys.stdout.write(f"{count} done\n")


if __name__ == "__main__":
    main()
