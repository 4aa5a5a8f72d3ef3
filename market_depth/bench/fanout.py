"""What a delivered frame costs the server: many clients on our server, and on a bare `send()` loop in C, by turns.

The loop (`send_loop.c`) writes the very bytes that a client of our server received, to as many clients at the same pace; it
is the least that a server can do, since the rest is the kernel's. Both are read by the same load generator. Each run
first measures the server with one client, for what it costs to have a market at all: feed, books, encoding.
Then with all clients. So there are two figures, and both are told:

    CPU a frame           all of the server's CPU time, divided by all frames that it delivered
    CPU a further frame   how much more CPU time all clients cost than one, divided by how many more frames they got
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from market_depth.bench.errors import BenchError, BenchOptionError
from market_depth.bench.load import Load
from market_depth.bench.processes import running, serve_command
from market_depth.exits import sigterm_like_ctrl_c
from protocol.messages import MAX_LEVELS, Subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from market_depth.bench.processes import Process

MAX_CLIENTS = 10_000
MAX_STREAMS = 64
MIN_INTERVAL_MS = 10
MAX_INTERVAL_MS = 1000
MAX_WINDOW_S = 10.0
MAX_ROUNDS = 10

SYMBOLS = ("BTCUSD", "ETHUSD", "ADAUSD", "SOLUSD", "XRPUSD", "EURUSD")
"""A client's streams show these in turn."""

SPARE_DESCRIPTORS = 64
CONNECT_TIMEOUT_S = 120.0
FIRST_DATA_TIMEOUT_S = 60.0
"""Long enough for the kernels to compile, should this be the first start."""
SETTLE_S = 1.0
"""After the last handshake, until everybody has had a first frame."""

SEND_LOOP_SOURCE = Path(__file__).with_name("send_loop.c")


@dataclass(frozen=True)
class Delivery:
    """What one run of one server measured."""

    connects_per_s: float
    cpu_us_per_connect: float
    """Handshake, subscriptions and first frames, and the market meanwhile."""
    frames_per_s: float
    bytes_per_frame: float
    delivered_share: float
    """Frames that came, of those due: each stream's one every interval."""
    cpu_us_per_frame: float
    """Everything counted."""
    cpu_us_per_further_frame: float
    """Without what one client alone costs."""
    base_cpu_ms_per_s: float
    """With one client."""
    bytes_per_client: float
    """Growth of the server's memory in RAM."""
    load_cpu_us_per_frame: float
    """The load generator's own."""


@dataclass(frozen=True)
class Report:
    """Runs of our server, and as many of the yardstick; none of the latter where there is no C compiler."""

    clients: int
    streams: int
    interval_ms: int
    levels: int
    window_s: float
    server: list[Delivery]
    send_loop: list[Delivery]

    @property
    def ratio(self) -> float | None:
        """Our CPU time for a frame in that of the C loop: the median of the rounds, each compared within itself."""
        return self._ratio("cpu_us_per_frame")

    @property
    def ratio_of_further_frames(self) -> float | None:
        """The same for a further frame."""
        return self._ratio("cpu_us_per_further_frame")

    def as_dict(self) -> dict[str, Any]:
        """All figures of all rounds, and the ratios."""
        return {
            **asdict(self),
            "ratio": self.ratio,
            "ratio_of_further_frames": self.ratio_of_further_frames,
        }

    def lines(self) -> list[str]:
        """The medians as a table to read."""
        streams = "1 stream" if self.streams == 1 else f"{self.streams} streams"
        return [
            f"{self.clients:,} clients × {streams} every {self.interval_ms} ms, {self.levels} levels a side",
            f"{len(self.server)} rounds of {self.window_s:g} s, medians",
            "",
            f"{'':<34}{'market-depth':>14}{'C send() loop':>16}",
            self._row("CPU µs a frame, all counted", "cpu_us_per_frame", ".2f", self.ratio),
            self._row(
                "CPU µs a further frame",
                "cpu_us_per_further_frame",
                ".2f",
                self.ratio_of_further_frames,
            ),
            self._row("CPU ms a second with one client", "base_cpu_ms_per_s", ".1f"),
            self._row("frames a second", "frames_per_s", ",.0f"),
            self._row("share of the frames due", "delivered_share", ".1%"),
            self._row("bytes a frame", "bytes_per_frame", ",.0f"),
            self._row("memory a client in bytes", "bytes_per_client", ",.0f"),
            self._row("connections a second", "connects_per_s", ",.0f"),
            self._row("CPU µs a connection", "cpu_us_per_connect", ",.0f"),
            self._row("load generator: CPU µs a frame", "load_cpu_us_per_frame", ".2f"),
            *(
                []
                if self.send_loop
                else ["", "No C compiler (cc or gcc) is there: the yardstick was left out."]
            ),
        ]

    def _row(self, title: str, field: str, shape: str, ratio: float | None = None) -> str:
        ours, theirs = (_median(runs, field) for runs in (self.server, self.send_loop))
        cells = (format(value, shape) if value is not None else "–" for value in (ours, theirs))
        row = f"{title:<34}{next(cells):>14}{next(cells):>16}"
        return row if ratio is None else f"{row}{ratio:>10.2f} ×"

    def _ratio(self, field: str) -> float | None:
        pairs = zip(self.server, self.send_loop, strict=False)  # the loop's list may be empty
        ratios = [getattr(ours, field) / getattr(theirs, field) for ours, theirs in pairs]
        return median(ratios) if ratios else None


