"""What every test may use: golden files, which hold an output that must not change by a byte, and recorded data."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.depth_server import TOKEN, DepthServer

# How long an example takes says something about the machine, not about the code.
settings.register_profile(
    "market-depth", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("market-depth")

# Servers that tests start keep nothing, unless a test names a store; and what is the user's own stays as it is.
os.environ["MARKET_DEPTH_STORE"] = "none"
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="market-depth-")
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)

Golden = Callable[[str, bytes], None]
"""Takes: the name of a file in the folder `golden` beside the test, and the output that the file must hold."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-golden",
        action="store_true",
        help="write the golden files anew instead of comparing with them; `git diff` then shows what changed",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares an output with its golden file, byte for byte; the file's last line break is the editor's."""

    def compare(name: str, output: bytes) -> None:
        path = Path(request.path).parent / "golden" / name
        if request.config.getoption("regenerate_golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(output + b"\n")
        assert output + b"\n" == path.read_bytes()

    return compare


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of recorded market data, which is no part of the repository.

    MARKET_DEPTH_REALDATA names it; by default it lies beside the repository. A test without it is skipped, or fails
    where MARKET_DEPTH_REQUIRE has the word `realdata`.
    """
    beside = Path(__file__).parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("MARKET_DEPTH_REALDATA", beside))
    if not folder.is_dir():
        reason = f"recorded market data is not at {folder}: set MARKET_DEPTH_REALDATA"
        if "realdata" in os.environ.get("MARKET_DEPTH_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def depth_server() -> Iterator[DepthServer]:
    """A server of simulated markets for tests that leave it as it is."""
    server = DepthServer("--symbols", "BTCUSD,ETHUSD,ADAUSD", "--seed", "1", "--interval-ms", "50")
    yield server
    server.stop()


@pytest.fixture
def own_server() -> Iterator[DepthServer]:
    """A server that the test may stop and start again."""
    server = DepthServer("--symbols", "BTCUSD", "--seed", "1", "--interval-ms", "50")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def locked_server() -> Iterator[DepthServer]:
    """A server that asks for TOKEN."""
    server = DepthServer("--symbols", "BTCUSD", "--seed", "1", "--interval-ms", "50", "--token", TOKEN)
    yield server
    server.stop()
