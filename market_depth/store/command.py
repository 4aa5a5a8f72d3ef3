"""`market-depth record FILE`: what it is told, and how it says what went wrong."""

from pathlib import Path
from typing import Annotated

import typer

from market_depth.exits import FAILED, WRONG_CALL, fail

DEFAULT_START = "2026-01-01T00:00:00Z"
"""Fixed, so that the same call writes the same bytes on any day."""


def record(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="NAME.dbn, or NAME.dbn.zst to compress it.")],
    events: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Stop after N order events; the opening snapshots count, and are always whole."
        ),
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="S", help="Stop after S seconds of the market's time.")
    ] = None,
    symbols: Annotated[
        str, typer.Option(metavar="A,B,…", help="Symbols to simulate.")
    ] = "BTCUSD,ETHUSD,ADAUSD",
    scenario: Annotated[
        str, typer.Option(help="Kind of market to simulate: calm, busy, trend or burst.")
    ] = "busy",
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the simulation: the same seed, the same file.")
    ] = 0,
    events_per_second: Annotated[
        float | None,
        typer.Option(
            metavar="N", help="Simulated events a second for each symbol. By default the scenario's."
        ),
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="TIME", help="When the market opens: an RFC 3339 time, or now.")
    ] = DEFAULT_START,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Record at the market's own pace, and not as fast as possible.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Record simulated markets into a DBN file. Ctrl-C ends the recording and keeps it."""
    from math import inf

    import trio

    from market_depth.feeds.base import FeedOptionError
    from market_depth.feeds.simulated import SimulatedMarkets
    from market_depth.store.dbn_writer import DbnWriter
    from market_depth.store.errors import RecordingError, RecordingExistsError, RecordingOptionError
    from market_depth.store.simulation import STEP_S, progress_bar, record_markets, start_time

    if events is None and duration is None and not realtime:
        fail("a recording needs an end: give --events, --duration or --realtime", WRONG_CALL)
    try:
        markets = SimulatedMarkets(
            [symbol.strip() for symbol in symbols.split(",")],
            scenario,
            seed,
            events_per_second,
            start_time(start),
            max_records=events,
            duration_s=inf if duration is None else duration,
            max_step_s=STEP_S if realtime else inf,
        )
        writer = DbnWriter(file, markets.instruments, markets.start_ns, overwrite=force)
        with progress_bar(events, duration) as tell:
            trio.run(record_markets, markets, writer, realtime, tell)
    except RecordingExistsError as error:
        fail(f"{error}, or replace it with --force", FAILED)
    except (FeedOptionError, RecordingOptionError) as error:
        fail(str(error), WRONG_CALL)
    except RecordingError as error:
        fail(str(error), FAILED)
    typer.echo(f"Recorded {writer.records:,} order events in {file} ({writer.bytes:,} bytes)")
