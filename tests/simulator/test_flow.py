"""The order-flow models, each by itself: what they draw has the distribution they promise."""

import math
from itertools import islice

import numpy as np
import pytest

from protocol.events import Side
from simulator.flow import (
    NS,
    Activity,
    Chance,
    HawkesClock,
    ParentOrders,
    Trend,
    cumulative,
    distances,
    exponential,
    marketable_share,
    sizes,
)

COUNT = 50_000


@pytest.fixture
def chance() -> Chance:
    return Chance(seed=3, instrument_id=1)


def test_the_first_numbers_of_a_seed_are_the_same_on_every_machine(chance: Chance) -> None:
    # Written out: a NumPy whose streams differ, or a change of the order of streams, shows here first.
    assert [int(number * 2**53) for number in islice(chance.uniforms(), 3)] == [
        6740764851804431,
        6768843820275004,
        8903736721255066,
    ]


def test_streams_of_one_seed_are_independent() -> None:
    chance = Chance(3, 1)
    streams = [chance.uniforms(), chance.uniforms(), Chance(3, 2).uniforms(), Chance(4, 1).uniforms()]
    drawn = np.array([list(islice(stream, COUNT)) for stream in streams])
    correlations = np.corrcoef(drawn) - np.eye(len(streams))
    assert np.abs(correlations).max() < 0.02


def test_a_stream_is_the_same_whenever_its_numbers_are_drawn() -> None:
    chance, again = Chance(3, 1), Chance(3, 1)
    early, late = chance.uniforms(), chance.uniforms()
    first, second = again.uniforms(), again.uniforms()
    drawn_last = next(second), next(first)
    assert (next(early), next(late)) == drawn_last[::-1]


@pytest.mark.parametrize("seed", [0, -1, 2**64, -(2**70)])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert next(Chance(seed, 1).uniforms()) != next(Chance(seed + 1, 1).uniforms())


def test_weights_become_shares(chance: Chance) -> None:
    picks = list(islice(chance.picked(cumulative([1, 0, 2, 5])), COUNT))
    shares = np.bincount(picks, minlength=4) / COUNT
    assert shares == pytest.approx([0.125, 0, 0.25, 0.625], abs=0.01)


def test_exponential_waits_have_mean_and_deviation_one() -> None:
    waits = exponential((np.arange(1_000_000) + 0.5) / 1_000_000)
    assert waits.mean() == pytest.approx(1, abs=1e-3)
    assert waits.std() == pytest.approx(1, abs=1e-2)
    assert np.median(waits) == pytest.approx(math.log(2), abs=1e-4)
    assert (waits >= 0).all()


def clock(
    branching: float, rate: float = 100.0, shock_share: float = 0.0, shock_size: int = 0
) -> HawkesClock:
    chance = Chance(5, 1)
    return HawkesClock(
        chance,
        Activity(chance, (), 0.0, 0),
        rate=rate,
        branching=branching,
        kernels=((0.5, 0.01), (0.5, 0.2)),
        shock_share=shock_share,
        shock_size=shock_size,
        start_ns=0,
    )


def instants(ticking: HawkesClock, count: int = COUNT) -> list[int]:
    times = []
    for _ in range(count):
        times.append(ticking.next_ns)
        ticking.advance()
    return times


@pytest.mark.parametrize("branching", [0.0, 0.6, 0.85])
def test_the_clock_keeps_its_rate_and_its_branching(branching: float) -> None:
    ticking = clock(branching)
    times = instants(ticking)
    assert (np.diff(times) >= 0).all()
    assert COUNT / (times[-1] / NS) == pytest.approx(100, rel=0.1)
    assert ticking.descendants / COUNT == pytest.approx(branching, abs=0.02)


def test_instants_bring_about_further_ones() -> None:
    def variation(times: list[int]) -> float:
        gaps = np.diff(times)
        return float(gaps.std() / gaps.mean())

    assert variation(instants(clock(0.0))) == pytest.approx(1, abs=0.02)
    assert variation(instants(clock(0.85))) > 1.4


