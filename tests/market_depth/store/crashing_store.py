"""Writes into a store and tells on standard output how many rows are acknowledged: to be killed, and to go on after that.

Arguments: the URL of the store, and a seed for how many rows are written at once.
"""

import os
import random
import sys
from pathlib import Path

import trio

from market_depth.clock import SystemClock
from market_depth.store.base import SessionOpening, SessionState, Store, StoredSession
from market_depth.store.opening import make_store
from market_depth.store.writer import StoreWriter
from tests.market_depth.store.stores import (
    BOOKS,
    START_NS,
    bbo_rows,
    snapshot_rows,
    trade_rows,
)

OPENING = SessionOpening("killed", "test", START_NS)


def taken_over(store: Store) -> StoredSession | None:
    """The session as the process before left it, once that is gone: in PostgreSQL its connection outlives it a little."""
    while True:
        store.recover(START_NS)
        session = store.session(OPENING.id)
        if session is None or session.state is SessionState.FAILED:
            return session


async def write(store: Store, seed: int) -> None:
    """Write rows that go on where those in the store end, without end."""
    rng = random.Random(seed)
    stored = await trio.to_thread.run_sync(taken_over, store)
    writer = StoreWriter(store, SystemClock(), commit_interval_s=0.001)
    session = writer.open_session(OPENING, stored.batches if stored else 0)
    session.add_series(BOOKS)
    first = stored.bbo_rows if stored else 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        while True:
            for _ in range(rng.randrange(1, 5)):
                count = rng.randrange(1, 50)
                position = await session.write(
                    bbo=bbo_rows(first, count),
                    trades=trade_rows(first, count),
                    snapshots=snapshot_rows(first, count),
                )
                first += count
            await session.committed(position)
            os.write(1, f"{first}\n".encode())


if __name__ == "__main__":
    opened = make_store(sys.argv[1], Path())
    assert opened is not None
    trio.run(write, opened, int(sys.argv[2]))
