"""Servers as processes of their own: started, found by the line they print, weighed, and always ended."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from market_depth.bench.errors import BenchError
from market_depth.config import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 8.0
"""A server of ours stops within five seconds; who is slower is killed."""

_ADDRESS = re.compile(rb"ws://127\.0\.0\.1:(\d+)/")


class Weight:
    """What a running process costs; its id is enough to ask."""

    def __init__(self, pid: int) -> None:
        """Raises: BenchError when there is no such process."""
        self.pid = pid
        # The kernel's clock of another process, as clock_getcpuclockid(3) makes its id. /proc counts in hundredths
        # of a second, or by thread, and then forgets those that have ended.
        self._clock = (~pid << 3) | 2
        try:
            self.cpu_s()
        except OSError:
            raise BenchError(f"there is no process {pid}") from None

    def cpu_s(self) -> float:
        """The CPU time of all its threads so far, ended ones too, user and system together, to the nanosecond."""
        return time.clock_gettime(self._clock)

    def resident_bytes(self) -> int:
        """Its memory in RAM."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """How many files, sockets among them, it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())


class Started(NamedTuple):
    """A server that we started and that accepts."""

    address: Address
    weight: Weight
    start_s: float
    """From the start of the process until it said that it listens."""
    log: Path
    """What it writes to standard error."""


def serve_command(*options: str) -> list[str]:
    """The command that starts our server on a free port of 127.0.0.1. It stores nothing, if no option says otherwise."""
    command = [sys.executable, "-m", "market_depth", "serve", "--addr", "127.0.0.1:0", "--store", "none"]
    return [*command, *options]


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Started]:
    """A server that prints `ws://127.0.0.1:PORT/` when it accepts; it has ended when the block is left, however.

    Takes: the environment variables to set beside ours.
    Raises: BenchError, with the last line of its log, when it does not start.
    """
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 the command is our own
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **(environment or {})},
        )
        try:
            port = _port(process, started + START_TIMEOUT_S)
            if port is None:
                lines = Path(log.name).read_text(errors="replace").splitlines()
                raise BenchError(
                    f"{Path(command[0]).name} did not start: {lines[-1] if lines else 'no word of why'}"
                )
            address = Address("127.0.0.1", port)
            yield Started(address, Weight(process.pid), time.monotonic() - started, Path(log.name))
        finally:
            try:
                process.terminate()
                process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                pass  # it is killed now
            finally:
                process.kill()  # also when a second Ctrl-C cut the wait short; who has ended does not mind
                process.communicate()


def _port(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The port in the first line that the process prints; None when it ends, says something else, or nothing."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
        return None
    address = _ADDRESS.search(process.stdout.readline())
    return int(address[1]) if address else None
