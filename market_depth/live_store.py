"""The store of a server at work: opened beside the first books, written until the end, read by the HTTP API.

opening ──► up ⇄ down ──► closed      as `store/writer.py` has it
   ├──────► none                      nobody asked for a store, and the usual one cannot be had
   └──────► failed                    the one that was asked for cannot be had: the server ends
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from market_depth.store.base import StoreError
from market_depth.store.opening import make_store
from market_depth.store.writer import StoreCounts, StoreWriter

if TYPE_CHECKING:
    from pathlib import Path

    from market_depth.clock import Clock
    from market_depth.store.base import Retention, Store

logger = logging.getLogger(__name__)

DEFAULT_STORE = "duckdb:"

COMMIT_INTERVAL_S = 0.5
"""How long rows wait for others. Three simulated symbols commit at all times: every 0.2 s that takes 3 % of a core."""


class LiveStore:
    """A store, or none, and how it is."""

    def __init__(self, url: str | None, data_directory: Path, retention: Retention, clock: Clock) -> None:
        """`url` is what was asked for; for None it is DEFAULT_STORE, or nothing if that cannot be had."""
        self.store: Store | None = None
        """For reads, from any thread; None before it is open, and where there is none."""
        self.writer: StoreWriter | None = None
        self.is_decided = trio.Event()
        """Set when it is known whether there is a store."""
        self._url = url
        self._directory = data_directory
        self._retention = retention
        self._clock = clock
        self._state = "none" if url == "none" else "opening"
        self._error: str | None = None

    @property
    def is_ok(self) -> bool:
        """Whether what is to be stored is stored."""
        return self._state != "failed" if self.writer is None else self.writer.is_ok

    @property
    def counts(self) -> StoreCounts:
        """What was written since the start."""
        return StoreCounts() if self.writer is None else self.writer.counts

    def status(self) -> dict[str, Any]:
        """How it is, as health tells it."""
        if self.writer is not None:
            return self.writer.status()
        return {
            "state": self._state,
            "name": None,
            "error": self._error,
            "rows": {},
            "queued_rows": 0,
            "dropped_rows": 0,
        }

    async def open(self) -> None:
        """Open the store in a thread. Raises: StoreError when the one that was asked for cannot be had."""
        work = partial(make_store, self._url or DEFAULT_STORE, self._directory)
        try:
            self.store = await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        except StoreError as error:
            self._error = str(error)
            if self._url is not None:
                self._state = "failed"
                raise
            self._state = "none"
            logger.warning("nothing is stored: %s (--store names another store, or none)", error)
            return
        if self.store is None:
            return
        self.writer = StoreWriter(
            self.store, self._clock, self._retention, commit_interval_s=COMMIT_INTERVAL_S
        )
        logger.info("store open name=%s", self.store.name)

    async def run(self) -> None:
        """Write until `aclose`, if there is a store."""
        if self.writer is not None:
            await self.writer.run()

    async def aclose(self, patience_s: float) -> None:
        """Commit what was taken; at most for `patience_s`. The store can still be read."""
        if self.writer is not None:
            await self.writer.aclose(patience_s)

    def close(self) -> None:
        """Let go of the store. It may take some tenths of a second."""
        if self.store is not None:
            self.store.close()
