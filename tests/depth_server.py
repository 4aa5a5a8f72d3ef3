"""The real server in a process of its own, as users start it."""

import re
import subprocess
import sys
from typing import IO

TOKEN = "???>>>~~~."
"""Its base64 has every sign that a subprotocol may not have."""


class DepthServer:
    """A server started by `market-depth serve`; `addr` is HOST:PORT, `url` that of its WebSocket. Both survive a restart."""

    def __init__(self, *options: str, log: IO[bytes] | None = None) -> None:
        """`log` takes what the server writes to standard error; without it, the test's own does."""
        self._options = options
        self._log = log
        self.addr = "127.0.0.1:0"
        self.start()

    @property
    def process(self) -> subprocess.Popen[str]:
        """The running process."""
        return self._process

    def start(self) -> None:
        """Start it and wait until it accepts."""
        command = [sys.executable, "-m", "market_depth", "serve", "--addr", self.addr, *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        announced = re.search(r"wss?://([^/]+)/", line)
        if announced is None:
            self.stop()
            raise AssertionError(f"the server did not start: {line!r}")
        self.addr = announced[1]
        self.url = announced[0]

    def stop(self) -> None:
        """End it as Ctrl-C does, and wait until it is gone."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
