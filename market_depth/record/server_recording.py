"""Records the books that a running server shows."""

from collections.abc import Sequence
from pathlib import Path

import trio

from market_depth.client import follow, open_socket
from market_depth.client.connection import Connect
from market_depth.feeds.base import FeedError
from market_depth.record.dbn_writer import DbnWriter
from market_depth.record.recorder import Recorder
from market_depth.record.recording_job import UNHURRIED_PATIENCE_S, progress_bar, run_recording
from market_depth.record.server_feed import ServerFeed
from protocol.messages import Subscribe


async def record_server(
    path: Path,
    url: str,
    name: str,
    streams: Sequence[Subscribe],
    *,
    max_records: int | None = None,
    duration_s: float | None = None,
    overwrite: bool = False,
    connect: Connect = open_socket,
) -> DbnWriter:
    """Record streams of the server at `url`, called `name`, as `ServerFeed` tells them, until SIGINT or SIGTERM at the latest.

    Returns: what wrote the file, which is closed. Raises: RecordingError where the file cannot be made or written;
    FeedError where the server cannot be had, or no more: then what came before is in the file, and the text says so.
    """
    async with follow(url, streams, connect=connect) as updates:
        feed = ServerFeed(name, updates, streams, max_records=max_records, duration_s=duration_s)
        await feed.open()
        writer = await trio.to_thread.run_sync(
            lambda: DbnWriter(path, feed.instruments, feed.start_ns, overwrite=overwrite)
        )
        recorder = Recorder(writer, patience_s=UNHURRIED_PATIENCE_S)
        try:
            with progress_bar(max_records, duration_s, lambda: feed.elapsed_s) as display:
                feed.notify = display.note
                await run_recording(recorder, feed, display.tell)
        except FeedError as error:
            kept = f"{writer.records:,} order events before that are kept in {path}"
            raise FeedError(error.feed, error.problem, kept) from error
    return writer
