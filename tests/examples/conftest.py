"""What the examples run against and with."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import unavailable
from tests.depth_server import DepthServer

TOKEN = "???>>>~~~."
"""Its base64 has every sign that a subprotocol may not have."""

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


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
