"""What is told over HTTP of what is stored: exact, bounded, and in one readable text where there is nothing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from market_depth.book.engine import BookEngine
from market_depth.server.http import make_application
from market_depth.server.stored import CHUNK_BYTES, lines_in_chunks
from market_depth.store.base import Selection, SessionEnding, SessionState, StoreUnavailableError
from market_depth.store.duckdb import DuckDBStore
from market_depth.store.writer import StoreCounts
from market_depth.stream.market import Market
from market_depth.stream.publisher import Publisher
from protocol.events import Action, Flag, Side, order_events
from tests.market_depth.server.applications import Answer, ask
from tests.market_depth.server.local_server import measured
from tests.market_depth.store.stores import ACME, NOW_NS, START_NS, STEP_NS, Story, bbo_rows, snapshot_rows


class OpenStore:
    """The store of a server, as far as it is told about."""

    is_ok = True
    counts = StoreCounts()

    def __init__(self, store: DuckDBStore | None, state: str = "up") -> None:
        self.store = store
        self._state = state

    def status(self) -> dict[str, Any]:
        return {
            "state": self._state,
            "name": None,
            "error": None,
            "rows": {},
            "queued_rows": 0,
            "dropped_rows": 0,
        }


class ServedMarket:
    """A feed that has handed over one order."""

    is_ok = True

    def __init__(self) -> None:
        self.market = Market([ACME], lambda: NOW_NS)
        engine, events = BookEngine(), order_events(1)
        events["instrument_id"], events["order_id"], events["action"] = ACME.instrument_id, 1, Action.ADD
        events["side"], events["price"], events["size"] = Side.BID, 65_430_000_000, 3
        events["flags"], events["ts_event"] = Flag.LAST, NOW_NS
        engine.apply(events)
        self.market.warm(engine)
        self.market.open()

    def status(self) -> dict[str, Any]:
        return {}


class Site:
    """The HTTP application of a server with a store."""

    def __init__(self, store: OpenStore, feeds: tuple[ServedMarket, ...] = ()) -> None:
        self._application = make_application(
            feeds, [], Publisher([]), measured()._replace(store=store), lambda: 0
        )

    async def get(self, target: str, method: str = "GET") -> Answer:
        return await ask(self._application, method, target)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    """Two sessions: one completed, with statistics; one at work."""
    opened = DuckDBStore(tmp_path / "a.duckdb", 1)
    ending = SessionEnding(SessionState.COMPLETED, NOW_NS, statistics='{"records": 9}')
    opened.write([Story("one").batch(bbo=bbo_rows(0, 9), snapshots=snapshot_rows(0, 9), ending=ending)])
    opened.write([Story("two").batch(bbo=bbo_rows(9, 3), snapshots=snapshot_rows(9, 3))])
    yield opened
    opened.close()


@pytest.fixture
def site(store: DuckDBStore) -> Site:
    return Site(OpenStore(store))


async def test_the_latest_of_a_served_symbol_is_from_memory() -> None:
    got = await Site(OpenStore(None, "none"), (ServedMarket(),)).get("/api/latest?symbol=ACME")
    assert got.status == 200
    assert got.content["best_bid_px"] == "65.43"
    assert got.content["best_ask_px"] is None
    assert (got.content["ts"], got.content["mid"]) == ("2026-09-21T14:13:25.000000000Z", None)


async def test_the_latest_of_another_symbol_is_the_last_one_stored(site: Site) -> None:
    (last,) = (await site.get(f"/api/history?symbol=ACME&start={START_NS + 11 * STEP_NS}")).content
    assert (await site.get("/api/latest?symbol=ACME")).content == last


async def test_the_range_of_a_symbol(site: Site) -> None:
    assert (await site.get("/api/range?symbol=ACME")).content == {
        "start_ts": "2026-09-21T14:13:20.000000000Z",
        "end_ts": "2026-09-21T14:13:20.000011000Z",
        "rows": 12,
    }


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", range(12)),
        ("&limit=5", range(5)),
        (f"&start={START_NS + 3 * STEP_NS}&end={START_NS + 5 * STEP_NS}", range(3, 6)),
        ("&start=2026-09-21T16:13:20.000008%2B02:00", range(8, 12)),
        ("&end=2026-09-21T14:13:20.000001Z", range(2)),
        ("&start=1790000000001", range(0)),
        ("&session_id=two", range(9, 12)),
        ("&session_id=none", range(0)),
    ],
)
async def test_a_history_is_bounded_on_both_ends(site: Site, query: str, numbers: range) -> None:
    rows = (await site.get(f"/api/history?symbol=ACME{query}")).content
    assert [row["ts"] for row in rows] == [f"2026-09-21T14:13:20.{number:06d}000Z" for number in numbers]


async def test_the_sessions_come_newest_first_and_each_by_itself(site: Site) -> None:
    sessions = (await site.get("/api/sessions")).content
    assert [(session["id"], session["state"], session["progress"]) for session in sessions] == [
        ("two", "processing", None),
        ("one", "completed", 1),
    ]
    assert (await site.get("/api/sessions/one")).content == sessions[1]
    assert sessions[1]["statistics"] == {"records": 9}
    assert (sessions[1]["bbo_rows"], sessions[1]["snapshots"], sessions[1]["trades"]) == (9, 9, 0)


@pytest.mark.parametrize(
    ("target", "count", "name"),
    [
        ("/download/json?session_id=one", 9, "one.ndjson"),
        ("/api/feed", 12, "feed.ndjson"),
        ("/api/feed?symbol=ACME&session_id=two", 3, "feed.ndjson"),
        (f"/api/feed?start={START_NS + 8 * STEP_NS}", 4, "feed.ndjson"),
    ],
)
async def test_snapshots_are_an_attachment_of_lines(site: Site, target: str, count: int, name: str) -> None:
    got, head = await site.get(target), await site.get(target, "HEAD")
    assert got.headers["content-type"] == head.headers["content-type"] == "application/x-ndjson"
    assert got.headers["content-disposition"] == f'attachment; filename="{name}"'
    lines = [json.loads(line) for line in got.body.splitlines()]
    assert (len(lines), {line["symbol"] for line in lines}) == (count, {"ACME"})


def test_a_download_comes_in_pieces_of_some_size(store: DuckDBStore) -> None:
    story = Story("long")
    for part in range(6):
        store.write([story.batch(snapshots=snapshot_rows(1000 * part, 1000))])
    pieces = list(lines_in_chunks(store, Selection("long")))
    assert len(pieces) > 1
    assert all(len(piece) >= CHUNK_BYTES for piece in pieces[:-1])
    assert b"".join(pieces).count(b"\n") == 6000


@pytest.mark.parametrize(
    ("target", "status", "detail"),
    [
        ("/api/latest?symbol=NONE", 404, "nothing of 'NONE' is stored"),
        ("/api/range?symbol=NONE", 404, "nothing of 'NONE' is stored"),
        ("/api/history?symbol=NONE", 404, "nothing of 'NONE' is stored"),
        ("/api/feed?symbol=NONE", 404, "nothing of 'NONE' is stored"),
        ("/api/history?symbol=%00", 404, "there is no symbol"),
        ("/api/history?symbol=%27%3B%20DROP%20TABLE%20bbo", 404, "nothing of"),
        ("/api/history?symbol=ACME&start=tomorrow", 422, "start: an instant is expected"),
        ("/api/history?symbol=ACME&start=2&end=1", 422, "end: lies before start"),
        ("/api/history?symbol=ACME&limit=20001", 422, "limit: "),
        ("/api/history?symbol=ACME&limit=0", 422, "limit: "),
        ("/api/history", 422, "symbol: Field required"),
        ("/api/sessions/none", 404, "there is no session 'none'"),
        ("/api/sessions/%00", 404, "there is no session"),
        ("/download/json?session_id=none", 404, "there is no session 'none'"),
        ("/download/json?session_id=..%2F..%2Fetc", 404, "there is no session"),
        ("/download/json", 422, "session_id: Field required"),
        ("/api/sessions?limit=1001", 422, "limit: "),
    ],
)
async def test_what_cannot_be_told(site: Site, target: str, status: int, detail: str) -> None:
    got = await site.get(target)
    assert (got.status, got.content["detail"][: len(detail)]) == (status, detail)


@pytest.mark.parametrize(
    ("state", "detail"),
    [("none", "this server keeps nothing"), ("opening", "the store is not open yet")],
)
async def test_without_a_store_there_is_nothing_to_read(state: str, detail: str) -> None:
    site = Site(OpenStore(None, state))
    for target in ("/api/range?symbol=A", "/api/sessions", "/api/feed", "/api/sessions/a"):
        got = await site.get(target)
        assert (got.status, got.content) == (503, {"detail": detail})


async def test_a_database_that_is_down_is_told(
    site: Site, store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*_: object) -> None:
        raise StoreUnavailableError("the database is down")

    for name in ("extent", "sessions", "snapshots"):
        monkeypatch.setattr(store, name, down)
    for target in ("/api/range?symbol=ACME", "/api/sessions", "/download/json?session_id=one"):
        got = await site.get(target)
        assert (got.status, got.content) == (503, {"detail": "the database is down"})
