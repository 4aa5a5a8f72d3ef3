"""Logs for people and machines: one line an event, `time LEVEL part: what key=value …`, on standard error."""

import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum

TRACE = 5
"""Below DEBUG: what libraries do, and tracebacks of expected errors."""


class LogLevel(StrEnum):
    """How much to tell, most first."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level as the logging library counts."""
        return TRACE if self is LogLevel.TRACE else int(getattr(logging, self.name))


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
        time = moment.isoformat(timespec="milliseconds")
        part = record.name.removeprefix("market_depth.")
        line = f"{time}Z {record.levelname:<7} {part}: {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: LogLevel) -> None:
    """Send our log to standard error, and at `trace` that of the libraries too."""
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(
        level=TRACE if level is LogLevel.TRACE else logging.WARNING, handlers=[handler], force=True
    )
    # What no line says need not be found out for each: a client that comes and goes has two.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("market_depth").setLevel(level.number)
    # Numba tells every step of its type inference, which nobody asked for.
    logging.getLogger("numba").setLevel(logging.WARNING)
