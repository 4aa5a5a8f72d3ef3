"""How a command ends: its exit code, and the one line on standard error that says why."""

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
