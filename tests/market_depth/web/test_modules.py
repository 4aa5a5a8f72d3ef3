"""The page's modules by themselves: their types, and what they compute."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from market_depth.web.files import FOLDER
from tests.browser import unavailable

pytestmark = pytest.mark.node

PROLOGUE = """
import { createInterface } from 'node:readline'
globalThis.answer = (value) => JSON.stringify(value, (_, x) => (typeof x === 'number' && !Number.isFinite(x) ? String(x) : x))
for await (const line of createInterface({ input: process.stdin })) {
  const text = `export default (async () => { ${JSON.parse(line)} })()`
  const { default: value } = await import(`data:text/javascript,${encodeURIComponent(text)}`)
  process.stdout.write(answer(await value) + '\\n')
}
"""


class Node:
    """Runs pieces of JavaScript, one after the other, in one process."""

    def __init__(self) -> None:
        if shutil.which("node") is None:
            unavailable("node", "node is not installed")
        self._process = subprocess.Popen(
            ["node", "--input-type=module", "-e", PROLOGUE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, module: str, names: str, body: str) -> Any:
        """What `body` returns, with `names` of a module of the page at hand."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        url = (FOLDER / module).as_uri()
        self._process.stdin.write(json.dumps(f"const {{ {names} }} = await import('{url}'); {body}") + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "node has ended"
        return json.loads(line)

    def stop(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """A JavaScript engine without a page."""
    running = Node()
    yield running
    running.stop()


@pytest.mark.slow
def test_types_are_right(tmp_path: Path) -> None:
    """The comments say what is what; TypeScript's compiler checks that it is so."""
    if shutil.which("npm") is None:
        unavailable("node", "npm is not installed")
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-update-notifier", "typescript@>=5.9"]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    if installed.returncode != 0:
        unavailable("node", f"npm cannot install typescript: {installed.stderr.strip()[-500:]}")
    options = [
        "--noEmit", "--allowJs", "--checkJs", "--strict", "--noImplicitOverride", "--noUnusedLocals",
        "--noUnusedParameters", "--noImplicitReturns", "--target", "es2022", "--module", "es2022",
        "--moduleResolution", "bundler", "--lib", "es2023,dom,dom.iterable",
    ]  # fmt: skip
    modules = [str(path) for path in sorted(FOLDER.glob("*.js"))]
    checked = subprocess.run(
        [tmp_path / "node_modules/.bin/tsc", *options, *modules], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


# Numbers


@pytest.mark.parametrize(
    ("value", "precision", "text"),
    [
        (65432, 1, "65432.0"),
        (102.455, 2, "102.455"),  # between two ticks: not rounded away
        (0.45116, 5, "0.45116"),
        (-0.25, 2, "-0.25"),
        (5, 0, "5"),
    ],
)
def test_prices_have_the_instruments_decimals_and_more_where_they_need_them(
    node: Node, value: float, precision: int, text: str
) -> None:
    assert node.run("numbers.js", "exact", f"return exact({value}, {precision})") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.015, "0.015"), (1.5, "1.5"), (1.239, "1.24"), (12.34, "12.3"), (99.96, "100"), (100, "100"),
        (9_994, "9994"), (12_345, "12.3k"), (1_200_000, "1.2M"), (-12_345, "-12.3k"),
    ],
)  # fmt: skip
def test_figures_are_short(node: Node, value: float, text: str) -> None:
    assert node.run("numbers.js", "short", f"return short({value})") == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.25, "0.3 ms"), (88.4, "88 ms"), (1_500, "1.5 s"), (45_000, "45 s"), (61_000, "1 min 1 s"),
        (3_720_000, "1 h 2 min"), (90_000_000, "1 d 1 h"),
    ],
)  # fmt: skip
def test_durations_have_the_unit_that_fits(node: Node, ms: float, text: str) -> None:
    assert node.run("numbers.js", "duration", f"return duration({ms})") == text


@pytest.mark.parametrize(
    ("span", "count", "step"), [(10, 5, 2), (7, 5, 2), (1, 4, 0.5), (0.03, 3, 0.01), (90, 4, 50)]
)
def test_axes_have_round_steps(node: Node, span: float, count: int, step: float) -> None:
    assert node.run("numbers.js", "axisStep", f"return axisStep({span}, {count})") == pytest.approx(step)


# The book

ORDERS = """
  const order = (price, quantity, age_ms) => ({ price, quantity, age_ms })
  const frame = (format, bids, asks = []) => ({ sequence: 7, timestamp: 't', data: { format, bids, asks } })
"""


def test_orders_are_added_up_to_levels_and_keep_their_queue(node: Node) -> None:
    found = node.run(
        "book.js",
        "Book",
        ORDERS
        + """
        const book = new Book()
        book.read(frame('MBO', [order(10, 1, 50), order(10, 2, 40), order(9, 4, 30)]))
        const { length, prices, sizes, totals, counts, orderEnds, orderSizes, orderAgesMs } = book.bids
        return [length, ...[prices, sizes, totals, counts, orderEnds].map((a) => [...a.slice(0, 2)]),
                [...orderSizes.slice(0, 3)], [...orderAgesMs.slice(0, 3)], book.asks.length, book.bestBid, book.bestAsk]
        """,
    )
    assert found == [
        2, [10, 9], [3, 4], [3, 7], [2, 1], [2, 3], [1, 2, 4], [50, 40, 30], 0, 10, "NaN",
    ]  # fmt: skip


