"""Single keys from a terminal, without waiting for Enter."""

import os
import re
import termios
import tty
from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator

import trio

# What terminals send for the arrow keys, alone or with Shift. Source: ECMA-48 and xterm's control sequences.
ARROWS = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b[1;2A": "shift up",
    "\x1b[1;2B": "shift down",
    "\x1b[1;2C": "shift right",
    "\x1b[1;2D": "shift left",
}

_KEY = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|.", re.DOTALL)


def keys_in(text: str) -> list[str]:
    """The keys that a terminal tells of by this text: characters, and the names of ARROWS; other special keys as sent."""
    return [ARROWS.get(key, key) for key in _KEY.findall(text)]


@trio.as_safe_channel
async def pressed_keys(fd: int) -> AsyncGenerator[str, None]:
    """Each key as it is pressed, until the terminal hangs up. On leaving, the terminal is as it was before."""
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    decoder = getincrementaldecoder("utf-8")(errors="replace")
    try:
        while True:
            await trio.lowlevel.wait_readable(fd)
            data = os.read(fd, 64)
            if not data:
                return
            for key in keys_in(decoder.decode(data)):
                yield key
    finally:
        # Keys pressed meanwhile are thrown away: they were meant for the watcher, not for the shell after it.
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
