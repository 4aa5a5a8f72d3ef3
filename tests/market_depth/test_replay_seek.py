"""To seek is to play: at any instant of a recorded market, the frames are the same byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import trio

from market_depth.book.engine import BookEngine
from market_depth.feeds import seekable
from market_depth.feeds.dbn import DbnFile
from market_depth.feeds.pacing import choose_pacing
from market_depth.feeds.replay import ReplayFeed
from market_depth.stream.market import Market
from protocol.events import Flag
from protocol.messages import DATA_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from protocol.events import OrderEvents
    from protocol.instrument import Instrument

INSTANTS = 100


def texts(market: Market) -> list[str]:
    """Every symbol's book, by price and by order, at the top and as a whole."""
    return [
        market.book_text(symbol, data_type, depth)
        for symbol in market.instruments
        for data_type in DATA_TYPES
        for depth in (10, 1000)
    ]


def played(
    events: OrderEvents, instruments: Sequence[Instrument], instants: Sequence[int]
) -> dict[int, list[str]]:
    """The books at instants, from playing once, event by event."""
    times = np.maximum.accumulate(events["ts_recv"])
    ends = np.flatnonzero(events["flags"] & Flag.LAST) + 1
    market = Market(instruments, lambda: int(times[max(done - 1, 0)]))
    market.warm(BookEngine())
    market.open()
    books = {}
    done = 0
    for instant in sorted(instants):
        due = int(np.searchsorted(times, np.uint64(instant), side="right"))
        end = int(ends[ends <= due].max(initial=0))
        market.apply(events[done:end])
        done = end
        books[instant] = texts(market)
    return books


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CLX5_mbo.dbn", "dbeq-basic-20240403.mbo.dbn.zst"])
@pytest.mark.parametrize("seed", [1])
async def test_a_seek_in_a_recorded_market_gives_what_playing_gives(
    name: str, seed: int, realdata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seekable, "CHECKPOINT_RECORDS", 5_000)
    path = realdata / "dbn" / name
    with DbnFile(path) as file:
        instruments = file.instruments
        chunks = []
        while len(chunk := file.read()):
            chunks.append(chunk)
    events = np.concatenate(chunks)
    rng = np.random.default_rng(seed)
    first, last = int(events["ts_recv"][0]), int(events["ts_recv"].max())
    instants = rng.integers(first, last, INSTANTS).tolist()
    expected = played(events, instruments, instants)

    feed = await ReplayFeed.open(path, choose_pacing("max"), is_controlled=True)
    market = Market(feed.instruments, feed.market_time)
    market.warm(BookEngine())
    market.open()

    async def follow() -> None:
        async for batch in feed:
            market.apply(batch)

    sequences = [-1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        feed.pause()
        for number, instant in enumerate(instants):
            if number % 10 == 0:  # from elsewhere: after playing for a while
                feed.resume()
                await trio.lowlevel.checkpoint()
                feed.pause()
            await feed.seek(instant)
            assert texts(market) == expected[instant], f"seed {seed}, instant {instant}"
            sequences.append(sum(market.sequence(symbol) for symbol in market.instruments))
        await feed.aclose()
    assert sequences == sorted(set(sequences))
