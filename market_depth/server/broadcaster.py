"""Market data to all clients: every tick, what is due to one client goes out in one write.

Encoded once for each topic, framed once for each distinct stream id, joined once for each plan; then one non-blocking `send`
a client, from this task alone. A client whose socket is full keeps the newest frame of each of its streams
(`direct_stream`) and never makes another wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from market_depth.server.frames import text_frame
from market_depth.stream.manager import StreamManager
from market_depth.stream.publisher import REUSE_S
from protocol.codecs import market_data_head

if TYPE_CHECKING:
    from market_depth.server.direct_stream import DirectStream
    from market_depth.stream.manager import Plan, Stream
    from market_depth.stream.publisher import Publisher
    from protocol.session import Subscription

Item = TypeVar("Item")

CHUNK_WRITES = 256
CHUNK_BYTES = 4 * 1024 * 1024
"""After so many writes or bytes of one round other tasks get their turn: a millisecond or two."""


class Broadcaster:
    """The streams of every client, and the task that serves them."""

    def __init__(self, publisher: Publisher, interval_s: float) -> None:
        self._publisher = publisher
        self._interval_s = interval_s
        self._manager: StreamManager[DirectStream] = StreamManager()
        self._wake = trio.Event()
        self._round = 0
        self.frames_sent = 0
        """Market data frames written or left with a full client, of all rounds."""

    @property
    def stream_count(self) -> int:
        """How many streams all clients have together."""
        return sum(self._manager.topics.values())

    def start(self, client: DirectStream, subscription: Subscription) -> None:
        """Begin a stream: its first frame goes out now, or when its market opens."""
        stream = self._manager.start(client, subscription)
        frame = self._frame(stream, trio.current_time())
        if frame is not None:
            client.offer(frame, {stream.stream_id: frame})
            self.frames_sent += 1

    def stop(self, client: DirectStream, subscription: Subscription) -> None:
        """End a stream: no frame of it goes out any more, a waiting one is dropped."""
        client.withdraw(subscription.stream_id)
        topic = self._manager.stop(client, subscription.stream_id)
        if topic is not None:
            self._publisher.forget(topic)

    def leave(self, client: DirectStream) -> None:
        """End all streams of a client."""
        for topic in self._manager.leave(client):
            self._publisher.forget(topic)

    def hurry(self) -> None:
        """Do the next round now; later ones keep their times."""
        self._wake.set()

    async def run(self) -> None:
        """Serve a round every interval until cancelled. Rounds are aligned, and one that took too long skips those it
        overran.
        """
        start = trio.current_time()
        tick = 0
        while True:
            tick = max(tick + 1, int((trio.current_time() - start) / self._interval_s) + 1)
            with trio.move_on_at(start + tick * self._interval_s):
                await self._wake.wait()
                tick -= 1
            self._wake = trio.Event()
            await self.broadcast()

    async def broadcast(self) -> None:
        """Send every stream its newest snapshot."""
        now = trio.current_time()
        plans = list(self._manager.plans)
        if not plans:
            return
        self._round += 1
        frames: dict[Stream, bytes | None] = {}
        budget = _Budget()
        # Somebody has to be first; each round it is somebody else.
        for plan in _rotated(plans, self._round):
            due: dict[str, bytes] = {}
            for stream in plan.streams:
                if stream not in frames:
                    frames[stream] = self._frame(stream, now, max_age_s=0)
                frame = frames[stream]
                if frame is not None:
                    due[stream.stream_id] = frame
            if due:
                await self._serve(plan, due, budget)

    async def _serve(self, plan: Plan[DirectStream], due: dict[str, bytes], budget: _Budget) -> None:
        payload = b"".join(due.values())
        for client in _rotated(list(plan.clients), self._round):
            # Its streams may have changed while others had their turn: then these frames are not its own any more.
            if client in plan.clients:
                client.offer(payload, due)
                self.frames_sent += len(due)
            if budget.spend(len(payload)):
                await trio.lowlevel.checkpoint()

    def _frame(self, stream: Stream, now: float, max_age_s: float = REUSE_S) -> bytes | None:
        body = self._publisher.body(stream.topic, now, max_age_s)
        return None if body is None else text_frame(market_data_head(stream.stream_id), body)


class _Budget:
    """What a round may write before other tasks get their turn."""

    __slots__ = ("_bytes", "_writes")

    def __init__(self) -> None:
        self._writes = CHUNK_WRITES
        self._bytes = CHUNK_BYTES

    def spend(self, size: int) -> bool:
        """Count one write. Returns: whether it was the chunk's last."""
        self._writes -= 1
        self._bytes -= size
        if self._writes > 0 and self._bytes > 0:
            return False
        self._writes = CHUNK_WRITES
        self._bytes = CHUNK_BYTES
        return True


def _rotated(items: list[Item], by: int) -> list[Item]:
    first = by % len(items) if items else 0
    return items[first:] + items[:first]
