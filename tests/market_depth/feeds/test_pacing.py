from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_depth.feeds.pacing import (
    ConstantRate,
    FullSpeed,
    Pacing,
    PacingError,
    RecordedPace,
    Times,
    choose_pacing,
    recorded_times,
)
from protocol.events import order_events

MS = 1_000_000
S = 1000 * MS
NIGHT = 16 * 3600 * S


def times(*values: int) -> Times:
    return np.array(values, np.int64)


RECORDED = times(0, 0, 10 * MS, 10 * MS + 1, S, NIGHT)


@pytest.mark.parametrize(
    ("speed", "elapsed_ns", "due"),
    [
        ("1", 0, 2),
        ("1", 10 * MS - 1, 2),
        ("1", 10 * MS, 3),
        ("1", 10 * MS + 1, 4),
        ("1", S, 5),
        ("1", NIGHT - 1, 5),
        ("1", NIGHT, 6),
        ("0.1", 100 * MS - 1, 2),
        ("0.1", 100 * MS, 3),
        ("0.1", 10 * S - 1, 4),
        ("0.1", 10 * S, 5),
        ("2.5", 4 * MS - 1, 2),
        ("2.5", 4 * MS, 3),
        ("1e6", 1000, 5),
        ("1000000", NIGHT // 1_000_000, 6),
        ("1e6", 10**18, 6),
    ],
)
def test_recorded_pace_lets_go_what_lies_within_elapsed_time_times_speed(
    speed: str, elapsed_ns: int, due: int
) -> None:
    assert choose_pacing(speed).due(elapsed_ns, 0, RECORDED) == due


@pytest.mark.parametrize(
    ("rate", "elapsed_ns", "delivered", "due"),
    [
        (1, 0, 0, 0),
        (1, S - 1, 0, 0),
        (1, S, 0, 1),
        (3, S // 3, 0, 0),
        (3, S // 3 + 1, 0, 1),
        (3, S, 2, 1),
        (0.5, 2 * S, 0, 1),
        (1e9, 4, 0, 4),
        (1e9, S, 0, 6),
        (7, S, 9, 0),
    ],
)
def test_constant_rate_lets_go_floor_of_rate_times_elapsed(
    rate: float, elapsed_ns: int, delivered: int, due: int
) -> None:
    assert choose_pacing(rate=rate).due(elapsed_ns, delivered, RECORDED) == due


def test_full_speed_lets_everything_go_at_once() -> None:
    pacing = choose_pacing("max")
    assert pacing == FullSpeed()
    assert pacing.due(0, 0, RECORDED) == len(RECORDED)
    assert pacing.due_at(6, NIGHT) == 0


def test_a_rate_wins_over_a_speed() -> None:
    assert choose_pacing(speed="max", rate=2) == ConstantRate(Fraction(2))


def test_the_recordings_own_pace_is_the_default() -> None:
    assert choose_pacing() == RecordedPace(Fraction(1))


@pytest.mark.parametrize(
    "speed",
    [
        *(0, -1, 1e-300, 0.9e-6, 1_000_001, 1e300, float("nan"), float("inf"), float("-inf")),
        *("0", "-2", "fast", "", "nan", "inf", "-inf", "1e-7", "1e999999999", "1e-999999999", "1/2", "MAX"),
    ],
)
def test_an_impossible_speed_is_refused_with_what_is_allowed(speed: float | str) -> None:
    with pytest.raises(PacingError) as refused:
        choose_pacing(speed)
    assert str(refused.value) == (
        f"replay: a speed of {speed if isinstance(speed, str) else f'{speed:.15g}'} is not possible; give a factor from 0.000001 to 1,000,000, or max"
    )


@pytest.mark.parametrize("rate", [0, -1, 1e-300, 0.9e-6, 1e9 + 1, 1e300, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused_with_what_is_allowed(rate: float) -> None:
    with pytest.raises(PacingError) as refused:
        choose_pacing(rate=rate)
    assert str(refused.value) == (
        f"replay: a rate of {rate:.15g} is not possible; give records a second from 0.000001 to 1,000,000,000"
    )


@pytest.mark.parametrize(
    ("pacing", "expected"),
    [
        (choose_pacing("0.000001"), RecordedPace(Fraction(1, 10**6))),
        (choose_pacing(1e6), RecordedPace(Fraction(10**6))),
        (choose_pacing(rate=1e-6), ConstantRate(Fraction(1, 10**6))),
        (choose_pacing(rate=1e9), ConstantRate(Fraction(10**9))),
    ],
)
def test_the_bounds_themselves_are_possible(pacing: Pacing, expected: Pacing) -> None:
    assert pacing == expected


@pytest.mark.parametrize(
    ("ts_recv", "expected"),
    [
        ([], []),
        ([10, 20, 30], [10, 20, 30]),
        ([4, 20, 10, 30], [5, 20, 20, 30]),
        ([2**64 - 1, 9, 2**64 - 1], [5, 9, 9]),
    ],
)
def test_recorded_times_never_fall_below_their_predecessors(ts_recv: list[int], expected: list[int]) -> None:
    events = order_events(len(ts_recv))
    events["ts_recv"] = ts_recv
    assert recorded_times(events, 5).tolist() == expected


PACINGS = st.one_of(
    st.just(FullSpeed()),
    st.fractions(min_value=Fraction(1, 10**6), max_value=10**6).map(RecordedPace),
    st.fractions(min_value=Fraction(1, 10**6), max_value=10**9).map(ConstantRate),
)


@given(PACINGS, st.lists(st.integers(0, 10**17), min_size=1, max_size=20), st.integers(0, 10**6), st.data())
def test_a_record_is_due_from_its_due_time_on_and_not_a_nanosecond_before(
    pacing: Pacing, recorded: list[int], delivered: int, data: st.DataObject
) -> None:
    recorded_times = times(*sorted(recorded))
    index = data.draw(st.integers(0, len(recorded) - 1))
    due_at = pacing.due_at(delivered + index + 1, int(recorded_times[index]))
    assert pacing.due(due_at, delivered, recorded_times) > index
    if due_at:
        assert pacing.due(due_at - 1, delivered, recorded_times) <= index
