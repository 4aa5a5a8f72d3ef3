"""Twenty thousand hostile messages and frames against a running server, each with the answer it must get."""

from __future__ import annotations

import json
import random
import re
import tempfile
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from trio_websocket import Endpoint, open_websocket_url
from wsproto.frame_protocol import FrameProtocol

from market_depth.bench.hostile import broken_frame
from protocol.codecs import decode_answer, encode
from protocol.messages import DATA_TYPES, Error, HeartBeat, MarketData, Subscribe, Subscribed, Unsubscribed
from tests.depth_server import DepthServer
from tests.market_depth.server.local_server import SYMBOLS, reset
from tests.market_depth.server.socket_pairs import frame_texts
from tests.market_depth.server.test_websocket import HANDSHAKE, text

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20261120

CONNECTIONS = 160
MESSAGES = 100
"""As many as one connection may send in a burst."""

BROKEN_CONNECTIONS = 2500
AT_ONCE = 16

MAX_MESSAGE_BYTES = 64 * 1024
RSS_GROWTH_BYTES = 24 * 1024 * 1024
SERVICE_GAP = timedelta(seconds=5)
"""Far more than an interval: the machine may be busy, the server may not be stuck."""


class Expected(NamedTuple):
    """What the answer to a message must say."""

    type: str
    stream_id: str | None = None
    code: int | None = None


# The oracle: the rules of one connection once more, in plain Python and without the code under test.

VALID_TIMES = ["2026-11-20T16:41:03Z", "2026-11-20T16:41:03.123456789+01:00", "2024-02-29T00:00:00Z"]
INVALID_TIMES = [
    "",
    "now",
    "2026-11-20",
    "2026-13-20T16:41:03Z",
    "2025-02-29T00:00:00Z",
    "2026-11-20T16:41:03",
]


def is_text(value: object, *, printable: bool = False) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 64 and (not printable or value.isprintable())


def read_object(message: str) -> dict[str, Any] | None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        content = json.loads(message, parse_constant=refuse)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def is_valid(content: dict[str, Any]) -> bool:
    match content.get("type"):
        case "Ping":
            return content.get("timestamp") in VALID_TIMES
        case "Unsubscribe":
            return is_text(content.get("stream_id"), printable=True)
        case "Subscribe":
            levels = content.get("max_levels", 20)
            return (
                is_text(content.get("stream_id"), printable=True)
                and is_text(content.get("symbol"))
                and content.get("data_type") in ("MBO", "MBP")
                and type(levels) is int
                and 1 <= levels <= 1000
            )
    return False


def expected_answer(message: str | bytes, streams: set[str]) -> Expected:
    """What the server must answer; `streams` are the connection's, and change with it."""
    if len(message.encode() if isinstance(message, str) else message) > MAX_MESSAGE_BYTES:
        return Expected("Error", None, 413)
    content = read_object(message) if isinstance(message, str) else None
    if content is None:
        return Expected("Error", None, 400)
    named: Any = content.get("stream_id")
    stream_id = named if is_text(named, printable=True) else None
    if not is_valid(content):
        return Expected("Error", stream_id, 400)
    match content["type"]:
        case "Ping":
            return Expected("HeartBeat")
        case "Unsubscribe":
            if named not in streams:
                return Expected("Error", stream_id, 404)
            streams.remove(named)
            return Expected("Unsubscribed", stream_id)
        case _:
            if named in streams:
                return Expected("Error", stream_id, 409)
            if content["symbol"] not in SYMBOLS:
                return Expected("Error", stream_id, 404)
            streams.add(named)
            return Expected("Subscribed", stream_id)


def seen(answer: object) -> Expected:
    match answer:
        case Error():
            return Expected("Error", answer.stream_id, answer.code)
        case HeartBeat():
            return Expected("HeartBeat")
        case Subscribed() | Unsubscribed():
            return Expected(answer.type, answer.stream_id)
    raise AssertionError(answer)


