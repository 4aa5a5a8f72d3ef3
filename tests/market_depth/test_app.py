from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from market_depth import app as app_module
from market_depth.app import (
    RESERVED_DESCRIPTORS,
    make_engines,
    make_gate,
    raise_descriptor_limit,
    warn_of_exposure,
)
from market_depth.book.engine import BookEngine
from market_depth.book.soundness import CheckedBookEngine
from market_depth.config import Address, ServeConfig
from market_depth.feeds.base import ChannelFeed, FeedError
from market_depth.live_market import LiveMarket
from market_depth.logging import LogLevel, configure
from market_depth.metrics import Refusal, ServerCounts
from market_depth.server.broadcaster import Broadcaster
from market_depth.server.gate import MAX_CONNECTIONS
from market_depth.server.http import make_application
from market_depth.server.websocket import HANDSHAKE_TIMEOUT_S
from market_depth.stream.publisher import Publisher
from protocol.events import Action, Flag, OrderEvents, Side, order_events
from protocol.instrument import SCALE, Instrument
from protocol.session import Limits, Subscription
from tests.market_depth.server.applications import ask
from tests.market_depth.server.local_server import measured
from tests.market_depth.server.test_broadcaster import WrittenStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BTC = Instrument("BTCUSD", "SIM", 1, SCALE // 100)


def one_add(order_id: int) -> OrderEvents:
    events = order_events(1)
    events["instrument_id"] = BTC.instrument_id
    events["order_id"] = order_id
    events["action"] = Action.ADD
    events["side"] = Side.BID
    events["price"] = 100 * SCALE
    events["size"] = 1
    events["flags"] = Flag.LAST
    events["ts_recv"] = 1_790_000_000_000_000_000 + order_id
    return events


class Wired:
    """A live market that follows a channel, with one client subscribed before anything has happened."""

    def __init__(self) -> None:
        self.sender, channel = trio.open_memory_channel[OrderEvents | FeedError](4)
        self.live = LiveMarket(ChannelFeed([BTC], channel))
        self.broadcaster = Broadcaster(Publisher([self.live.market]), 1000, ServerCounts())
        self.client = WrittenStream()
        self.broadcaster.start(self.client.direct, Subscription("a", "BTCUSD", "MBP", 5))

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.broadcaster.run)
            await self.live.run(BookEngine(), self.broadcaster)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def health(self) -> tuple[int, dict[str, Any]]:
        application = make_application([self.live], [], Publisher([]), measured(), lambda: 1.5)
        got = await ask(application, "GET", "/api/health")
        return got.status, got.content


@pytest.fixture
async def wired() -> AsyncIterator[Wired]:
    made = Wired()
    yield made
    made.sender.close()


async def test_a_client_that_came_first_gets_its_book_when_the_first_events_come(wired: Wired) -> None:
    status, content = await wired.health()
    assert (status, content["ok"], content["state"], content["uptime_s"]) == (200, True, "warming", 1.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wired.run)
        await wait_all_tasks_blocked()
        assert wired.client.frames == []
        assert (await wired.health())[1]["state"] == "serving"
        await wired.sender.send(one_add(1))
        await wait_all_tasks_blocked()
        assert [len(frame.data.bids) for frame in wired.client.frames] == [1]
        assert (await wired.health())[1]["feeds"] == [
            {
                "name": "channel",
                "source": "live",
                "state": "running",
                "symbols": ["BTCUSD"],
                "error": None,
                "recording": None,
            }
        ]
        wired.sender.close()


async def test_a_snapshot_goes_out_at_once_and_only_when_it_is_whole(wired: Wired) -> None:
    clear, add = one_add(1), one_add(2)
    clear["action"] = Action.CLEAR
    clear["flags"] = add["flags"] = Flag.SNAPSHOT
    last = one_add(3)
    last["flags"] = Flag.SNAPSHOT | Flag.LAST
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wired.run)
        await wired.sender.send(one_add(1))
        await wait_all_tasks_blocked()
        for batch in (np.concatenate([clear, add]), add):
            await wired.sender.send(batch)
            await wait_all_tasks_blocked()
            await wired.broadcaster.broadcast()
        assert [frame.sequence for frame in wired.client.frames] == [1]
        await wired.sender.send(last)
        await wait_all_tasks_blocked()
        assert [frame.sequence for frame in wired.client.frames] == [1, 5]
        whole = np.concatenate([clear, last])
        await wired.sender.send(whole)
        await wait_all_tasks_blocked()
        assert [frame.sequence for frame in wired.client.frames] == [1, 5, 7]
        wired.sender.close()


