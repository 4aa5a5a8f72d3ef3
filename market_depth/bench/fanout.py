"""What a delivered frame costs and how late it is: many clients on our server, and on others by turns.

The yardstick is a bare `send()` loop in C (`send_loop.c`): it writes the messages that a client of our server received, to as
many clients at the same pace; it is the least that a server can do, since the rest is the kernel's. So do the
broadcasts of other libraries, where they are installed. All are read by the same fleet of clients. Each run first
measures a server with one client, for what it costs to have a market at all: feed, books, encoding. Then with all
clients. So there are two figures, and both are told:

    CPU a frame           all of the server's CPU time, divided by all frames that it delivered
    CPU a further frame   how much more CPU time all clients cost than one, divided by how many more frames they got

A frame's latency is the time from its own `timestamp`, which a server takes when it makes the frame, until a client has
read its last byte; the last client's, the largest of the frames made at the same time. Both ends are read from the
wall clock of one machine: of a server on another machine, or of a replay, the figures say nothing.
"""

from __future__ import annotations

import resource
import socket
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from market_depth.bench.compiler import compiled
from market_depth.bench.errors import BenchError, BenchOptionError
from market_depth.bench.fanout_peers import installed_peers
from market_depth.bench.fleet import OWN, launched
from market_depth.bench.load import Load
from market_depth.bench.processes import Weight, running, serve_command
from market_depth.config import Address, parse_address
from market_depth.exits import sigterm_like_ctrl_c
from protocol.messages import MAX_LEVELS, Subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from market_depth.bench.fleet import Fleet, Received

MAX_CLIENTS = 10_000
MAX_STREAMS = 64
MAX_SLOW = 1000
MIN_INTERVAL_MS = 10
MAX_INTERVAL_MS = 1000
MAX_WINDOW_S = 10.0
MAX_ROUNDS = 10

SYMBOLS = ("BTCUSD", "ETHUSD", "ADAUSD", "SOLUSD", "XRPUSD", "EURUSD")
"""A client's streams show these in turn."""

SPARE_DESCRIPTORS = 64
CONNECT_TIMEOUT_S = 30.0
FIRST_DATA_TIMEOUT_S = 60.0
"""Long enough for the kernels to compile, should this be the first start."""
SETTLE_S = 1.0
"""After the last subscription, until everybody has had a first frame."""
SLOW_SETTLE_S = 5.0
"""Until the sockets of those who never read are full."""

ONE_AT_A_TIME = 1000
"""So many clients, at most half of all, connect one after the other, the others in sixteens."""
AT_ONCE = 16

OURS = "market-depth"
YARDSTICK = "C send() loop"


@dataclass(frozen=True)
class WithSlow:
    """How the others fared while some clients never read."""

    delivered_share: float
    """Of the frames due to the others."""
    cpu_us_per_frame: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    last_client_p50_ms: float | None
    last_client_p99_ms: float | None
    bytes_per_slow_client: float | None
    """Growth of the server's memory in RAM by the slow clients."""


@dataclass(frozen=True)
class Delivery:
    """What one run of one server measured. CPU and memory are None for a given server whose process is not known."""

    connect_p95_ms: float
    """From `connect()` to the answer to the handshake, one client at a time."""
    connect_p95_ms_at_16: float
    """Sixteen at a time."""
    cpu_us_per_connect: float | None
    frames_per_s: float
    bytes_per_frame: float
    delivered_share: float
    """Frames that came, of those due: each stream's one every interval."""
    cpu_us_per_frame: float | None
    """Everything counted."""
    cpu_us_per_further_frame: float | None
    """Without what one client alone costs."""
    base_cpu_ms_per_s: float | None
    """With one client."""
    latency_p50_ms: float | None
    """None when the frames' timestamps are not the time at which they were made."""
    latency_p99_ms: float | None
    last_client_p50_ms: float | None
    last_client_p99_ms: float | None
    bytes_per_client: float | None
    """Growth of the server's memory in RAM."""
    load_cpu_us_per_frame: float
    """The clients' own."""
    with_slow: WithSlow | None = None


