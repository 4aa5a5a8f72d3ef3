import numpy as np
import pytest
import trio
from trio.testing import MockClock

from market_depth.feeds.base import MAX_BATCH_RECORDS, FeedError
from market_depth.feeds.pacing import Pacing, choose_pacing
from market_depth.publish.playback import Playback
from protocol.events import Action, OrderEvents
from tests.market_depth.feeds.dbn_files import START_NS, adds
from tests.market_depth.publish.memory_records import MemoryRecords, records

S = 1_000_000_000


def playback(
    *chunks: OrderEvents, pacing: Pacing | None = None, loop: bool = False, from_ns: int = 0
) -> Playback:
    return Playback(records(*chunks), pacing or choose_pacing("max"), loop=loop, from_ns=from_ns)


async def arrivals(played: Playback) -> list[tuple[int, list[int]]]:
    """When each batch came, in s, and its order ids."""
    start = trio.current_time()
    return [(round(trio.current_time() - start), batch["order_id"].tolist()) async for batch in played]


async def test_all_records_are_played_in_batches_of_bounded_size() -> None:
    events = adds(50_000)
    batches = [batch async for batch in playback(events[:40_000], events[40_000:])]
    assert max(map(len, batches)) <= MAX_BATCH_RECORDS
    np.testing.assert_array_equal(np.concatenate(batches), events)


async def test_records_come_at_the_pace_at_which_they_were_recorded(autojump_clock: MockClock) -> None:
    events = adds(4, step_ns=10 * S)
    events["ts_recv"][2] = 2**64 - 1  # no time
    expected = [(0, [1]), (5, [2]), (5, [3]), (15, [4])]
    assert await arrivals(playback(events[:2], events[2:], pacing=choose_pacing(2))) == expected


async def test_records_come_at_a_constant_rate(autojump_clock: MockClock) -> None:
    expected = [(4, [1]), (8, [2]), (12, [3])]
    assert await arrivals(playback(adds(3), pacing=choose_pacing(rate=0.25))) == expected


async def test_a_receiver_that_takes_long_gets_what_is_due_at_once(autojump_clock: MockClock) -> None:
    played = playback(adds(10), pacing=choose_pacing(rate=1))
    assert len(await anext(played)) == 1
    await trio.sleep(4)
    assert len(await anext(played)) == 4


async def test_a_cancelled_call_loses_nothing(autojump_clock: MockClock) -> None:
    played = playback(adds(3), pacing=choose_pacing(rate=1), loop=True)
    ids: list[int] = []
    while len(ids) < 11:
        with trio.move_on_after(0.3):
            ids += (await anext(played))["order_id"].tolist()
    assert ids == [1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]


async def test_a_loop_clears_the_books_and_keeps_the_pace(autojump_clock: MockClock) -> None:
    played = playback(adds(2, step_ns=10 * S), pacing=choose_pacing(1), loop=True)
    start = trio.current_time()
    rows = []
    for _ in range(6):
        batch = await anext(played)
        rows.append((round(trio.current_time() - start), [Action(a).name for a in batch["action"]]))
    assert rows == [
        (0, ["ADD"]),
        (10, ["ADD"]),
        (10, ["CLEAR"]),
        (10, ["ADD"]),
        (20, ["ADD"]),
        (20, ["CLEAR"]),
    ]


async def test_a_loop_over_nothing_ends() -> None:
    assert [batch async for batch in playback(loop=True)] == []
    assert [batch async for batch in playback(adds(3), loop=True, from_ns=START_NS * 2)] == []


@pytest.mark.parametrize("first", [0, 1, 3, 4, 9])
async def test_it_may_begin_later_and_then_begins_at_once(first: int, autojump_clock: MockClock) -> None:
    events = adds(10, step_ns=10 * S)
    from_ns = START_NS + 10 * S * first - 5 * (first > 0)
    played = await arrivals(playback(events[:4], events[4:], pacing=choose_pacing(1), from_ns=from_ns))
    assert played == [(10 * n, [first + n + 1]) for n in range(10 - first)]


async def test_damage_is_told_after_what_came_before() -> None:
    damage = FeedError("memory", "breaks off", "fetch it again")
    played = Playback(records(adds(3), damage=damage), choose_pacing("max"))
    assert len(await anext(played)) == 3
    with pytest.raises(FeedError, match="breaks off"):
        await anext(played)


async def test_a_file_is_closed_after_each_round_and_when_it_is_let_go() -> None:
    opened: list[MemoryRecords] = []

    async def open_records() -> MemoryRecords:
        opened.append(MemoryRecords(adds(1)))
        return opened[-1]

    played = Playback(open_records, choose_pacing("max"), loop=True)
    for _ in range(3):
        await anext(played)
    assert [each.is_closed for each in opened] == [True, False]
    played.close()
    assert [each.is_closed for each in opened] == [True, True]
