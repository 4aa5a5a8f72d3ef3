"""What a user of the page sees and does. Each test opens the page, which takes a second or two: many are slow."""

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

from tests.browser import TIMEOUT_MS
from tests.depth_server import TOKEN, DepthServer
from tests.market_depth.web.conftest import RECORDS, OpenPage, tell

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

CANVASES = ["ladder-plot", "heatmap-plot", "series-plot", "depth-plot"]


def expect(found: Any) -> Any:
    from playwright.sync_api import expect as playwright_expect

    playwright_expect.set_options(timeout=TIMEOUT_MS)
    return playwright_expect(found)


def wait_for_book(page: "Page") -> None:
    page.locator("body:not(.stale)").wait_for()
    page.locator("#ladder-table tr").first.wait_for(state="attached")


def expect_query(page: "Page", server: DepthServer, query: str) -> None:
    expect(page).to_have_url(f"http://{server.addr}/{query}")


def ask(server: DepthServer, path: str) -> Any:
    with urlopen(f"http://{server.addr}{path}", timeout=20) as answer:
        return json.load(answer)


def table_rows(server: DepthServer, levels: int = 10) -> list[str]:
    """The book as the server has it, as the rows of the table say it."""
    book = ask(server, f"/api/order-book?symbol=BTCUSD&levels={levels}")["data"]
    rows = [("Ask", level) for level in reversed(book["asks"])] + [("Bid", level) for level in book["bids"]]
    return [
        f"{side}{level['price']:.1f}{level['quantity']:.4f}{level['total_quantity']:.4f}{level['order_count']}"
        for side, level in rows
    ]


def status(server: DepthServer) -> Any:
    return ask(server, "/api/control/replay/status")


