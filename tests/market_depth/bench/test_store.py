import json
from pathlib import Path

import pytest

from market_depth.bench.errors import BenchOptionError
from market_depth.bench.store import MAX_ROWS, Report, measure, run


def test_a_store_is_measured_and_told_in_figures_and_lines(tmp_path: Path) -> None:
    told: list[str] = []
    one = measure("DuckDB", f"duckdb:{tmp_path / 'a.duckdb'}", tmp_path, 100_000, 10_000, 1, told.append)
    assert min(one.bbo_rows_per_s, one.snapshot_rows_per_s, one.snapshots_read_per_s) > 0
    assert one.history.p99_ms >= one.history.p50_ms > 0
    report = Report(100_000, 10_000, [one])
    assert json.loads(json.dumps(report.as_dict()))["stores"][0]["bytes_on_disk"] == one.bytes_on_disk > 0
    lines = [line.split()[:2] for line in report.lines()]
    for name in ("latest", "range", "history"):
        assert [name, f"{getattr(one, 'extent' if name == 'range' else name).p50_ms:.1f}"] in lines
    assert told[-1] == "DuckDB: reading"


@pytest.mark.slow
def test_every_store_that_can_be_had_is_measured() -> None:
    report = run(rows=100_000)
    assert [one.store for one in report.stores] in (["DuckDB"], ["DuckDB", "PostgreSQL"])


@pytest.mark.parametrize("rows", [0, 99_999, MAX_ROWS + 1])
def test_there_are_enough_rows_and_not_too_many(rows: int) -> None:
    with pytest.raises(BenchOptionError, match="rows must be from"):
        run(rows=rows)