@dataclass(frozen=True)
class Report:
    """Runs of our server, of the yardstick, and of the other libraries' broadcasts that are installed."""

    clients: int
    streams: int
    interval_ms: int
    levels: int
    slow: int
    distinct_ids: bool
    window_s: float
    runs: dict[str, list[Delivery]] = field(default_factory=dict)
    """By name of the server, one a round."""

    def ratio(self, name: str, figure: str) -> float | None:
        """A server's figure in the yardstick's: the median of the rounds, each compared within itself."""
        ratios = [
            theirs / least
            for run, yardstick in zip(self.runs[name], self.runs[YARDSTICK], strict=True)
            if (theirs := getattr(run, figure)) is not None and (least := getattr(yardstick, figure))
        ]
        return median(ratios) if ratios else None

    def as_dict(self) -> dict[str, Any]:
        """All figures of all rounds, and the ratios to the yardstick."""
        ratios = {
            name: {figure: self.ratio(name, figure) for figure in COMPARED}
            for name in self.runs
            if name != YARDSTICK
        }
        return {**asdict(self), "ratios": ratios}

    def lines(self) -> list[str]:
        """The medians as a table to read."""
        streams = "1 stream" if self.streams == 1 else f"{self.streams} streams"
        own = " with ids of its own" if self.distinct_ids else ""
        return [
            f"{self.clients:,} clients × {streams}{own} every {self.interval_ms} ms, {self.levels} levels a side",
            f"{len(self.runs[OURS])} rounds of {self.window_s:g} s, medians; × is the ratio to the {YARDSTICK}",
            "",
            f"{'':<38}" + "".join(f"{name:>16}" for name in self.runs),
            *(line for figure in FIGURES for line in self._rows(*figure)),
            *self._lines_with_slow(),
        ]

    def _lines_with_slow(self) -> list[str]:
        if not self.slow:
            return []
        return [
            "",
            f"the others, beside {self.slow:,} clients that never read",
            *(line for figure in FIGURES_WITH_SLOW for line in self._rows(*figure)),
        ]

    def _rows(self, title: str, figure: str, shape: str) -> Iterator[str]:
        cells = (
            "–" if (value := _median(runs, figure)) is None else format(value, shape)
            for runs in self.runs.values()
        )
        yield f"{title:<38}" + "".join(f"{cell:>16}" for cell in cells)
        if figure in COMPARED:
            ratios = (self.ratio(name, figure) for name in self.runs)
            cells = ("–" if ratio is None else f"{ratio:.2f} ×" for ratio in ratios)
            yield f"{'':<38}" + "".join(f"{cell:>16}" for cell in cells)


FIGURES = (
    ("CPU µs a frame, all counted", "cpu_us_per_frame", ".2f"),
    ("CPU µs a further frame", "cpu_us_per_further_frame", ".2f"),
    ("CPU ms a second with one client", "base_cpu_ms_per_s", ".1f"),
    ("latency in ms, p50", "latency_p50_ms", ".2f"),
    ("latency in ms, p99", "latency_p99_ms", ".2f"),
    ("latency of the last client in ms, p50", "last_client_p50_ms", ".2f"),
    ("latency of the last client in ms, p99", "last_client_p99_ms", ".2f"),
    ("frames a second", "frames_per_s", ",.0f"),
    ("share of the frames due", "delivered_share", ".1%"),
    ("bytes a frame", "bytes_per_frame", ",.0f"),
    ("memory a client in bytes", "bytes_per_client", ",.0f"),
    ("connect in ms, p95, one at a time", "connect_p95_ms", ".2f"),
    ("connect in ms, p95, 16 at a time", "connect_p95_ms_at_16", ".2f"),
    ("CPU µs a connection", "cpu_us_per_connect", ",.0f"),
    ("the clients' own CPU µs a frame", "load_cpu_us_per_frame", ".2f"),
)
"""Title, name of the figure, and how it is shown."""

