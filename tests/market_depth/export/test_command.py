"""`market-depth export`, run as users run it but in this process."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from market_depth.cli import app
from market_depth.store.base import Selection, Store
from market_depth.store.opening import make_store
from market_depth.store.snapshot_text import snapshot_lines
from protocol.timestamp import timestamp_ns
from tests.market_depth.store.stores import (
    START_NS,
    STEP_NS,
    Story,
    bbo_rows,
    snapshot_rows,
    trade_rows,
)


@pytest.fixture(autouse=True)
def usual_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests have a store only where they say so; these say it by the data directory."""
    monkeypatch.delenv("MARKET_DEPTH_STORE")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with two sessions."""
    store = make_store("duckdb:", tmp_path)
    assert store is not None
    store.write(
        [
            Story("one").batch(
                bbo=bbo_rows(0, 9), trades=trade_rows(0, 6, series=1), snapshots=snapshot_rows(0, 9)
            ),
            Story("two").batch(bbo=bbo_rows(0, 2, series=1)),
        ]
    )
    store.close()
    return tmp_path


@pytest.fixture
def held(data: Path) -> Iterator[Store]:
    store = make_store("duckdb:", data)
    assert store is not None
    yield store
    store.close()


def export(data: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["export", "--data-dir", str(data), *options])


def ndjson(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_by_default_all_best_bids_and_offers_as_ndjson(data: Path) -> None:
    rows = ndjson(export(data))
    assert len(rows) == 11
    assert rows[0] == {
        "ts": "2026-09-21T14:13:20.000000000Z",
        "symbol": "ACME",
        "best_bid_px": "65.43",
        "best_bid_sz": "1",
        "best_ask_px": "65.430000001",
        "best_ask_sz": "1",
        "mid": "65.4300000005",
        "spread": "0.000000001",
    }
    assert {row["best_bid_px"] for row in rows if row["symbol"] == "ACME" and row["mid"] is None} >= {None}


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (("--session", "one"), 9),
        (("--symbol", "OTHER"), 2),
        (("--session", "one", "--symbol", "OTHER"), 0),
        (("--start", str(START_NS + 7 * STEP_NS)), 2),
        (("--end", "2026-09-21T14:13:20.000001Z"), 4),
        (("--start", "2026-09-21T14:13:21Z"), 0),
        (("--kind", "trades"), 6),
        (("--kind", "snapshots", "--symbol", "ACME"), 9),
    ],
)
def test_only_what_is_asked_for(data: Path, options: tuple[str, ...], count: int) -> None:
    assert len(ndjson(export(data, *options))) == count


def test_snapshots_are_snapshot_records(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.ndjson"
    result = export(data, "--kind", "snapshots", "--output", str(output))
    assert result.stdout == f"Exported 9 snapshots to {output}\n"
    store = make_store("duckdb:", data)
    assert store is not None
    assert output.read_bytes() == snapshot_lines(store.snapshots("one", Selection(), 100))
    store.close()


def test_csv_has_a_heading_and_nothing_where_a_side_is_empty(data: Path) -> None:
    result = export(data, "--format", "csv", "--session", "one")
    heading, first, second, *_ = csv.reader(io.StringIO(result.stdout))
    assert ",".join(heading) == "ts,symbol,best_bid_px,best_bid_sz,best_ask_px,best_ask_sz,mid,spread"
    assert first[2:4] == ["65.43", "1"]
    assert second[2:] == ["", "", "65.43", "2", "", ""]


@pytest.mark.parametrize("kind", ["bbo", "trades", "snapshots"])
def test_parquet_holds_the_same_numbers_as_csv(data: Path, tmp_path: Path, kind: str) -> None:
    import duckdb

    output = tmp_path / "a.parquet"
    output.write_bytes(b"older")
    told = export(data, "--kind", kind, "--format", "parquet", "--output", str(output))
    assert told.exit_code == 0, told.output
    with duckdb.connect() as database:
        rows = database.execute(
            "SELECT * REPLACE (epoch_ns(ts) AS ts) FROM read_parquet($1)",
            [str(output)],
        ).fetchall()
    _, *lines = csv.reader(io.StringIO(export(data, "--kind", kind, "--format", "csv").stdout))
    assert len(rows) == len(lines) > 0
    for (ts, *row), (time, *line) in zip(rows, lines, strict=True):
        assert ts == timestamp_ns(time)
        for value, text in zip(row, line, strict=True):
            same = value == text or (text == "" if value is None else Decimal(value) == Decimal(text))
            assert same, (row, line)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "market-depth.duckdb"]


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (("--session", "three"), 1, "market-depth.duckdb: no session 'three'"),
        (("--symbol", "NONE"), 1, "nothing of 'NONE' is stored; symbols: ACME, OTHER"),
        (("--start", "yesterday"), 2, "--start: an instant is expected"),
        (("--format", "parquet"), 2, "--format parquet needs a file: name it with --output"),
        (("--store", "mysql:x"), 2, "'mysql' is not a store"),
        (("--store", "none"), 2, "none is no store to read from"),
        (("--store", "duckdb:no/such.file"), 1, "no/such.file: there is no such store"),
        (("--output", "no/such/file"), 1, "no/such/file: cannot be written"),
        (("--format", "parquet", "--output", "no/such/file"), 1, "no/such/file: No such file or directory"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    data: Path, options: tuple[str, ...], code: int, problem: str
) -> None:
    result = export(data, *options)
    assert result.exit_code == code
    assert problem in result.stderr
    assert result.stderr.startswith("market-depth: ")
    assert result.stderr.count("\n") == 1
    assert not Path("no").exists()


def test_the_file_of_a_running_server_is_not_read_and_that_is_told(held: Store, data: Path) -> None:
    command = [sys.executable, "-m", "market_depth", "export", "--data-dir", str(data)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "has it open, and only one process can" in result.stderr
    assert result.stderr.count("\n") == 1


def test_who_reads_no_further_ends_the_export_quietly(data: Path) -> None:
    command = f"{sys.executable} -m market_depth export --data-dir {data} | head -n 0"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert result.stderr == ""