def pause_at(page: "Page", percent: float) -> None:
    """Pause the replay and drag it to a place."""
    wait_for_book(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#replay-state")).to_have_text("paused")
    drag_to(page, percent)


def drag_to(page: "Page", percent: float) -> None:
    page.get_by_label("Position in the file").evaluate(
        "(handle, percent) => { handle.value = percent; handle.dispatchEvent(new Event('input')) }", percent
    )
    expect(page.locator("#replay")).to_have_attribute("aria-busy", "false")


# The book


@pytest.mark.parametrize("data_type", ["MBO", pytest.param("MBP", marks=pytest.mark.slow)])
def test_the_book_is_that_of_the_server(
    open_page: OpenPage, replay_server: DepthServer, data_type: str
) -> None:
    page = open_page(replay_server, f"?data_type={data_type}&levels=10")
    pause_at(page, 50)
    expect(page.locator("#replay-state")).to_have_text("paused")
    expected = table_rows(replay_server)
    assert len(expected) == 20
    expect(page.locator("#ladder-table tr")).to_have_text(expected)
    best_bid, best_ask = expected[10], expected[9]
    for element, row in (("#best-bid", best_bid), ("#best-ask", best_ask)):
        price = page.locator(element).inner_text().split(" × ")[0]
        assert row[3:].startswith(price)


@pytest.mark.slow
def test_everything_is_drawn(open_page: OpenPage, depth_server: DepthServer) -> None:
    page = open_page(depth_server, "?data_type=MBO")
    wait_for_book(page)
    for box in CANVASES:
        canvas = page.locator(f"#{box} canvas").last
        expect(canvas).to_have_attribute("aria-label", re.compile("ladder|from|Depth chart: [0-9]"))
        painted = canvas.evaluate(
            "(canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)"
            ".data.filter((value, i) => i % 4 === 3 && value > 0).length"
        )
        assert painted > 500, box


def test_markets_and_depth_are_chosen_and_stand_in_the_address(
    open_page: OpenPage, depth_server: DepthServer
) -> None:
    page = open_page(depth_server, "?levels=5")
    wait_for_book(page)
    expect(page.locator("#ladder-table tr")).to_have_count(10)
    page.get_by_role("button", name="ETHUSD").click()
    expect(page).to_have_title(re.compile(r"^\d+\.\d\d \| \d+\.\d\d ETHUSD$"))
    expect(page.get_by_label("Symbol")).to_have_value("ETHUSD")
    page.get_by_label("Depth", exact=True).select_option("10 levels")
    expect(page.locator("#ladder-table tr")).to_have_count(20)
    page.get_by_label("By order").check()
    expect(page.locator("#ladder-legend")).to_contain_text("under 1 s")
    expect_query(page, depth_server, "?symbol=ETHUSD&data_type=MBO&levels=10")
    page.reload()
    expect(page).to_have_title(re.compile("ETHUSD$"))
    expect(page.get_by_label("By order")).to_be_checked()
    expect(page.get_by_role("button", name="ETHUSD")).to_have_attribute("aria-pressed", "true")


@pytest.mark.slow
def test_an_address_with_what_is_not_served_shows_what_is(
    open_page: OpenPage, depth_server: DepthServer
) -> None:
    page = open_page(depth_server, "?symbol=%3Cimg%20src=x%3E&data_type=X&levels=7")
    wait_for_book(page)
    expect_query(page, depth_server, "?symbol=BTCUSD&data_type=MBP&levels=20")


# The connection


@pytest.mark.slow
def test_it_says_how_connection_feed_and_server_are(open_page: OpenPage, depth_server: DepthServer) -> None:
    page = open_page(depth_server)
    expect(page.locator("#connection-state")).to_have_text("live")
    expect(page.locator("#feed-state")).to_have_text("feed running")
    expect(page.locator("#server-state")).to_have_text("serving")
    expect(page.locator("#feeds")).to_contain_text("simulator: running")
    expect(page.locator("#stream-count")).to_have_text("4")  # a market each, and the book
    expect(page.locator("#frame-rate")).to_have_text(re.compile(r"^[1-9]"))
    expect(page.locator("#round-trip")).to_have_text(re.compile("ms$"))


def test_it_comes_back_with_its_streams_when_the_server_does(
    open_page: OpenPage, own_server: DepthServer
) -> None:
    page = open_page(own_server)
    wait_for_book(page)
    own_server.stop()
    expect(page.locator("#connection-state")).to_have_text("disconnected")
    expect(page.locator("#ladder-note")).to_have_text(
        re.compile(r"^The server does not answer\. Next try in \d+ s\.$")
    )
    expect(page.locator("#server-state")).to_have_text("no answer")
    page.locator("body.stale").wait_for()
    own_server.start()
    expect(page.locator("#connection-state")).to_have_text("live")
    page.locator("body:not(.stale)").wait_for()
    expect(page.locator("#ladder-note")).to_be_empty()
    expect(page.locator("#reconnects")).to_have_text("1")
    expect(page.locator("#stream-count")).to_have_text("2")


def test_a_token_is_asked_for_until_it_is_right_and_kept_for_the_tab(
    open_page: OpenPage, locked_server: DepthServer
) -> None:
    page = open_page(locked_server)
    dialog = page.get_by_role("dialog", name="This server asks for a token")
    for token, words in (("wrong", "serve"), (TOKEN, "is not valid")):
        expect(dialog).to_contain_text(re.compile(f"{words}|--token"))
        dialog.get_by_role("textbox").fill(token)
        dialog.get_by_role("button", name="Connect").click()
    wait_for_book(page)
    expect(dialog).to_be_hidden()
    expect(page.locator("#server-state")).to_have_text("serving")
    page.reload()
    wait_for_book(page)
    assert TOKEN not in page.url


@pytest.mark.slow
def test_its_memory_does_not_grow_with_the_frames_that_come(open_page: OpenPage) -> None:
    server = DepthServer("--symbols", "BTCUSD", "--seed", "1", "--interval-ms", "10")
    try:
        page = open_page(server, "?data_type=MBO")
        wait_for_book(page)
        session = page.context.new_cdp_session(page)
        session.send("Performance.enable")
        sizes = []
        for frames in (1_000, 3_000):
            wait_until(page, lambda frames=frames: frames_sent(server) > frames)
            session.send("HeapProfiler.collectGarbage")
            metrics = session.send("Performance.getMetrics")["metrics"]
            sizes.append(next(one["value"] for one in metrics if one["name"] == "JSHeapUsedSize"))
    finally:
        server.stop()
    assert sizes[1] - sizes[0] < 300_000


def frames_sent(server: DepthServer) -> int:
    return int(ask(server, "/api/status")["sent"]["frames"])


# A replay


@pytest.mark.slow
def test_there_is_no_replay_bar_where_nothing_is_replayed(
    open_page: OpenPage, depth_server: DepthServer
) -> None:
    page = open_page(depth_server)
    wait_for_book(page)
    expect(page.get_by_role("region", name="Replay")).to_be_hidden()


def test_a_replay_is_paused_stepped_sped_up_and_played_on(
    open_page: OpenPage, replay_server: DepthServer
) -> None:
    page = open_page(replay_server)
    pause_at(page, 20)
    before = status(replay_server)["records"]
    page.get_by_label("Events a step").select_option("100 events")
    page.get_by_role("button", name="Step").click()
    expect(page.locator("#replay-state")).to_have_text("paused")
    wait_until(page, lambda: status(replay_server)["records"] > before + 99)
    assert page.get_by_label("Speed").input_value() == "0.5"
    page.get_by_label("Speed").select_option("1×")
    wait_until(page, lambda: status(replay_server)["speed"] == 1)
    page.get_by_label("Speed").blur()
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#replay-state")).to_have_text("playing")
    page.get_by_label("Speed").select_option("0.5×")
    wait_until(page, lambda: status(replay_server)["speed"] == 0.5)


@pytest.mark.parametrize(
    ("pace", "key", "expected"),
    [
        ({"speed": 3}, "[", (2, None)),
        ({"speed": 3}, "]", (5, None)),
        ({"rate": 40}, "[", (None, 20)),
        ({"rate": 40}, "]", (None, 80)),
    ],
)
def test_keys_make_any_pace_a_step_faster_or_slower(
    open_page: OpenPage,
    replay_server: DepthServer,
    pace: dict[str, float],
    key: str,
    expected: tuple[float | None, float | None],
) -> None:
    tell(replay_server, "pause")
    tell(replay_server, "speed", pace)
    page = open_page(replay_server)
    wait_for_book(page)
    expect(page.locator("#replay-state")).to_have_text("paused")
    page.keyboard.press(key)
    wait_until(page, lambda: (status(replay_server)["speed"], status(replay_server)["rate"]) == expected)


@pytest.mark.slow
def test_the_handle_is_dragged_to_any_place_in_the_file(
    open_page: OpenPage, replay_server: DepthServer
) -> None:
    page = open_page(replay_server)
    pause_at(page, 80)
    for percent in (80, 10, 55):
        drag_to(page, percent)
        found = status(replay_server)
        assert found["state"] == "PAUSED"
        assert found["percent"] == pytest.approx(percent, abs=1)
        assert found["records"] == pytest.approx(RECORDS * percent / 100, rel=0.05)


@pytest.mark.slow
def test_at_its_beginning_the_book_is_empty_and_the_page_says_so(
    open_page: OpenPage, replay_server: DepthServer
) -> None:
    page = open_page(replay_server)
    pause_at(page, 0)
    expect(page.locator("#ladder-note")).to_have_text("The book is empty.")
    expect(page.locator("#ladder-table tr")).to_have_count(0)
    expect(page.locator("#best-bid")).to_have_text("–")
    assert "NaN" not in page.locator("body").inner_text()


@pytest.mark.slow
def test_at_its_end_it_can_be_played_again(open_page: OpenPage, replay_server: DepthServer) -> None:
    page = open_page(replay_server)
    pause_at(page, 100)
    expect(page.locator("#replay-state")).to_have_text("at the end")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#replay-state")).to_have_text("playing")
    expect(page.locator("#replay-percent")).to_have_text(re.compile(r"^\d\."))


# How it looks, and how it is reached


@pytest.mark.parametrize(
    "width", [375, pytest.param(900, marks=pytest.mark.slow), pytest.param(1440, marks=pytest.mark.slow)]
)
def test_nothing_overlaps_and_nothing_is_cut_off(
    open_page: OpenPage, replay_server: DepthServer, width: int
) -> None:
    page = open_page(replay_server, width=width)
    wait_for_book(page)
    for choice in ("By price", "By order"):
        page.get_by_label(choice).check()
        wait_for_book(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        boxes = page.evaluate(
            "[...document.querySelectorAll('.panel, header, nav')].map((panel) => {"
            " const { left, top, right, bottom } = panel.getBoundingClientRect();"
            " return [left, top, right, bottom] })"
        )
        assert len(boxes) == 8
        for i, (left, top, right, bottom) in enumerate(boxes):
            assert left >= 0
            assert right <= width
            assert bottom - top > 40
            for other in boxes[i + 1 :]:
                assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
        cut = page.evaluate(
            "[...document.querySelectorAll('dd, dt, button, h2, .state')]"
            ".filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1)"
            ".map((one) => one.textContent)"
        )
        assert cut == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_the_systems_or_the_chosen_ones(
    open_page: OpenPage, depth_server: DepthServer, scheme: str
) -> None:
    page = open_page(depth_server)
    page.evaluate("localStorage.clear()")
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.reload()
    backgrounds = {"light": "rgb(233, 237, 242)", "dark": "rgb(10, 13, 18)"}
    other = "dark" if scheme == "light" else "light"
    body, switch = page.locator("body"), page.locator("#theme")
    expect(body).to_have_css("background-color", backgrounds[scheme])
    while f"Colours: {other}" != switch.get_attribute("aria-label"):
        switch.click()
    expect(body).to_have_css("background-color", backgrounds[other])
    page.reload()
    expect(body).to_have_css("background-color", backgrounds[other])
    page.evaluate("localStorage.clear()")


def test_keys_do_what_their_page_says(open_page: OpenPage, depth_server: DepthServer) -> None:
    page = open_page(depth_server)
    wait_for_book(page)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard")
    expect(dialog).to_contain_text("symbol after")
    page.keyboard.press("j")  # not while it is open
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page).to_have_title(re.compile("BTCUSD$"))
    for key, query in [
        ("j", "?symbol=ETHUSD&data_type=MBP&levels=20"),
        ("3", "?symbol=ADAUSD&data_type=MBP&levels=20"),
        ("k", "?symbol=ETHUSD&data_type=MBP&levels=20"),
        ("o", "?symbol=ETHUSD&data_type=MBO&levels=20"),
        ("+", "?symbol=ETHUSD&data_type=MBO&levels=50"),
        ("-", "?symbol=ETHUSD&data_type=MBO&levels=20"),
        ("9", "?symbol=ETHUSD&data_type=MBO&levels=20"),
    ]:
        page.keyboard.press(key)
        expect_query(page, depth_server, query)
    page.keyboard.press("/")
    expect(page.get_by_label("Symbol")).to_be_focused()
    page.keyboard.press("o")  # a letter of a symbol, perhaps
    expect_query(page, depth_server, "?symbol=ETHUSD&data_type=MBO&levels=20")


def test_keys_still_work_after_a_click_on_a_choice_or_the_handle(
    open_page: OpenPage, replay_server: DepthServer
) -> None:
    page = open_page(replay_server)
    pause_at(page, 20)
    page.get_by_label("By order").click()
    page.keyboard.press("+")
    expect_query(page, replay_server, "?symbol=BTCUSD&data_type=MBO&levels=50")
    page.get_by_label("Position in the file").click()
    page.keyboard.press("o")
    expect_query(page, replay_server, "?symbol=BTCUSD&data_type=MBP&levels=50")
    expect(page.locator("#replay")).to_have_attribute("aria-busy", "false")
    page.keyboard.press(" ")
    expect(page.locator("#replay-state")).to_have_text("playing")


def test_everything_has_a_name_for_who_cannot_see_it(open_page: OpenPage, replay_server: DepthServer) -> None:
    page = open_page(replay_server)
    wait_for_book(page)
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "combobox", "radio", "slider", "image", "img", "region", "navigation", "table"}
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert {role for role, _ in found} >= {"button", "combobox", "radio", "slider", "navigation", "table"}
    assert [role for role, name in found if not name.strip()] == []


def wait_until(page: "Page", condition: Any) -> None:
    """Return when a condition on the server's side holds; the page lives on meanwhile."""
    for _ in range(TIMEOUT_MS // 20):
        if condition():
            return
        page.wait_for_timeout(20)
    raise AssertionError("it did not come true")
