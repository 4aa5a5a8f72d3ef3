"""Signs of life without a timer for each client: one write a second, to those whose turn it is.

A client gets a heartbeat, and a WebSocket ping that it has to answer; any byte from it is an answer. Who is silent for too long
is cut: its machine or its network is gone, and the system would not notice for hours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from market_depth.metrics import Cut
from market_depth.server.frames import PING, close_frame, text_frame
from protocol.codecs import encode
from protocol.errors import CloseCode
from protocol.messages import HeartBeat
from protocol.timestamp import timestamp_text

if TYPE_CHECKING:
    from market_depth.clock import Clock
    from market_depth.server.direct_stream import DirectStream

MAX_UNANSWERED = 3
"""So many pings in a row may be left without an answer; when the next is due, the client is cut: after 90 to 120 s of silence
at an interval of 30."""

CHUNK = 256
"""So many writes, then other tasks get their turn."""

_NO_PONG = close_frame(CloseCode.NO_PONG, CloseCode.NO_PONG.reason)


class Heartbeats:
    """A wheel with a place for each second of the interval; a client keeps the place it got when it came.

    Who wants heartbeats at an interval of his own gets them apart from the pings, which go round as for everybody.
    """

    def __init__(self, clock: Clock, interval_s: int, max_unanswered: int = MAX_UNANSWERED) -> None:
        self._clock = clock
        self._max_unanswered = max_unanswered
        self._places: list[dict[DirectStream, None]] = [{} for _ in range(interval_s)]
        self._place_of: dict[DirectStream, dict[DirectStream, None]] = {}
        self._second = 0
        self._wishes: dict[DirectStream, tuple[int, int]] = {}
        """Intervals that clients asked for, and the second when the next heartbeat is due."""
        self._wished: dict[int, dict[DirectStream, None]] = {}
        """Those clients, by that second."""

    def join(self, stream: DirectStream) -> None:
        """Greet a client with its first heartbeat; the others follow, one with a ping every interval."""
        place = self._place_of[stream] = self._places[self._second % len(self._places)]
        place[stream] = None
        stream.post(self._frame())

    def leave(self, stream: DirectStream) -> None:
        """Send the client no more heartbeats."""
        del self._place_of.pop(stream)[stream]
        self._forget_wish(stream)

    def set_interval(self, stream: DirectStream, interval_s: int) -> None:
        """From now on, send the client a heartbeat so often."""
        self._forget_wish(stream)
        self._await(stream, interval_s)

    async def run(self) -> None:
        """Beat until cancelled."""
        due = trio.current_time()
        while True:
            due += 1
            await trio.sleep_until(due)
            self._second += 1
            beat = self._frame()
            beat_and_ping = beat + PING
            place = self._places[self._second % len(self._places)]
            for count, stream in enumerate(list(place), start=1):
                # Who does not take what was sent before has no use for a sign of life; how long it may take is limited, too.
                if stream.is_full:
                    pass
                elif stream.unanswered_pings < self._max_unanswered:
                    stream.unanswered_pings += 1
                    stream.post(PING if stream in self._wishes else beat_and_ping)
                else:
                    stream.cut(Cut.SILENT, _NO_PONG)
                if count % CHUNK == 0:
                    await trio.lowlevel.checkpoint()
            for count, stream in enumerate(self._wished.pop(self._second, {}), start=1):
                # Who has left or changed his mind since the last checkpoint is no longer awaited now.
                interval_s, due_second = self._wishes.get(stream, (0, 0))
                if due_second == self._second:
                    self._await(stream, interval_s)
                    if not stream.is_full:
                        stream.post(beat)
                if count % CHUNK == 0:
                    await trio.lowlevel.checkpoint()

    def _await(self, stream: DirectStream, interval_s: int) -> None:
        due_second = self._second + interval_s
        self._wishes[stream] = interval_s, due_second
        self._wished.setdefault(due_second, {})[stream] = None

    def _forget_wish(self, stream: DirectStream) -> None:
        if stream in self._wishes:
            _, due_second = self._wishes.pop(stream)
            waiting = self._wished.get(due_second, {})
            waiting.pop(stream, None)
            if not waiting:
                self._wished.pop(due_second, None)

    def _frame(self) -> bytes:
        return text_frame(encode(HeartBeat(timestamp=timestamp_text(self._clock.wall_ns()))))
