"""Records simulated markets until they end or the user has enough, and tells how far they are."""

import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import inf

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from market_depth.feeds.simulated import SimulatedMarkets
from market_depth.store.dbn_writer import DbnWriter
from market_depth.store.errors import RecordingOptionError
from market_depth.store.recorder import PATIENCE_S, SYNC_INTERVAL_S, Recorder, RecorderState
from protocol.timestamp import NS_PER_S, NS_PER_US, is_timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_YEAR = 2261
"""A market needs some time before the last one that a venue can tell."""

STEP_S = 0.1
"""How often there is something to record in real time."""

UNHURRIED_PATIENCE_S = 60.0
"""How long the disk may take nothing: no market waits for it. Who interrupts is not kept waiting so long."""

NOW = "now"


async def record_markets(
    markets: SimulatedMarkets, writer: DbnWriter, realtime: bool, tell: Callable[[int, int], None]
) -> None:
    """Record until the markets end, or until SIGINT or SIGTERM, and close the file.

    `realtime`: no faster than by the clock. `tell` is given the order events and the ns of market time so far.
    Raises: RecordingError where the file cannot be written, or the disk takes nothing for UNHURRIED_PATIENCE_S.
    """
    # At full speed the file's bytes must not depend on the machine's: no sync by the clock.
    recorder = Recorder(
        writer, sync_interval_s=SYNC_INTERVAL_S if realtime else inf, patience_s=UNHURRIED_PATIENCE_S
    )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.run)
            with trio.CancelScope() as recording:
                nursery.start_soon(_cancel_on_signal, aiter(signals), recording)
                started = trio.current_time()
                while recorder.state is RecorderState.RECORDING:
                    events = await trio.to_thread.run_sync(markets.read)
                    if not len(events):
                        break
                    elapsed_ns = markets.now_ns - markets.start_ns
                    if realtime:
                        await trio.sleep_until(started + elapsed_ns / NS_PER_S)
                    await recorder.write(events)
                    tell(recorder.records, elapsed_ns)
            await recorder.aclose(PATIENCE_S if recording.cancelled_caught else inf)
            nursery.cancel_scope.cancel()
    if recorder.failure is not None:
        raise recorder.failure


async def _cancel_on_signal(signals: AsyncIterator[int], recording: trio.CancelScope) -> None:
    await anext(signals)
    recording.cancel()


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


@contextmanager
def progress_bar(max_records: int | None, duration_s: float | None) -> Iterator[Callable[[int, int], None]]:
    """Shows on a terminal how far a recording is; elsewhere nothing. Gives what `record_markets` tells."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()]
    begun = time.monotonic()

    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1 if max_records or duration_s else None)

        def tell(records: int, elapsed_ns: int) -> None:
            rate = records / max(time.monotonic() - begun, 1e-3)
            done = max(
                records / max_records if max_records else 0, elapsed_ns / NS_PER_S / (duration_s or inf)
            )
            bar.update(task, completed=done, description=f"{records:,} order events, {rate:,.0f}/s")

        yield tell
