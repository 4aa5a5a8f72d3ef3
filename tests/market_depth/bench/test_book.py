import json

import pytest

from market_depth.bench.book import Report, Result, run
from market_depth.bench.errors import BenchError


def test_a_small_run_measures_every_stream() -> None:
    told: list[str] = []

    report = run(events=2_000, rounds=2, instruments=(1, 3), progress=told.append)

    assert [result.instruments for result in report.results] == [1, 3]
    for result in report.results:
        assert result.events == 2_000
        assert len(result.engine_ns) == 2
        assert 0 < result.resting_orders < 2_000
        assert 0 < result.levels <= result.resting_orders
    assert told
    json.dumps(report.as_dict())


def test_lines_tell_the_median_and_the_ratio() -> None:
    result = Result(
        instruments=1,
        events=1_000,
        resting_orders=100,
        levels=10,
        memory_mb=2.5,
        engine_ns=[50.0, 20.0, 25.0],
        plain_ns=500.0,
        price_levels_us=7.0,
        resting_orders_us=8.0,
    )

    text = "\n".join(Report([result]).lines())

    assert "25.0 ns an event, 40.0 M events/s" in text
    assert "20 times as fast" in text
    assert "100 orders on 10 levels in 2.5 MB" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"events": 0}, "events must be from 1 to"),
        ({"rounds": 0}, "rounds must be from 1 to"),
        ({"instruments": (1, 0)}, "instruments must be from 1 to"),
    ],
)
def test_values_out_of_bounds_are_refused(arguments: dict[str, int], text: str) -> None:
    with pytest.raises(BenchError, match=text):
        run(**arguments)  # type: ignore[arg-type]
