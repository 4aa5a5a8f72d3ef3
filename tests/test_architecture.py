"""The imports run one way. A wrong import is a red test, not a discussion."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PACKAGES = ["protocol", "simulator", "market_depth"]
"""A package imports itself and those before it."""

ROOMS = [
    {"book", "clock", "config", "exits", "logging", "metrics", "web"},
    {"feeds", "stream", "client", "settings"},
    {"store", "record"},
    {"server", "publish", "rebuild"},
    {"live_market", "live_store", "export"},
    {"app", "bench"},
    {"cli"},
    {"__main__"},
]
"""Rooms of market_depth: a room imports itself and those of earlier rows."""

PROTOCOL = [
    {"instrument", "timestamp", "errors"},
    {"events"},
    {"messages"},
    {"codecs", "checksum"},
    {"session", "replica", "schema"},
]

SIMULATOR = [
    {"errors"},
    {"matching", "listings"},
    {"flow"},
    {"scenarios"},
    {"venue"},
    {"sample"},
    {"realism"},
]

MAY_IMPORT_SIMULATOR = {"market_depth/feeds/simulated.py", "market_depth/bench/simulator.py"}
"""The simulator is a venue, not a part of the server: one feed knows it, and the benchmark that measures it."""

NO_IO = {"trio", "trio_websocket", "socket", "ssl", "asyncio", "threading", "time", "random"}


def imported_modules(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def is_room(package: str, name: str) -> bool:
    return (ROOT / package / name).is_dir() or (ROOT / package / f"{name}.py").is_file()


def rank_of(room: str, rows: list[set[str]]) -> int:
    for rank, row in enumerate(rows):
        if room in row:
            return rank
    raise AssertionError(f"{room} has no place in the import order: give it one in {Path(__file__).name}")


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_only_those_before_them(package: str) -> None:
    later = set(PACKAGES[PACKAGES.index(package) + 1 :])
    for path in sources(package):
        roots = {name.split(".")[0] for name in imported_modules(path)}
        assert not roots & later, f"{path.relative_to(ROOT)} imports {sorted(roots & later)}"


@pytest.mark.parametrize(
    ("package", "rows"),
    [("protocol", PROTOCOL), ("simulator", SIMULATOR), ("market_depth", ROOMS)],
    ids=PACKAGES,
)
def test_rooms_import_only_those_of_earlier_rows(package: str, rows: list[set[str]]) -> None:
    for path in sources(package):
        room = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imported_modules(path):
            parts = name.split(".")
            if parts[0] != package or len(parts) < 2 or not is_room(package, parts[1]):
                continue
            assert parts[1] == room or rank_of(parts[1], rows) < rank_of(room, rows), (
                f"{path.relative_to(ROOT)} imports {name}"
            )


def test_only_the_simulated_feed_and_its_benchmark_know_the_simulator() -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in sources("market_depth")
        if any(name.split(".")[0] == "simulator" for name in imported_modules(path))
    }
    assert importers <= MAY_IMPORT_SIMULATOR


@pytest.mark.parametrize("package", ["protocol", "simulator"])
def test_the_rules_touch_no_clock_no_socket_and_no_global_random(package: str) -> None:
    for path in sources(package):
        roots = {name.split(".")[0] for name in imported_modules(path)}
        assert not roots & NO_IO, f"{path.relative_to(ROOT)} imports {sorted(roots & NO_IO)}"


def test_no_room_is_a_drawer() -> None:
    drawers = ("util", "common", "helper", "misc")
    for package in PACKAGES:
        for path in sources(package):
            assert not any(word in path.stem for word in drawers), path
