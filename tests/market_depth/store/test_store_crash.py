"""A process that is killed while it stores loses nothing that was acknowledged, and stores nothing twice."""

import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from market_depth.store.base import Selection, Store, all_bbo, all_snapshots, all_trades
from market_depth.store.rows import Rows
from tests.market_depth.store.conftest import OpenStore
from tests.market_depth.store.crashing_store import OPENING, taken_over
from tests.market_depth.store.stores import bbo_rows, trade_rows

PROGRESS_BYTES = 120


@pytest.mark.parametrize(
    "kills", [2, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])], ids=["few", "many"]
)
def test_a_killed_writer_loses_nothing_acknowledged_and_stores_nothing_twice(
    open_store: OpenStore, store_url: str, kills: int
) -> None:
    rng = random.Random(kills)
    checked = 0
    for number in range(kills):
        instant = rng.randrange(1, PROGRESS_BYTES)
        acknowledged = kill(store_url, number, instant)
        store = open_store()
        rows = stored_rows(store)
        store.close()
        facts = f"kill {number} of {kills} after byte {instant}: {acknowledged=} stored={rows}"
        assert rows >= acknowledged >= checked, facts
        checked = rows
    check_all(open_store())


def kill(url: str, seed: int, instant: int) -> int:
    """Kill a writer once it has told `instant` bytes of its progress. Returns: how many rows it said are acknowledged."""
    command = [sys.executable, "-m", "tests.market_depth.store.crashing_store", url, str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        told = b"0\n" + writer.stdout.read(instant)
        writer.kill()
        told += writer.stdout.read()
    assert writer.returncode == -signal.SIGKILL
    return int(told[: told.rindex(b"\n")].split(b"\n")[-1])


def stored_rows(store: Store) -> int:
    """How many rows of each kind there are."""
    session = taken_over(store)
    if session is None:
        return 0
    assert session.bbo_rows == session.trade_rows == session.snapshot_rows
    return session.bbo_rows


def check_all(store: Store) -> None:
    """Every row is there once, in its place, as it was made."""
    wanted = Selection(OPENING.id)
    rows = stored_rows(store)
    for parts, expected in (
        (all_bbo(store, wanted), bbo_rows(0, rows)),
        (all_trades(store, wanted), trade_rows(0, rows)),
    ):
        got = list(parts)
        whole: Rows = np.concatenate([found.rows for found in got])
        whole["series"] = 0
        np.testing.assert_array_equal(whole, expected)
        np.testing.assert_array_equal(np.concatenate([found.positions for found in got]), np.arange(rows))
    orders = np.concatenate([found.rows["orders"] for found in all_snapshots(store, wanted)])
    np.testing.assert_array_equal(orders, np.arange(rows))
