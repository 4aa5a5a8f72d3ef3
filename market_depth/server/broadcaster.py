"""Market data to all clients: every tick, what is due to one client goes out in one write.

Encoded once for each topic, framed and joined once for each plan; then one non-blocking `send` a client, from this task
alone. A client whose socket is full gets the newest frame of each of its streams when it takes
bytes again (`direct_stream`): until then nothing is encoded for it, and it never makes another wait.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import trio

from market_depth.server.frames import FrameTemplate, text_frame
from market_depth.stream.manager import StreamManager
from market_depth.stream.publisher import REUSE_S
from protocol.codecs import encode, market_data_head
from protocol.errors import InternalError
from protocol.session import error_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from market_depth.metrics import ServerCounts
    from market_depth.server.direct_stream import DirectStream
    from market_depth.stream.manager import Plan, Shape, Stream
    from market_depth.stream.publisher import Publisher, Topic
    from protocol.session import Subscription

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

MAX_PAYLOAD_BYTES = 1024 * 1024
"""What a client is offered at once, unless a single frame is larger. Whatever else is due to it follows at the pace at which
it reads, some frames at a time."""

CHUNK_WRITES = 256
"""After so many writes of one round other tasks get their turn: a millisecond or two. If theirs took longer than that, several
chunks follow before the next: a round gets half of the time, however many clients come or ask meanwhile."""

WRITE_BYTES = 16 * 1024
"""What is larger counts as so many writes as it has times this."""

MAX_TURN_S = 0.05
"""Others never wait longer than this and a chunk."""

ENCODING = 16
"""To encode a frame takes as long as so many writes of it."""

MAX_TEMPLATES = 256
"""So many are kept for the rest of a round: enough for ids of several lengths, too few to take much memory."""


class Broadcaster:
    """The streams of every client, and the task that serves them."""

    def __init__(self, publisher: Publisher, interval_s: float, counts: ServerCounts) -> None:
        self._publisher = publisher
        self._interval_s = interval_s
        self._counts = counts
        self._manager: StreamManager[DirectStream] = StreamManager()
        self._wake = trio.Event()
        self._rounds = 0
        self._make_newest = self._newest  # one bound method for all clients
        self._failing: dict[Topic, set[Stream]] = {}
        """Books that cannot be shown at present, each with the streams that were told so."""

    @property
    def stream_count(self) -> int:
        """How many streams all clients have together."""
        return sum(self._manager.topics.values())

    @property
    def topics(self) -> Mapping[Topic, int]:
        """What the streams show, with the number of streams for each."""
        return self._manager.topics

    def join(self, client: DirectStream) -> None:
        """Let a client have streams."""
        client.newest = self._make_newest

    def start(self, client: DirectStream, subscription: Subscription) -> None:
        """Begin a stream: its first frame goes out now, or when its market opens."""
        stream = self._manager.start(client, subscription)
        if client.is_full:
            client.remember((stream.stream_id,))
            return
        frame = self._frame(stream)
        if frame is not None:
            taken = client.offer(frame, (stream.stream_id,))
            self._count(taken, taken * len(frame))

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
        round_ = _Round(trio.current_time())
        self._rounds += 1
        # Somebody has to be first; each round it is somebody else.
        plans = _rotated(list(self._manager.plans), self._rounds)
        # One list for the clients of all plans: thousands of lists that live through the round would have the garbage collector
        # look at them each time, and in the end at all clients.
        clients: list[DirectStream] = []
        bounds = [0]
        for plan in plans:
            plan.left.clear()
            clients += _rotated(list(plan.clients), self._rounds)
            bounds.append(len(clients))
        for plan, (begin, end) in zip(plans, pairwise(bounds), strict=True):
            turn = clients[begin:end]
            template = round_.templates.get(plan.shape)
            if template is None:
                payload, carried, further = await self._due(plan, turn, round_)
            else:
                payload, carried, further = template.filled(plan.heads), plan.stream_ids, ()
            if not carried and not further:
                continue
            size, taken = len(payload), 0
            cost = size // WRITE_BYTES or 1
            for client in turn:
                if plan.left and client in plan.left:
                    round_.moved.append(client)
                    continue
                if further:
                    taken += client.offer(payload, carried, further)
                else:
                    # As `offer`, but thousands of times a round: the call would cost half as much as C's whole loop.
                    try:
                        sent = client.write(payload)
                    except OSError as error:
                        client.refuse(error, carried)
                    else:
                        taken += 1
                        if sent != size:
                            client.finish(payload, sent)
                round_.writes_left -= cost
                if round_.writes_left <= 0:
                    await round_.pause()
            self._count(taken * len(carried), taken * size)
        for stream in round_.told:
            if stream.topic in self._failing:
                self._failing[stream.topic].add(stream)
        # While others had their turn, these changed their streams: the frames made before may be older than what they
        # have seen. They get what is newest now.
        for client in round_.moved:
            plan_now = self._manager.plan_of(client)
            if plan_now is not None:
                client.offer(b"", (), plan_now.stream_ids)

    async def _encoded(self, topic: Topic, round_: _Round) -> bytes:
        body = round_.bodies.get(topic)
        if body is None:
            body = round_.bodies[topic] = self._body(topic, round_.now, max_age_s=0)
            if body:
                round_.writes_left -= ENCODING * (len(body) // WRITE_BYTES or 1)
                if round_.writes_left <= 0:
                    await round_.pause()
        return body

    async def _due(
        self, plan: Plan[DirectStream], clients: Sequence[DirectStream], round_: _Round
    ) -> tuple[bytes, Sequence[str], Sequence[str]]:
        """What these clients of a plan get: joined frames, as many as are offered at once, the ids of their streams, and the ids
        of those that do not go into them.
        """
        if any(topic not in round_.bodies for topic in plan.topics) and all(
            client.is_full for client in clients
        ):
            return b"", (), plan.stream_ids  # for those who are full nothing need be encoded
        bodies = [await self._encoded(topic, round_) for topic in plan.topics]
        if all(bodies) and sum(map(len, bodies)) < MAX_PAYLOAD_BYTES:
            template = FrameTemplate(map(len, plan.heads), bodies)
            if len(round_.templates) < MAX_TEMPLATES:
                round_.templates[plan.shape] = template
            return template.filled(plan.heads), plan.stream_ids, ()
        frames: list[bytes] = []
        carried: list[str] = []
        size = 0
        for number, (stream, head, body) in enumerate(zip(plan.streams, plan.heads, bodies, strict=True)):
            if size >= MAX_PAYLOAD_BYTES:
                return b"".join(frames), carried, plan.stream_ids[number:]
            if body:
                frames.append(text_frame(head, body))
                size += len(body)
            elif stream not in self._failing.get(stream.topic, (stream,)):
                frames.append(text_frame(self._failure(stream)))
                round_.told.append(stream)
            else:
                continue
            carried.append(stream.stream_id)
        return b"".join(frames), carried, ()

    def _newest(self, client: DirectStream, stream_id: str) -> bytes | None:
        """The newest frame of a client's stream, for a socket that takes bytes again."""
        stream = self._manager.stream_of(client, stream_id)
        frame = None if stream is None else self._frame(stream)
        if frame is not None:
            self._count(1, len(frame))
        return frame

    def _frame(self, stream: Stream) -> bytes | None:
        """A stream's `MarketData`, or an `Error` when its book cannot be shown; None while its market is not open."""
        topic = stream.topic
        body = self._body(topic, trio.current_time(), REUSE_S)
        if body:
            return text_frame(market_data_head(stream.stream_id), body)
        return text_frame(self._failure(stream)) if topic in self._failing else None

    def _body(self, topic: Topic, now: float, max_age_s: float) -> bytes:
        """What the frames of a topic have in common; nothing while its market is not open, its book cannot be shown, or nobody
        receives it any more.
        """
        if topic not in self._manager.topics:
            return b""
        try:
            body = self._publisher.body(topic, now, max_age_s)
        except Exception:
            # One book that cannot be shown must not stop all the others. Once is enough in the log.
            if topic not in self._failing:
                logger.exception("book not shown %s", topic)
                self._failing[topic] = set()
            return b""
        self._failing.pop(topic, None)
        return body or b""

    def _count(self, frames: int, size: int) -> None:
        self._counts.frames_sent += frames
        self._counts.bytes_sent += size

    def _failure(self, stream: Stream) -> bytes:
        self._counts.errors[InternalError.code] += 1
        return encode(error_frame(InternalError(stream.stream_id)))

    def _forget(self, topic: Topic) -> None:
        self._publisher.forget(topic)
        self._failing.pop(topic, None)


