from __future__ import annotations

from itertools import pairwise

import trio
from trio.testing import wait_all_tasks_blocked

from market_depth.server.turnstile import AT_A_TIME, Turnstile


async def test_of_many_who_come_at_once_some_pass_each_time_in_their_order() -> None:
    turnstile = Turnstile()
    passed: list[int] = []
    passed_at_turn: list[int] = []

    async def enter(number: int) -> None:
        await turnstile.enter(nursery.start_soon)
        passed.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(100 * AT_A_TIME):
            nursery.start_soon(enter, number)
            if number % 100 == 0:  # their order of coming is that of starting only from turn to turn
                await trio.lowlevel.checkpoint()
        while len(passed) < 100 * AT_A_TIME:
            passed_at_turn.append(len(passed))
            await trio.lowlevel.checkpoint()
    steps = [after - before for before, after in pairwise(passed_at_turn)]
    assert max(steps) <= 2 * AT_A_TIME
    assert sorted(passed) == list(range(100 * AT_A_TIME))
    assert max(abs(place - number) for place, number in enumerate(passed)) <= 200


async def test_nobody_waits_while_few_come() -> None:
    turnstile = Turnstile()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            for _ in range(AT_A_TIME - 1):
                await turnstile.enter(nursery.start_soon)
            await turnstile.enter(nursery.start_soon)
            await wait_all_tasks_blocked()


async def test_who_is_cancelled_while_waiting_keeps_nobody_out() -> None:
    turnstile = Turnstile()
    async with trio.open_nursery() as nursery:
        for _ in range(AT_A_TIME):
            await turnstile.enter(nursery.start_soon)
        with trio.CancelScope() as scope:
            scope.cancel()
            await turnstile.enter(nursery.start_soon)
        assert scope.cancelled_caught
        await turnstile.enter(nursery.start_soon)
