"""How long a user waits: for help, for the port, for the first market data; and all of it on the very first start.

The book kernels are compiled on the first start and kept in a cache. Both kinds of start are measured: with the cache
as every later start finds it, and with an empty one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from market_depth.bench.errors import BenchOptionError
from market_depth.bench.load import Load
from market_depth.bench.processes import running, serve_command
from market_depth.exits import sigterm_like_ctrl_c
from protocol.messages import Subscribe

if TYPE_CHECKING:
    from collections.abc import Callable

    from market_depth.config import Address

MAX_ROUNDS = 50

HELP_TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
FIRST_DATA_TIMEOUT_S = 60.0
HEALTH_TIMEOUT_S = 10.0

SUBSCRIPTION = Subscribe(type="Subscribe", stream_id="1", symbol="BTCUSD", data_type="MBP")


@dataclass(frozen=True)
class Start:
    """One start of the server."""

    accept_s: float
    """From the start of the process until the port is open."""
    first_data_s: float
    """From there until a client that subscribes at once has its first market data."""
    health: str
    """The state that the server told as soon as it accepted."""
    log: list[str]
    """What it had logged when the data came."""


@dataclass(frozen=True)
class Report:
    """Starts with compiled kernels, and the one that had to compile them."""

    help_s: list[float]
    """Of `market-depth --help`, from the start of the process to its end."""
    warm: list[Start]
    cold: Start | None

    def as_dict(self) -> dict[str, Any]:
        """All figures of all rounds."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The medians as a table to read."""
        rows = [
            f"medians of {len(self.warm)} starts",
            "",
            f"--help                            {median(self.help_s):6.3f} s",
            f"until the port is open            {median(start.accept_s for start in self.warm):6.3f} s",
            f"from there to the first data      {median(start.first_data_s for start in self.warm):6.3f} s",
        ]
        if self.cold is not None:
            rows += [
                "",
                "first start ever, with kernels to compile",
                f"until the port is open            {self.cold.accept_s:6.3f} s, health says {self.cold.health!r}",
                f"from there to the first data      {self.cold.first_data_s:6.3f} s",
                *(f"  {line}" for line in self.cold.log),
            ]
        return rows


def run(
    rounds: int = 5, *, cold: bool = True, progress: Callable[[str], None] = lambda _line: None
) -> Report:
    """Start the server `rounds` times, and with `cold` once more with an empty cache of compiled kernels.

    A round takes about three seconds, a cold start ten. `progress` is told what happens.
    Raises: BenchOptionError when `rounds` is out of bounds or the server does not start.
    """
    if not 1 <= rounds <= MAX_ROUNDS:
        raise BenchOptionError(f"rounds must be 1 to {MAX_ROUNDS}, not {rounds}")
    with sigterm_like_ctrl_c():
        help_s, warm = [], []
        for number in range(1, rounds + 1):
            progress(f"start {number} of {rounds}")
            help_s.append(_help())
            warm.append(_start({}))
        if not cold:
            return Report(help_s, warm, None)
        progress("start with an empty cache")
        with tempfile.TemporaryDirectory() as empty:
            return Report(help_s, warm, _start({"NUMBA_CACHE_DIR": empty}))


def _help() -> float:
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "market_depth", "--help"],
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=HELP_TIMEOUT_S,
    )
    return time.monotonic() - started


def _start(environment: dict[str, str]) -> Start:
    with running(serve_command(), environment) as server, Load(server.address, [SUBSCRIPTION]) as load:
        accepting = time.monotonic()
        load.connect(1, CONNECT_TIMEOUT_S)
        with ThreadPoolExecutor() as pool:
            health = pool.submit(_health, server.address)
            load.wait_for_messages(FIRST_DATA_TIMEOUT_S)
            first_data_s = time.monotonic() - accepting
        return Start(server.start_s, first_data_s, health.result(), server.log.read_text().splitlines())


def _health(server: Address) -> str:
    url = f"http://{server}/api/health"
    with urllib.request.urlopen(url, timeout=HEALTH_TIMEOUT_S) as answer:
        return str(json.load(answer)["state"])
