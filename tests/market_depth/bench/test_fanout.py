import json
import resource
import shutil
from dataclasses import replace
from typing import Any

import pytest

from market_depth.bench import fanout
from market_depth.bench.errors import BenchError, BenchOptionError
from market_depth.bench.fanout import OURS, YARDSTICK, Delivery, Report, WithSlow
from market_depth.bench.processes import running, serve_command

DELIVERY = Delivery(
    connect_p95_ms=0.5,
    connect_p95_ms_at_16=4.0,
    cpu_us_per_connect=400.0,
    frames_per_s=10_000.0,
    bytes_per_frame=1700.0,
    delivered_share=1.0,
    cpu_us_per_frame=8.0,
    cpu_us_per_further_frame=7.0,
    base_cpu_ms_per_s=10.0,
    latency_p50_ms=5.0,
    latency_p99_ms=9.0,
    last_client_p50_ms=9.0,
    last_client_p99_ms=14.0,
    bytes_per_client=20_000.0,
    load_cpu_us_per_frame=1.5,
)
WITH_SLOW = WithSlow(1.0, 8.0, 5.0, 9.0, 9.0, 14.0, 40_000.0)

needs_compiler = pytest.mark.skipif(
    not (shutil.which("cc") or shutil.which("gcc")), reason="needs a C compiler"
)


def report(runs: dict[str, list[Delivery]], slow: int = 0) -> Report:
    return Report(1000, 1, 100, 10, slow, distinct_ids=False, window_s=4.0, runs=runs)


@needs_compiler
def test_a_small_run_delivers_the_frames_that_were_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "SETTLE_S", 0.2)
    monkeypatch.setattr(fanout, "SLOW_SETTLE_S", 0.2)
    told: list[str] = []

    measured = fanout.run(
        clients=20,
        streams=2,
        slow=2,
        distinct_ids=True,
        peers=False,
        window_s=0.3,
        rounds=1,
        progress=told.append,
    )

    assert told == [f"round 1 of 1: {OURS}", f"round 1 of 1: {YARDSTICK}"]
    for [delivery] in measured.runs.values():
        assert delivery.delivered_share > 0.5
        assert delivery.bytes_per_frame > 1000
        assert delivery.with_slow is not None
        for figures in (delivery, delivery.with_slow):
            assert figures.cpu_us_per_frame is not None
            assert figures.cpu_us_per_frame > 0
            assert figures.latency_p50_ms is not None
            assert figures.last_client_p99_ms is not None
            assert figures.latency_p50_ms <= figures.last_client_p99_ms
    assert measured.ratio(OURS, "cpu_us_per_frame") is not None
    assert json.loads(json.dumps(measured.as_dict()))["clients"] == 20


@needs_compiler
def test_a_given_server_is_measured_without_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "SETTLE_S", 0.2)
    with running(serve_command("--interval-ms", "100", "--symbols", "XYZ")) as server:
        measured = fanout.run(
            clients=5, symbols=["XYZ"], addr=str(server.address), peers=False, window_s=0.3, rounds=1
        )
        alive = server.weight.cpu_s()
    assert alive > 0
    [delivery] = measured.runs[OURS]
    assert delivery.delivered_share > 0.5
    assert delivery.cpu_us_per_frame is None
    assert delivery.bytes_per_client is None
    assert measured.ratio(OURS, "cpu_us_per_frame") is None
    assert measured.ratio(OURS, "last_client_p50_ms") is not None
    assert "–" in measured.lines()[4]


def test_ratios_compare_each_round_within_itself() -> None:
    slow, fast = (replace(DELIVERY, cpu_us_per_frame=cost) for cost in (12.0, 6.0))
    least = replace(DELIVERY, cpu_us_per_frame=6.0)
    measured = report({OURS: [slow, fast, slow], YARDSTICK: [least, least, least]})

    assert measured.ratio(OURS, "cpu_us_per_frame") == 2.0
    assert any(line.endswith("2.00 ×          1.00 ×") for line in measured.lines())


def test_the_table_has_a_column_for_each_server_and_rows_for_slow_clients() -> None:
    runs = {name: [replace(DELIVERY, with_slow=WITH_SLOW)] for name in (OURS, YARDSTICK, "websockets")}
    lines = report(runs, slow=10).lines()

    assert len({len(line) for line in lines if "0" in line[38:] and line.startswith(("CPU", "latency"))}) == 1
    assert "the others, beside 10 clients that never read" in lines
    assert lines[-1].split()[-3:] == ["40,000"] * 3


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"clients": 2}, "clients must be 3 to 10,000, not 2"),
        ({"clients": 10_001}, "clients must be"),
        ({"streams": 0}, "streams must be"),
        ({"interval_ms": 9}, "interval_ms must be"),
        ({"levels": 1001}, "levels must be"),
        ({"slow": 1001}, "slow must be"),
        ({"window_s": 0.0}, "window_s must be"),
        ({"rounds": 11}, "rounds must be"),
        ({"pid": 1}, "--pid belongs to --addr"),
        ({"addr": "nowhere"}, "'nowhere' is not an address"),
    ],
)
def test_a_run_is_bounded(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(BenchOptionError, match=problem):
        fanout.run(**arguments)


def test_a_machine_that_allows_too_few_open_files_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    with pytest.raises(BenchError, match="the system allows 1,024"):
        fanout.run(clients=1000)
