"""What can go wrong between a recorded file and its books, besides what is wrong with the file itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from market_depth.feeds.base import FeedError

if TYPE_CHECKING:
    from pathlib import Path

    from market_depth.rebuild.statistics import Statistics


class RebuildError(Exception):
    """The books were not rebuilt to the end of the file."""


class IncompleteError(RebuildError):
    """The file is damaged from some point on: `statistics` are of what came before, and output holds it, too."""

    def __init__(self, damage: FeedError, statistics: Statistics) -> None:
        super().__init__(damage, statistics)
        self.damage = damage
        self.statistics = statistics

    def __str__(self) -> str:
        return str(self.damage)


class OutputError(RebuildError):
    """The output cannot be written, and there is none: choose another place, or make room."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class CancelledError(RebuildError):
    """Somebody wanted no more of it. There is no output."""

    def __str__(self) -> str:
        return "cancelled"
