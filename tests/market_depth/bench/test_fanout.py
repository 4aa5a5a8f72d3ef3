import json
import resource
import shutil
from typing import Any

import pytest

from market_depth.bench import fanout
from market_depth.bench.errors import BenchError
from market_depth.bench.fanout import Delivery, Report

DELIVERY = Delivery(
    connects_per_s=2000.0,
    cpu_us_per_connect=400.0,
    frames_per_s=10_000.0,
    bytes_per_frame=1700.0,
    delivered_share=1.0,
    cpu_us_per_frame=8.0,
    cpu_us_per_further_frame=7.0,
    base_cpu_ms_per_s=10.0,
    bytes_per_client=20_000.0,
    load_cpu_us_per_frame=7.0,
)


def test_a_small_run_delivers_the_frames_that_were_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "SETTLE_S", 0.2)
    told: list[str] = []

    report = fanout.run(clients=20, streams=2, window_s=0.3, rounds=1, progress=told.append)

    has_compiler = shutil.which("cc") is not None or shutil.which("gcc") is not None
    assert [len(report.server), len(report.send_loop)] == [1, int(has_compiler)]
    assert len(told) == 1 + has_compiler
    for delivery in report.server + report.send_loop:
        assert delivery.delivered_share > 0.5
        assert delivery.bytes_per_frame > 1000
        assert delivery.cpu_us_per_frame > 0
    assert (report.ratio is not None) == has_compiler
    assert json.loads(json.dumps(report.as_dict()))["clients"] == 20


def test_ratios_compare_each_round_within_itself() -> None:
    slow, fast = (
        Delivery(**{**vars(DELIVERY), "cpu_us_per_frame": cost, "cpu_us_per_further_frame": cost})
        for cost in (12.0, 6.0)
    )
    twice = Delivery(**{**vars(DELIVERY), "cpu_us_per_frame": 6.0, "cpu_us_per_further_frame": 3.0})
    report = Report(1000, 1, 100, 10, 4.0, [slow, fast, slow], [twice, twice, twice])

    assert report.ratio == 2.0
    assert report.ratio_of_further_frames == 4.0
    assert any(line.endswith("2.00 ×") for line in report.lines())


def test_without_a_c_compiler_the_report_says_that_there_is_no_yardstick() -> None:
    report = Report(1000, 1, 100, 10, 4.0, [DELIVERY], [])

    assert report.ratio is None
    assert report.as_dict()["ratio"] is None
    assert "yardstick was left out" in report.lines()[-1]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"clients": 1}, "clients must be 2 to 10,000, not 1"),
        ({"clients": 10_001}, "clients must be"),
        ({"streams": 0}, "streams must be"),
        ({"interval_ms": 9}, "interval_ms must be"),
        ({"levels": 1001}, "levels must be"),
        ({"window_s": 0.0}, "window_s must be"),
        ({"rounds": 11}, "rounds must be"),
    ],
)
def test_a_run_is_bounded(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(BenchError, match=problem):
        fanout.run(**arguments)


def test_a_machine_that_allows_too_few_open_files_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    with pytest.raises(BenchError, match="the system allows 1,024"):
        fanout.run(clients=1000)
