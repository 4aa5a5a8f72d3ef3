"""Market data to all clients: every tick, what is due to one client goes out in one write.

Encoded once for each topic, framed once for each distinct stream id, joined once for each plan; then one non-blocking `send`
a client, from this task alone. A client whose socket is full gets the newest frame of each of its streams when it takes
bytes again (`direct_stream`): until then nothing is encoded for it, and it never makes another wait.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, TypeVar

import trio

from market_depth.server.frames import text_frame
from market_depth.stream.manager import StreamManager
from market_depth.stream.publisher import REUSE_S
from protocol.codecs import encode, market_data_head
from protocol.errors import InternalError
from protocol.session import error_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from market_depth.server.direct_stream import DirectStream
    from market_depth.stream.manager import Plan, Stream
    from market_depth.stream.publisher import Publisher, Topic
    from protocol.session import Subscription

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

MAX_PAYLOAD_BYTES = 1024 * 1024
"""What a client is offered at once, unless a single frame is larger. Whatever else is due to it follows at the pace at which
it reads, frame by frame."""

CHUNK_WRITES = 256
CHUNK_BYTES = 4 * 1024 * 1024
"""After so many writes or bytes of one round other tasks get their turn: a millisecond or two."""

ENCODING = 16
"""To encode a frame takes as long as so many writes, byte for byte and call for call."""


class Broadcaster:
    """The streams of every client, and the task that serves them."""

    def __init__(self, publisher: Publisher, interval_s: float) -> None:
        self._publisher = publisher
        self._interval_s = interval_s
        self._manager: StreamManager[DirectStream] = StreamManager()
        self._wake = trio.Event()
        self._round = 0
        self._failing: dict[Topic, set[Stream]] = {}
        """Books that cannot be shown at present, each with the streams that were told so."""
        self.frames_sent = 0
        """Market data frames written or begun."""

    @property
    def stream_count(self) -> int:
        """How many streams all clients have together."""
        return sum(self._manager.topics.values())

    def join(self, client: DirectStream) -> None:
        """Let a client have streams."""
        client.newest = functools.partial(self._newest, client)

    def start(self, client: DirectStream, subscription: Subscription) -> None:
        """Begin a stream: its first frame goes out now, or when its market opens."""
        stream = self._manager.start(client, subscription)
        if client.is_full:
            client.remember((stream.stream_id,))
            return
        frame = self._frame(stream, trio.current_time())
        if frame is not None:
            client.offer(frame, (stream.stream_id,))
            self.frames_sent += 1

    def stop(self, client: DirectStream, stream_id: str) -> None:
        """End a stream, if the client has it: no frame of it goes out any more."""
        client.withdraw(stream_id)
        topic = self._manager.stop(client, stream_id)
        if topic is not None:
            self._forget(topic)

    def leave(self, client: DirectStream) -> None:
        """End all streams of a client."""
        for topic in self._manager.leave(client):
            self._forget(topic)

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
        self._round += 1
        # Somebody has to be first; each round it is somebody else.
        turns = [
            (plan, _rotated(list(plan.clients.items()), self._round))
            for plan in _rotated(list(self._manager.plans), self._round)
        ]
        frames: dict[Stream, bytes | None] = {}
        budget = _Budget()
        moved: list[DirectStream] = []
        for plan, clients in turns:
            carried: dict[str, bytes] = {}
            further: Sequence[str] = plan.stream_ids
            if not all(client.is_full for client, _ in clients):
                carried, further = await self._frames_of(plan, frames, now, budget)
            if carried or further:
                moved += await self._serve(plan, clients, carried, further, budget)
        # While others had their turn, these changed their streams: the frames made before may be older than what they
        # have seen. They get what is newest now.
        for client in moved:
            plan_now = self._manager.plan_of(client)
            if plan_now is not None:
                client.offer(b"", (), plan_now.stream_ids)

    async def _frames_of(
        self, plan: Plan[DirectStream], frames: dict[Stream, bytes | None], now: float, budget: _Budget
    ) -> tuple[dict[str, bytes], Sequence[str]]:
        """A plan's frames by stream id, as many as one payload may have, and the ids of its further streams.

        `frames` has those made in this round so far: each is made once.
        """
        carried: dict[str, bytes] = {}
        size = 0
        for number, stream in enumerate(plan.streams):
            if size >= MAX_PAYLOAD_BYTES:
                return carried, plan.stream_ids[number:]
            if stream not in frames:
                frame = self._frame(stream, now, max_age_s=0)
                told = self._failing.get(stream.topic)
                if told is not None:
                    frame = None if stream in told else frame
                    told.add(stream)
                frames[stream] = frame
                if frame is not None and budget.spend(ENCODING, ENCODING * len(frame)):
                    await trio.lowlevel.checkpoint()
            frame = frames[stream]
            if frame is not None:
                carried[stream.stream_id] = frame
                size += len(frame)
        return carried, ()

    async def _serve(
        self,
        plan: Plan[DirectStream],
        clients: Sequence[tuple[DirectStream, int]],
        carried: dict[str, bytes],
        further: Sequence[str],
        budget: _Budget,
    ) -> list[DirectStream]:
        """Offer what is due to the clients of a plan. Returns: those that had left the plan before their turn came."""
        payload = b"".join(carried.values())
        moved: list[DirectStream] = []
        joined_now = plan.clients.get
        served = 0
        while served < len(clients):
            turn = clients[served : served + budget.room(len(payload))]
            served += len(turn)
            # A thousand times a round: what is not needed for each client stands outside.
            for client, joined in turn:
                if joined_now(client) == joined:
                    client.offer(payload, carried, further)
                else:
                    moved.append(client)
            self.frames_sent += len(carried) * len(turn)
            if budget.spend(len(turn), len(turn) * len(payload)):
                await trio.lowlevel.checkpoint()
        self.frames_sent -= len(carried) * len(moved)
        return moved

    def _newest(self, client: DirectStream, stream_id: str) -> bytes | None:
        """The newest frame of a client's stream, for a socket that takes bytes again."""
        stream = self._manager.stream_of(client, stream_id)
        frame = None if stream is None else self._frame(stream, trio.current_time())
        self.frames_sent += frame is not None
        return frame

    def _frame(self, stream: Stream, now: float, max_age_s: float = REUSE_S) -> bytes | None:
        """A stream's `MarketData`, or an `Error` when its book cannot be shown; None while its market is not open."""
        topic = stream.topic
        if topic not in self._manager.topics:
            return None
        try:
            body = self._publisher.body(topic, now, max_age_s)
        except Exception:
            # One book that cannot be shown must not stop all the others. Once is enough in the log.
            if topic not in self._failing:
                logger.exception("book not shown %s", topic)
                self._failing[topic] = set()
            return text_frame(encode(error_frame(InternalError(stream.stream_id))))
        self._failing.pop(topic, None)
        return None if body is None else text_frame(market_data_head(stream.stream_id), body)

    def _forget(self, topic: Topic) -> None:
        self._publisher.forget(topic)
        self._failing.pop(topic, None)


class _Budget:
    """What a round may write before other tasks get their turn."""

    __slots__ = ("_bytes", "_writes")

    def __init__(self) -> None:
        self._writes = CHUNK_WRITES
        self._bytes = CHUNK_BYTES

    def room(self, size: int) -> int:
        """How many writes of so many bytes are left in this chunk; at least one."""
        return max(1, min(self._writes, self._bytes // max(1, size)))

    def spend(self, writes: int, size: int) -> bool:
        """Count what was done. Returns: whether it was the chunk's last."""
        self._writes -= writes
        self._bytes -= size
        if self._writes > 0 and self._bytes > 0:
            return False
        self._writes = CHUNK_WRITES
        self._bytes = CHUNK_BYTES
        return True


def _rotated(items: list[Item], by: int) -> list[Item]:
    first = by % len(items) if items else 0
    return items[first:] + items[:first]
