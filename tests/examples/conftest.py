"""What the examples run against and with."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.depth_server import DepthServer

TOKEN = "???>>>~~~."
"""Its base64 has every sign that a subprotocol may not have."""

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def unavailable(word: str, reason: str) -> None:
    """Skip the test, or fail it where MARKET_DEPTH_REQUIRE has the word."""
    if word in os.environ.get("MARKET_DEPTH_REQUIRE", ""):
        pytest.fail(reason)
    pytest.skip(reason)


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


@pytest.fixture(scope="session")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript example with its dependency installed, in a folder of its own."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            unavailable("node", f"{program} is not installed")
    folder = tmp_path_factory.mktemp("javascript")
    shutil.copytree(
        EXAMPLES / "javascript", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules")
    )
    npm = ["npm", "install", "--no-audit", "--no-fund", "--no-update-notifier"]
    installed = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    if installed.returncode != 0:
        unavailable("node", f"npm cannot install ws: {installed.stderr.strip()[-500:]}")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium, with playwright at hand to drive it."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        unavailable("browser", "playwright is not installed: pip install 'market-depth[browser]'")
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    unavailable("browser", "no Chromium is installed")
    raise AssertionError("unreachable")