def run(
    clients: int = 1000,
    streams: int = 1,
    interval_ms: int = 100,
    levels: int = 10,
    window_s: float = 4.0,
    rounds: int = 3,
    progress: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Measure so many clients with so many streams each, `rounds` times on our server and on the yardstick by turns.

    A round takes about `4 × window_s + 6` seconds. `progress` is told what happens.
    Raises: BenchOptionError when a value is out of bounds, or the machine or a server cannot do it.
    """
    _check_bounds(clients, streams, interval_ms, levels, window_s, rounds)
    _allow_descriptors(clients)
    subscriptions = [
        Subscribe(
            type="Subscribe",
            stream_id=str(number),
            symbol=SYMBOLS[number % len(SYMBOLS)],
            data_type="MBP",
            max_levels=levels,
        )
        for number in range(streams)
    ]
    command = serve_command("--interval-ms", str(interval_ms), "--symbols", ",".join(SYMBOLS[:streams]))
    report = Report(clients, streams, interval_ms, levels, window_s, [], [])
    interval_s = interval_ms / 1000
    with sigterm_like_ctrl_c(), _send_loop() as send_loop, tempfile.NamedTemporaryFile() as payload:
        for number in range(1, rounds + 1):
            progress(f"round {number} of {rounds}: market-depth")
            delivery, newest = _measure(command, subscriptions, clients, interval_s, window_s)
            report.server.append(delivery)
            if send_loop is not None:
                progress(f"round {number} of {rounds}: C send() loop")
                Path(payload.name).write_bytes(newest)
                yardstick = [str(send_loop), payload.name, str(interval_ms)]
                delivery, _ = _measure(yardstick, subscriptions, clients, interval_s, window_s)
                report.send_loop.append(delivery)
    return report


def _check_bounds(
    clients: int, streams: int, interval_ms: int, levels: int, window_s: float, rounds: int
) -> None:
    for name, value, least, most in (
        ("clients", clients, 2, MAX_CLIENTS),
        ("streams", streams, 1, MAX_STREAMS),
        ("interval_ms", interval_ms, MIN_INTERVAL_MS, MAX_INTERVAL_MS),
        ("levels", levels, 1, MAX_LEVELS),
        ("window_s", window_s, 0.1, MAX_WINDOW_S),
        ("rounds", rounds, 1, MAX_ROUNDS),
    ):
        if not least <= value <= most:
            raise BenchOptionError(f"{name} must be {least:,g} to {most:,g}, not {value:,g}")
    if sys.platform != "linux":
        raise BenchError("this benchmark needs Linux: it reads the CPU clock of another process")


def _allow_descriptors(clients: int) -> None:
    needed = clients + SPARE_DESCRIPTORS
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < needed:
        raise BenchError(
            f"{clients:,} clients need {needed:,} open files, the system allows {most:,} (ulimit -Hn)"
        )
    if allowed < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


@contextmanager
def _send_loop() -> Iterator[Path | None]:
    """The yardstick as a program; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "send_loop"
        built = subprocess.run(  # noqa: S603 our own source
            [compiler, "-O2", "-o", program, SEND_LOOP_SOURCE], capture_output=True, text=True, check=False
        )
        if built.returncode:
            raise BenchError(f"{compiler} cannot compile {SEND_LOOP_SOURCE.name}: {built.stderr.strip()}")
        yield program


def _measure(
    command: Sequence[str],
    subscriptions: Sequence[Subscribe],
    clients: int,
    interval_s: float,
    window_s: float,
) -> tuple[Delivery, bytes]:
    """Measure one server with one client, then with all. Returns also: what one tick sends to one client."""
    quiet_s = interval_s / 4
    with running(command) as server, Load(server.port, subscriptions) as load:
        load.connect(1, CONNECT_TIMEOUT_S)
        load.wait_for_payload(FIRST_DATA_TIMEOUT_S)
        load.receive_for(SETTLE_S, quiet_s)
        one = _Window.of(server, load, window_s, quiet_s)
        memory_before = server.resident_bytes()
        cpu_before = server.cpu_s()
        connect_s = load.connect(clients - 1, CONNECT_TIMEOUT_S)
        connect_cpu_s = server.cpu_s() - cpu_before
        load.receive_for(SETTLE_S, quiet_s)
        many = _Window.of(server, load, window_s, quiet_s)
        if load.lost:
            raise BenchError(f"{load.lost:,} of {clients:,} clients were left by the server")
        if many.frames_per_s <= one.frames_per_s:
            raise BenchError(f"{clients:,} clients got no more frames than one")
        delivery = Delivery(
            connects_per_s=(clients - 1) / connect_s,
            cpu_us_per_connect=1e6 * connect_cpu_s / (clients - 1),
            frames_per_s=many.frames_per_s,
            bytes_per_frame=many.bytes / many.frames,
            delivered_share=many.frames_per_s * interval_s / (clients * len(subscriptions)),
            cpu_us_per_frame=1e6 * many.cpu_share / many.frames_per_s,
            cpu_us_per_further_frame=1e6
            * (many.cpu_share - one.cpu_share)
            / (many.frames_per_s - one.frames_per_s),
            base_cpu_ms_per_s=1e3 * one.cpu_share,
            bytes_per_client=(server.resident_bytes() - memory_before) / (clients - 1),
            load_cpu_us_per_frame=1e6 * many.load_cpu_s / many.frames,
        )
        return delivery, load.payload


class _Window(NamedTuple):
    """What happened between two moments at which nothing was on its way."""

    duration_s: float
    frames: int
    bytes: int
    cpu_s: float
    load_cpu_s: float

    @classmethod
    def of(cls, server: Process, load: Load, duration_s: float, quiet_s: float) -> _Window:
        """Let the load read for so long."""
        frames, size = load.frames, load.bytes
        cpu_s, load_cpu_s, started = server.cpu_s(), time.process_time(), time.monotonic()
        load.receive_for(duration_s, quiet_s)
        return cls(
            time.monotonic() - started,
            load.frames - frames,
            load.bytes - size,
            server.cpu_s() - cpu_s,
            time.process_time() - load_cpu_s,
        )

    @property
    def frames_per_s(self) -> float:
        """Frames that all clients got, a second."""
        return self.frames / self.duration_s

    @property
    def cpu_share(self) -> float:
        """Seconds of CPU time a second."""
        return self.cpu_s / self.duration_s


def _median(runs: Sequence[Delivery], field: str) -> float | None:
    return median(getattr(run, field) for run in runs) if runs else None