def test_the_clock_starts_in_its_stride() -> None:
    first_second = sum(time < NS for time in instants(clock(0.85, rate=2_000.0), 4_000))
    assert first_second == pytest.approx(2_000, rel=0.15)


def test_shocks_gather_events_without_changing_their_rate() -> None:
    times = instants(clock(0.5, shock_share=0.01, shock_size=400))
    a_second = np.bincount(np.array(times) // NS)
    assert a_second.max() > 4 * a_second.mean()
    assert a_second.mean() == pytest.approx(100, rel=0.3)


def test_activity_has_mean_one_and_memory() -> None:
    activity = Activity(Chance(1, 1), (10.0, 100.0), 0.4, 0)
    factors = []
    for second in range(COUNT):
        while (changes_ns := activity.changes_ns) is not None and changes_ns <= second * NS:
            activity.change()
        factors.append(activity.factor)
    series = np.array(factors)
    assert set(series.round(2)) == {0.36, 0.84, 1.96}
    assert series.mean() == pytest.approx(1, abs=0.1)
    centred = series - series.mean()
    assert (centred[5:] * centred[:-5]).mean() / series.var() > 0.5


def test_trades_keep_their_side_for_long(chance: Chance) -> None:
    parents = ParentOrders(chance, concurrent=3, exponent=1.6)
    signs = np.array([1 if parents.next_side(0.5) is Side.BID else -1 for _ in range(COUNT)])
    memory = [float((signs[lag:] * signs[:-lag]).mean() - signs.mean() ** 2) for lag in (1, 10, 100)]
    assert memory[0] > memory[1] > memory[2] > 0.01


@pytest.mark.parametrize(
    ("buy_share", "low", "high"), [(0.0, 0.0, 0.02), (0.5, 0.35, 0.65), (1.0, 0.98, 1.0)]
)
def test_new_parents_buy_as_often_as_asked(chance: Chance, buy_share: float, low: float, high: float) -> None:
    parents = ParentOrders(chance, concurrent=3, exponent=2.5)
    buys = sum(parents.next_side(buy_share) is Side.BID for _ in range(COUNT)) / COUNT
    assert low <= buys <= high


def test_a_trend_turns_around_in_its_time(chance: Chance) -> None:
    trend = Trend(chance, period_s=60.0, start_ns=0)
    directions = [trend.at(second * NS) for second in range(COUNT)]
    assert set(directions) == {1, -1}
    turns = sum(directions[second] != directions[second - 1] for second in range(1, COUNT))
    assert turns == pytest.approx(COUNT / 60, rel=0.15)


def test_new_orders_are_as_far_from_the_best_price_as_a_power_law_says(chance: Chance) -> None:
    drawn = np.array(list(islice(distances(chance, exponent=1.5, offset=4.0), COUNT)))
    assert drawn.min() == 0
    for distance in (1, 4, 20, 100):
        share = (drawn >= distance).mean()
        assert share == pytest.approx((1 + distance / 4) ** -1.5, abs=0.01), distance


def test_sizes_are_whole_lots_around_the_typical_one(chance: Chance) -> None:
    drawn = np.array(list(islice(sizes(chance, typical_size=800, spread=0.7), COUNT)))
    assert drawn.min() >= 1
    assert np.median(drawn) == pytest.approx(800, rel=0.03)
    assert np.log(drawn).std() == pytest.approx(0.7, abs=0.02)


def test_sizes_of_a_future_are_small_and_never_nothing(chance: Chance) -> None:
    drawn = list(islice(sizes(chance, typical_size=1, spread=1.0), COUNT))
    assert min(drawn) == 1
    assert max(drawn) > 5


@pytest.mark.parametrize(
    ("resting", "share"), [(0, 0.0), (200, 0.0125), (400, 0.1), (450, 0.142), (4_000, 0.2)]
)
def test_a_fuller_book_trades_more(resting: int, share: float) -> None:
    assert marketable_share(0.1, resting, target=400) == pytest.approx(share, abs=1e-3)
