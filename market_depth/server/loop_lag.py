"""How late the event loop is: what waits for its turn in this process waits at least so long."""

from __future__ import annotations

from collections import deque

import trio

INTERVAL_S = 0.5
SAMPLES = 30
"""Together the fifteen seconds between two usual looks at the metrics, so that no spell of lateness goes unseen."""


class LoopLag:
    """Looks at the clock twice a second."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque([0.0], maxlen=SAMPLES)

    @property
    def worst_s(self) -> float:
        """The longest that a task was woken too late in the last fifteen seconds."""
        return max(self._late_s)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = trio.current_time() + INTERVAL_S
            await trio.sleep_until(due)
            self._late_s.append(trio.current_time() - due)
