import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from market_depth.bench.book import APPLY, BBO, CPP, JSON, PLAIN, SINGLE, TOP, Clock, Report, Result, run
from market_depth.bench.errors import BenchError

NO_BOOK = 'extern "C" int other() { return 0; }'

CPP_BOOK = """
#include <cstdint>
extern "C" uint64_t t_apply(const int64_t *events, int64_t count, uint32_t *ticks) {
  if (ticks) for (int64_t i = 0; i < count; i++) ticks[i] = 100;
  return 0;
}
extern "C" uint64_t t_json(const int64_t *events, int64_t count) { return 0; }
"""


def test_a_small_run_measures_every_stream() -> None:
    told: list[str] = []

    report = run(events=2_000, rounds=2, instruments=(1, 3), progress=told.append)

    assert [result.name for result in report.results] == ["1 instrument", "3 instruments"]
    for result in report.results:
        assert result.events == 2_000
        assert {way: len(result.ns[way]) for way in (APPLY, BBO, TOP, JSON, SINGLE)} == dict.fromkeys(
            (APPLY, BBO, TOP, JSON, SINGLE), 2
        )
        assert len(result.ns[PLAIN]) == 1
        assert 0 < result.resting_orders < 2_000
        assert 0 < result.levels <= result.resting_orders
        assert result.ratios[APPLY] == 1.0
    assert told
    json.dumps(report.as_dict())


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_a_cpp_book_is_measured_in_the_same_run(tmp_path: Path) -> None:
    source = tmp_path / "book.cpp"
    source.write_text(CPP_BOOK)

    (result,) = run(events=1_000, rounds=1, instruments=(1,), cpp=source).results

    assert len(result.ns[CPP]) == 1
    assert set(result.latency_ns) in ({APPLY, CPP}, set())


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
@pytest.mark.parametrize(("text", "error"), [("no C++", "does not compile"), (NO_BOOK, "is no C\\+\\+ book")])
def test_what_is_no_cpp_book_is_refused(tmp_path: Path, text: str, error: str) -> None:
    source = tmp_path / "book.cpp"
    source.write_text(text)

    with pytest.raises(BenchError, match=error):
        run(cpp=source)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no C\+\+ book at"):
        run(cpp=tmp_path / "book.cpp")


def test_ticks_become_percentiles_without_the_beginning() -> None:
    ticks = np.full(1_000, 10)
    ticks[:50] = 10**6
    ticks[-2:] = 1_000

    percentiles = Clock(ns_per_tick=0.5).percentiles(ticks)

    assert percentiles["p50"] == percentiles["p99"] == 5.0
    assert percentiles["p99.9"] == 500.0


def test_lines_tell_the_medians_and_the_ratios() -> None:
    result = Result(
        name="1 instrument",
        events=1_000,
        resting_orders=100,
        levels=10,
        memory_mb=2.5,
        ns={APPLY: [50.0, 20.0, 25.0], CPP: [100.0, 60.0, 100.0], PLAIN: [500.0]},
        latency_ns={APPLY: {"p50": 20.0, "p99": 160.4}},
        price_levels_us=7.0,
        resting_orders_us=8.0,
    )

    text = "\n".join(Report([result]).lines())

    assert "25.0 ns an event    40.00 M/s     1.00 × apply" in text
    assert "3.00 × apply" in text
    assert "20.00 × apply" in text
    assert "p50 20, p99 160 ns" in text
    assert "100 orders on 10 levels in 2.5 MB" in text


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"missing\.dbn"):
        run(file=tmp_path / "missing.dbn")


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CLX5_mbo.dbn", "esh4-glbx-mdp3-20231224.mbo.dbn.zst"])
def test_a_recorded_file_is_measured(realdata: Path, name: str) -> None:
    (result,) = run(file=realdata / "dbn" / name, rounds=1).results

    assert result.name == name
    assert result.events in (38_212, 8_725)
    assert result.ns[PLAIN]


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
