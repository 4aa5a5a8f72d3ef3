"""A long run under bad conditions: most clients read, some never do, others come and go all the time, and some are hostile.

    warm-up   all clients connect; what a server loads or allocates once is no growth
    calm      clients come and go
    attack    hostile clients, too, if asked for (`hostile.py`); then calm again, and so on by turns

The latency under attack is compared with that of the calm spell just before: machines have moods of their own. Afterwards everybody leaves, and the server must have as many descriptors open as before. All clients that come and go,
and a few that stay, decode every frame and check its order; the others notice a torn frame.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import linear_regression, median
from typing import TYPE_CHECKING, Any, NamedTuple

from market_depth.bench.compiler import compiled
from market_depth.bench.errors import BenchError, BenchOptionError
from market_depth.bench.fleet import launched
from market_depth.bench.load import Load
from market_depth.bench.processes import running, serve_command
from market_depth.exits import sigterm_like_ctrl_c
from protocol.messages import Subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from market_depth.bench.fleet import Fleet
    from market_depth.bench.processes import Started
    from market_depth.config import Address

MAX_MINUTES = 120.0
MAX_CLIENTS = 10_000
MAX_HOSTILE = 1_000_000

INTERVAL_MS = 100
SYMBOLS = ("BTCUSD", "ETHUSD", "ADAUSD")
CHECKED = 5
"""So many of those who stay decode every frame."""
SLOW_SHARE = 0.05
COMING_PER_S = 20
STAY_S = 1.0
"""How long those stay who come and go."""

WINDOW_S = 2.0
"""Figures are taken so often."""
SLOW_STAY_S = 20.0
"""Then the slow clients leave, and others come: after 30 s without a byte taken the server would cut them."""
WARM_UP_SHARE = 0.1
MAX_WARM_UP_S = 120.0
SPELLS = 5
"""So often a calm spell is followed by an attack as long."""

CONNECT_TIMEOUT_S = 60.0
FIRST_DATA_TIMEOUT_S = 60.0
HOSTILE_TIMEOUT_S = 60.0
"""How much longer than the run the hostile clients may take to end."""
LEAVE_TIMEOUT_S = 30.0
LOOK_S = 0.5
"""How often the server's descriptors are counted until they settle."""

MAX_GROWTH_MB_PER_H = 1.0
GROWTH_NEEDS_S = 600.0
"""A slope over less says little: it is told, but not judged."""
MAX_SLOWDOWN = 1.1
DESCRIPTORS_SPARE = 2


class Sample(NamedTuple):
    """The server at the end of one window, and the latencies within it."""

    at_s: float
    resident_bytes: int
    descriptors: int
    frames: int
    p50_ms: float | None
    p99_ms: float | None
    last_p99_ms: float | None
    spell: int
    under_attack: bool


