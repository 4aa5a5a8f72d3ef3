from collections.abc import Sequence

import numpy as np
import pytest
import trio
import trio.testing

from market_depth.feeds import ChannelFeed, Feed, FeedError, FeedState
from protocol.events import Action, Flag, OrderEvents, order_events
from protocol.instrument import SCALE, Instrument

CRUDE = Instrument("CLX5", "GLBX.MDP3", 432669, SCALE // 100)


def batch(ts_recv: Sequence[int]) -> OrderEvents:
    events = order_events(len(ts_recv))
    events["instrument_id"] = CRUDE.instrument_id
    events["action"] = Action.ADD
    events["ts_recv"] = ts_recv
    events["flags"][-1] = Flag.LAST
    return events


async def test_channel_feed_hands_over_what_is_sent_and_completes_when_the_sender_closes() -> None:
    sender, channel = trio.open_memory_channel[OrderEvents | FeedError](2)
    feed: Feed = ChannelFeed([CRUDE], channel, name="test", source="replay", market_time_ns=5)
    assert (feed.name, feed.source, feed.state, feed.market_time()) == (
        "test",
        "replay",
        FeedState.WAITING,
        5,
    )
    first, second = batch([10, 20]), batch([30])
    async with sender:
        await sender.send(first)
        await sender.send(second)
        np.testing.assert_array_equal(await anext(feed), first)
        assert (feed.state, feed.market_time()) == (FeedState.RUNNING, 20)
    assert [events["ts_recv"].tolist() async for events in feed] == [[30]]
    assert (feed.state, feed.market_time()) == (FeedState.COMPLETED, 30)
    await feed.aclose()
    assert feed.state is FeedState.COMPLETED


async def test_channel_feed_fails_with_the_error_sent_and_ends_there() -> None:
    sender, channel = trio.open_memory_channel[OrderEvents | FeedError](2)
    feed = ChannelFeed([CRUDE], channel)
    sender.send_nowait(FeedError("test", "the venue hung up", "connect again"))
    with pytest.raises(FeedError, match=r"^test: the venue hung up; connect again$"):
        await anext(feed)
    assert feed.state is FeedState.FAILED
    assert [events async for events in feed] == []
    await feed.aclose()
    assert feed.state is FeedState.FAILED


async def test_channel_feed_closed_while_somebody_waits_ends_the_iteration() -> None:
    _sender, channel = trio.open_memory_channel[OrderEvents | FeedError](0)
    feed = ChannelFeed([CRUDE], channel)
    received: list[OrderEvents] = []

    async def collect() -> None:
        received.extend([events async for events in feed])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect)
        await trio.testing.wait_all_tasks_blocked()
        await feed.aclose()
        await feed.aclose()
    assert received == []
    assert feed.state.value == "closed"
