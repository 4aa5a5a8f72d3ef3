"""What of a database's cursor the statements use that are the same in all databases."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class Cursor(Protocol):
    """What of a database's cursor is used. Parameters stand as $1, $2, … in the statements."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), /) -> Any: ...
    def fetchone(self) -> tuple[Any, ...] | None: ...
    def fetchall(self) -> list[tuple[Any, ...]]: ...


def one(cursor: Cursor) -> Any:
    """The only value of a query's answer."""
    row = cursor.fetchone()
    assert row is not None
    return row[0]


def numbers(values: Iterable[int]) -> str:
    """Integers for a list in a statement."""
    return ", ".join(str(int(value)) for value in values)
