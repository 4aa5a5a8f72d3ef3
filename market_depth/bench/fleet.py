"""Thousands of WebSocket clients in a process of their own, written in C (`fleet.c`): they cost far less than the server."""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from market_depth.bench.errors import BenchError
from market_depth.bench.load import masked_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from market_depth.config import Address
    from protocol.messages import Subscribe

OWN = "#####"
"""In a stream id of a request: each client's own number is written over it."""


class Shakes(NamedTuple):
    """How some clients connected: from `connect()` to the server's answer to the handshake."""

    seconds: float
    """Until the last had its answer."""
    p50_ms: float
    p95_ms: float


class Received(NamedTuple):
    """What came in a window that ended when nothing was on its way."""

    seconds: float
    cpu_s: float
    """The fleet's own."""
    frames: int
    """`MarketData` frames, each counted when it is there as a whole."""
    bytes: int
    """The same in bytes, headers included."""
    lost: int
    """Clients that the server has left, since the start."""
    p50_ms: float | None = None
    """Latency: from a frame's own timestamp until its last byte was read. None when no timestamp was of the last minute."""
    p99_ms: float | None = None
    last_p50_ms: float | None = None
    """The same of the last client to get a frame: the largest latency among frames of one timestamp."""
    last_p99_ms: float | None = None


class Fleet:
    """Clients of one server that subscribe to the same streams; made by `launched`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def connect(self, count: int, at_once: int) -> Shakes:
        """Let so many more clients shake hands, so many at a time. Raises: BenchError when the server lets one down."""
        return Shakes(**self._ask(f"connect {count} {at_once}"))

    def connect_slow(self, count: int) -> None:
        """Let so many more clients connect that subscribe and then never read. Raises: BenchError."""
        self._ask(f"slow {count}")

    def subscribe(self) -> None:
        """Let every client that has not subscribed yet do so."""
        self._ask("subscribe")

    def receive(self, duration_s: float, quiet_s: float, meanwhile: Callable[[], None]) -> Received:
        """Read for so long, and on to the end of the round, which is when nothing has come for `quiet_s`.

        So two calls in a row end at the same point of a round. A server that is never quiet is read from for twice the
        duration. `meanwhile` is called once, when it begins, and must not take longer.
        Raises: BenchError when something else came than a server may send.
        """
        self._ask(f"receive {duration_s * 1000:.0f} {max(1, quiet_s * 1000):.0f}")
        meanwhile()
        return Received(**self._answer())

    def cut_slow(self) -> None:
        """Cut the connections of the clients that never read."""
        self._ask("leave")

    def _ask(self, command: str) -> dict[str, Any]:
        self._tell(command)
        return self._answer()

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _fail(self) -> None:
        assert self._process.stderr is not None
        raise BenchError(f"the clients gave up: {self._process.stderr.read().strip() or 'no word of why'}")


@contextmanager
def launched(program: Path, server: Address, subscriptions: Sequence[Subscribe]) -> Iterator[Fleet]:
    """A fleet without clients yet; `program` is the compiled `fleet.c`. All clients are gone at the end of the block."""
    with tempfile.NamedTemporaryFile() as requests:
        requests.write(b"".join(masked_text(request.model_dump_json().encode()) for request in subscriptions))
        requests.flush()
        process = subprocess.Popen(  # noqa: S603 our own program
            [program, server.host, str(server.port), requests.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield Fleet(process)
        finally:
            process.kill()  # its clients leave without a word either way
            process.communicate()
