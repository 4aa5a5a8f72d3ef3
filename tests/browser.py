"""A real browser: headless Chromium with a profile of its own, driven by Playwright."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

TIMEOUT_MS = 20_000
"""How long a page may take to show what a test waits for."""


def unavailable(word: str, reason: str) -> None:
    """Skip the test, or fail it where MARKET_DEPTH_REQUIRE has the word."""
    if word in os.environ.get("MARKET_DEPTH_REQUIRE", ""):
        pytest.fail(reason)
    pytest.skip(reason)


def chromium_path() -> str:
    """The path of a Chromium, with Playwright at hand to drive it; without them the test is skipped."""
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


@contextmanager
def open_browser() -> Iterator["BrowserContext"]:
    """A browser whose pages do not flash; it is gone at the end of the block."""
    path = chromium_path()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=path, args=FLAGS, reduced_motion="reduce"
        )
        context.set_default_timeout(TIMEOUT_MS)
        yield context
        context.close()
