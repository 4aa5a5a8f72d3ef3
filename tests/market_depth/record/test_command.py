import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import trio
import typer
from typer.testing import CliRunner

from market_depth.book.engine import BookEngine
from market_depth.book.views import price_levels, resting_orders
from market_depth.feeds.dbn import DbnFile
from market_depth.feeds.pacing import choose_pacing
from market_depth.feeds.replay import ReplayFeed
from market_depth.feeds.simulated import SimulatedMarkets
from market_depth.record.command import record
from protocol.events import ORDER_EVENT, Flag, OrderEvents, Side
from protocol.instrument import Instrument
from protocol.timestamp import NS_PER_S
from tests.market_depth.record.recordings import content_of, databento_reads, delivered

SYMBOLS = ["BTCUSD", "EURUSD", "ADAUSD"]
OPENING_NS = 1_767_225_600 * NS_PER_S  # 2026-01-01T00:00:00Z, the default

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(record)


class Outcome(NamedTuple):
    """What a call of the command left."""

    exit_code: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Outcome:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def test_a_recording_says_what_is_in_it_and_any_dbn_reader_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "a.dbn.zst"
    result = run(path, "--events", 2000, "--symbols", ",".join(SYMBOLS), "--seed", 3)
    header, records = databento_reads(path)
    count = len(records) // ORDER_EVENT.itemsize
    assert 2000 <= count < 2100
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (f"Recorded {count:,} order events in {path} ({path.stat().st_size:,} bytes)\n")
    assert (header.dataset, header.symbols, header.start) == ("SIM", SYMBOLS, OPENING_NS)
    last = np.frombuffer(records, ORDER_EVENT)[-1]
    assert header.end == last["ts_recv"] + 1
    assert last["flags"] & Flag.LAST


@pytest.mark.parametrize("name", ["a.dbn", "a.dbn.zst"])
def test_the_same_seed_writes_the_same_bytes_and_another_one_does_not(tmp_path: Path, name: str) -> None:
    files = []
    for seed in (5, 5, 6):
        run(tmp_path / name, "--duration", 20, "--symbols", "BTCUSD,ADAUSD", "--seed", seed, "--force")
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] != files[2]


def test_replaying_a_recording_gives_the_books_of_the_market_at_every_instant(tmp_path: Path) -> None:
    path = tmp_path / "a.mbo.dbn.zst"
    options = (
        "--symbols",
        ",".join(SYMBOLS),
        "--scenario",
        "burst",
        "--seed",
        11,
        "--events-per-second",
        500,
    )
    run(path, "--duration", 10, *options)
    markets = SimulatedMarkets(SYMBOLS, "burst", 11, 500.0, OPENING_NS, duration_s=10, max_step_s=0.5)
    instruments, replayed = trio.run(replay, path)
    assert set(instruments) == set(markets.instruments)
    original, again = BookEngine(), BookEngine()
    at = 0
    while len(events := markets.read()):
        original.apply(events)
        again.apply(replayed[at : at + len(events)])
        at += len(events)
        for instrument in markets.instruments:
            assert_same_book(original, again, instrument.instrument_id)
    assert at == len(replayed) > 10_000
    assert original.counters == again.counters


async def replay(path: Path) -> tuple[Sequence[Instrument], OrderEvents]:
    feed = await ReplayFeed.open(path, choose_pacing("max"))
    return feed.instruments, np.concatenate([batch async for batch in feed])


def assert_same_book(one: BookEngine, other: BookEngine, instrument_id: int) -> None:
    assert one.sequence(instrument_id) == other.sequence(instrument_id)
    for side in (Side.BID, Side.ASK):
        for view in (price_levels, resting_orders):
            mine, theirs = (view(engine, instrument_id, side, 10_000) for engine in (one, other))
            np.testing.assert_array_equal(mine, theirs)