# Hostile messages


ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 20, 1000, 1001, 2**63, 2**64, 10**400, -(10**30), 20.0, 1.5, 1e-300, 1e300,
    "", " ", "a", "b", "é", "😀", "\u2028", "\x00", "\x7f", "a\nb", "x" * 64, "x" * 65, "x" * 5000, "MBP", "MBO", "mbp",
    "BTCUSD", "btcusd", "20", "Subscribe", "'; DROP TABLE books; --", "%s%n", "../../etc/passwd", "${jndi:x}",
    [], [1], {}, {"a": 1}, ["Subscribe"], *VALID_TIMES, *INVALID_TIMES,
]  # fmt: skip
FIELDS = ["type", "stream_id", "symbol", "data_type", "max_levels", "timestamp", "req_id", "__class__", ""]
OTHER_TEXTS = [
    "", " ", "null", "true", "0", "-", '"', "[]", "{}", "[{}]", "{", "}", '{"', "{]", "NaN", "Infinity", "\ufeff{}",
    '{"type": "Ping", "timestamp": NaN}', '{"type": "Unsubscribe", "stream_id": "\\ud800"}', "[" * 30_000,
    '{"a":' * 5_000, '{"type": "Unsubscribe", "stream_id": "a", "x": ' + "[" * 5_000 + "]" * 5_000 + "}",
    '{"type": "Unsubscribe", "stream_id": "a", "x": ' + "9" * 10_000 + "}", "{'type': 'Ping'}", "/*", "9" * 20_000,
    '{"type": "Unsubscribe", "stream_id": "b", "stream_id": "a"}', '{"type": "Ping", "timestamp": 1e999}',
    '{"type": "Unsubscribe", "stream_id": "\\ud83d\\ude00"}', '{"type": "Unsubscribe", "stream_id": "a"} x',
]  # fmt: skip


def valid_request(chance: random.Random, kinds: int = 5) -> dict[str, Any]:
    stream_id = chance.choice(["a", "b", "c", "😀", "x" * 64])
    match kinds - 1 - chance.randrange(kinds):
        case 4:
            return {"type": "Ping", "timestamp": chance.choice(VALID_TIMES)}
        case 3:
            return {"type": "Unsubscribe", "stream_id": stream_id}
        case _:
            return {
                "type": "Subscribe",
                "stream_id": stream_id,
                "symbol": chance.choice(SYMBOLS),
                "data_type": chance.choice(["MBO", "MBP"]),
                "max_levels": chance.choice([1, 3]),
            }


def hostile_message(chance: random.Random) -> str | bytes:
    match chance.randrange(10):
        case 0:
            return chance.randbytes(chance.choice([0, 1, 10, 500]))
        case 1:
            return chance.randbytes(chance.choice([1, 10, 500])).decode("latin-1")
        case 2:
            return chance.choice(OTHER_TEXTS)
        case 3:  # nearly JSON; no times, of which the oracle knows only some
            letters = list(json.dumps(valid_request(chance, kinds=4), ensure_ascii=chance.random() < 0.5))
            for _ in range(chance.randint(1, 3)):
                place = chance.randrange(len(letters))
                letters[place : place + chance.randrange(2)] = chance.choice(
                    ['"', "{", "}", ",", "\\", "0", "é", ""]
                )
            return "".join(letters)
        case 4 | 5 | 6:  # JSON, nearly a request
            request = valid_request(chance)
            for _ in range(chance.randint(1, 2)):
                field = chance.choice([*request, *FIELDS])
                if chance.random() < 0.25:
                    request.pop(field, None)
                else:
                    request[field] = chance.choice(ODD_VALUES)
            return json.dumps(request, ensure_ascii=chance.random() < 0.5)
        case _:
            return json.dumps(valid_request(chance), ensure_ascii=chance.random() < 0.5)


def frames_of(message: str | bytes, chance: random.Random) -> bytes:
    """The message as a client writes it, sometimes in pieces."""
    writer = FrameProtocol(client=True, extensions=[])
    if len(message) < 2 or chance.random() < 0.8:
        return bytes(writer.send_data(message))
    cut = chance.randrange(1, len(message))
    return bytes(writer.send_data(message[:cut], fin=False) + writer.send_data(message[cut:]))


def broken_bytes(chance: random.Random) -> bytes:
    """Bytes that are no WebSocket client's, or the beginning of one that goes wrong."""
    match chance.randrange(6):
        case 0:
            return chance.randbytes(chance.choice([0, 1, 100, 5000]))
        case 1:
            return HANDSHAKE[: chance.randrange(len(HANDSHAKE))]
        case 2:
            head = bytearray(HANDSHAKE)
            head[chance.randrange(len(head))] = chance.randrange(256)
            return bytes(head)
        case _:
            valid = text(json.dumps(valid_request(chance))) * chance.randrange(3)
            return HANDSHAKE + valid + broken_frame(chance)


# The clients


