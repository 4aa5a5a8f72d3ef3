"""What tests of the server and its tools share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Lets a test configure logging as a process of its own does; afterwards it is as before."""
    loggers = [logging.getLogger(name) for name in (None, "market_depth", "numba")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    for handler in logging.getLogger().handlers[:]:
        if type(handler) is logging.StreamHandler:  # pytest's own are of other classes
            logging.getLogger().removeHandler(handler)
