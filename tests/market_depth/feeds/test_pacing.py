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
)

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
    [0, -1, 1_000_001, "0", "-2", "fast", "", "nan", "inf", "1e999999999", float("nan"), float("inf")],
)
def test_an_impossible_speed_is_refused_with_what_is_allowed(speed: float | str) -> None:
    with pytest.raises(PacingError, match=r"^replay: a speed of .* not possible; give a factor .* or max$"):
        choose_pacing(speed)


@pytest.mark.parametrize("rate", [0, -1, 1e9 + 1, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused_with_what_is_allowed(rate: float) -> None:
    with pytest.raises(PacingError, match=r"^replay: a rate of .* not possible; give records a second"):
        choose_pacing(rate=rate)


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
