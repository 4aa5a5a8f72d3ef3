"""Records a feed while it is served: a bounded channel into one writer that works in a thread.

    recording ──► closed        everything that `write` took is in the file; if that was nothing, there is none
        └───────► failed        the disk was full, broken or too slow; one line in the log says so, the server goes on

When the channel is full, because the disk takes less than the feed gives, `write` waits, and with it the feed,
whatever its kind: a replay pauses, a simulated market slows down, a venue's messages wait in its socket. So nothing is
left out of a recording in silence. A disk that takes nothing for `patience_s` ends the recording and not the market.
"""

import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from itertools import count
from math import inf
from pathlib import Path

import trio

from market_depth.clock import Clock
from market_depth.feeds.base import Feed
from market_depth.record.dbn_writer import DbnWriter
from market_depth.record.errors import RecordingError, RecordingExistsError
from protocol.events import OrderEvents
from protocol.timestamp import NS_PER_S

logger = logging.getLogger(__name__)

SYNC_INTERVAL_S = 1.0
"""The longest that an event waits to be put on the disk; what the channel holds comes on top."""

CHANNEL_BATCHES = 32
"""A third of a second of a simulated market, which outlasts most hiccups of a disk, and 30 MB of a replay at most."""

PATIENCE_S = 5.0
"""Longer than a healthy disk takes for what is at hand, and no longer than a shutdown may take."""


class RecorderState(StrEnum):
    """How a recording stands. The last two are final."""

    RECORDING = "recording"
    CLOSED = "closed"
    FAILED = "failed"


class Recorder:
    """One recording, written by the task `run`."""

    def __init__(
        self,
        writer: DbnWriter,
        *,
        sync_interval_s: float = SYNC_INTERVAL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`sync_interval_s`: see SYNC_INTERVAL_S; without end, the writer's own limit counts alone.

        `patience_s`: how long the disk may hold up `write` or `aclose` before the recording is given up.
        """
        self.path = writer.path
        self.state = RecorderState.RECORDING
        self.failure: Exception | None = None
        """What went wrong: a RecordingError, or a bug of ours."""
        self._writer = writer
        self._sync_interval_s = sync_interval_s
        self._patience_s = patience_s
        self._sender, self._receiver = trio.open_memory_channel[OrderEvents](CHANNEL_BATCHES)
        # Whoever cancels the server still gets its recording closed: only `aclose` ends this scope.
        self._running = trio.CancelScope(shield=True)
        self._done = trio.Event()

    @property
    def records(self) -> int:
        """How many order events are in the file, on the disk or on their way to it."""
        return self._writer.records

    @property
    def error(self) -> str | None:
        """What went wrong, in one line."""
        if self.failure is None:
            return None
        is_told = isinstance(self.failure, RecordingError)
        return str(self.failure) if is_told else f"{self.path.name}: internal error"

    async def write(self, events: OrderEvents) -> None:
        """Record a batch; cancelled, it has recorded nothing. After a failure this does nothing: see `state`."""
        try:
            with trio.fail_after(self._patience_s):
                await self._sender.send(events)
        except trio.TooSlowError:
            self._give_up(f"the disk takes nothing for {self._patience_s:g} s")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()

    async def aclose(self, patience_s: float = inf) -> None:
        """Write what is waiting and close the file, also where the caller is cancelled.

        `patience_s`: how long that may take before the recording is given up, if less than for a `write`.
        """
        self._sender.close()
        patience_s = min(patience_s, self._patience_s)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + patience_s) as waiting:
            await self._done.wait()
        if waiting.cancelled_caught:
            self._give_up(f"the disk needs more than {patience_s:g} s for the rest")

    async def discard(self) -> None:
        """Remove the file of a recording that never ran."""
        await in_thread(self._writer.discard)

    async def run(self) -> None:
        """Write until `aclose`."""
        try:
            with self._running, self._receiver:
                await self._write_all()
        except Exception as error:  # noqa: BLE001 - whatever it is ends the recording alone, and is in `failure`
            self._fail(error)
        finally:
            self._done.set()

    async def _write_all(self) -> None:
        writer = self._writer
        sync_at = inf
        while True:
            try:
                with trio.move_on_at(sync_at) as waiting:
                    events = await self._receiver.receive()
            except trio.EndOfChannel:
                break
            if waiting.cancelled_caught:
                await in_thread(writer.sync)
            else:
                await in_thread(partial(writer.write, events))
            if writer.synced_records == writer.records:
                sync_at = inf
            elif sync_at == inf:
                sync_at = trio.current_time() + self._sync_interval_s
        await in_thread(writer.close if writer.records else writer.discard)
        if self.state is RecorderState.RECORDING:
            self.state = RecorderState.CLOSED

    def _give_up(self, problem: str) -> None:
        self._fail(RecordingError(self.path.name, problem, "record to a faster one"))
        self._running.cancel()

    def _fail(self, failure: Exception) -> None:
        if self.state is RecorderState.RECORDING:
            self.state, self.failure = RecorderState.FAILED, failure


async def in_thread(function: Callable[[], None]) -> None:
    """Run what waits for the disk in a thread; cancelled, it is left behind to end by itself."""
    await trio.to_thread.run_sync(function, abandon_on_cancel=True)


async def make_recorder(directory: Path, feed: Feed, clock: Clock) -> Recorder:
    """A recorder of `feed` into a new file of `directory`: `run_and_tell` runs it, `aclose` ends it.

    The file is called after the feed and the wall clock: `simulator-20261120T164743Z.mbo.dbn.zst`.
    Raises: RecordingError where the file cannot be made.
    """
    return Recorder(await trio.to_thread.run_sync(create_recording, directory, feed, clock.wall_ns()))


async def run_and_tell(recorder: Recorder, feed: str) -> None:
    """Run a recorder, and log how it ends."""
    logger.info("recording feed=%s file=%s", feed, recorder.path)
    await recorder.run()
    if recorder.state is RecorderState.CLOSED and not recorder.records:
        logger.info("nothing recorded feed=%s", feed)
    elif recorder.failure is None:
        logger.info("recording closed file=%s records=%d", recorder.path, recorder.records)
    else:
        bug = None if isinstance(recorder.failure, RecordingError) else recorder.failure
        logger.error("recording failed file=%s error=%s", recorder.path, recorder.error, exc_info=bug)


def create_recording(directory: Path, feed: Feed, wall_ns: int) -> DbnWriter:
    """The writer of a new recording of `feed`. Raises: RecordingError."""
    for attempt in count(1):
        path = directory / recording_name(feed.name, wall_ns, attempt)
        try:
            return DbnWriter(path, feed.instruments, feed.market_time())
        except RecordingExistsError:
            continue
    raise AssertionError("counting never ends")


def recording_name(feed: str, wall_ns: int, attempt: int = 1) -> str:
    """The file name of a feed's recording that begins now; of the second one in a second, for `attempt` 2."""
    plain = re.sub(r"(\.mbo)?\.dbn(\.zst)?$", "", feed)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "feed"
    begun = datetime.fromtimestamp(wall_ns // NS_PER_S, UTC)
    again = f"-{attempt}" if attempt > 1 else ""
    return f"{safe}-{begun:%Y%m%dT%H%M%SZ}{again}.mbo.dbn.zst"
