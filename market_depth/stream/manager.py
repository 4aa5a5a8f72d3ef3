"""Who gets what: the streams of all clients, grouped so that equal wishes are served together.

Clients with equal streams form a *plan*. They receive byte-identical frames, so the broadcaster makes those once for a
plan and not for each client: a thousand pages that all subscribe alike are one plan.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar

from market_depth.stream.publisher import Topic
from protocol.codecs import market_data_head

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from protocol.session import Subscription


class Stream(NamedTuple):
    """One stream as it goes into frames: what it shows, under which id."""

    topic: Topic
    stream_id: str


Shape: TypeAlias = tuple[tuple[Topic, ...], tuple[int, ...]]
"""The topics of a plan, and how long the beginnings of its messages are."""

Client = TypeVar("Client")


class Plan(Generic[Client]):
    """Clients whose streams are equal, ids included."""

    __slots__ = ("_heads", "_shape", "clients", "left", "stream_ids", "streams", "topics")

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self.streams = streams
        self.topics = tuple(stream.topic for stream in streams)
        self.stream_ids = tuple(stream.stream_id for stream in streams)
        self.clients: dict[Client, None] = {}
        self.left: set[Client] = set()
        """Clients that left since this was last cleared, also those that came back."""
        self._heads: tuple[bytes, ...] = ()
        self._shape: Shape | None = None

    @property
    def heads(self) -> tuple[bytes, ...]:
        """The beginning of each stream's messages. Made when first asked for: of most plans only a part of a client's
        subscriptions ever is, until the next comes."""
        if not self._heads:
            self._heads = tuple(map(market_data_head, self.stream_ids))
        return self._heads

    @property
    def shape(self) -> Shape:
        """Plans of one shape get frames that differ in their heads alone."""
        if self._shape is None:
            self._shape = self.topics, tuple(map(len, self.heads))
        return self._shape


class StreamManager(Generic[Client]):
    """The streams of every client, the plans they add up to, and how many streams each topic has."""

    def __init__(self) -> None:
        self._streams: dict[Client, dict[str, Stream]] = {}
        self._plan_of: dict[Client, Plan[Client]] = {}
        self._plans: dict[tuple[Stream, ...], Plan[Client]] = {}
        self._topics: dict[Topic, int] = {}

    @property
    def topics(self) -> Mapping[Topic, int]:
        """The topics that somebody receives, with the number of their streams."""
        return self._topics

    @property
    def plans(self) -> Collection[Plan[Client]]:
        """The plans that somebody follows."""
        return self._plans.values()

    def plan_of(self, client: Client) -> Plan[Client] | None:
        """The plan that a client follows; None when it has no stream."""
        return self._plan_of.get(client)

    def start(self, client: Client, subscription: Subscription) -> Stream:
        """Give a client one more stream, of an id it does not use yet."""
        topic = Topic(subscription.symbol, subscription.data_type, subscription.max_levels)
        stream = Stream(topic, subscription.stream_id)
        streams = self._streams.setdefault(client, {})
        assert stream.stream_id not in streams, "the session has refused a stream id in use"
        streams[stream.stream_id] = stream
        self._topics[topic] = self._topics.get(topic, 0) + 1
        self._replan(client, streams)
        return stream

    def stream_of(self, client: Client, stream_id: str) -> Stream | None:
        """A client's stream of that id, if it has one."""
        return self._streams.get(client, {}).get(stream_id)

    def stop(self, client: Client, stream_id: str) -> Topic | None:
        """Take a stream from a client, if it has one of that id. Returns: its topic, when nobody else receives that."""
        streams = self._streams.get(client, {})
        stream = streams.pop(stream_id, None)
        if stream is None:
            return None
        self._replan(client, streams)
        return self._release(stream.topic)

    def leave(self, client: Client) -> list[Topic]:
        """Take all streams from a client. Returns: the topics that nobody receives any more."""
        streams = self._streams.pop(client, {})
        self._replan(client, {})
        released = [self._release(stream.topic) for stream in streams.values()]
        return [topic for topic in released if topic is not None]

    def _release(self, topic: Topic) -> Topic | None:
        self._topics[topic] -= 1
        if self._topics[topic]:
            return None
        del self._topics[topic]
        return topic

    def _replan(self, client: Client, streams: Mapping[str, Stream]) -> None:
        before = self._plan_of.pop(client, None)
        if before is not None:
            del before.clients[client]
            before.left.add(client)
            if not before.clients:
                del self._plans[before.streams]
        if streams:
            key = tuple(sorted(streams.values()))
            plan = self._plans.get(key)
            if plan is None:
                plan = self._plans[key] = Plan(key)
            plan.clients[client] = None
            self._plan_of[client] = plan
        else:
            self._streams.pop(client, None)
