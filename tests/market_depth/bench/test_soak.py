import json
import shutil
from dataclasses import replace
from typing import Any

import pytest

from market_depth.bench import soak
from market_depth.bench.errors import BenchOptionError
from market_depth.bench.soak import Report, Sample

needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc")), reason="needs a C compiler"
)


def sample(
    at_s: float,
    resident_bytes: int = 200_000_000,
    p99_ms: float = 10.0,
    spell: int = 0,
    *,
    attack: bool = False,
) -> Sample:
    return Sample(at_s, resident_bytes, 1000, 5000, 5.0, p99_ms, 12.0, spell, attack)


GOOD = Report(
    seconds=1800,
    clients=1000,
    slow=50,
    came_and_went=36_000,
    hostile=0,
    seed=1,
    frames=1_000_000,
    frames_checked=50_000,
    descriptors_before=9,
    descriptors_after=9,
    log_errors=[],
    samples=[sample(180), sample(990), sample(1800)],
)


def test_a_run_without_a_fault_is_told_so() -> None:
    assert GOOD.ok
    assert GOOD.slowdown is None
    assert json.loads(json.dumps(GOOD.as_dict()))["faults"] == []
    assert not any("FAULT" in line for line in GOOD.lines())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"log_errors": ["x ERROR y"]}, "log: x ERROR y"),
        ({"descriptors_after": 12}, "descriptors: 9 before, 12 after"),
        ({"samples": [sample(0), sample(1800, 201_000_000)]}, "memory grows by 2.00 MB/h"),
        (
            {"samples": [sample(0), sample(900, p99_ms=12.0, attack=True)]},
            "p99 under attack is 1.20 × that of the calm spells",
        ),
    ],
    ids=["log", "descriptors", "memory", "latency"],
)
def test_every_fault_is_named(changes: dict[str, Any], fault: str) -> None:
    report = replace(GOOD, **changes)
    assert not report.ok
    assert report.faults == [fault]
    assert f"FAULT {fault}" in report.lines()


def test_an_attack_is_compared_with_the_calm_before_it() -> None:
    samples = [
        sample(number, p99_ms=p99_ms, spell=number // 2, attack=number % 2 == 1)
        for number, p99_ms in enumerate([10.0, 10.5, 40.0, 42.0, 20.0, 40.0])
    ]
    assert replace(GOOD, samples=samples).slowdown == pytest.approx(1.05)


def test_slopes_of_short_runs_are_not_judged() -> None:
    short = replace(GOOD, samples=[sample(0), sample(60, 203_000_000, p99_ms=20.0, attack=True)])
    assert short.growth_mb_per_h == pytest.approx(180)
    assert short.slowdown == 2.0
    assert short.ok


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"minutes": 0.01}, "minutes must be 0.05 to 120"),
        ({"clients": 9}, "clients must be 10 to 10,000"),
        ({"hostile": -1}, "hostile must be"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_a_run_is_bounded(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(BenchOptionError, match=problem):
        soak.run(**arguments)


@needs_compiler
def test_a_few_seconds_with_every_kind_of_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "WINDOW_S", 0.3)
    monkeypatch.setattr(soak, "LOOK_S", 0.05)
    monkeypatch.setattr(soak, "SPELLS", 2)
    told: list[str] = []
    report = soak.run(minutes=0.05, clients=40, hostile=20, progress=told.append)
    assert report.faults == []
    assert report.came_and_went > 10
    assert report.frames > 0
    assert report.frames_checked > 0
    assert {sample.under_attack for sample in report.samples} == {False, True}
    assert len(told) == 3


@pytest.mark.slow
@pytest.mark.timeout(240)
@needs_compiler
def test_a_minute_of_a_thousand_clients_and_hostile_ones() -> None:
    report = soak.run(minutes=1, hostile=2000)
    assert report.faults == []
    assert report.came_and_went > 600
    assert report.samples[-1].resident_bytes - report.samples[0].resident_bytes < 24e6
    assert max(sample.descriptors for sample in report.samples) < 1300
