import logging
import re

import pytest

from market_depth.logging import TRACE, LogLevel, configure

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\w+) +([\w.-]+): (.*)")


pytestmark = pytest.mark.usefixtures("own_logging")


def lines_of(text: str) -> list[tuple[str, ...]]:
    matches = [LINE.fullmatch(line) for line in text.splitlines()]
    return [match.groups() for match in matches if match is not None]


def test_an_event_is_one_line_with_time_level_part_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogLevel.INFO)
    logging.getLogger("market_depth.server.websocket").info("client connected peer=%s", "127.0.0.1:5")
    text = capsys.readouterr().err
    assert lines_of(text) == [("INFO", "server.websocket", "client connected peer=127.0.0.1:5")]
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (LogLevel.TRACE, ["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]),
        (LogLevel.DEBUG, ["DEBUG", "INFO", "WARNING", "ERROR"]),
        (LogLevel.INFO, ["INFO", "WARNING", "ERROR"]),
        (LogLevel.WARNING, ["WARNING", "ERROR"]),
        (LogLevel.ERROR, ["ERROR"]),
    ],
)
def test_a_level_shows_itself_and_what_is_worse(
    level: LogLevel, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(level)
    for number in (TRACE, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("market_depth.app").log(number, "said")
    assert [line[0] for line in lines_of(capsys.readouterr().err)] == shown


@pytest.mark.parametrize(
    ("level", "shown"), [(LogLevel.TRACE, ["DEBUG", "WARNING"]), (LogLevel.DEBUG, ["WARNING"])]
)
def test_libraries_are_heard_only_at_trace_unless_they_warn(
    level: LogLevel, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configure(level)
    for logger in ("trio-websocket", "numba.core"):
        logging.getLogger(logger).debug("steps")
    logging.getLogger("trio-websocket").warning("oh")
    assert [line[0] for line in lines_of(capsys.readouterr().err)] == shown


def test_a_trace_follows_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogLevel.ERROR)
    try:
        raise RuntimeError("why")
    except RuntimeError:
        logging.getLogger("market_depth.app").exception("failed")
    first, *trace = capsys.readouterr().err.splitlines()
    assert first.endswith("ERROR   app: failed")
    assert (trace[0], trace[-1]) == ("Traceback (most recent call last):", "RuntimeError: why")