class _Round:
    """What was made in one round, and what it may write before other tasks get their turn."""

    __slots__ = (
        "_others_took_s",
        "_turn_began",
        "bodies",
        "moved",
        "now",
        "templates",
        "told",
        "writes_left",
    )

    def __init__(self, now: float) -> None:
        self.now = now
        self.bodies: dict[Topic, bytes] = {}
        """Nothing for what is not shown at present."""
        self.templates: dict[Shape, FrameTemplate] = {}
        """For the plans that get all their frames in one payload."""
        self.told: list[Stream] = []
        """Streams whose clients were told that the book cannot be shown."""
        self.moved: list[DirectStream] = []
        """Clients that had left their plan before their turn came."""
        self.writes_left = CHUNK_WRITES
        """How many writes are left in this chunk."""
        self._turn_began = now
        self._others_took_s = 0.0

    async def pause(self) -> None:
        """Begin a new chunk. Others have their turn before it, unless theirs have taken longer than ours so far."""
        self.writes_left = CHUNK_WRITES
        others_began = trio.current_time()
        if others_began - self._turn_began >= self._others_took_s:
            await trio.lowlevel.checkpoint()
            self._turn_began = trio.current_time()
            self._others_took_s = min(self._turn_began - others_began, MAX_TURN_S)


def _rotated(items: list[Item], by: int) -> list[Item]:
    if len(items) < 2:
        return items
    first = by % len(items)
    return items[first:] + items[:first]