def test_the_market_opens_when_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.dbn"
    run(path, "--events", 1, "--start", "2030-02-03T04:05:06.5+01:00")
    assert databento_reads(path)[0].start == 1_896_318_306_500_000_000
    run(path, "--events", 1, "--start", "now", "--force")
    assert databento_reads(path)[0].start > OPENING_NS


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--levels", 5, "--events", 9], 2, "--levels needs --addr"),
        (["--token", "x", "--events", 9], 2, "--token needs --addr"),
        (["--addr", "there:1", "--events-per-second", 5], 2, "--events-per-second cannot go with --addr"),
        (["--addr", "there:1", "--realtime"], 2, "--realtime cannot go with --addr"),
        (["--addr", "there"], 2, "'there' is no address of a server (for example 127.0.0.1:8080)"),
        (
            ["--addr", "there:1", "--token", "two words"],
            2,
            "a token has 1 to 512 letters, digits and signs of ASCII, and no blanks",
        ),
        (["--addr", "there:1", "--events", 0], 2, "--events: 0 are too few; give 1 or more"),
        (
            ["--addr", "there:1", "--duration", 0],
            2,
            "--duration: 0 seconds are too short; give more than 0",
        ),
        (
            ["--addr", "there:1", "--levels", 1001],
            2,
            "--levels: 1001 cannot be; give an integer between 1 and 1000",
        ),
        ([], 2, "a recording needs an end: give --events, --duration or --realtime"),
        (["--events", 0], 2, "simulator: 0 events are too few; give 1 or more"),
        (["--duration", -1], 2, "simulator: -1 seconds are too short; give more than 0"),
        (
            ["--events", 9, "--scenario", "wild"],
            2,
            "simulator: there is no scenario 'wild'; choose one of calm, busy, trend, burst",
        ),
        (
            ["--events", 9, "--symbols", "A,A"],
            2,
            "simulator: A and A have the same instrument id; drop one of them",
        ),
        (
            ["--events", 9, "--start", "noon"],
            2,
            "--start: 'noon' is no time for a market; give one from 1970 to 2261 such as 2026-01-01T09:30:00Z, or now",
        ),
        (
            ["--events", 9, "--start", "1969-12-31T23:59:59Z"],
            2,
            "--start: '1969-12-31T23:59:59Z' is no time for a market; give one from 1970 to 2261 such as 2026-01-01T09:30:00Z, or now",
        ),
    ],
)
def test_a_wrong_call_is_told_in_one_line_and_leaves_no_file(
    tmp_path: Path, options: list[object], code: int, text: str
) -> None:
    result = run(tmp_path / "a.dbn", *options)
    assert (result.exit_code, result.stderr, result.stdout) == (code, f"market-depth: {text}\n", "")
    assert not list(tmp_path.iterdir())


def test_where_nobody_listens_is_told_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        addr = f"127.0.0.1:{bound.getsockname()[1]}"
        result = run(tmp_path / "a.dbn", "--addr", addr)
    assert (result.exit_code, result.stderr) == (
        1,
        f"market-depth: {addr}: cannot be reached: connection refused; start it, or give its address with --addr\n",
    )
    assert not list(tmp_path.iterdir())


def test_names_and_places_that_cannot_be_are_told_in_one_line(tmp_path: Path) -> None:
    result = run(tmp_path / "a.csv", "--events", 9)
    assert (result.exit_code, result.stderr) == (
        2,
        "market-depth: a.csv: is no name for a recording; call it NAME.dbn, or NAME.dbn.zst to compress it\n",
    )
    missing = tmp_path / "missing" / "a.dbn"
    result = run(missing, "--events", 9)
    assert (result.exit_code, result.stderr) == (
        1,
        f"market-depth: {missing}: cannot be created: No such file or directory; check the folder, or take another\n",
    )


def test_an_existing_file_is_replaced_by_force_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.dbn"
    path.write_bytes(b"precious")
    result = run(path, "--events", 1)
    assert (result.exit_code, result.stderr) == (
        1,
        f"market-depth: {path}: exists already; take another name, or replace it with --force\n",
    )
    assert path.read_bytes() == b"precious"
    assert run(path, "--events", 1, "--force").exit_code == 0
    assert content_of(path).startswith(b"DBN")


COMMAND = "import typer; from market_depth.record.command import record; typer.run(record)"


def test_a_full_disk_is_told_in_one_line_and_what_is_there_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.dbn"
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, path, "--events", "100000"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY)),
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "market-depth: a.dbn: cannot be written: File too large, after 0 synced order events; "
        "make room, and record into another file\n"
    )
    events, error = delivered(path)
    assert len(events) > 10_000
    assert error is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_a_recording_in_real_time_keeps_it_complete(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "a.dbn"
    command = [
        sys.executable,
        "-c",
        COMMAND,
        str(path),
        "--realtime",
        "--symbols",
        "ADAUSD",
        "--start",
        "now",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as recorder:
        while recorder.poll() is None and not (path.exists() and path.stat().st_size > 10_000):
            os.sched_yield()
        recorder.send_signal(number)
        stdout, stderr = recorder.communicate(timeout=20)
    assert (recorder.returncode, stderr) == (0, "")
    events, error = delivered(path)
    assert stdout == f"Recorded {len(events):,} order events in {path} ({path.stat().st_size:,} bytes)\n"
    assert error is None
    assert databento_reads(path)[1] == events.tobytes()


def test_real_time_records_what_full_speed_records(tmp_path: Path) -> None:
    files: list[OrderEvents] = []
    for options in (["--realtime"], []):
        run(
            tmp_path / "a.dbn",
            "--events",
            1200,
            "--symbols",
            "BTCUSD",
            "--events-per-second",
            5000,
            "--force",
            *options,
        )
        with DbnFile(tmp_path / "a.dbn") as file:
            files.append(file.read())
    np.testing.assert_array_equal(files[0], files[1])
