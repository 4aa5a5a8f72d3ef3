"""What every `record` does: write order events until they end or the user has enough, and show how far it is."""

import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import NamedTuple

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from market_depth.feeds.base import FeedError
from market_depth.record.recorder import PATIENCE_S, Recorder, RecorderState
from protocol.events import OrderEvents

UNHURRIED_PATIENCE_S = 60.0
"""How long the disk may take nothing: no market waits for it. Who interrupts is not kept waiting so long."""


async def run_recording(
    recorder: Recorder, batches: AsyncIterator[OrderEvents], tell: Callable[[int], None]
) -> None:
    """Record until the batches end, or until SIGINT or SIGTERM, and close the file.

    `tell` is given the order events so far. Raises: RecordingError where the file cannot be written; FeedError where
    the batches end with it: what came before is in the file.
    """
    failure: FeedError | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.run)
            with trio.CancelScope() as recording:
                nursery.start_soon(_cancel_on_signal, aiter(signals), recording)
                try:
                    async for events in batches:
                        await recorder.write(events)
                        if recorder.state is not RecorderState.RECORDING:
                            break
                        tell(recorder.records)
                except FeedError as error:
                    failure = error
            await recorder.aclose(PATIENCE_S if recording.cancelled_caught else inf)
            nursery.cancel_scope.cancel()
    if recorder.failure is not None:
        raise recorder.failure
    if failure is not None:
        raise failure


async def _cancel_on_signal(signals: AsyncIterator[int], recording: trio.CancelScope) -> None:
    await anext(signals)
    recording.cancel()


class Display(NamedTuple):
    """What the user of a running recording is shown."""

    tell: Callable[[int], None]
    """How many order events there are so far."""
    note: Callable[[str], None]
    """A line worth knowing."""


@contextmanager
def progress_bar(
    max_records: int | None, duration_s: float | None, elapsed_s: Callable[[], float]
) -> Iterator[Display]:
    """Shows on a terminal how far a recording is; elsewhere notes alone. `elapsed_s`: how much of the duration is over."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn()]
    begun = time.monotonic()

    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1 if max_records or duration_s else None)

        def tell(records: int) -> None:
            rate = records / max(time.monotonic() - begun, 1e-3)
            done = max(records / max_records if max_records else 0, elapsed_s() / (duration_s or inf))
            bar.update(task, completed=done, description=f"{records:,} order events, {rate:,.0f}/s")

        def note(text: str) -> None:
            # Not past the bar: it stands in the last line, and is drawn again below this one.
            console.print(f"market-depth: {text}", markup=False, highlight=False, soft_wrap=True)

        yield Display(tell, note)
