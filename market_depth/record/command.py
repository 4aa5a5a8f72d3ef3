"""`market-depth record FILE`: what it is told, and how it says what went wrong."""

from pathlib import Path
from typing import Annotated

import typer

from market_depth.exits import FAILED, INTERRUPTED, WRONG_CALL, fail
from market_depth.settings import setting

DEFAULT_START = "2026-01-01T00:00:00Z"
"""Fixed, so that the same call writes the same bytes on any day."""

SIMULATION, SERVER = "Simulation", "Running server"

OF_SIMULATION = ("scenario", "seed", "events_per_second", "start", "realtime")
OF_SERVER = ("levels", "token")

EPILOG = (
    "With --addr the books of a running server are recorded, as it shows them: a snapshot of each book, then what "
    "changed from one of its frames to the next (300 ms, unless the server was told otherwise). Replayed, the file gives "
    "every book exactly as it was shown, at the time of each frame. Orders that came and went between two frames are "
    "not in it, nor are trades. A server that is lost is looked for, for five minutes; then the books begin anew with "
    "snapshots."
)


def record(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="NAME.dbn, or NAME.dbn.zst to compress it.")],
    events: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Stop after N order events. The opening snapshots count; they and a server's frames are always whole.",
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(metavar="S", help="Stop after S seconds, in a simulation of the market's time."),
    ] = None,
    symbols: Annotated[
        str, typer.Option(metavar="A,B,…", help="Symbols to simulate, or to ask the server for.")
    ] = "BTCUSD,ETHUSD,ADAUSD",
    addr: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Record the running server there (or at its ws:// or wss:// address), and no simulation.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    levels: Annotated[
        int,
        typer.Option(
            metavar="N", help="The best N price levels of each side, 1 to 1000.", rich_help_panel=SERVER
        ),
    ] = 1000,
    token: Annotated[
        str | None,
        setting(
            "--token",
            "What the server asks for. Better in the environment (MARKET_DEPTH_TOKEN): other users of this machine can "
            "read a command line.",
            group=SERVER,
            metavar="TEXT",
        ),
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Kind of market to simulate: calm, busy, trend or burst.",
            rich_help_panel=SIMULATION,
        ),
    ] = "busy",
    seed: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Seed of the simulation: the same seed, the same file.",
            rich_help_panel=SIMULATION,
        ),
    ] = 0,
    events_per_second: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="Simulated events a second for each symbol. By default the scenario's.",
            rich_help_panel=SIMULATION,
        ),
    ] = None,
    start: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="When the market opens: an RFC 3339 time, or now.",
            rich_help_panel=SIMULATION,
        ),
    ] = DEFAULT_START,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="At the market's own pace, and not as fast as possible.",
            rich_help_panel=SIMULATION,
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Record simulated markets, or a running server, into a DBN file. Ctrl-C ends the recording and keeps it."""
    from market_depth.feeds.base import FeedError, FeedOptionError
    from market_depth.record.errors import RecordingError, RecordingExistsError, RecordingOptionError

    names = [symbol.strip() for symbol in symbols.split(",")]
    _refuse_options(context, OF_SERVER if addr is None else OF_SIMULATION, addr is not None)
    if addr is None and events is None and duration is None and not realtime:
        fail("a recording needs an end: give --events, --duration or --realtime", WRONG_CALL)
    try:
        if addr is None:
            records, size = _record_simulation(
                file,
                names,
                scenario,
                seed,
                events_per_second,
                start,
                max_records=events,
                duration_s=duration,
                realtime=realtime,
                overwrite=force,
            )
        else:
            records, size = _record_server(
                file, addr, token, names, levels, max_records=events, duration_s=duration, overwrite=force
            )
    except RecordingExistsError as error:
        fail(f"{error}, or replace it with --force", FAILED)
    except (FeedOptionError, RecordingOptionError) as error:
        fail(str(error), WRONG_CALL)
    except (FeedError, RecordingError) as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        fail("interrupted before the first order event: nothing is recorded", INTERRUPTED)
    if not records:
        fail("interrupted before the first order event: nothing is recorded", INTERRUPTED)
    typer.echo(f"Recorded {records:,} order events in {file} ({size:,} bytes)")


def _refuse_options(context: typer.Context, options: tuple[str, ...], is_server: bool) -> None:
    """End with one line where an option was given that means nothing here."""
    for name in options:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            fail(f"{option} {'cannot go with' if is_server else 'needs'} --addr", WRONG_CALL)


def _record_simulation(
    file: Path,
    symbols: list[str],
    scenario: str,
    seed: int,
    events_per_second: float | None,
    start: str,
    *,
    max_records: int | None,
    duration_s: float | None,
    realtime: bool,
    overwrite: bool,
) -> tuple[int, int]:
    """Returns: how many order events, and how many bytes."""
    from math import inf

    import trio

    from market_depth.feeds.simulated import SimulatedMarkets
    from market_depth.record.dbn_writer import DbnWriter
    from market_depth.record.recording_job import progress_bar
    from market_depth.record.simulation import STEP_S, record_markets, start_time
    from protocol.timestamp import NS_PER_S

    markets = SimulatedMarkets(
        symbols,
        scenario,
        seed,
        events_per_second,
        start_time(start),
        max_records=max_records,
        duration_s=inf if duration_s is None else duration_s,
        max_step_s=STEP_S if realtime else inf,
    )
    writer = DbnWriter(file, markets.instruments, markets.start_ns, overwrite=overwrite)

    def elapsed_s() -> float:
        return (markets.now_ns - markets.start_ns) / NS_PER_S

    with progress_bar(max_records, duration_s, elapsed_s) as display:
        trio.run(record_markets, markets, writer, realtime, display.tell)
    return writer.records, writer.bytes


def _record_server(
    file: Path,
    addr: str,
    token: str | None,
    symbols: list[str],
    levels: int,
    *,
    max_records: int | None,
    duration_s: float | None,
    overwrite: bool,
) -> tuple[int, int]:
    """Returns: how many order events, and how many bytes."""
    from functools import partial

    import trio

    from market_depth.client import open_socket, websocket_url
    from market_depth.config import checked_token
    from market_depth.record.server_feed import subscriptions
    from market_depth.record.server_recording import record_server

    try:
        url = websocket_url(addr)
        if token is not None:
            checked_token(token)
    except ValueError as error:
        fail(str(error), WRONG_CALL)
    if max_records is not None and max_records < 1:
        fail(f"--events: {max_records} are too few; give 1 or more", WRONG_CALL)
    if duration_s is not None and not duration_s > 0:
        fail(f"--duration: {duration_s:g} seconds are too short; give more than 0", WRONG_CALL)
    job = partial(
        record_server,
        file,
        url,
        addr,
        subscriptions(symbols, levels),
        max_records=max_records,
        duration_s=duration_s,
        overwrite=overwrite,
        connect=partial(open_socket, token=token),
    )
    writer = trio.run(job)
    return writer.records, writer.bytes