async def shake_hands(addr: str) -> trio.SocketStream:
    host, port = addr.split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    await stream.send_all(HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive_some(1)
    return stream


async def check_answers(addr: str, seed: int) -> None:
    """One connection's worth of hostile messages: each must get exactly the answer that the oracle says."""
    chance = random.Random(seed)
    messages = [hostile_message(chance) for _ in range(MESSAGES)]
    if chance.random() < 0.1:
        messages[-1] = chance.choice(["x", "é"]) * (MAX_MESSAGE_BYTES + 1)
    streams: set[str] = set()
    expected = [Expected("HeartBeat")] + [expected_answer(message, streams) for message in messages]
    received = b""
    stream = await shake_hands(addr)
    async with stream, trio.open_nursery() as nursery:
        closing = bytes(FrameProtocol(client=True, extensions=[]).close(1000))
        sent = b"".join(frames_of(message, chance) for message in messages)
        nursery.start_soon(stream.send_all, sent + closing)
        while data := await stream.receive_some():
            received += data
    *texts, code = frame_texts(received)
    answers = [answer for frame in texts if not isinstance(answer := decode_answer(frame), MarketData)]
    for message, wanted, answer in zip(["(connected)", *messages], expected, answers, strict=True):
        assert seen(answer) == wanted, f"seed {seed}: {message!r:.300}"
    assert code == ("1009" if expected[-1].code == 413 else "1000"), f"seed {seed}"


async def break_off(addr: str, seed: int) -> None:
    """One connection that says something impossible and hangs up, politely or not."""
    chance = random.Random(seed)
    host, port = addr.split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    try:
        await stream.send_all(broken_bytes(chance))
        match chance.randrange(3):
            case 0:
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            case 1:
                with trio.move_on_after(0.01):  # to some of it there is no answer before the server gives up
                    await stream.receive_some()
    except trio.BrokenResourceError:
        pass  # the server has hung up first
    finally:
        if chance.random() < 0.5:
            reset(stream)
        await trio.aclose_forcefully(stream)


async def follow(url: str, received: list[MarketData], task_status: trio.TaskStatus[str]) -> None:
    """A well-behaved client of six streams. Tells, once it has seen them all, how the server calls it."""
    async with open_websocket_url(url, message_queue_size=100) as connection:
        for symbol in SYMBOLS:
            for data_type in DATA_TYPES:
                request = Subscribe(stream_id=f"{symbol} {data_type}", symbol=symbol, data_type=data_type)
                await connection.send_message(encode(request).decode())
        while True:
            answer = decode_answer(await connection.get_message())
            if isinstance(answer, MarketData):
                received.append(answer)
                if len(received) == 6:
                    assert isinstance(connection.local, Endpoint)
                    task_status.started(f"127.0.0.1:{connection.local.port}")


def rss_bytes(pid: int) -> int:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return int(fields["VmRSS"].split()[0]) * 1024


@pytest.fixture
def log() -> Iterator[Any]:
    with tempfile.TemporaryFile() as file:
        yield file


@pytest.mark.timeout(180)  # takes some 15 s on two cores that have nothing else to do
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads a process's memory from /proc")
async def test_hostile_clients_get_their_errors_and_disturb_nobody(log: Any) -> None:
    server = DepthServer("--interval-ms", "100", "--events-per-second", "200", log=log)
    received: list[MarketData] = []
    try:
        async with trio.open_nursery() as nursery:

            async def start_follower(task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
                await follow(server.url, received, task_status)

            peer: str = await nursery.start(start_follower)
            turns = trio.CapacityLimiter(AT_ONCE)

            async def in_turn(attack: Any, seed: int) -> None:
                async with turns:
                    await attack(server.addr, seed)

            async def attack_with(attack: Any, count: int) -> None:
                async with trio.open_nursery() as attackers:
                    for number in range(count):
                        attackers.start_soon(in_turn, attack, SEED + number)

            await attack_with(
                check_answers, AT_ONCE
            )  # what a first client makes the server load is no growth
            rss_before = rss_bytes(server.process.pid)
            await attack_with(check_answers, CONNECTIONS)
            await attack_with(break_off, BROKEN_CONNECTIONS)
            rss_after = rss_bytes(server.process.pid)
            nursery.cancel_scope.cancel()
    finally:
        server.stop()
        log.seek(0)
        lines = log.read().decode().splitlines()
    assert [line for line in lines if " ERROR " in line or "Traceback" in line] == []
    assert server.process.returncode == 0
    assert rss_after - rss_before < RSS_GROWTH_BYTES
    by_stream: dict[str, list[MarketData]] = {}
    for frame in received:
        by_stream.setdefault(frame.stream_id, []).append(frame)
    assert len(by_stream) == 6
    counts = [len(frames) for frames in by_stream.values()]
    # On a busy machine the follower itself may read too slowly; then frames are left out, of one stream more than of another.
    [skipped] = [
        int(found[1]) for line in lines if (found := re.search(rf"peer={peer} .*skipped_frames=(\d+)", line))
    ]
    assert max(counts) - min(counts) <= 1 + skipped
    for frames in by_stream.values():
        assert all(before.sequence <= after.sequence for before, after in pairwise(frames))
        times = [datetime.fromisoformat(frame.timestamp) for frame in frames]
        assert all(timedelta(0) <= after - before < SERVICE_GAP for before, after in pairwise(times))
