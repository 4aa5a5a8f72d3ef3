"""Every store keeps the same: each test here runs on all of them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from market_depth.store.base import (
    MAX_HISTORY_ROWS,
    Extent,
    Selection,
    SessionEnding,
    SessionState,
    Store,
    StoreError,
    all_bbo,
    all_snapshots,
    all_trades,
)
from market_depth.store.rows import Found, Rows, Series, empty_snapshots
from protocol.instrument import Instrument
from tests.market_depth.store.conftest import OpenStore
from tests.market_depth.store.stores import (
    ACME,
    BOOKS,
    NOW_NS,
    START_NS,
    STEP_NS,
    Story,
    bbo_rows,
    snapshot_rows,
    trade_rows,
)

COMPLETED = SessionEnding(SessionState.COMPLETED, NOW_NS, None, '{"records": 3}', '[{"symbol": "ACME"}]')


def assert_rows(found: Found, expected: Rows) -> None:
    """What was found is as expected, but for the keys of series."""
    assert [found.series[key] for key in found.rows["series"].tolist()] == [
        BOOKS[place] for place in expected["series"].tolist()
    ]
    for name in (expected.dtype.names or ())[1:]:
        np.testing.assert_array_equal(found.rows[name], expected[name], name)


def test_a_new_store_is_empty(store: Store) -> None:
    assert store.sessions() == []
    assert store.session("a") is None
    assert store.symbols() == []
    assert store.extent("ACME") is None
    assert len(store.latest("ACME")) == 0
    assert len(store.bbo(Selection(), 10)) == 0
    assert len(store.trades(Selection(symbol="ACME"), 10)) == 0
    assert len(store.snapshots("a", Selection(), 10)) == 0


def test_best_bid_and_offer_come_back_as_they_went_in_with_empty_sides(store: Store) -> None:
    rows = bbo_rows(0, 9)
    story = Story()
    store.write([story.batch(bbo=rows[:4]), story.batch(bbo=rows[4:])])
    assert_rows(store.bbo(Selection(), 100), rows)
    assert store.bbo(Selection(), 100).positions.tolist() == list(range(9))


def test_an_empty_side_is_null_in_the_database(open_store: OpenStore, store_url: str) -> None:
    store = open_store()
    store.write([Story().batch(bbo=bbo_rows(1, 2))])
    store.close()
    query = "SELECT best_bid_px, best_bid_sz, best_ask_px, best_ask_sz FROM {}bbo ORDER BY position"
    assert raw(store_url, query) == [
        (None, None, 65_430_000_000, 2),
        (65_429_999_998, 3, None, None),
    ]


def test_trades_come_back_as_they_went_in(store: Store) -> None:
    rows = trade_rows(0, 9, series=1)
    store.write([Story().batch(trades=rows)])
    assert_rows(store.trades(Selection(symbol="OTHER"), 100), rows)
    assert len(store.trades(Selection(symbol="ACME"), 100)) == 0


def test_snapshots_come_back_as_they_went_in_whatever_levels_they_have(store: Store) -> None:
    story, rows = Story(), snapshot_rows(0, 20)
    rows["series"][5:] = 1
    store.write([story.batch(snapshots=rows[:7]), story.batch(snapshots=rows[7:])])
    assert_rows(store.snapshots("a", Selection(), 100), rows)


def test_snapshots_with_every_level_come_back_too(store: Store) -> None:
    rows = snapshot_rows(0, 20)[3::4]
    rows["asks"] = rows["bids"]
    store.write([Story().batch(snapshots=rows)])
    assert_rows(store.snapshots("a", Selection(), 100), rows)


def test_snapshots_of_empty_books_come_back_empty(store: Store) -> None:
    rows = empty_snapshots(3, 2)
    store.write([Story().batch(snapshots=rows)])
    assert_rows(store.snapshots("a", Selection(), 100), rows)


def test_snapshots_are_read_with_room_for_the_deepest(store: Store) -> None:
    story = Story()
    store.write(
        [
            story.batch(snapshots=snapshot_rows(2, 1, depth=2)),
            story.batch(snapshots=snapshot_rows(4, 1, depth=4)),
        ]
    )
    found = store.snapshots("a", Selection(), 100)
    assert found.rows["bids"]["price"][:, :3].tolist() == [[2, 1, 2**63 - 1], [4, 3, 2]]
    assert found.rows["bids"].shape == (2, 4)


def test_a_snapshot_may_be_a_hundred_levels_deep(store: Store) -> None:
    rows = snapshot_rows(100, 2, depth=100)
    store.write([Story().batch(snapshots=rows)])
    assert_rows(store.snapshots("a", Selection(), 100), rows)


def test_every_level_of_a_snapshot_is_a_row_of_a_view(open_store: OpenStore, store_url: str) -> None:
    store = open_store()
    store.write([Story().batch(snapshots=snapshot_rows(2, 1))])
    store.close()
    query = (
        "SELECT position, side, level, price, size, count FROM {}snapshot_levels ORDER BY side DESC, level"
    )
    assert raw(store_url, query) == [
        (0, "bid", 1, 2, 2**32 + 2, 1),
        (0, "bid", 2, 1, 2**32 + 2, 2),
        (0, "ask", 1, 3, 2, 1),
    ]


def test_a_session_is_processing_until_its_ending(store: Store) -> None:
    story = Story()
    store.write([story.batch(bbo=bbo_rows(0, 5), trades=trade_rows(0, 2), snapshots=snapshot_rows(0, 1))])
    session = store.session("a")
    assert session is not None
    assert (session.state, session.ended_ns, session.source) == (SessionState.PROCESSING, None, "a.dbn")
    assert (session.bbo_rows, session.trade_rows, session.snapshot_rows) == (5, 2, 1)
    assert session.series == BOOKS
    store.write([story.batch(ending=COMPLETED)])
    ended = store.session("a")
    assert ended is not None
    assert (ended.state, ended.ended_ns, ended.error) == (SessionState.COMPLETED, NOW_NS, None)
    assert (ended.statistics, ended.final_book) == (COMPLETED.statistics, COMPLETED.final_book)


def test_a_failed_session_says_why(store: Store) -> None:
    ending = SessionEnding(SessionState.FAILED, NOW_NS, "a.dbn: cut short; copy it again")
    store.write([Story().batch(ending=ending)])
    session = store.session("a")
    assert session is not None
    assert (session.state, session.error) == (SessionState.FAILED, ending.error)


def test_sessions_are_listed_newest_first(store: Store) -> None:
    for name in ("one", "two", "three"):
        store.write([Story(name).batch()])
    assert [session.id for session in store.sessions()] == ["three", "two", "one"]
    assert [session.id for session in store.sessions(2)] == ["three", "two"]


def test_series_may_come_later_in_a_session(open_store: OpenStore) -> None:
    store = open_store()
    story = Story(series=BOOKS[:1])
    store.write([story.batch(bbo=bbo_rows(0, 1))])
    story.series = BOOKS
    store.write([story.batch(bbo=bbo_rows(1, 1, series=1))])
    assert store.symbols() == ["ACME", "OTHER"]
    session = store.session("a")
    assert session is not None
    assert session.series == BOOKS


def test_a_batch_that_is_stored_already_changes_nothing(open_store: OpenStore) -> None:
    store = open_store()
    story = Story()
    first = story.batch(bbo=bbo_rows(0, 5), trades=trade_rows(0, 5), snapshots=snapshot_rows(0, 5))
    store.write([first])
    before = store.session("a")
    store.write([first])
    store.close()
    again = open_store()  # which has to ask the database
    again.write([first, story.batch(bbo=bbo_rows(5, 5))])
    assert_rows(again.bbo(Selection(), 100), bbo_rows(0, 10))
    assert len(again.trades(Selection(), 100)) == len(again.snapshots("a", Selection(), 100)) == 5
    after = again.session("a")
    assert before is not None
    assert after == replace(before, batches=2, bbo_rows=10)


def test_a_batch_out_of_turn_is_refused_and_leaves_nothing(store: Store) -> None:
    story = Story()
    batches = [story.batch(bbo=bbo_rows(0, 1)), story.batch(), story.batch()]
    with pytest.raises(StoreError, match=r"batch 3 of session 'a' came after 1"):
        store.write([batches[0], batches[2]])
    assert store.sessions() == []
    store.write(batches)
    assert len(store.bbo(Selection(), 10)) == 1


def test_many_sessions_are_written_in_one_transaction(store: Store) -> None:
    stories = [Story("one"), Story("two")]
    store.write([story.batch(bbo=bbo_rows(first, 5)) for first in (0, 5) for story in stories])
    for story in stories:
        assert_rows(store.bbo(Selection(session_id=story.id), 100), bbo_rows(0, 10))
    assert_rows(store.bbo(Selection(), 100), np.repeat(bbo_rows(0, 10), 2))


def test_latest_is_the_last_row_of_the_newest_time(store: Store) -> None:
    story = Story()
    rows = bbo_rows(0, 6)
    rows["ts_event"][2:5] = rows["ts_event"][5] + 1
    store.write([story.batch(bbo=rows[:3]), story.batch(bbo=rows[3:])])
    assert_rows(store.latest("ACME"), rows[4:5])
    assert len(store.latest("OTHER")) == 0


def test_extent_counts_the_rows_of_a_symbol_in_all_sessions(store: Store) -> None:
    store.write([Story("one").batch(bbo=bbo_rows(5, 5)), Story("two").batch(bbo=bbo_rows(0, 3))])
    store.write([Story("three").batch(trades=trade_rows(50, 3))])
    assert store.extent("ACME") == Extent(START_NS, START_NS + 9 * STEP_NS, 8)
    assert store.extent("OTHER") is None


@pytest.mark.parametrize(
    ("start", "end", "first", "count"),
    [(0, 9, 0, 10), (3, 5, 3, 3), (5, 5, 5, 1), (-9, -1, 0, 0), (10, 20, 0, 0), (8, 20, 8, 2), (5, 3, 0, 0)],
)
def test_history_is_bounded_on_both_ends_which_belong_to_it(
    store: Store, start: int, end: int, first: int, count: int
) -> None:
    store.write(
        [Story().batch(bbo=bbo_rows(0, 10), trades=trade_rows(0, 10), snapshots=snapshot_rows(0, 10))]
    )
    wanted = Selection("a", "ACME", START_NS + start * STEP_NS, START_NS + end * STEP_NS)
    assert_rows(store.bbo(wanted, 100), bbo_rows(first, count))
    assert_rows(store.trades(wanted, 100), trade_rows(first, count))
    if count:
        assert_rows(store.snapshots("a", wanted, 100), snapshot_rows(first, count))
    else:
        assert len(store.snapshots("a", wanted, 100)) == 0


def test_a_read_returns_the_first_rows_up_to_its_limit_and_the_greatest_there_is(store: Store) -> None:
    store.write([Story().batch(bbo=bbo_rows(0, MAX_HISTORY_ROWS + 10))])
    assert_rows(store.bbo(Selection(), 7), bbo_rows(0, 7))
    assert len(store.bbo(Selection(), 10**9)) == MAX_HISTORY_ROWS


@pytest.mark.parametrize("part", [1, 5, 100])
def test_reading_in_parts_gives_every_row_once_also_where_times_are_equal(store: Store, part: int) -> None:
    bbo, trades, snapshots = (make(0, 8, step_ns=0) for make in (bbo_rows, trade_rows, snapshot_rows))
    for rows in (bbo, trades, snapshots):
        rows["series"][::2] = 1
        rows["ts_event"][4:] += 1
    for name in ("one", "two"):
        store.write([Story(name).batch(bbo=bbo, trades=trades, snapshots=snapshots)])
    for everything, whole in (
        (all_bbo(store, Selection(), part), store.bbo(Selection(), 100)),
        (all_trades(store, Selection(), part), store.trades(Selection(), 100)),
    ):
        parts = list(everything)
        assert all(len(found) <= part for found in parts)
        np.testing.assert_array_equal(np.concatenate([found.rows for found in parts]), whole.rows)
        assert len(whole) == 16
    pieces = list(all_snapshots(store, Selection(), part))
    np.testing.assert_array_equal(np.concatenate([piece.rows["orders"] for piece in pieces]), [*range(8)] * 2)


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE sessions; --",
        '"; DROP TABLE bbo; --',
        "1 OR 1=1",
        "$1",
        "%s",
        "{0}",
        "\\",
        "a\nb",
        "Ünïcödé €",
        "😀",
        " ",
    ],
)
def test_names_that_look_like_statements_are_names(store: Store, text: str) -> None:
    book = Series(Instrument(text, text, 1, 1))
    story = Story(text, series=(book,))
    store.write(
        [story.batch(bbo=bbo_rows(0, 2), ending=SessionEnding(SessionState.FAILED, NOW_NS, text, text, text))]
    )
    store.write([Story().batch(bbo=bbo_rows(5, 2))])
    session = store.session(text)
    assert session is not None
    assert (session.id, session.error, session.statistics, session.series) == (text, text, text, (book,))
    assert len(store.bbo(Selection(text, text), 100)) == len(store.bbo(Selection(text), 100)) == 2
    assert store.extent(text) == Extent(START_NS, START_NS + STEP_NS, 2)
    assert set(store.symbols()) == {text, "ACME", "OTHER"}
    assert list(store.latest(text).series.values()) == [book]


@pytest.mark.parametrize("text", ["a\0b", "\ud800"], ids=["zero byte", "half a character"])
def test_text_that_no_database_can_hold_is_refused_before_it_gets_there(text: str) -> None:
    with pytest.raises(ValueError, match=r"zero byte|no text of Unicode"):
        Series(replace(ACME, symbol=text))
    with pytest.raises(ValueError, match=r"zero byte|no text of Unicode"):
        _ = Story(text).opening
    with pytest.raises(ValueError, match=r"zero byte|no text of Unicode"):
        SessionEnding(SessionState.FAILED, NOW_NS, text)


def test_what_is_committed_is_there_when_the_store_is_opened_again(open_store: OpenStore) -> None:
    store = open_store()
    store.write([Story().batch(bbo=bbo_rows(0, 10), ending=COMPLETED)])
    before = store.session("a")
    store.close()
    again = open_store()
    assert again.session("a") == before
    assert_rows(again.bbo(Selection(), 100), bbo_rows(0, 10))


def test_sessions_that_their_process_left_behind_are_failed_by_the_next(open_store: OpenStore) -> None:
    store = open_store()
    store.write([Story("left").batch(), Story("done").batch(ending=COMPLETED)])
    store.close()
    again = open_store()
    again.write([Story("mine").batch()])
    again.recover(NOW_NS)
    states = {session.id: session.state for session in again.sessions()}
    assert states == {
        "left": SessionState.FAILED,
        "done": SessionState.COMPLETED,
        "mine": SessionState.PROCESSING,
    }
    left = again.session("left")
    assert left is not None
    assert (left.error, left.ended_ns) == ("the server ended before the session did", NOW_NS)


def test_reads_run_beside_the_writing(store: Store) -> None:
    story, is_done = Story(), threading.Event()

    def read() -> int:
        reads = 0
        while not (is_done.is_set() and reads):
            found = store.bbo(Selection(), 20_000)
            np.testing.assert_array_equal(found.positions, np.arange(len(found)))
            assert len(found) % 100 == 0
            reads += 1
        return reads

    with ThreadPoolExecutor() as readers:
        reading = [readers.submit(read) for _ in range(3)]
        for number in range(10):
            store.write([story.batch(bbo=bbo_rows(100 * number, 100))])
        is_done.set()
        assert all(future.result() for future in reading)


def raw(url: str, query: str) -> list[tuple[object, ...]]:
    """The answer of the database itself."""
    if url.startswith("duckdb:"):
        import duckdb

        with duckdb.connect(url.removeprefix("duckdb:"), read_only=True) as database:
            return database.execute(query.format("")).fetchall()
    import psycopg

    with psycopg.connect(url) as connection:
        return connection.execute(query.format("market_depth.").encode()).fetchall()
