"""The benchmark of the simulated markets: bounds, verdicts and what it prints. Its long run is the command's."""

import json

import pytest

from market_depth.bench import simulator
from market_depth.bench.errors import BenchError
from market_depth.bench.simulator import Report, run
from simulator.realism import Report as ScenarioReport
from simulator.realism import Row


def report(*, ok: bool) -> Report:
    rows = (Row(4, "crossed or locked books", "0", "0" if ok else "3", ok),)
    return Report([ScenarioReport("calm", (1, 2), 2_000_000, rows)], 200_000.0, 240_000.0)


@pytest.mark.parametrize(("ok", "verdict"), [(True, "ok"), (False, "MISSED")])
def test_one_missed_target_fails_the_whole(ok: bool, verdict: str) -> None:
    made = report(ok=ok)
    assert made.ok is ok
    assert f"{verdict:<6}  crossed or locked books" in made.lines()[1]
    machine = json.loads(json.dumps(made.as_dict()))
    assert machine["ok"] is ok
    assert machine["scenarios"][0]["rows"][0]["ok"] is ok
    assert machine["scenarios"][0]["seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("events", "seeds", "scenarios", "told"),
    [
        (10_000_000, 0, ["busy"], "seeds must be from 1 to 100, not 0"),
        (1_000_000, 5, ["busy"], "events must be from 2,000,000 for 5 seeds to 1,000,000,000, not 1,000,000"),
        (2_000_000_000, 5, ["busy"], "events must be from"),
        (10_000_000, 5, ["storm"], "unknown scenario 'storm': choose one of calm, busy, trend, burst"),
    ],
)
def test_what_cannot_be_measured_is_refused(events: int, seeds: int, scenarios: list[str], told: str) -> None:
    with pytest.raises(BenchError, match=told):
        run(events, seeds, scenarios)


def test_a_small_run_judges_every_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "LEAST_EVENTS", 10_000)
    monkeypatch.setattr(simulator, "SPEED_RECORDS", 1_000)
    lines: list[str] = []

    made = run(20_000, 2, ["calm"], lines.append)

    assert lines == ["calm: 20,000 events over 2 seeds", "speed"]
    assert [(entry.scenario, entry.seeds, entry.events) for entry in made.scenarios] == [
        ("calm", (1, 2), 20_000)
    ]
    # The digests were made in other processes and in this one: equal ones are row 18.
    assert [row.ok for row in made.scenarios[0].rows if row.number == 18] == [True]
    assert made.events_per_s > 0
