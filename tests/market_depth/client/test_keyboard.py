import os
import pty
import termios

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from market_depth.client.keyboard import keys_in, pressed_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", []),
        ("q", ["q"]),
        (" +-\n", [" ", "+", "-", "\n"]),
        ("\x1b[A\x1b[B\x1b[C\x1b[D", ["up", "down", "right", "left"]),
        ("\x1bOA\x1bOB\x1bOC\x1bOD", ["up", "down", "right", "left"]),
        ("a\x1b[1;2Cb", ["a", "shift right", "b"]),
        ("\x1b[3~x", ["\x1b[3~", "x"]),
        ("\x1b", ["\x1b"]),
        ("\x1bq", ["\x1b", "q"]),
        ("\x1b[", ["\x1b", "["]),
        ("ä→", ["ä", "→"]),
    ],
)
def test_what_a_terminal_sends_is_told_as_keys(text: str, keys: list[str]) -> None:
    assert keys_in(text) == keys


async def test_keys_come_as_they_are_pressed_and_leaving_restores_the_terminal() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    got: list[str] = []

    async def receive() -> None:
        async with pressed_keys(slave) as pressed:
            async for key in pressed:
                got.append(key)
                if key == "q":
                    return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for sent in (b" ", b"\x1b[D", b"\xc3", b"\xa4q"):
            await wait_all_tasks_blocked()
            os.write(master, sent)
    assert got == [" ", "left", "ä", "q"]
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)
