"""So many clients are listened to at a time, then the streams get their turn.

When thousands of clients come or ask at once, all their tasks could run before the next task that writes market data: for
a second or more. Each has to pass here before it receives, and every time the scheduler comes round only some do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

AT_A_TIME = 32
"""What they ask for takes some milliseconds together."""


class Turnstile:
    """Lets tasks pass, first come, first served, and never more than twice `AT_A_TIME` while the others have one turn."""

    def __init__(self) -> None:
        self._free = AT_A_TIME
        self._waiting = trio.lowlevel.ParkingLot()

    async def enter(self, start_soon: Callable[..., object]) -> None:
        """Return when it is the calling task's turn. `start_soon` starts the task that lets those pass who must wait."""
        if self._free:
            self._free -= 1
            if not self._free:
                start_soon(self._go_on)
        else:
            await self._waiting.park()

    async def _go_on(self) -> None:
        while not self._free:
            await trio.lowlevel.checkpoint()
            self._free = AT_A_TIME - len(self._waiting.unpark(count=AT_A_TIME))