def test_a_book_of_more_orders_than_there_was_room_for_is_whole(node: Node) -> None:
    body = """
        const book = new Book()
        book.read(frame('MBO', Array.from({ length: 5000 }, (_, i) => order(10 - (i >> 3), 1, i))))
        return [book.bids.length, book.bids.totals[book.bids.length - 1], book.bids.orderAgesMs[4999]]
    """
    assert node.run("book.js", "Book", ORDERS + body) == [625, 5000, 4999]


def test_a_book_that_is_cleared_is_not_known(node: Node) -> None:
    body = "const book = new Book(); book.read(frame('MBP', [])); const was = book.isKnown; book.clear(); return [was, book.isKnown]"
    assert node.run("book.js", "Book", ORDERS + body) == [True, False]


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ([[10, 1], [9, 1]], [[10, 1], [9, 2]], [9]),  # another size
        ([[10, 1], [9, 1]], [[10, 1], [9.5, 1], [9, 1]], [9.5]),  # a new level
        ([[10, 1], [9, 1]], [[11, 1], [10, 1], [9, 1]], [11]),  # a better price
        ([[10, 1], [9, 1]], [[9, 1], [8, 1]], []),  # one is gone, and another came into view
        ([], [[10, 1]], []),  # the first book
    ],
)
def test_what_changed_lights_up(
    node: Node, before: list[list[float]], after: list[list[float]], changed: list[float]
) -> None:
    body = f"""
        const side = (levels) => ({{ length: levels.length, prices: Float64Array.from(levels, ([price]) => price),
                                    sizes: Float64Array.from(levels, ([, size]) => size) }})
        const [before, after] = [side({before}), side({after})]
        const changes = new Changes()
        changes.follow(before, -1, 1)
        changes.follow(after, -1, 2)
        return [...after.prices].filter((_, i) => changes.changedAt[i] === 2)
    """
    assert node.run("changes.js", "Changes", body) == changed


# Histories

RECORD = """
  const book = (price) => ({
    bids: { length: price ? 1 : 0, prices: [price], sizes: [2] }, asks: { length: price ? 1 : 0, prices: [price + 1], sizes: [3] },
  })
  const history = new TopHistory()
  const record = (slot, price) => history.record(slot * SLOT_MS + 1, book(price))
  const seen = (count) => Array.from({ length: count }, (_, age) => history.bids[history.at(age)])
"""


@pytest.mark.parametrize(
    ("records", "seen"),
    [
        ("record(5, 10); record(5, 11)", [11]),  # a slot shows what was last known
        ("record(5, 10); record(6, 11)", [11, 10]),
        ("record(5, 10); record(8, 11)", [11, 10, 10, 10]),  # frames are rare
        ("record(5, 10); record(16, 11)", [11, *["NaN"] * 10, 10]),  # the connection was lost
        ("record(5, 10); record(6, 0)", ["NaN", 10]),  # an empty side
    ],
)
def test_each_slot_shows_what_was_known_in_it(node: Node, records: str, seen: list[Any]) -> None:
    body = RECORD + f"{records}; return [history.length, seen({len(seen)})]"
    assert node.run("history.js", "TopHistory, SLOT_MS", body) == [len(seen), seen]


def test_a_history_is_as_long_as_it_is(node: Node) -> None:
    body = (
        RECORD
        + """
        for (let slot = 1; slot <= 3 * SLOTS; slot++) record(slot, slot)
        const full = [history.length, seen(1)[0], seen(SLOTS)[SLOTS - 1], history.bids.length]
        record(100 * SLOTS, 5)
        return [...full, history.length, seen(1)[0], seen(2)[1], seen(SLOTS)[SLOTS - 1]]
    """
    )
    found = node.run("history.js", "TopHistory, SLOT_MS, SLOTS", body)
    assert found == [600, 1800, 1201, 600, 600, 5, "NaN", "NaN"]


# Places in a file


def test_an_instant_is_looked_for_between_the_nearest_that_are_known(node: Node) -> None:
    body = """
        const times = new FileTimes()
        const unknown = [0, 50, 100].map((percent) => times.instantAt(percent))
        times.learn(20, 2000); times.learn(60, 10000); times.learn(40, 4000); times.learn(40.01, 4010)
        return [unknown, [10, 20, 30, 50, 60, 70].map((percent) => times.instantAt(percent))]
    """
    after_all = 7_258_118_400_000
    assert node.run("file_times.js", "FileTimes", body) == [
        [0, after_all, after_all],
        [0, 2000, pytest.approx(3004, abs=2), pytest.approx(7007, abs=5), 10_000, after_all],
    ]


def test_what_is_known_of_a_file_does_not_grow_without_end(node: Node) -> None:
    body = """
        const times = new FileTimes()
        for (let i = 0; i <= 2000; i++) times.learn(i / 20, i)
        return [times.instantAt(50), times.instantAt(99.99)]
    """
    assert node.run("file_times.js", "FileTimes", body) == [
        pytest.approx(1000, abs=20),
        pytest.approx(2000, abs=2),
    ]


# The animation loop


def test_what_is_wanted_twice_is_drawn_once_and_what_moves_again(node: Node) -> None:
    body = """
        const frames = []
        globalThis.requestAnimationFrame = (callback) => frames.push(callback)
        const drawn = []
        const thing = (name, times) => ({ draw: (now) => { drawn.push(name + now); return --times > 0 } })
        const [still, moving] = [thing('still', 1), thing('moving', 2)]
        const painter = new Painter()
        painter.want(still); painter.want(moving); painter.want(still)
        const wanted = frames.length
        for (let now = 1; frames.length; now++) frames.shift()(now)
        return [wanted, drawn]
    """
    assert node.run("painter.js", "Painter", body) == [1, ["still1", "moving1", "moving2"]]
