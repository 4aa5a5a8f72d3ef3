"""`market-depth publish` in a process of its own, as users start it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO, Self

COMMAND = [
    sys.executable,
    "-c",
    "import typer; from market_depth.publish.command import publish; typer.run(publish)",
]


def environment(key: str | None) -> dict[str, str]:
    """Ours, but with this key or none."""
    others = {name: value for name, value in os.environ.items() if name != "MARKET_DEPTH_PUBLISH_KEY"}
    return others if key is None else {**others, "MARKET_DEPTH_PUBLISH_KEY": key}


class PublishProcess:
    """A publisher that accepts; `port` stays the same after a restart."""

    def __init__(
        self, path: Path, *options: str, key: str | None = None, log: IO[bytes] | None = None
    ) -> None:
        """`log` takes what it writes to standard error; without it, the test's own does."""
        self._path = path
        self._options = options
        self._key = key
        self._log = log
        self.port = 0
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it accepts."""
        command = [*COMMAND, str(self._path), "--addr", f"127.0.0.1:{self.port}", *self._options]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment(self._key)
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        announced = re.search(r"tcp://127\.0\.0\.1:(\d+)$", line.strip())
        if announced is None:
            self.stop()
            raise AssertionError(f"the publisher did not start: {line!r}")
        self.port = int(announced[1])

    def stop(self) -> int:
        """End it as SIGTERM does. Returns: its exit code."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode
