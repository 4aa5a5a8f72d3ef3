from collections import Counter

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from market_depth.clock import ManualClock
from market_depth.metrics import Cut
from market_depth.server.heartbeats import Heartbeats
from tests.market_depth.server.local_server import WALL_NS
from tests.market_depth.server.socket_pairs import direct_pair, frame_texts

FIRST = '{"type":"HeartBeat","timestamp":"2026-09-21T14:13:20.000000Z"}'


async def test_a_client_is_greeted_and_then_has_one_beat_every_interval(mock_clock: MockClock) -> None:
    clock = ManualClock(WALL_NS)
    heartbeats = Heartbeats(clock, interval_s=5, max_unanswered=10)
    async with direct_pair() as first, direct_pair() as second, trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        await wait_all_tasks_blocked()
        heartbeats.join(first.stream)
        came: Counter[str] = Counter()
        for second_passed in range(1, 17):
            if second_passed == 3:
                heartbeats.join(second.stream)
            mock_clock.jump(1)
            clock.advance(1)
            await wait_all_tasks_blocked()
            for name, pair in (("first", first), ("second", second)):
                for beat in frame_texts(pair.read_now()):
                    came[f"{name} ping" if beat == "ping" else name] += 1
                    if name == "first" and second_passed == 1:
                        assert beat == FIRST
        nursery.cancel_scope.cancel()
    assert came == {"first": 1 + 3, "first ping": 3, "second": 1 + 2, "second ping": 2}


async def test_a_client_may_have_heartbeats_at_an_interval_of_its_own(mock_clock: MockClock) -> None:
    heartbeats = Heartbeats(ManualClock(WALL_NS), interval_s=6, max_unanswered=10)
    async with direct_pair() as often, direct_pair() as seldom, trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        for pair in (often, seldom):
            heartbeats.join(pair.stream)
        heartbeats.set_interval(often.stream, 5)
        heartbeats.set_interval(often.stream, 2)
        heartbeats.set_interval(seldom.stream, 9)
        letters = {FIRST: "b", "ping": "p"}
        came: list[list[str]] = [[], []]
        for _ in range(12):
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
            for pair, each_second in zip((often, seldom), came, strict=True):
                each_second.append("".join(letters[frame] for frame in frame_texts(pair.read_now())))
        heartbeats.leave(often.stream)
        heartbeats.leave(seldom.stream)
        nursery.cancel_scope.cancel()
    assert came[0] == ["b", "b", "", "b", "", "pb", "", "b", "", "b", "", "pb"]
    assert came[1] == ["b", "", "", "", "", "p", "", "", "b", "", "", "p"]
    assert not heartbeats._wishes
    assert not heartbeats._wished


async def test_a_client_that_left_gets_no_more_beats(mock_clock: MockClock) -> None:
    heartbeats = Heartbeats(ManualClock(WALL_NS), interval_s=1)
    async with direct_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        heartbeats.join(pair.stream)
        heartbeats.leave(pair.stream)
        await wait_all_tasks_blocked()
        mock_clock.jump(3)
        await wait_all_tasks_blocked()
        assert frame_texts(pair.read_now()) == [FIRST]
        nursery.cancel_scope.cancel()


async def test_a_client_that_takes_nothing_has_no_beats_waiting(mock_clock: MockClock) -> None:
    heartbeats = Heartbeats(ManualClock(WALL_NS), interval_s=1)
    async with direct_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        heartbeats.join(pair.stream)
        pair.stream.post(b"x" * 100_000)
        await wait_all_tasks_blocked()
        for _ in range(5):
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        assert pair.stream._outbox is not None
        assert not pair.stream._outbox.posted
        nursery.cancel_scope.cancel()


async def test_a_client_that_says_nothing_is_cut_after_the_pings_it_may_leave_unanswered(
    mock_clock: MockClock,
) -> None:
    heartbeats = Heartbeats(ManualClock(WALL_NS), interval_s=1, max_unanswered=3)
    async with direct_pair() as silent, direct_pair() as answering, trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        for pair in (silent, answering):
            heartbeats.join(pair.stream)
        await wait_all_tasks_blocked()
        for _ in range(4):
            assert not silent.stream.is_broken
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
            await answering.client.send_all(b"pong, or anything else")
            await answering.stream.receive_some()
        assert (silent.stream.is_broken, answering.stream.is_broken) == (True, False)
        assert frame_texts(silent.read_now()) == [FIRST, *[FIRST, "ping"] * 3, "4012"]
        assert silent.stream.close_code == 4012
        assert await silent.stream.receive_some() == b""
        assert silent.counts.connections_cut == {Cut.SILENT: 1}
        nursery.cancel_scope.cancel()


async def test_a_slow_client_is_not_taken_for_a_silent_one(mock_clock: MockClock) -> None:
    heartbeats = Heartbeats(ManualClock(WALL_NS), interval_s=1, max_unanswered=1)
    async with direct_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(heartbeats.run)
        heartbeats.join(pair.stream)
        pair.stream.post(b"x" * 100_000)
        for _ in range(5):
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert (pair.stream.is_full, pair.stream.is_broken) == (True, False)
        nursery.cancel_scope.cancel()
