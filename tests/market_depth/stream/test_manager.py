from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from market_depth.stream.manager import Stream, StreamManager
from market_depth.stream.publisher import Topic
from protocol.session import Subscription


def subscription(stream_id: str, symbol: str = "BTCUSD", max_levels: int = 20) -> Subscription:
    return Subscription(stream_id, symbol, "MBP", max_levels)


BTC = Topic("BTCUSD", "MBP", 20)
ETH = Topic("ETHUSD", "MBP", 20)


def test_clients_with_equal_streams_share_a_plan_in_whatever_order_they_subscribed() -> None:
    manager: StreamManager[str] = StreamManager()
    for client, symbols in (("first", ("BTCUSD", "ETHUSD")), ("second", ("ETHUSD", "BTCUSD"))):
        for symbol in symbols:
            manager.start(client, subscription(symbol, symbol))
    [plan] = manager.plans
    assert list(plan.clients) == ["first", "second"]
    assert plan.streams == (Stream(BTC, "BTCUSD"), Stream(ETH, "ETHUSD"))
    assert manager.topics == {BTC: 2, ETH: 2}


@pytest.mark.parametrize("other", [subscription("other id"), subscription("a", "ETHUSD")])
def test_another_id_or_topic_is_another_plan(other: Subscription) -> None:
    manager: StreamManager[str] = StreamManager()
    manager.start("first", subscription("a"))
    manager.start("second", other)
    assert len(manager.plans) == 2


def test_the_last_stream_of_a_topic_releases_it() -> None:
    manager: StreamManager[str] = StreamManager()
    manager.start("first", subscription("a"))
    manager.start("second", subscription("a"))
    assert manager.stop("first", "a") is None
    assert manager.stop("second", "a") == BTC
    assert (dict(manager.topics), list(manager.plans)) == ({}, [])


def test_leaving_releases_what_nobody_else_receives() -> None:
    manager: StreamManager[str] = StreamManager()
    manager.start("first", subscription("a"))
    manager.start("first", subscription("b"))
    manager.start("first", subscription("c", "ETHUSD"))
    manager.start("second", subscription("a", "ETHUSD"))
    assert manager.leave("first") == [BTC]
    assert manager.leave("first") == []
    assert manager.topics == {ETH: 1}


def test_a_client_that_comes_back_to_its_plan_has_another_number() -> None:
    manager: StreamManager[str] = StreamManager()
    for client in ("first", "second"):
        manager.start(client, subscription("a"))
    [plan] = manager.plans
    manager.stop("first", "a")
    manager.start("first", subscription("a"))
    assert manager.plan_of("first") is plan
    assert list(plan.clients) == ["second", "first"]
    assert plan.left == {"first"}


CLIENTS = st.sampled_from(["first", "second", "third"])
IDS = st.sampled_from(["a", "b", "c"])


class ManagerAgreesWithPlainModel(RuleBasedStateMachine):
    """The plain model is each client's streams; everything else follows from it."""

    def __init__(self) -> None:
        super().__init__()
        self.manager: StreamManager[str] = StreamManager()
        self.streams: dict[str, dict[str, Topic]] = {"first": {}, "second": {}, "third": {}}

    def topics(self) -> Counter[Topic]:
        return Counter(topic for streams in self.streams.values() for topic in streams.values())

    @rule(
        client=CLIENTS,
        stream_id=IDS,
        symbol=st.sampled_from(["BTCUSD", "ETHUSD"]),
        max_levels=st.integers(1, 2),
    )
    def start(self, client: str, stream_id: str, symbol: str, max_levels: int) -> None:
        if stream_id not in self.streams[client]:
            stream = self.manager.start(client, subscription(stream_id, symbol, max_levels))
            self.streams[client][stream_id] = Topic(symbol, "MBP", max_levels)
            assert stream == Stream(self.streams[client][stream_id], stream_id)

    @rule(client=CLIENTS, stream_id=IDS)
    def stop(self, client: str, stream_id: str) -> None:
        if stream_id in self.streams[client]:
            topic = self.streams[client].pop(stream_id)
            released = self.manager.stop(client, stream_id)
            assert released == (None if topic in self.topics() else topic)

    @rule(client=CLIENTS)
    def leave(self, client: str) -> None:
        topics = set(self.streams[client].values())
        self.streams[client] = {}
        assert set(self.manager.leave(client)) == topics - set(self.topics())

    @invariant()
    def topics_are_those_of_all_streams(self) -> None:
        assert self.manager.topics == self.topics()

    @invariant()
    def plans_hold_each_client_once_with_exactly_its_streams(self) -> None:
        expected = {
            client: tuple(sorted(Stream(topic, stream_id) for stream_id, topic in streams.items()))
            for client, streams in self.streams.items()
            if streams
        }
        actual = [(client, plan.streams) for plan in self.manager.plans for client in plan.clients]
        assert sorted(actual) == sorted(expected.items())
        assert len(self.manager.plans) == len(set(expected.values()))
        for client in self.streams:
            plan = self.manager.plan_of(client)
            assert (plan.streams if plan else None) == expected.get(client)


test_manager_agrees_with_a_plain_model = ManagerAgreesWithPlainModel.TestCase