@dataclass(frozen=True)
class Report:
    """What happened."""

    seconds: float
    clients: int
    slow: int
    came_and_went: int
    hostile: int
    seed: int
    frames: int
    """Read by the clients that stay."""
    frames_checked: int
    """Decoded, and in order."""
    descriptors_before: int
    descriptors_after: int
    log_errors: list[str]
    samples: list[Sample] = field(repr=False)
    """After the warm-up."""

    @property
    def growth_mb_per_h(self) -> float:
        """Slope of the server's memory in RAM."""
        slope = linear_regression(
            [sample.at_s for sample in self.samples], [sample.resident_bytes for sample in self.samples]
        ).slope
        return slope * 3600 / 1e6

    @property
    def slowdown(self) -> float | None:
        """Latency under attack in that of the calm spell before, p99, the median of the spells; None without an attack."""
        ratios = [
            attacked / calm
            for spell in {sample.spell for sample in self.samples}
            if (calm := self.p99_ms(under_attack=False, spell=spell))
            and (attacked := self.p99_ms(under_attack=True, spell=spell))
        ]
        return median(ratios) if ratios else None

    def p99_ms(self, *, under_attack: bool, spell: int | None = None) -> float | None:
        """The latency that one frame in a hundred exceeds, in the median window, of one spell or of all."""
        figures = [
            sample.p99_ms
            for sample in self.samples
            if sample.under_attack == under_attack
            and spell in (None, sample.spell)
            and sample.p99_ms is not None
        ]
        return median(figures) if figures else None

    @property
    def faults(self) -> list[str]:
        """What must not be."""
        faults = [f"log: {line}" for line in self.log_errors]
        if self.descriptors_after > self.descriptors_before + DESCRIPTORS_SPARE:
            faults.append(f"descriptors: {self.descriptors_before} before, {self.descriptors_after} after")
        measured_s = self.samples[-1].at_s - self.samples[0].at_s
        if measured_s >= GROWTH_NEEDS_S and self.growth_mb_per_h > MAX_GROWTH_MB_PER_H:
            faults.append(f"memory grows by {self.growth_mb_per_h:.2f} MB/h")
        if self.slowdown is not None and measured_s >= GROWTH_NEEDS_S and self.slowdown > MAX_SLOWDOWN:
            faults.append(f"p99 under attack is {self.slowdown:.2f} × that of the calm spells")
        return faults

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong."""
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        """All figures and all samples."""
        return {
            **asdict(self),
            "samples": [sample._asdict() for sample in self.samples],
            "growth_mb_per_h": self.growth_mb_per_h,
            "slowdown": self.slowdown,
            "faults": self.faults,
        }

    def lines(self) -> list[str]:
        """The figures to read."""
        rows = [
            ("time", f"{self.seconds:,.0f} s"),
            ("clients that stay; of them never read", f"{self.clients:,}; {self.slow:,}"),
            ("clients that came and went", f"{self.came_and_went:,}"),
            ("hostile clients", f"{self.hostile:,}"),
            ("frames read by those who stay", f"{self.frames:,}"),
            ("frames decoded, all in order", f"{self.frames_checked:,}"),
            ("memory at the end of the warm-up", f"{self.samples[0].resident_bytes / 1e6:.1f} MB"),
            ("memory at the end", f"{self.samples[-1].resident_bytes / 1e6:.1f} MB"),
            ("its slope", f"{self.growth_mb_per_h:+.2f} MB/h"),
            ("descriptors before and after", f"{self.descriptors_before}, {self.descriptors_after}"),
            ("descriptors at most", f"{max(sample.descriptors for sample in self.samples):,}"),
            ("latency p99, calm", _ms(self.p99_ms(under_attack=False))),
            ("latency p99, under attack", _ms(self.p99_ms(under_attack=True))),
            ("the ratio", "–" if self.slowdown is None else f"{self.slowdown:.2f} ×"),
        ]
        return [f"{title:<40}{value:>16}" for title, value in rows] + [
            f"FAULT {line}" for line in self.faults
        ]


def run(
    minutes: float = 30.0,
    clients: int = 1000,
    hostile: int = 0,
    seed: int = 1,
    progress: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Let a server of ours carry so many clients for so long, 5 % of whom never read, while 20 a second come and go.

    `hostile` so many hostile clients, made from `seed`, attack it, all in all. `progress` is told what happens.
    Raises: BenchOptionError when a value is out of bounds; BenchError when the server let a client down.
    """
    for name, value, least, most in (
        ("minutes", minutes, 0.05, MAX_MINUTES),
        ("clients", clients, 2 * CHECKED, MAX_CLIENTS),
        ("hostile", hostile, 0, MAX_HOSTILE),
        ("seed", seed, 0, 2**63),
    ):
        if not least <= value <= most:
            raise BenchOptionError(f"{name} must be {least:,g} to {most:,g}, not {value:,g}")
    command = serve_command(
        "--interval-ms", str(INTERVAL_MS), "--symbols", ",".join(SYMBOLS), "--log-level", "warning"
    )
    with sigterm_like_ctrl_c(), compiled("fleet") as program, running(command) as server:
        with (
            Load(server.address, _SUBSCRIPTIONS) as staying,
            launched(program, server.address, _SUBSCRIPTIONS) as fleet,
        ):
            staying.connect(1, CONNECT_TIMEOUT_S)
            staying.wait_for_messages(FIRST_DATA_TIMEOUT_S)
            staying.disconnect_oldest()
            descriptors_before = _settled_descriptors(server)
            soak = _Soak(server, fleet, staying, clients, hostile, seed, progress)
            soak.run(60 * minutes)
        return Report(
            seconds=60 * minutes,
            clients=clients,
            slow=soak.slow,
            came_and_went=soak.came,
            hostile=hostile,
            seed=seed,
            frames=soak.frames,
            frames_checked=staying.frames + soak.passing_frames,
            descriptors_before=descriptors_before,
            descriptors_after=_settled_descriptors(server, descriptors_before + DESCRIPTORS_SPARE),
            log_errors=[
                line
                for line in server.log.read_text(errors="replace").splitlines()
                if " ERROR " in line or " CRITICAL " in line or "Traceback" in line
            ],
            samples=soak.samples,
        )


_SUBSCRIPTIONS = [Subscribe(stream_id="book", symbol=SYMBOLS[0], data_type="MBP", max_levels=10)]


