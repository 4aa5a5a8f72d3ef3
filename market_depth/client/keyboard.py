"""Single keys from a terminal, without waiting for Enter."""

import os
import termios
import tty
from collections.abc import AsyncGenerator

import trio


@trio.as_safe_channel
async def pressed_keys(fd: int) -> AsyncGenerator[str, None]:
    """Each key as it is pressed, until the terminal hangs up. On leaving, the terminal is as it was before."""
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        while True:
            await trio.lowlevel.wait_readable(fd)
            data = os.read(fd, 64)
            if not data:
                return
            for key in data.decode(errors="replace"):
                yield key
    finally:
        # Keys pressed meanwhile are thrown away: they were meant for the watcher, not for the shell after it.
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
