"""Market data to all clients: every tick, what is due to one client goes out in one write.

Encoded once for each topic, framed and joined once for each plan; then one non-blocking `send` a client, from this task
alone. A client whose socket is full gets the newest frame of each of its streams when it takes
bytes again (`direct_stream`): until then nothing is encoded for it, and it never makes another wait.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import trio

from market_depth.server.frames import text_frame, text_frames
from market_depth.stream.manager import StreamManager
from market_depth.stream.publisher import REUSE_S
from protocol.codecs import encode, market_data_head
from protocol.errors import InternalError
from protocol.session import error_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from market_depth.metrics import ServerCounts
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
"""After so many writes or bytes of one round other tasks get their turn: a millisecond or two. If theirs took longer than that,
several chunks follow before the next: a round gets half of the time, however many clients come or ask meanwhile."""

MAX_TURN_S = 0.05
"""Others never wait longer than this and a chunk."""

ENCODING = 16
"""To encode a frame takes as long as so many writes, byte for byte and call for call."""


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
            self._write((client,), frame, (stream.stream_id,), ())

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
        turns = []
        for plan in _rotated(list(self._manager.plans), self._rounds):
            plan.left.clear()
            turns.append((plan, _rotated(list(plan.clients), self._rounds)))
        for plan, clients in turns:
            try:
                bodies = list(map(round_.bodies.__getitem__, plan.topics))
            except KeyError:
                # Not encoded yet in this round. For those who are full it need not be.
                is_wanted = not all(client.is_full for client in clients)
                bodies = [await self._encoded(topic, round_) for topic in plan.topics] if is_wanted else []
            payload, carried, further = self._due(plan, bodies, round_)
            if not carried and not further:
                continue
            served, size = 0, len(payload)
            while served < len(clients):
                turn = clients[served : served + round_.room(size)]
                served += len(turn)
                if plan.left:
                    round_.moved += [client for client in turn if client in plan.left]
                    turn = [client for client in turn if client not in plan.left]
                self._write(turn, payload, carried, further)
                if round_.spend(len(turn), len(turn) * size):
                    await round_.give_way()
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
            if body and round_.spend(ENCODING, ENCODING * len(body)):
                await round_.give_way()
        return body

    def _due(
        self, plan: Plan[DirectStream], bodies: Sequence[bytes], round_: _Round
    ) -> tuple[bytes, Sequence[str], Sequence[str]]:
        """What the clients of a plan get, whose topics have these bodies: joined frames, as many as are offered at once, the
        ids of their streams, and the ids of those that do not go into them. Without bodies that is all.
        """
        if not bodies:
            return b"", (), plan.stream_ids
        if all(bodies) and sum(map(len, bodies)) < MAX_PAYLOAD_BYTES:
            return text_frames(zip(plan.heads, bodies, strict=True)), plan.stream_ids, ()
        messages: list[tuple[bytes, bytes]] = []
        carried: list[str] = []
        size = 0
        for number, (stream, head, body) in enumerate(zip(plan.streams, plan.heads, bodies, strict=True)):
            if size >= MAX_PAYLOAD_BYTES:
                return text_frames(messages), carried, plan.stream_ids[number:]
            if body:
                messages.append((head, body))
                size += len(body)
            elif stream not in self._failing.get(stream.topic, (stream,)):
                messages.append((self._failure(stream), b""))
                round_.told.append(stream)
            else:
                continue
            carried.append(stream.stream_id)
        return text_frames(messages), carried, ()

    def _write(
        self, clients: Sequence[DirectStream], payload: bytes, carried: Sequence[str], further: Sequence[str]
    ) -> None:
        """Offer the same to some clients."""
        taken = len(clients)
        if further:
            taken = sum(client.offer(payload, carried, further) for client in clients)
        else:
            # As `offer`, but a thousand times a round: a call for each client would cost half as much as C's whole loop.
            size = len(payload)
            for client in clients:
                write = client.write
                try:
                    sent = write(payload)
                except OSError as error:
                    client.refuse(error, carried)
                    taken -= 1
                else:
                    if sent != size:
                        client.finish(payload, sent)
        self._counts.frames_sent += taken * len(carried)
        self._counts.bytes_sent += taken * len(payload)

    def _newest(self, client: DirectStream, stream_id: str) -> bytes | None:
        """The newest frame of a client's stream, for a socket that takes bytes again."""
        stream = self._manager.stream_of(client, stream_id)
        frame = None if stream is None else self._frame(stream)
        if frame is not None:
            self._counts.frames_sent += 1
            self._counts.bytes_sent += len(frame)
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

    def _failure(self, stream: Stream) -> bytes:
        self._counts.errors[InternalError.code] += 1
        return encode(error_frame(InternalError(stream.stream_id)))

    def _forget(self, topic: Topic) -> None:
        self._publisher.forget(topic)
        self._failing.pop(topic, None)


class _Round:
    """What was made in one round, and what it may write before other tasks get their turn."""

    __slots__ = ("_bytes", "_others_took_s", "_turn_began", "_writes", "bodies", "moved", "now", "told")

    def __init__(self, now: float) -> None:
        self.now = now
        self.bodies: dict[Topic, bytes] = {}
        """Nothing for what is not shown at present."""
        self.told: list[Stream] = []
        """Streams whose clients were told that the book cannot be shown."""
        self.moved: list[DirectStream] = []
        """Clients that had left their plan before their turn came."""
        self._writes = CHUNK_WRITES
        self._bytes = CHUNK_BYTES
        self._turn_began = now
        self._others_took_s = 0.0

    def room(self, size: int) -> int:
        """How many writes of so many bytes are left in this chunk; at least one."""
        return max(1, min(self._writes, self._bytes // max(1, size)))

    def spend(self, writes: int, size: int) -> bool:
        """Count what was done. Returns: whether others should have their turn."""
        self._writes -= writes
        self._bytes -= size
        if self._writes > 0 and self._bytes > 0:
            return False
        self._writes = CHUNK_WRITES
        self._bytes = CHUNK_BYTES
        return trio.current_time() - self._turn_began >= self._others_took_s

    async def give_way(self) -> None:
        """Let others have their turn; the next of ours may be as long."""
        others_began = trio.current_time()
        await trio.lowlevel.checkpoint()
        self._turn_began = trio.current_time()
        self._others_took_s = min(self._turn_began - others_began, MAX_TURN_S)


def _rotated(items: list[Item], by: int) -> list[Item]:
    if len(items) < 2:
        return items
    first = by % len(items)
    return items[first:] + items[:first]