class _Soak:
    """The clients of one run, and what was seen of the server."""

    def __init__(
        self,
        server: Started,
        fleet: Fleet,
        staying: Load,
        clients: int,
        hostile: int,
        seed: int,
        progress: Callable[[str], None],
    ) -> None:
        self.slow = round(SLOW_SHARE * clients)
        self.came = 0
        self.frames = 0
        self.passing_frames = 0
        self.samples: list[Sample] = []
        self._server = server
        self._fleet = fleet
        self._staying = staying
        self._clients = clients
        self._hostile = hostile
        self._seed = seed
        self._progress = progress
        self._slow_leave = 0.0

    def run(self, seconds: float) -> None:
        self._staying.connect(CHECKED, CONNECT_TIMEOUT_S)
        self._fleet.connect(self._clients - CHECKED - self.slow, 16)
        self._fleet.subscribe()
        start = time.monotonic()
        warm_up_s = min(WARM_UP_SHARE * seconds, MAX_WARM_UP_S)
        with Load(self._server.address, _SUBSCRIPTIONS) as passing:
            self._let_be(passing, start, start + warm_up_s)
            self._progress(f"warm after {warm_up_s:.0f} s")
            if self._hostile:
                self._attack(passing, start, start + warm_up_s, (seconds - warm_up_s) / SPELLS)
            else:
                self._let_be(passing, start, start + seconds, spell=0)
            self.passing_frames = passing.frames

    def _attack(self, passing: Load, start: float, calm_from: float, spell_s: float) -> None:
        """Calm and attack by turns, each half a spell."""
        done = 0
        for spell in range(SPELLS):
            self._let_be(passing, start, calm_from + spell_s / 2, spell=spell)
            count = self._hostile * (spell + 1) // SPELLS - done
            self._progress(f"{count:,} hostile clients from seed {self._seed + done:,}")
            address = self._server.address
            with _hostile_clients(address, count, spell_s / 2, self._seed + done) as attackers:
                self._let_be(passing, start, calm_from + spell_s, spell=spell, attackers=attackers)
            done += count
            calm_from += spell_s

    def _let_be(
        self,
        passing: Load,
        start: float,
        end: float,
        *,
        spell: int | None = None,
        attackers: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Let clients come and go until `end`, and until the attackers are done, but for one window at least. Figures are
        taken except during the warm-up, which is no spell.
        """
        while True:
            self._renew_slow_clients()
            come_and_go = partial(self._come_and_go, passing, time.monotonic() + WINDOW_S)
            received = self._fleet.receive(WINDOW_S, INTERVAL_MS / 4000, come_and_go)
            lost = received.lost + self._staying.lost + passing.lost
            if lost:
                raise BenchError(f"{lost:,} clients were left by the server")
            self.frames += received.frames
            if spell is not None:
                weight = self._server.weight
                self.samples.append(
                    Sample(
                        time.monotonic() - start,
                        weight.resident_bytes(),
                        weight.descriptors(),
                        received.frames,
                        received.p50_ms,
                        received.p99_ms,
                        received.last_p99_ms,
                        spell,
                        attackers is not None,
                    )
                )
            now = time.monotonic()
            is_over = attackers is None or attackers.poll() is not None or now >= end + HOSTILE_TIMEOUT_S
            if now >= end and is_over:
                return

    def _renew_slow_clients(self) -> None:
        if self.slow and time.monotonic() >= self._slow_leave:
            self._fleet.cut_slow()
            self._fleet.connect_slow(self.slow)
            self._slow_leave = time.monotonic() + SLOW_STAY_S

    def _come_and_go(self, passing: Load, end: float) -> None:
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= due:
                due += 1 / COMING_PER_S
                passing.begin()
                self.came += 1
                if passing.clients > COMING_PER_S * STAY_S:
                    passing.disconnect_oldest()
            passing.receive(max(0.0, min(due, end) - now))
            self._staying.receive(0)


@contextmanager
def _hostile_clients(
    address: Address, count: int, seconds: float, seed: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with hostile clients. At the end of the block all of them must have had their turn.

    Raises: BenchError when they had not.
    """
    arguments = [address.host, str(address.port), str(count), str(0.9 * seconds), str(seed)]
    process = subprocess.Popen(  # noqa: S603 our own program
        [sys.executable, "-m", "market_depth.bench.hostile", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
        said, complaint = process.communicate(timeout=HOSTILE_TIMEOUT_S)
        if said.strip() != f"{count} done".encode():
            last_line = complaint.decode(errors="replace").strip().splitlines()[-1:]
            raise BenchError(f"the hostile clients could not go on: {''.join(last_line)}")
    except subprocess.TimeoutExpired:
        raise BenchError(f"the hostile clients were not done {HOSTILE_TIMEOUT_S:g} s after the end") from None
    finally:
        process.kill()
        process.communicate()


def _settled_descriptors(server: Started, enough: int = 0) -> int:
    """How many descriptors the server has when nobody is connected any more: the number that stays, or is low enough."""
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    before, count = -1, server.weight.descriptors()
    while (count > enough if enough else count != before) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        before, count = count, server.weight.descriptors()
    return count


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ms"
