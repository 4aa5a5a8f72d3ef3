"""A server's store: one that was asked for must be there, the usual one may be missing."""

from pathlib import Path

import pytest
import trio

from market_depth.clock import ManualClock
from market_depth.live_store import LiveStore
from market_depth.store.base import Retention, StoreError

NOW_NS = 1_790_000_000_000_000_000


def live_store(url: str | None, folder: Path) -> LiveStore:
    return LiveStore(url, folder, Retention(), ManualClock(NOW_NS))


async def test_without_a_word_a_file_of_the_data_directory_is_the_store(tmp_path: Path) -> None:
    live = live_store(None, tmp_path / "new")
    assert (live.status()["state"], live.is_ok) == ("opening", True)
    await live.open()
    try:
        assert (live.status()["state"], live.status()["name"]) == ("up", "market-depth.duckdb")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(live.run)
            await live.aclose(5)
        assert (live.status()["state"], live.status()["error"]) == ("closed", None)
    finally:
        live.close()
    assert (tmp_path / "new" / "market-depth.duckdb").exists()


async def test_the_usual_store_may_be_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "market-depth.duckdb").write_text("no database")
    live = live_store(None, tmp_path)
    await live.open()
    await live.run()
    await live.aclose(5)
    live.close()
    assert (live.status()["state"], live.is_ok, live.store) == ("none", True, None)
    assert "market-depth.duckdb" in live.status()["error"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_store_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "market-depth.duckdb").write_text("no database")
    live = live_store("duckdb:", tmp_path)
    with pytest.raises(StoreError, match=r"market-depth\.duckdb"):
        await live.open()
    assert (live.status()["state"], live.is_ok) == ("failed", False)


async def test_no_store_writes_no_file(tmp_path: Path) -> None:
    live = live_store("none", tmp_path)
    await live.open()
    await live.run()
    assert (live.status()["state"], live.is_ok) == ("none", True)
    assert not await trio.Path(tmp_path / "market-depth.duckdb").exists()
