"""What a server keeps, and what a second one does about the same file."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from market_depth.store.base import Selection, SessionState
from market_depth.store.duckdb import DuckDBStore
from tests.depth_server import DepthServer
from tests.market_depth.feeds.dbn_files import adds, encoded, write

WAIT_TURNS = 2_000


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[DepthServer]:
    """A server that keeps in the data directory `tmp_path`, and has kept something."""
    server = DepthServer(
        "--symbols", "BTCUSD", "--store", "duckdb:", "--data-dir", str(tmp_path), "--sample", "ms:20"
    )
    try:
        wait_for_rows(server)
        yield server
    finally:
        server.stop()


def store_status(server: DepthServer) -> dict[str, object]:
    with urlopen(f"http://{server.addr}/api/health") as answer:
        return dict(json.load(answer)["store"])


def wait_for_rows(server: DepthServer) -> None:
    for _ in range(WAIT_TURNS):
        rows = store_status(server)["rows"]
        if isinstance(rows, dict) and rows.get("bbo", 0) > 10:
            return
    raise AssertionError(f"nothing is kept: {store_status(server)}")


def test_a_simulated_market_is_there_after_the_server(tmp_path: Path) -> None:
    server = DepthServer(
        "--symbols", "BTCUSD,ETHUSD", "--store", "duckdb:", "--data-dir", str(tmp_path), "--sample", "ms:20"
    )
    try:
        wait_for_rows(server)
        assert store_status(server)["state"] == "up"
    finally:
        server.stop()
    store = DuckDBStore(tmp_path / "market-depth.duckdb", 1)
    try:
        (session,) = store.sessions()
        assert (session.source, session.state) == ("simulator", SessionState.COMPLETED)
        assert store.symbols() == ["BTCUSD", "ETHUSD"]
        assert session.bbo_rows == session.snapshot_rows > 10
        rows = store.bbo(Selection(symbol="BTCUSD"), 20_000).rows
        assert (rows["best_bid_px"] < rows["best_ask_px"]).all()
    finally:
        store.close()


def test_a_replay_is_kept_from_its_first_event_to_its_last(tmp_path: Path) -> None:
    path = write(tmp_path, encoded(adds(500)), "some.dbn")
    server = DepthServer(
        "--replay",
        str(path),
        "--speed",
        "max",
        "--store",
        "duckdb:",
        "--data-dir",
        str(tmp_path),
        "--sample",
        "events:1",
    )
    try:
        wait_for_rows(server)
    finally:
        server.stop()
    store = DuckDBStore(tmp_path / "market-depth.duckdb", 1)
    try:
        (session,) = store.sessions()
        assert (session.source, session.bbo_rows) == ("some.dbn", 500)
    finally:
        store.close()


def test_a_second_server_goes_without_the_usual_store_and_not_without_one_it_was_given(
    keeping: DepthServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MARKET_DEPTH_STORE")
    second = DepthServer("--symbols", "BTCUSD", "--data-dir", str(tmp_path))
    try:
        for _ in range(WAIT_TURNS):
            status = store_status(second)
            if status["state"] != "opening":
                break
        assert status["state"] == "none"
        assert "only one process can" in str(status["error"])
    finally:
        second.stop()
    command = [sys.executable, "-m", "market_depth", "serve", "--addr", "127.0.0.1:0", "--symbols", "BTCUSD"]
    given = subprocess.run(
        [*command, "--store", "duckdb:", "--data-dir", str(tmp_path)],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert given.returncode == 1
    assert "only one process can" in given.stderr.splitlines()[-1]
    assert store_status(keeping)["state"] == "up"
