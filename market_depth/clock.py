"""Where wall-clock time comes from, so that a test can say what time it is.

Durations and deadlines are not here: they come from `trio.current_time`, which tests control with trio's own
`MockClock`.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day."""

    def wall_ns(self) -> int:
        """Now, in nanoseconds since the epoch (UTC)."""


class SystemClock:
    """The machine's own clock. It may step when somebody sets it, so it dates things and never times them."""

    def wall_ns(self) -> int:
        return time.time_ns()


class ManualClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, wall_ns: int) -> None:
        self._wall_ns = wall_ns

    def wall_ns(self) -> int:
        return self._wall_ns

    def advance(self, seconds: float) -> None:
        """Move the clock forward, to the nearest nanosecond."""
        self._wall_ns += round(seconds * 1e9)
