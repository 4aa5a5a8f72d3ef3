"""Retention: what need not be kept goes, part by part, on every store."""

from itertools import count

import pytest

from market_depth.store.base import (
    Extent,
    Retention,
    Selection,
    SessionEnding,
    SessionState,
    Store,
    all_bbo,
    all_snapshots,
    all_trades,
)
from market_depth.store.schema import BBO_BYTES
from tests.market_depth.store.stores import (
    NOW_NS,
    START_NS,
    STEP_NS,
    Story,
    bbo_rows,
    snapshot_rows,
    trade_rows,
)

NS_PER_S = 1_000_000_000


def tell(store: Store, name: str, rows: int, *, ended_ns: int | None) -> Story:
    """Store a session with so many rows of each kind."""
    story = Story(name)
    store.write(
        [
            story.batch(
                bbo=bbo_rows(0, rows),
                trades=trade_rows(0, rows, series=1),
                snapshots=snapshot_rows(0, rows),
                ending=None if ended_ns is None else SessionEnding(SessionState.COMPLETED, ended_ns),
            )
        ]
    )
    return story


def steps(store: Store, retention: Retention, max_rows: int = 10) -> int:
    """Trim until there is nothing to trim. Returns: how many steps that took."""
    return next(step for step in count() if not store.trim(retention, NOW_NS, max_rows))


def counts(store: Store, session_id: str) -> tuple[int, int, int]:
    """Rows of a session as they are counted, which are those that are there."""
    session = store.session(session_id)
    assert session is not None
    wanted = Selection(session_id)
    for everything, counted in (
        (all_bbo(store, wanted), session.bbo_rows),
        (all_trades(store, wanted), session.trade_rows),
        (all_snapshots(store, wanted), session.snapshot_rows),
    ):
        assert sum(map(len, everything)) == counted
    return session.bbo_rows, session.trade_rows, session.snapshot_rows


def test_without_limits_everything_is_kept(store: Store) -> None:
    tell(store, "a", 25, ended_ns=0)
    assert steps(store, Retention()) == 0
    assert counts(store, "a") == (25, 25, 25)


def test_ended_sessions_go_whole_when_they_are_too_old(store: Store) -> None:
    tell(store, "old", 25, ended_ns=NOW_NS - 11 * NS_PER_S)
    tell(store, "young", 25, ended_ns=NOW_NS - 9 * NS_PER_S)
    tell(store, "running", 25, ended_ns=None)
    assert steps(store, Retention(max_age_s=10)) == 3 * 3 + 1
    assert [session.id for session in store.sessions()] == ["running", "young"]
    assert counts(store, "young") == counts(store, "running") == (25, 25, 25)


def test_a_running_session_keeps_as_much_of_the_markets_time_as_the_age_allows(store: Store) -> None:
    story = tell(store, "a", 25, ended_ns=None)
    retention = Retention(max_age_s=10 * STEP_NS / NS_PER_S)
    assert steps(store, retention) > 3
    assert counts(store, "a") == (11, 11, 11)
    assert store.extent("ACME") == Extent(START_NS + 14 * STEP_NS, START_NS + 24 * STEP_NS, 11)
    store.write([story.batch(bbo=bbo_rows(25, 5))])
    steps(store, retention)
    assert counts(store, "a")[0] == 11


def test_over_the_size_the_oldest_ended_session_goes_first(store: Store) -> None:
    tell(store, "second", 25, ended_ns=NOW_NS - 1)
    tell(store, "first", 25, ended_ns=NOW_NS - 2)
    tell(store, "running", 25, ended_ns=None)
    size = 25 * (48 + 40 + 40 + 2 * 3 * 24)
    assert steps(store, Retention(max_bytes=2 * size)) > 0
    assert [session.id for session in store.sessions()] == ["running", "second"]
    assert counts(store, "running") == counts(store, "second") == (25, 25, 25)


@pytest.mark.parametrize("max_rows", [1, 7, 1000])
def test_over_the_size_a_running_session_loses_its_oldest_rows(store: Store, max_rows: int) -> None:
    tell(store, "a", 25, ended_ns=None)
    steps(store, Retention(max_bytes=40 * BBO_BYTES), max_rows)
    left = counts(store, "a")
    assert sum(left) < 60
    kept = store.bbo(Selection(), 100)
    assert kept.positions.tolist() == list(range(25 - len(kept), 25))


def test_rows_of_one_time_go_together(store: Store) -> None:
    story = Story()
    store.write([story.batch(bbo=bbo_rows(0, 30, step_ns=0), ending=SessionEnding(SessionState.FAILED, 0))])
    assert steps(store, Retention(max_age_s=1)) == 2
    assert store.sessions() == []


def test_a_session_that_is_trimmed_is_written_on(store: Store) -> None:
    story = tell(store, "a", 25, ended_ns=None)
    steps(store, Retention(max_bytes=0))
    assert counts(store, "a") == (0, 0, 0)
    assert store.extent("ACME") is None
    store.write([story.batch(bbo=bbo_rows(25, 5))])
    assert store.bbo(Selection(), 100).positions.tolist() == [25, 26, 27, 28, 29]
