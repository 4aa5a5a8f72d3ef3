"""The Python and the JavaScript example: two clients with the same arguments and the same manners."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.depth_server import TOKEN, DepthServer
from tests.examples.conftest import EXAMPLES

Example = Callable[..., list[str]]


@pytest.fixture(
    params=["python", pytest.param("javascript", marks=pytest.mark.node)],
)
def example(request: pytest.FixtureRequest) -> Example:
    """The command that runs an example with these arguments."""
    if request.param == "python":
        program = [sys.executable, str(EXAMPLES / "python" / "depth.py")]
    else:
        folder: Path = request.getfixturevalue("javascript")
        program = ["node", str(folder / "depth.mjs")]
    return lambda *arguments: [*program, *arguments]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env=os.environ | environment
    )


def test_prints_the_top_of_several_books(example: Example, depth_server: DepthServer) -> None:
    done = run(example(depth_server.url, "BTCUSD,ADAUSD", "--frames", "12"))
    assert done.returncode == 0, done.stderr
    books = [line for line in done.stdout.splitlines() if "|" in line]
    assert len(books) == 12
    for symbol in ("BTCUSD", "ADAUSD"):
        prices = [re.findall(r" at ([0-9.]+)", line) for line in books if line.startswith(symbol)]
        assert prices
        assert all(float(bid) < float(ask) for bid, ask in prices), books


def test_a_refused_symbol_ends_it_with_the_servers_words(example: Example, depth_server: DepthServer) -> None:
    done = run(example(depth_server.url, "DOGE"))
    assert done.returncode == 1
    assert "error 404: symbol: 'DOGE' is not served" in done.stdout + done.stderr


def test_it_shows_the_token_of_the_environment(example: Example, locked_server: DepthServer) -> None:
    done = run(example(locked_server.url, "BTCUSD", "--frames", "1"), MARKET_DEPTH_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert "BTCUSD" in done.stdout
    done = run(example(locked_server.url, "BTCUSD"))
    assert done.returncode == 1
    assert "error 401: a token is required" in done.stdout + done.stderr


def test_it_comes_back_when_the_server_does(example: Example, own_server: DepthServer) -> None:
    with running(example(own_server.url, "BTCUSD")) as lines:
        next(line for line in lines if "|" in line)
        own_server.stop()
        next(line for line in lines if re.search(r"disconnected .*, again in [0-9.]+ s", line))
        own_server.start()
        next(line for line in lines if "|" in line)


@contextmanager
def running(command: list[str]) -> Iterator[Iterator[str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield iter(process.stdout.readline, "")
    finally:
        process.terminate()
        process.communicate(timeout=10)
