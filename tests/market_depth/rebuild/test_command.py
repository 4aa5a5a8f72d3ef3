import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from market_depth.rebuild import command
from market_depth.rebuild.statistics import FinalBook, Level, Statistics
from tests.market_depth.feeds.dbn_files import adds, encoded, write

app = typer.Typer(rich_markup_mode=None)
app.command()(command.replay)

CONTENT = encoded(adds(100))
TORN = "test.dbn: ends inside a record (55 bytes of it) at byte {}, after 99 order events; fetch the file again".format(
    f"{len(CONTENT) - 56:,} (record 100)"
)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_file_is_summed_up_for_people(tmp_path: Path) -> None:
    result = run(write(tmp_path, CONTENT))
    first, applied, _, _, book = result.stdout.splitlines()
    assert result.exit_code == 0
    assert first.startswith("test.dbn: 100 records in ")
    assert applied.startswith("100 order events applied, ")
    assert book.split() == ["ACME", "2", "100", "50", "/", "0", "10.49", "×", "2", "(2)", "–", "–"]
    assert result.stderr == ""


def test_columns_stand_below_one_another_whatever_is_in_them() -> None:
    books = (
        FinalBook("CLX5", 432669, 1, 1147, 61, 52, Level("65.40", 1, 1), Level("64.78", 1300, 11), "-0.62"),
        FinalBook("A", 2, 39, 0, 0, 0, None, None, None),
    )
    text = command.summary(Statistics("x.dbn", 5, 38_212, 38_212, 1440, 0.5, 76_424.0, 16.2, 31.7, books))
    assert text.splitlines() == [
        "x.dbn: 38,212 records in 0.500 s, 76,424 records/s",
        "38,212 order events applied, 16 ns each (p99 of batches 32 ns), 1,440 of unknown orders",
        "",
        "symbol  publisher  orders   levels       best bid            best ask  spread",
        "CLX5            1   1,147  61 / 52  65.40 × 1 (1)  64.78 × 1,300 (11)   -0.62",
        "A              39       0    0 / 0              –                   –       –",
    ]


def test_json_is_the_statistics_and_nothing_else(tmp_path: Path) -> None:
    result = run(write(tmp_path, CONTENT), "--json", "--limit", "40")
    told = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (told["file"], told["records"], told["books"][0]["active_orders"]) == ("test.dbn", 40, 40)
    assert "error" not in told


def test_a_damaged_file_is_summed_up_as_far_as_it_goes_and_told_of(tmp_path: Path) -> None:
    path = write(tmp_path, CONTENT[:-1])

    result = run(path, "--json", "--output", tmp_path / "out.ndjson")
    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (told["records"], told["books"][0]["active_orders"], told["error"]) == (99, 99, TORN)
    assert result.stderr == f"market-depth: {TORN}\n"
    assert (tmp_path / "out.ndjson").read_bytes().count(b"\n") > 0

    result = run(path)
    assert result.exit_code == 1
    assert result.stdout.startswith("test.dbn: 99 records in ")
    assert result.stderr == f"market-depth: {TORN}\n"


def test_a_file_that_cannot_be_read_is_one_line_and_in_the_json(tmp_path: Path) -> None:
    problem = "test.dbn: is empty (0 bytes); fetch the file again"
    path = write(tmp_path, b"")
    result = run(path)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"market-depth: {problem}\n")
    result = run(path, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"file": "test.dbn", "error": problem})


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    output = tmp_path / "missing" / "out.ndjson"
    result = run(write(tmp_path, CONTENT), "--output", output)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"market-depth: {output}: cannot be written: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments", [("--levels", "0"), ("--levels", "1001"), ("--limit", "0"), ("--levels", "x"), ()]
)
def test_a_wrong_call_is_told_from_a_failed_one(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = [write(tmp_path, CONTENT)] if arguments else []
    assert run(*path, *arguments).exit_code == 2


MAIN = (
    "import typer; from market_depth.rebuild.command import replay; "
    "app = typer.Typer(); app.command()(replay); app()"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    """The output is a pipe that nobody empties, so the command waits in the middle of writing."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = write(tmp_path, encoded(adds(20_000)))
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, path, "--output", pipe, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        with pipe.open("rb") as reader:
            reader.read(1)
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, stdout, stderr) == (130, b"", b"")


def test_on_a_terminal_a_bar_shows_rate_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from market_depth.rebuild.rebuilding import Progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with command.progress_bar(tmp_path / "a.dbn", False) as show:
        show(Progress(bytes_read=300, bytes=1000, records=5))
        show(Progress(bytes_read=500, bytes=1000, records=50))
    shown = capsys.readouterr()
    assert "a.dbn" in shown.err
    assert "records/s" in shown.err
    assert "50%" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(("is_terminal", "as_json"), [(False, False), (True, True)])
def test_elsewhere_and_for_machines_no_bar_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool, as_json: bool
) -> None:
    from market_depth.rebuild.rebuilding import Progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    with command.progress_bar(Path("a.dbn"), as_json) as show:
        show(Progress(bytes_read=500, bytes=1000, records=50))
    assert capsys.readouterr() == ("", "")