FIGURES_WITH_SLOW = (
    ("CPU µs a frame, all counted", "with_slow.cpu_us_per_frame", ".2f"),
    ("latency in ms, p50", "with_slow.latency_p50_ms", ".2f"),
    ("latency in ms, p99", "with_slow.latency_p99_ms", ".2f"),
    ("latency of the last client in ms, p50", "with_slow.last_client_p50_ms", ".2f"),
    ("latency of the last client in ms, p99", "with_slow.last_client_p99_ms", ".2f"),
    ("share of the frames due", "with_slow.delivered_share", ".1%"),
    ("memory a slow client in bytes", "with_slow.bytes_per_slow_client", ",.0f"),
)

COMPARED = ("cpu_us_per_frame", "cpu_us_per_further_frame", "last_client_p50_ms", "last_client_p99_ms")


def run(
    clients: int = 1000,
    streams: int = 1,
    interval_ms: int = 100,
    levels: int = 10,
    slow: int = 0,
    distinct_ids: bool = False,
    symbols: Sequence[str] = SYMBOLS,
    addr: str | None = None,
    pid: int | None = None,
    peers: bool = True,
    window_s: float = 4.0,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Measure so many clients with so many streams each, `rounds` times on each server by turns.

    `addr`, HOST:PORT, names a server to measure instead of one that is started; its `interval_ms` and `symbols` must be
    told, and its process, `pid`, if CPU and memory are to be known. With `slow`, so many further clients never
    read; with `distinct_ids`, no two clients call a stream the same; with `peers`, other libraries are measured, too.
    A round takes about `2 × window_s + 5` seconds a server. `progress` is told what happens.
    Raises: BenchOptionError when a value is out of bounds, BenchError when the machine or a server cannot do it.
    """
    _check_bounds(clients, streams, interval_ms, levels, slow, window_s, rounds)
    given = _given(addr, pid)
    _allow_descriptors(clients + slow)
    own = f"{OWN}-" if distinct_ids else ""
    subscriptions = [
        Subscribe(
            type="Subscribe",
            stream_id=f"{own}{number}",
            symbol=symbols[number % len(symbols)],
            data_type="MBP",
            max_levels=levels,
        )
        for number in range(streams)
    ]
    listed = dict.fromkeys(subscription.symbol for subscription in subscriptions)
    ours = serve_command("--interval-ms", str(interval_ms), "--symbols", ",".join(listed))
    report = Report(clients, streams, interval_ms, levels, slow, distinct_ids, window_s)
    commands, environment = installed_peers() if peers else ({}, {})
    if peers:
        progress(f"other libraries found: {', '.join(commands) or 'none'}")
    with (
        sigterm_like_ctrl_c(),
        compiled("fleet") as fleet,
        compiled("send_loop") as send_loop,
        tempfile.TemporaryDirectory() as folder,
    ):
        plan = _Plan(fleet, subscriptions, clients, slow, interval_ms / 1000, window_s)
        messages = Path(folder) / "messages"
        for number in range(1, rounds + 1):
            progress(f"round {number} of {rounds}: {OURS}")
            with _server(given, ours) as target:
                delivery, newest = plan.measure(target)
            report.runs.setdefault(OURS, []).append(delivery)
            messages.write_bytes(b"\n".join(newest))
            for name, command in {YARDSTICK: [str(send_loop)], **commands}.items():
                progress(f"round {number} of {rounds}: {name}")
                with _server(None, [*command, str(messages), str(interval_ms)], environment) as target:
                    delivery, _ = plan.measure(target)
                report.runs.setdefault(name, []).append(delivery)
    return report


def _check_bounds(
    clients: int, streams: int, interval_ms: int, levels: int, slow: int, window_s: float, rounds: int
) -> None:
    for name, value, least, most in (
        ("clients", clients, 3, MAX_CLIENTS),
        ("streams", streams, 1, MAX_STREAMS),
        ("interval_ms", interval_ms, MIN_INTERVAL_MS, MAX_INTERVAL_MS),
        ("levels", levels, 1, MAX_LEVELS),
        ("slow", slow, 0, MAX_SLOW),
        ("window_s", window_s, 0.1, MAX_WINDOW_S),
        ("rounds", rounds, 1, MAX_ROUNDS),
    ):
        if not least <= value <= most:
            raise BenchOptionError(f"{name} must be {least:,g} to {most:,g}, not {value:,g}")
    if sys.platform != "linux":
        raise BenchError("this benchmark needs Linux: it reads the CPU clock of another process")


def _allow_descriptors(clients: int) -> None:
    needed = clients + SPARE_DESCRIPTORS
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most < needed:
        raise BenchError(
            f"{clients:,} clients need {needed:,} open files, the system allows {most:,} (ulimit -Hn)"
        )


class _Target(NamedTuple):
    """A server to measure."""

    address: Address
    weight: Weight | None
    """None when its process is not known."""


def _given(addr: str | None, pid: int | None) -> _Target | None:
    """The server that we were given, if any, with its IPv4 address."""
    if addr is None:
        if pid is not None:
            raise BenchOptionError("--pid belongs to --addr")
        return None
    try:
        host, port = parse_address(addr)
        address = Address(*socket.getaddrinfo(host, port, socket.AF_INET)[0][4])
    except ValueError as error:
        raise BenchOptionError(str(error)) from None
    except OSError as error:
        raise BenchError(f"{addr}: {error.strerror}") from None
    return _Target(address, None if pid is None else Weight(pid))


@contextmanager
def _server(
    given: _Target | None, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[_Target]:
    """The given server, or else one that runs until the end of the block."""
    if given is not None:
        yield given
        return
    with running(command, environment) as started:
        yield _Target(started.address, started.weight)


class _Plan(NamedTuple):
    """How every server is measured."""

    fleet: Path
    """The program."""
    subscriptions: Sequence[Subscribe]
    clients: int
    slow: int
    interval_s: float
    window_s: float

    def measure(self, target: _Target) -> tuple[Delivery, list[bytes]]:
        """Measure a server with one client, then with all. Returns also: the messages that a round sends to a client."""
        with (
            Load(target.address, self.subscriptions) as first,
            launched(self.fleet, target.address, self.subscriptions) as fleet,
        ):
            first.connect(1, CONNECT_TIMEOUT_S)
            first.wait_for_messages(FIRST_DATA_TIMEOUT_S)
            messages = first.messages
            first.receive_for(SETTLE_S, self._quiet_s)
            before = _Spent.so_far(target)
            started, frames = time.monotonic(), first.frames
            first.receive_for(self.window_s, self._quiet_s)
            seconds, base_frames = time.monotonic() - started, first.frames - frames
            base_cpu = _Spent.so_far(target).cpu_share_since(before, seconds)

            before = _Spent.so_far(target)
            one_at_a_time = min(ONE_AT_A_TIME, (self.clients - 1) // 2)
            alone = fleet.connect(one_at_a_time, 1)
            together = fleet.connect(self.clients - 1 - one_at_a_time, AT_ONCE)
            connect_cpu = _Spent.so_far(target).cpu_since(before)
            fleet.subscribe()
            self._settle(fleet, first, SETTLE_S)
            many = self._window(target, fleet, first)
            if many.received.frames <= base_frames:
                raise BenchError(f"{self.clients:,} clients got no more frames than one")
            grown = _Spent.so_far(target).bytes_since(before)
            delivery = Delivery(
                connect_p95_ms=alone.p95_ms,
                connect_p95_ms_at_16=together.p95_ms,
                cpu_us_per_connect=_per(connect_cpu, self.clients - 1, 1e6),
                frames_per_s=many.frames_per_s,
                bytes_per_frame=many.received.bytes / many.received.frames,
                delivered_share=self._share_of_due(many),
                cpu_us_per_frame=_per(many.cpu_share, many.frames_per_s, 1e6),
                cpu_us_per_further_frame=None
                if many.cpu_share is None or base_cpu is None
                else 1e6 * (many.cpu_share - base_cpu) / (many.frames_per_s - base_frames / seconds),
                base_cpu_ms_per_s=_per(base_cpu, 1, 1e3),
                latency_p50_ms=many.received.p50_ms,
                latency_p99_ms=many.received.p99_ms,
                last_client_p50_ms=many.received.last_p50_ms,
                last_client_p99_ms=many.received.last_p99_ms,
                bytes_per_client=_per(grown, self.clients - 1),
                load_cpu_us_per_frame=1e6 * many.received.cpu_s / many.received.frames,
                with_slow=self._measure_with_slow(target, fleet, first) if self.slow else None,
            )
            return delivery, messages

    def _measure_with_slow(self, target: _Target, fleet: Fleet, first: Load) -> WithSlow:
        before = _Spent.so_far(target)
        fleet.connect_slow(self.slow)
        self._settle(fleet, first, SLOW_SETTLE_S)
        beside = self._window(target, fleet, first)
        return WithSlow(
            delivered_share=self._share_of_due(beside),
            cpu_us_per_frame=_per(beside.cpu_share, beside.frames_per_s, 1e6),
            latency_p50_ms=beside.received.p50_ms,
            latency_p99_ms=beside.received.p99_ms,
            last_client_p50_ms=beside.received.last_p50_ms,
            last_client_p99_ms=beside.received.last_p99_ms,
            bytes_per_slow_client=_per(_Spent.so_far(target).bytes_since(before), self.slow),
        )

    @property
    def _quiet_s(self) -> float:
        return self.interval_s / 4

    def _settle(self, fleet: Fleet, first: Load, duration_s: float) -> None:
        fleet.receive(duration_s, self._quiet_s, lambda: first.receive_for(duration_s, self._quiet_s))

    def _window(self, target: _Target, fleet: Fleet, first: Load) -> _Window:
        """Let all clients read, between two moments at which nothing is on its way."""
        clock_before = time.time() - time.monotonic()
        before, frames, started = _Spent.so_far(target), first.frames, time.monotonic()
        received = fleet.receive(
            self.window_s, self._quiet_s, lambda: first.receive_for(self.window_s, self._quiet_s)
        )
        seconds = time.monotonic() - started
        cpu_share = _Spent.so_far(target).cpu_share_since(before, seconds)
        if received.lost or first.lost:
            raise BenchError(
                f"{received.lost + first.lost:,} of {self.clients:,} clients were left by the server"
            )
        if abs(time.time() - time.monotonic() - clock_before) > CLOCK_STEP_S:
            raise BenchError("the machine's clock was set during the measurement")
        return _Window(received, (received.frames + first.frames - frames) / seconds, cpu_share)

    def _share_of_due(self, window: _Window) -> float:
        return window.frames_per_s * self.interval_s / (self.clients * len(self.subscriptions))


CLOCK_STEP_S = 0.001


class _Window(NamedTuple):
    received: Received
    """By the fleet, which is all clients but the first."""
    frames_per_s: float
    """That all clients got."""
    cpu_share: float | None
    """Seconds of CPU time a second."""


class _Spent(NamedTuple):
    """What a server has used up to a moment; nothing is known of a server without a process."""

    cpu_s: float | None
    resident_bytes: int | None

    @classmethod
    def so_far(cls, target: _Target) -> _Spent:
        weight = target.weight
        return cls(None, None) if weight is None else cls(weight.cpu_s(), weight.resident_bytes())

    def cpu_since(self, before: _Spent) -> float | None:
        return None if self.cpu_s is None or before.cpu_s is None else self.cpu_s - before.cpu_s

    def cpu_share_since(self, before: _Spent, seconds: float) -> float | None:
        return _per(self.cpu_since(before), seconds)

    def bytes_since(self, before: _Spent) -> int | None:
        if self.resident_bytes is None or before.resident_bytes is None:
            return None
        return self.resident_bytes - before.resident_bytes


def _per(amount: float | None, count: float, unit: float = 1.0) -> float | None:
    return None if amount is None else unit * amount / count


def _median(runs: Sequence[Delivery], figure: str) -> float | None:
    """The median of a figure; None unless all runs have it."""
    values: list[float | None] = [attrgetter(figure)(run) for run in runs]
    known = [value for value in values if value is not None]
    return median(known) if len(known) == len(values) else None
