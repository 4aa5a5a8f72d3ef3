"""Records simulated markets, in real time or as fast as they are made."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Self

import trio

from market_depth.feeds.simulated import SimulatedMarkets
from market_depth.record.dbn_writer import DbnWriter
from market_depth.record.errors import RecordingOptionError
from market_depth.record.recorder import SYNC_INTERVAL_S, Recorder
from market_depth.record.recording_job import UNHURRIED_PATIENCE_S, run_recording
from protocol.events import OrderEvents
from protocol.timestamp import NS_PER_S, NS_PER_US, is_timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_YEAR = 2261
"""A market needs some time before the last one that a venue can tell."""

STEP_S = 0.1
"""How often there is something to record in real time."""

NOW = "now"


async def record_markets(
    markets: SimulatedMarkets, writer: DbnWriter, realtime: bool, tell: Callable[[int], None]
) -> None:
    """Record until the markets end, or until SIGINT or SIGTERM, and close the file.

    `realtime`: no faster than by the clock. `tell` is given the order events so far.
    Raises: RecordingError where the file cannot be written, or the disk takes nothing for UNHURRIED_PATIENCE_S.
    """
    # At full speed the file's bytes must not depend on the machine's: no sync by the clock.
    recorder = Recorder(
        writer, sync_interval_s=SYNC_INTERVAL_S if realtime else inf, patience_s=UNHURRIED_PATIENCE_S
    )
    await run_recording(recorder, _MarketEvents(markets, realtime), tell)


class _MarketEvents:
    """Iterates over the order events of markets, as fast as they are made or in real time."""

    def __init__(self, markets: SimulatedMarkets, realtime: bool) -> None:
        self._markets = markets
        self._started = trio.current_time() if realtime else -inf

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OrderEvents:
        markets = self._markets
        events = await trio.to_thread.run_sync(markets.read)
        if not len(events):
            raise StopAsyncIteration
        await trio.sleep_until(self._started + (markets.now_ns - markets.start_ns) / NS_PER_S)
        return events


def start_time(text: str) -> int:
    """The moment that a user named, in ns since the epoch. Raises: RecordingOptionError."""
    if text == NOW:
        return time.time_ns()
    if is_timestamp(text):
        moment = datetime.fromisoformat(text.upper())
        if moment >= EPOCH and moment.year <= LAST_YEAR:
            return (moment - EPOCH) // timedelta(microseconds=1) * NS_PER_US
    raise RecordingOptionError(
        "--start",
        f"{text!r} is no time for a market",
        f"give one from 1970 to {LAST_YEAR} such as 2026-01-01T09:30:00Z, or now",
    )
