"""`market-depth bench NAME`: run a measurement, and print its figures as a table or as JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import typer

from market_depth.bench.errors import BenchError, BenchOptionError
from market_depth.exits import FAILED, WRONG_CALL, fail

app = typer.Typer(
    name="bench",
    help="Measure the parts, each against a yardstick of the same run: quote ratios, machines are noisy.",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="Print all figures of all rounds as JSON.")]


class Report(Protocol):
    """What a measurement found."""

    def as_dict(self) -> dict[str, Any]:
        """Every figure, for machines."""

    def lines(self) -> list[str]:
        """The medians, for people."""


AnyReport = TypeVar("AnyReport", bound=Report)


def show(measure: Callable[..., AnyReport], as_json: bool, **options: Any) -> AnyReport:
    """Run a measurement, telling its progress on standard error and its result on standard output."""
    try:
        report = measure(**options, progress=lambda line: typer.echo(line, err=True))
    except BenchError as error:
        fail(str(error), WRONG_CALL if isinstance(error, BenchOptionError) else FAILED)
    typer.echo(json.dumps(report.as_dict(), indent=2) if as_json else "\n".join(report.lines()))
    return report


@app.command()
def book(
    events: Annotated[int, typer.Option(metavar="N", help="Events of each stream.")] = 2_600_000,
    rounds: Annotated[int, typer.Option(metavar="N", help="How often to measure; medians count.")] = 5,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the streams.")] = 1,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Measure with a DBN file of MBO records instead.")
    ] = None,
    cpp: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Source of a C++ book to compile and measure in the same run."),
    ] = None,
    as_json: Json = False,
) -> None:
    """The book engine, against books in plain Python, in C++, and of others that are installed."""
    from market_depth.bench.book import run

    show(run, as_json, events=events, rounds=rounds, seed=seed, file=file, cpp=cpp)


@app.command()
def fanout(
    clients: Annotated[int, typer.Option(metavar="N", help="Connected clients.")] = 1000,
    streams: Annotated[int, typer.Option(metavar="N", help="Streams of each client.")] = 1,
    interval_ms: Annotated[
        int, typer.Option(metavar="MS", help="Time between two frames of a stream.")
    ] = 100,
    levels: Annotated[int, typer.Option(metavar="N", help="Price levels a side in a frame.")] = 10,
    slow: Annotated[int, typer.Option(metavar="N", help="Further clients that never read.")] = 0,
    distinct_ids: Annotated[
        bool, typer.Option("--distinct-ids", help="No two clients call a stream the same.")
    ] = False,
    addr: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Measure this server instead of one that is started; it must have the interval and the symbols told here.",
        ),
    ] = None,
    pid: Annotated[
        int | None, typer.Option(metavar="N", help="Process of that server, for its CPU time and memory.")
    ] = None,
    symbols: Annotated[
        str | None, typer.Option(metavar="A,B,…", help="Symbols of the streams, in turn. By default six.")
    ] = None,
    peers: Annotated[
        bool,
        typer.Option(help="Also measure other libraries: websockets, picows, ws of Node, where installed."),
    ] = True,
    rounds: Annotated[int, typer.Option(metavar="N", help="How often to measure; medians count.")] = 3,
    as_json: Json = False,
) -> None:
    """A delivered frame's CPU time and latency, against a bare send() loop in C and other libraries."""
    from market_depth.bench.fanout import SYMBOLS, run

    show(
        run,
        as_json,
        clients=clients,
        streams=streams,
        interval_ms=interval_ms,
        levels=levels,
        slow=slow,
        distinct_ids=distinct_ids,
        symbols=SYMBOLS if symbols is None else tuple(name.strip() for name in symbols.split(",")),
        addr=addr,
        pid=pid,
        peers=peers,
        rounds=rounds,
    )


@app.command()
def simulator(
    events: Annotated[
        int, typer.Option(metavar="N", help="Events of each scenario, over all seeds.")
    ] = 10_000_000,
    seeds: Annotated[int, typer.Option(metavar="N", help="Seeds: 1, 2, … N.")] = 5,
    scenario: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Scenario to measure; repeatable. By default all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """How real the simulated markets look; exits 1 when a target is missed."""
    from market_depth.bench.simulator import run

    chosen = {"scenarios": scenario} if scenario else {}
    report = show(run, as_json, events=events, seeds=seeds, **chosen)
    if not report.ok:
        raise typer.Exit(FAILED)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(metavar="N", help="How long.")] = 30.0,
    clients: Annotated[
        int, typer.Option(metavar="N", help="Clients that stay; 5 % of them never read.")
    ] = 1000,
    hostile: Annotated[
        int, typer.Option(metavar="N", help="So many hostile clients attack now and then.")
    ] = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the hostile clients.")] = 1,
    as_json: Json = False,
) -> None:
    """A long run while clients come and go, never read, or attack; exits 1 when the server let one down."""
    from market_depth.bench.soak import run

    report = show(run, as_json, minutes=minutes, clients=clients, hostile=hostile, seed=seed)
    if not report.ok:
        raise typer.Exit(FAILED)


@app.command()
def start(
    rounds: Annotated[int, typer.Option(metavar="N", help="How many starts; medians count.")] = 5,
    cold: Annotated[
        bool, typer.Option(help="Also start with kernels to compile, as on a first start.")
    ] = True,
    as_json: Json = False,
) -> None:
    """How soon the server accepts, and how soon data flows."""
    from market_depth.bench.start import run

    show(run, as_json, rounds=rounds, cold=cold)


@app.command()
def store(
    rows: Annotated[int, typer.Option(metavar="N", help="Best bids and offers to write.")] = 10_000_000,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the books and of the reads.")] = 1,
    as_json: Json = False,
) -> None:
    """Rows written and read a second, in DuckDB and in a PostgreSQL started for it."""
    from market_depth.bench.store import run

    show(run, as_json, rows=rows, seed=seed)
