import numpy as np
import pytest

from market_depth.rebuild.statistics import RESOLUTION, ApplyTimes


def test_without_batches_there_are_no_times() -> None:
    times = ApplyTimes()
    assert (times.mean_ns, times.percentile_ns(99)) == (0, 0)


@pytest.mark.parametrize(
    ("batches", "percent", "expected"),
    [
        ([(100, 2_000)], 99, 20),
        ([(99, 990), (1, 5_000)], 99, 10),
        ([(98, 980), (2, 10_000)], 99, 5_000),
        ([(1, 5_000), (16_384, 16_384 * 30), (16_384, 16_384 * 25)], 49, 25),
        ([(10, 0)], 99, 0.1),
    ],
)
def test_a_percentile_is_weighed_by_events(
    batches: list[tuple[int, int]], percent: float, expected: float
) -> None:
    times = ApplyTimes()
    for events, ns in batches:
        times.add(events, ns)
    assert times.percentile_ns(percent) == pytest.approx(expected, rel=RESOLUTION)
    assert times.mean_ns == sum(ns for _, ns in batches) / sum(events for events, _ in batches)


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_of_many_batches_are_those_of_all_times(seed: int) -> None:
    values = np.random.default_rng(seed).lognormal(4, 1, 5_000)
    times = ApplyTimes()
    for value in values:
        times.add(1_000, int(value * 1_000))
    for percent in (1, 50, 99, 100):
        expected = np.percentile(values, percent, method="inverted_cdf")
        assert times.percentile_ns(percent) == pytest.approx(expected, rel=2 * RESOLUTION)