async def test_a_feed_that_fails_leaves_its_last_books_and_is_seen_in_health(
    wired: Wired, caplog: pytest.LogCaptureFixture
) -> None:
    await wired.sender.send(one_add(1))
    await wired.sender.send(FeedError("channel", "the line is dead", "connect again"))
    await wired.run()
    status, content = await wired.health()
    assert (status, content["ok"]) == (HTTPStatus.SERVICE_UNAVAILABLE, False)
    assert content["feeds"][0]["error"] == "channel: the line is dead; connect again"
    assert wired.client.frames[-1].sequence == 1
    assert [(record.levelname, record.exc_info) for record in caplog.records] == [("ERROR", None)]


async def test_a_bug_in_one_market_ends_it_alone_with_a_trace_in_the_log(
    wired: Wired, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: OrderEvents) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(wired.live.market, "apply", fail)
    await wired.sender.send(one_add(1))
    await wired.run()
    status, content = await wired.health()
    assert (status, content["feeds"][0]["error"]) == (
        HTTPStatus.SERVICE_UNAVAILABLE,
        "channel: internal error",
    )
    assert content["feeds"][0]["state"] == "closed"
    assert caplog.records[-1].exc_info is not None


def test_each_market_has_an_engine_of_its_own() -> None:
    first, second = make_engines(2)
    assert first is not second
    first.apply(one_add(1))
    assert (first.sequence(1), second.sequence(1)) == (1, 0)


def test_at_log_level_trace_the_books_are_checked(own_logging: None) -> None:
    configure(LogLevel.TRACE)
    [checked] = make_engines(1)
    configure(LogLevel.DEBUG)
    [plain] = make_engines(1)
    assert (type(checked), type(plain)) == (CheckedBookEngine, BookEngine)


def test_the_limits_of_the_parts_are_the_defaults() -> None:
    config = ServeConfig()
    limits = Limits()
    assert config.max_connections == MAX_CONNECTIONS
    assert config.handshake_timeout_s == HANDSHAKE_TIMEOUT_S
    assert (config.max_message_bytes, config.max_streams) == (limits.max_message_bytes, limits.max_streams)
    assert (config.messages_per_second, config.message_burst) == (
        limits.messages_per_s,
        limits.message_burst,
    )


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"insecure": True}, "whoever reaches 192.0.2.1:80 can see the markets"),
        (
            {"insecure": True, "replay": ["a.dbn"]},
            "whoever reaches 192.0.2.1:80 can see the markets and control the replays",
        ),
        ({"token": "right"}, "the token goes over the network as it is: --tls-cert encrypts it"),
        ({"token": "right", "tls_cert": "cert.pem", "tls_key": "key.pem"}, None),
    ],
)
def test_a_server_that_others_reach_warns_of_what_they_can_do(
    settings: dict[str, Any], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    address = Address("192.0.2.1", 80)
    warn_of_exposure(ServeConfig.model_validate({"address": address, **settings}), address)
    assert [record.getMessage() for record in caplog.records] == ([] if warning is None else [warning])


def test_there_is_room_for_no_more_connections_than_the_system_allows_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app_module, "raise_descriptor_limit", lambda: RESERVED_DESCRIPTORS + 2)
    gate = make_gate(ServeConfig())
    assert [gate.enter("127.0.0.1") for _ in range(3)] == [None, None, Refusal.SERVER_FULL]
    [warning] = caplog.records
    assert warning.getMessage().startswith("only 2 connections possible")
    gate = make_gate(ServeConfig(max_connections=1))
    assert [gate.enter("127.0.0.1") for _ in range(2)] == [None, Refusal.SERVER_FULL]
    assert len(caplog.records) == 1


def test_as_many_descriptors_are_allowed_as_the_system_permits() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert raise_descriptor_limit() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
