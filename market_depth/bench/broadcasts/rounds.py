"""What the programs in Python share: the messages of a round, and when it is due."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_TIMESTAMP = re.compile(rb'(?<="timestamp":")[^"]*')


class Messages:
    """The messages that every client gets each round, with the round's own time in each."""

    def __init__(self, path: Path) -> None:
        """`path` has one message a line."""
        self._around = [_TIMESTAMP.split(line, maxsplit=1) for line in path.read_bytes().splitlines()]

    def stamped(self, now: datetime) -> list[bytes]:
        """The messages with `now` for their timestamp."""
        stamp = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
        return [stamp.join(parts) for parts in self._around]


async def rounds() -> AsyncIterator[list[bytes]]:
    """The messages of each round when it is due, until standard input ends; a round that took too long skips those it
    overran.

    The command line has the file of the messages and the interval in ms.
    """
    messages, interval_s = Messages(Path(sys.argv[1])), int(sys.argv[2]) / 1000
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    start, round_number = loop.time(), 0
    while not ended.is_set():
        round_number = max(round_number, int((loop.time() - start) / interval_s)) + 1
        try:
            await asyncio.wait_for(ended.wait(), start + round_number * interval_s - loop.time())
        except TimeoutError:
            yield messages.stamped(datetime.now(UTC))


def announce(port: int) -> None:
    """Tell the benchmark that the server accepts."""
    sys.stdout.write(f"Serving on ws://127.0.0.1:{port}/\n")
    sys.stdout.flush()
