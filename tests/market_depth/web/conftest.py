"""The page in a real browser, against real servers."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import open_browser
from tests.depth_server import DepthServer

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

OpenPage = Callable[..., "Page"]

EXPECTED_COMPLAINTS = (
    "ERR_CONNECTION_REFUSED",
    "401 (Unauthorized)",
    "ERR_EMPTY_RESPONSE",
    "ERR_CONNECTION_RESET",
)
"""What a browser says on its own when a server is not there, or asks for a token."""

RECORDS = 30_000


@pytest.fixture(scope="module")
def browser() -> "Iterator[BrowserContext]":
    """A browser for all tests of a file."""
    with open_browser() as context:
        yield context


@pytest.fixture
def open_page(browser: "BrowserContext") -> Iterator[OpenPage]:
    """Opens the page of a server; at the end of the test no script has failed and nothing broke the page's policy."""
    complaints: list[str] = []
    pages = []

    def complain(kind: str, text: str) -> None:
        if kind == "error":
            complaints.append(text)

    def open_page(server: DepthServer, query: str = "", width: int = 1440, height: int = 900) -> "Page":
        page = browser.new_page()
        pages.append(page)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complain(message.type, message.text))
        page.set_viewport_size({"width": width, "height": height})
        page.goto(f"http://{server.addr}/{query}")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not [text for text in complaints if not any(known in text for known in EXPECTED_COMPLAINTS)]


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of RECORDS events of one simulated market."""
    path = tmp_path_factory.mktemp("recording") / "day.dbn"
    command = ["record", str(path), "--symbols", "BTCUSD", "--events", str(RECORDS), "--seed", "1"]
    subprocess.run([sys.executable, "-m", "market_depth", *command], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def replaying(recording: Path) -> Iterator[DepthServer]:
    """A server that replays the recording."""
    server = DepthServer("--replay", str(recording), "--interval-ms", "50")
    yield server
    server.stop()


@pytest.fixture
def replay_server(replaying: DepthServer) -> DepthServer:
    """The same, playing slowly from some seconds after the recording's beginning."""
    tell(replaying, "stop")
    tell(replaying, "start", {"speed": 0.5, "start": "2026-01-01T00:00:10Z"})
    return replaying


def tell(server: DepthServer, control: str, content: object = None) -> None:
    """Control a server's replay."""
    body = json.dumps(content or {})
    connection = HTTPConnection(server.addr, timeout=20)
    connection.request("POST", f"/api/control/replay/{control}", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    connection.close()
