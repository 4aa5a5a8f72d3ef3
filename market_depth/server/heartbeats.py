"""Heartbeats without a timer for each client: one frame a second, to those whose turn it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from market_depth.server.frames import text_frame
from protocol.codecs import encode
from protocol.messages import HeartBeat
from protocol.timestamp import timestamp_text

if TYPE_CHECKING:
    from market_depth.clock import Clock
    from market_depth.server.direct_stream import DirectStream

CHUNK = 256
"""So many writes, then other tasks get their turn."""


class Heartbeats:
    """A wheel with a place for each second of the interval; a client keeps the place it got when it came."""

    def __init__(self, clock: Clock, interval_s: int) -> None:
        self._clock = clock
        self._places: list[dict[DirectStream, None]] = [{} for _ in range(interval_s)]
        self._place_of: dict[DirectStream, dict[DirectStream, None]] = {}
        self._now = 0

    def join(self, stream: DirectStream) -> None:
        """Greet a client with its first heartbeat; the others follow, one every interval."""
        place = self._place_of[stream] = self._places[self._now]
        place[stream] = None
        stream.post(self._frame())

    def leave(self, stream: DirectStream) -> None:
        """Send the client no more heartbeats."""
        del self._place_of.pop(stream)[stream]

    async def run(self) -> None:
        """Beat until cancelled."""
        due = trio.current_time()
        while True:
            due += 1
            await trio.sleep_until(due)
            self._now = (self._now + 1) % len(self._places)
            frame = self._frame()
            for count, stream in enumerate(list(self._places[self._now]), start=1):
                # Who does not take what was sent before has no use for a sign of life.
                if not stream.is_full:
                    stream.post(frame)
                if count % CHUNK == 0:
                    await trio.lowlevel.checkpoint()

    def _frame(self) -> bytes:
        return text_frame(encode(HeartBeat(timestamp=timestamp_text(self._clock.wall_ns()))))
