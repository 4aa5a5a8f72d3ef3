"""`market-depth replay FILE`: rebuild a file's books, and print what it held."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from market_depth.exits import FAILED, INTERRUPTED, fail, sigterm_like_ctrl_c

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from market_depth.rebuild.rebuilding import Progress
    from market_depth.rebuild.statistics import FinalBook, Level, Statistics


MAX_LEVELS = 1000  # of the rebuilding module, which loads numba


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="DBN file of MBO records (.dbn, .dbn.zst).")],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.ndjson",
            help="Write a snapshot record for each change of the best levels (.zst compresses); a file of that name is "
            "replaced when all is written.",
        ),
    ] = None,
    levels: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_LEVELS, help="Price levels a side in the output.")
    ] = 10,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N records that are order events.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the statistics as JSON.")] = False,
) -> None:
    """Rebuild the books of a DBN file at full speed.

    Prints how much the file held, how long that took, and its final books. A damaged file is rebuilt up to the
    damage, which is told, and the exit code is 1.
    """
    from market_depth.feeds.base import FeedError
    from market_depth.rebuild.errors import IncompleteError, RebuildError
    from market_depth.rebuild.rebuilding import rebuild

    statistics, problem = None, None
    try:
        with sigterm_like_ctrl_c(), progress_bar(file, as_json) as progress:
            statistics = rebuild(file, levels=levels, output=output, limit=limit, progress=progress)
    except IncompleteError as error:
        statistics, problem = error.statistics, str(error)
    except (FeedError, RebuildError) as error:
        problem = str(error)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(as_dict(file, statistics, problem), indent=2, ensure_ascii=False))
    elif statistics:
        typer.echo(summary(statistics))
    if problem:
        fail(problem, FAILED)


def as_dict(file: Path, statistics: Statistics | None, problem: str | None) -> dict[str, Any]:
    """What is printed for machines: the statistics, and what went wrong if something did."""
    told: dict[str, Any] = statistics.as_dict() if statistics else {"file": file.name}
    return told | ({"error": problem} if problem else {})


@contextmanager
def progress_bar(file: Path, as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """What is to be told the progress: shown with rate and time left on a terminal, where a person reads."""
    if as_json or not sys.stderr.isatty():
        yield lambda _progress: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} records/s"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file.name, total=None, rate="–", start=False)

        def show(progress: Progress) -> None:
            bar.start_task(task)  # when the first records are there: loading the kernels is not reading
            elapsed_s = bar.tasks[0].elapsed or 0.0
            bar.update(
                task,
                total=progress.bytes,
                completed=progress.bytes_read,
                rate=f"{progress.records / elapsed_s:,.0f}" if elapsed_s else "–",
            )

        yield show


def summary(statistics: Statistics) -> str:
    """The statistics for people, a table of the books last."""
    read = (
        f"{statistics.file}: {statistics.records:,} records in {statistics.wall_s:.3f} s, "
        f"{statistics.throughput_per_s:,.0f} records/s"
    )
    applied = (
        f"{statistics.orders_processed:,} order events applied, {statistics.apply_mean_ns:,.0f} ns each "
        f"(p99 of batches {statistics.apply_p99_ns:,.0f} ns), {statistics.unknown_orders:,} of unknown orders"
    )
    return "\n".join([read, applied, "", *aligned([HEADINGS, *map(row, statistics.books)])])


HEADINGS = ("symbol", "publisher", "orders", "levels", "best bid", "best ask", "spread")


def row(book: FinalBook) -> tuple[str, ...]:
    """A book's line in the table."""
    return (
        book.symbol,
        str(book.publisher_id),
        f"{book.active_orders:,}",
        f"{book.bid_levels:,} / {book.ask_levels:,}",
        level_text(book.best_bid),
        level_text(book.best_ask),
        book.spread or "–",
    )


def level_text(level: Level | None) -> str:
    """A best level: price × size (orders)."""
    return f"{level.price} × {level.size:,} ({level.count:,})" if level else "–"


def aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Lines in which the columns stand below one another, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        yield "  ".join([first.ljust(widths[0]), *cells])
