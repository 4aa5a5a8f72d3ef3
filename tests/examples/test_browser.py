"""The ladder in a real browser, against a real server."""

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.browser import open_browser
from tests.depth_server import TOKEN, DepthServer
from tests.examples.conftest import EXAMPLES

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.browser

OpenLadder = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> "Iterator[BrowserContext]":
    """A browser for all tests of this file."""
    with open_browser() as context:
        yield context


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def web_server() -> Iterator[str]:
    """The address of a web server of this machine that has the page."""
    handler = partial(QuietHandler, directory=EXAMPLES / "browser")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def open_ladder(browser: "BrowserContext", web_server: str) -> Iterator[OpenLadder]:
    """Opens the page; at the end of the test it must have had no error."""
    errors: list[str] = []
    pages = []

    def open_page(server: DepthServer, symbol: str = "BTCUSD", levels: int = 5, width: int = 1440) -> "Page":
        page = browser.new_page()
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{web_server}ladder.html?server={server.url}&symbol={symbol}&levels={levels}")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not errors


def column(page: "Page", side: str, index: int) -> list[str]:
    # In one call: the rows change with every frame.
    rows: list[str] = page.evaluate(
        "([side, index]) => [...document.querySelectorAll(`.${side} tbody tr`)].map((row) => row.cells[index].textContent)",
        [side, index],
    )
    return rows


def wait_for_rows(page: "Page", number: int) -> None:
    page.wait_for_function(
        "(number) => ['bids', 'asks'].every((side) => document.querySelectorAll(`.${side} tbody tr`).length === number)",
        arg=number,
    )


def test_it_shows_both_sides_best_first(open_ladder: OpenLadder, depth_server: DepthServer) -> None:
    page = open_ladder(depth_server)
    wait_for_rows(page, 5)
    assert page.inner_text("#state") == "live"
    bids = [float(price) for price in column(page, "bids", 0)]
    asks = [float(price) for price in column(page, "asks", 0)]
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    for side in ("bids", "asks"):
        cells = page.evaluate(
            "(side) => [...document.querySelectorAll(`.${side} tbody tr`)]"
            ".map((row) => [row.cells[1].textContent, row.cells[2].textContent])",
            side,
        )
        total = 0.0
        for size, shown_total in cells:
            total += float(size)
            assert float(shown_total) == pytest.approx(total)


def test_prices_keep_the_digits_of_the_wire(open_ladder: OpenLadder, depth_server: DepthServer) -> None:
    page = open_ladder(depth_server, symbol="ETHUSD", levels=20)
    wait_for_rows(page, 20)
    assert {len(price.partition(".")[2]) for price in column(page, "bids", 0)} == {2}


def test_a_narrow_window_puts_the_asks_above_the_bids(
    open_ladder: OpenLadder, depth_server: DepthServer
) -> None:
    page = open_ladder(depth_server, width=375)
    wait_for_rows(page, 5)
    asks = [float(price) for price in column(page, "asks", 0)]
    assert asks == sorted(asks, reverse=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    asks_box, bids_box = page.locator(".asks").bounding_box(), page.locator(".bids").bounding_box()
    assert asks_box is not None
    assert bids_box is not None
    assert asks_box["y"] + asks_box["height"] <= bids_box["y"]
    is_cut = "[...document.querySelectorAll('td')].some((cell) => cell.scrollWidth > cell.clientWidth)"
    assert not page.evaluate(is_cut)


def test_symbol_and_depth_can_be_changed(open_ladder: OpenLadder, depth_server: DepthServer) -> None:
    page = open_ladder(depth_server)
    wait_for_rows(page, 5)
    page.get_by_label("Levels").select_option("20")
    wait_for_rows(page, 20)
    page.get_by_label("Symbol").fill("ADAUSD")
    page.get_by_role("button", name="Show").click()
    page.wait_for_function("document.title.includes('ADAUSD')")
    assert all(float(price) < 10 for price in column(page, "asks", 0))


def test_a_token_is_shown_when_it_is_typed_in(open_ladder: OpenLadder, locked_server: DepthServer) -> None:
    page = open_ladder(locked_server)
    page.get_by_role("alert").get_by_text("a token is required").wait_for()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Show").click()
    wait_for_rows(page, 5)


def test_an_unknown_symbol_shows_the_servers_words_and_no_book(
    open_ladder: OpenLadder, depth_server: DepthServer
) -> None:
    page = open_ladder(depth_server)
    wait_for_rows(page, 5)
    page.get_by_label("Symbol").fill("DOGE")
    page.get_by_label("Symbol").press("Enter")
    page.get_by_role("alert").get_by_text("'DOGE' is not served").wait_for()
    assert column(page, "bids", 0) == []


def test_it_comes_back_when_the_server_does(open_ladder: OpenLadder, own_server: DepthServer) -> None:
    page = open_ladder(own_server)
    wait_for_rows(page, 5)
    own_server.stop()
    page.get_by_role("status").get_by_text("disconnected").wait_for()
    assert page.evaluate("document.body.classList.contains('stale')")
    page.get_by_text("again in").wait_for()
    own_server.start()
    page.get_by_role("status").get_by_text("live").wait_for()
    page.wait_for_function("!document.body.classList.contains('stale')")
    wait_for_rows(page, 5)
