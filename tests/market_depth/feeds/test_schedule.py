from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.pacing import Pacing, Times, choose_pacing
from market_depth.feeds.schedule import Schedule

MS = 1_000_000
S = 1000 * MS
START = 5 * S
"""Clocks start anywhere."""


def times(*seconds: float) -> Times:
    return np.array([round(second * S) for second in seconds], np.int64)


RECORDED = times(0, 1, 2, 10, 100)


def running(pacing: Pacing) -> Schedule:
    schedule = Schedule(pacing)
    schedule.run(START)
    return schedule


def test_while_it_is_stopped_nothing_becomes_due() -> None:
    schedule = Schedule(choose_pacing())
    assert [schedule.due(START + after, 0, RECORDED) for after in (0, 5 * S)] == [1, 1]
    schedule.run(START + 7 * S)
    assert [schedule.due(START + (7 + after) * S, 0, RECORDED) for after in (0, 1, 5)] == [1, 2, 3]
    assert schedule.due_at(4, 10 * S) == START + 17 * S


def test_a_stop_postpones_what_follows_by_as_long_as_it_lasts() -> None:
    schedule = running(choose_pacing())
    for number in range(1000):
        schedule.stop(START + 3 * number * MS + 1)
        schedule.stop(START + 3 * number * MS + 2)
        schedule.run(START + 3 * number * MS + 2 * MS + 1)
        schedule.run(START + 3 * number * MS + 2 * MS + 2)
    assert schedule.due_at(2, S) == START + S + 2 * S
    assert schedule.reached(START + 3 * S) == S


@pytest.mark.parametrize(
    ("pacing", "after_s", "changed", "due_s"),
    [
        (choose_pacing(1), 4, choose_pacing(2), (4 + 3, 4 + 48)),
        (choose_pacing(2), 4, choose_pacing(0.5), (4 + 4, 4 + 184)),
        (choose_pacing(1), 4, choose_pacing(rate=2), (4.5, 5)),
        (choose_pacing(1), 4, choose_pacing("max"), (4, 4)),
        (choose_pacing(rate=0.75), 4, choose_pacing(1), (4 + 8, 4 + 98)),
        (choose_pacing(rate=0.75), 5, choose_pacing(rate=3), (4 + 1 / 3, 4 + 2 / 3)),
        (choose_pacing(rate=0.75), 4, choose_pacing("max"), (4, 4)),
    ],
)
def test_a_new_pace_holds_from_the_record_and_time_that_were_reached(
    pacing: Pacing, after_s: int, changed: Pacing, due_s: tuple[float, float]
) -> None:
    schedule = running(pacing)
    now = START + after_s * S
    assert schedule.due(now, 0, RECORDED) == 3
    schedule.set_pacing(changed, now, 3, int(RECORDED[2]))
    due_at = [schedule.due_at(index + 1, int(RECORDED[index])) for index in (3, 4)]
    assert due_at == pytest.approx([START + second * S for second in due_s], abs=1)


def test_what_a_slow_receiver_has_left_behind_stays_due_after_a_change_of_pace() -> None:
    for before, after in (
        (choose_pacing(1), choose_pacing(2)),
        (choose_pacing(rate=1), choose_pacing(rate=2)),
    ):
        schedule = running(before)
        schedule.set_pacing(after, START + 3 * S, 1, 0)
        assert schedule.due(START + 3 * S, 1, RECORDED[1:]) == 2
        assert schedule.due_at(2, S) <= START + 3 * S


@pytest.mark.parametrize("is_running", [False, True])
def test_elsewhere_the_wait_begins_anew(is_running: bool) -> None:
    schedule = running(choose_pacing(2))
    if not is_running:
        schedule.stop(START + S)
    schedule.go_to(START + S, 3, 4 * S)
    schedule.run(START + S)
    assert schedule.reached(START + S) == 4 * S
    assert schedule.due_at(4, 10 * S) == START + S + 3 * S


PACINGS = st.one_of(
    st.just(choose_pacing("max")),
    st.fractions(Fraction(1, 1000), 1000).map(lambda speed: choose_pacing(str(float(speed)))),
    st.integers(1, 10**6).map(lambda rate: choose_pacing(rate=rate)),
)

Change = Callable[[Schedule, int], None]
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.just(lambda schedule, now: schedule.stop(now)),
    PACINGS.map(lambda pacing: lambda schedule, now: schedule.set_pacing(pacing, now, 2, S)),
    st.integers(0, 100 * S).map(lambda time: lambda schedule, now: schedule.go_to(now, 2, time)),
)


@given(PACINGS, st.lists(st.tuples(st.integers(0, 10 * S), CHANGES), max_size=10), st.integers(0, 10 * S))
def test_a_record_is_due_from_its_due_time_on_and_not_a_nanosecond_before(
    pacing: Pacing, changes: list[tuple[int, Change]], wait: int
) -> None:
    schedule = Schedule(pacing)
    now = START
    for after, change in changes:
        schedule.run(now)
        now += after
        change(schedule, now)
    schedule.run(now)
    for index in (2, 3, 4):
        due_at = schedule.due_at(index + 1, int(RECORDED[index]))
        assert (schedule.due(now + wait, 2, RECORDED[2:]) > index - 2) == (now + wait >= due_at)
