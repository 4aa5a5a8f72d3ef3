"""What every scenario owes, in short runs, and whether the statistics see what they should."""

from dataclasses import replace

import numpy as np
import pytest

from protocol.events import Side
from simulator import realism
from simulator.flow import NS
from simulator.listings import listing
from simulator.realism import Report, judge
from simulator.sample import START_NS, SYMBOL, Sample, sample
from simulator.scenarios import SCENARIOS, scenario
from simulator.venue import Venue

EVENTS = 60_000


@pytest.fixture(scope="module")
def samples() -> dict[str, list[Sample]]:
    """One short run of each scenario."""
    return {name: [sample(scenario(name), 1, EVENTS)] for name in SCENARIOS}


@pytest.fixture(scope="module")
def reports(samples: dict[str, list[Sample]]) -> dict[str, Report]:
    return {name: judge(scenario(name), runs) for name, runs in samples.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_gives_what_it_owes(reports: dict[str, Report], name: str) -> None:
    report = reports[name]
    assert (report.scenario, report.seeds, report.events) == (name, (1,), EVENTS)
    # Sixty thousand events are too few for the correlations of row 11 and later; the benchmark has millions.
    owed = [row for row in report.rows if row.number <= 10 or row.number == 18]
    assert [row for row in owed if not row.ok] == []


def test_only_busy_claims_to_look_like_a_real_market(reports: dict[str, Report]) -> None:
    numbers = {name: {row.number for row in report.rows} for name, report in reports.items()}
    assert numbers.pop("busy") == {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 18}
    assert all(owed == {1, 2, 3, 4, 5, 6, 18} for owed in numbers.values())


def test_scenarios_behave_as_they_are_called(samples: dict[str, list[Sample]]) -> None:
    runs = {name: of_name[0] for name, of_name in samples.items()}

    def volatility(run: Sample) -> float:
        return float(np.diff(run.mids).std())

    def range_in_ticks(run: Sample) -> float:
        return float(np.ptp(run.mids[::60])) / 2

    variation = {name: run.gap_deviation_ns / run.gap_mean_ns for name, run in runs.items()}
    assert volatility(runs["calm"]) < volatility(runs["busy"]) / 2
    assert variation["calm"] < variation["busy"] < variation["burst"]
    assert range_in_ticks(runs["trend"]) > 2 * range_in_ticks(runs["busy"])


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"adds": 24_400}, 1),
        ({"trades": 1_000}, 2),
        ({"trades": 10_000}, 3),
        ({"crossed_or_locked": 1}, 4),
        ({"empty_sides": 1}, 4),
        ({"resting": np.linspace(300, 400, 100)}, 5),
        ({"spreads": np.array([0, 1, 1, 1, 9])}, 6),
        ({"digest": "another"}, 18),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else next(iter(value)),
)
def test_a_missed_target_is_told(
    samples: dict[str, list[Sample]], change: dict[str, object], number: int
) -> None:
    [run] = samples["calm"]
    report = judge(scenario("calm"), [replace(run, **change)])  # type: ignore[arg-type]
    assert not report.ok
    assert number in {row.number for row in report.rows if not row.ok}


def test_a_sample_agrees_with_the_records_it_was_made_of() -> None:
    run = sample(scenario("busy"), 2, 2_000)
    venue = Venue(listing(SYMBOL), scenario("busy"), 2, START_NS)
    tick = venue.instrument.tick_size
    trades = spreads = 0
    for _ in range(2_000):
        venue.step()
        trades += venue.take()["action"][0] == ord("T")
        spreads += (venue.book.best(Side.ASK) - venue.book.best(Side.BID)) // tick
    assert run.events == run.adds + run.updates + run.cancels == 2_000
    assert run.trades == trades == len(run.trade_signs) == len(run.trade_prices)
    assert (np.arange(len(run.spreads)) * run.spreads).sum() == spreads
    assert len(run.mids) == len(run.second_spreads) == -(-(venue.now_ns - START_NS) // NS)
    assert run.gap_mean_ns == pytest.approx((venue.now_ns - START_NS) / 2_000)
    again = Venue(listing(SYMBOL), scenario("busy"), 2, START_NS)
    for second, twice_mid in enumerate(run.mids.tolist()):
        again.advance(START_NS + second * NS)
        assert twice_mid == (again.book.best(Side.BID) + again.book.best(Side.ASK)) // tick, second


def test_statistics_see_what_series_are_made_to_show() -> None:
    random = np.random.default_rng(1)
    noise = np.round(1_000 * random.standard_normal(50_000)).astype(np.int64)
    smoothed = noise[1:] + noise[:-1]
    assert realism._mean_autocorrelation([noise], 1) == pytest.approx(0, abs=0.02)
    assert realism._mean_autocorrelation([smoothed], 1) == pytest.approx(0.5, abs=0.02)
    assert realism._mean_autocorrelation([smoothed, -smoothed], 2) == pytest.approx(0, abs=0.02)
    tail = np.bincount(np.minimum((4 * random.pareto(1.5, 400_000)).astype(np.int64), 1_000))
    assert realism._tail_exponent(tail) == pytest.approx(1.35, abs=0.1)  # 1.5 bent by the offset of 4
