"""How a command ends: its exit code, the one line on standard error that says why, and what a signal does to it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

FAILED = 1
WRONG_CALL = 2
INTERRUPTED = 130  # as shells tell of Ctrl-C


def complain(message: str) -> None:
    """Say what is wrong, in one line."""
    typer.echo(f"market-depth: {message}", err=True)


def fail(message: str, code: int) -> NoReturn:
    """End with one clear line."""
    complain(message)
    raise typer.Exit(code)


@contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Within it SIGTERM raises KeyboardInterrupt, so that what was begun is cleaned up then too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
