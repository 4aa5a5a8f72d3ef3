"""The `market-depth` command. Each subcommand imports what it needs when it runs: `--help` answers at once."""

import contextlib
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from market_depth.bench.commands import app as bench
from market_depth.exits import FAILED, WRONG_CALL, complain, fail
from market_depth.logging import TRACE, LogLevel
from market_depth.publish.command import publish as publish_command
from market_depth.rebuild.command import replay as replay_command
from market_depth.store.command import record as record_command

if TYPE_CHECKING:
    from market_depth.config import Address

SETTINGS_EPILOG = (
    "Each option can also be given in the environment (--addr as MARKET_DEPTH_ADDR, and so on) or in the TOML file that "
    "--config names; flags win over the environment, the environment wins over the file. Several values of one "
    "option stand in the environment with a blank between, files with a colon."
)

app = typer.Typer(
    name="market-depth",
    help="A market's depth feed on your own machine: simulated from a seed or replayed from a recorded file, "
    "order by order (MBO) and by price level (MBP), over one WebSocket.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line. Errors are one line on standard error."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        # What the option parser says; a call without a command is answered by the help, which has many lines.
        message = error.format_message()
        if "\n" in message:
            typer.echo(message, err=True)
        else:
            complain(message.replace("Value error, ", ""))
        sys.exit(error.exit_code)


class DataTypeChoice(StrEnum):
    """How a book is shown."""

    MBO = "MBO"
    MBP = "MBP"


def print_version(wanted: bool) -> None:
    """Answer `--version`."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"market-depth {version('market-depth')}")
        raise typer.Exit


@app.callback()
def top_level(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options of the command itself."""


def load_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Take the defaults of all options from a TOML file; flags and environment win over it."""
    if path is None:
        return None
    import tomllib

    try:
        settings = tomllib.loads(path.read_text())
    except OSError as error:
        fail(f"{path}: {error.strerror}", WRONG_CALL)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        fail(f"{path}: {error}", WRONG_CALL)
    options = {
        parameter.name: parameter for parameter in context.command.params if parameter.name != "_config"
    }
    defaults: dict[str, Any] = {}
    for key, value in settings.items():
        name = key.replace("-", "_")
        if name not in options:
            fail(f"{path}: unknown setting {key!r}", WRONG_CALL)
        # A list and its short form mean the same: `symbols = ["A", "B"]` is "A,B", `replay = "F"` is ["F"].
        if options[name].multiple and isinstance(value, str):
            defaults[name] = [value]
        elif isinstance(value, list) and not options[name].multiple:
            defaults[name] = ",".join(map(str, value))
        else:
            defaults[name] = value
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


def setting(flag: str, explanation: str, **details: Any) -> Any:
    """An option that the environment and a settings file may give, too."""
    variable = "MARKET_DEPTH_" + flag.removeprefix("--").replace("-", "_").upper()
    return typer.Option(flag, envvar=variable, show_envvar=False, help=explanation, **details)


@app.command(epilog=SETTINGS_EPILOG)
def serve(
    addr: Annotated[
        str, setting("--addr", "Where to listen; port 0 takes a free one.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    log_level: Annotated[
        LogLevel, setting("--log-level", "How much to tell.", case_sensitive=False)
    ] = LogLevel.INFO,
    symbols: Annotated[
        str | None,
        setting(
            "--symbols",
            "Symbols to simulate. By default BTCUSD,ETHUSD,ADAUSD; none with --replay or --feed.",
            metavar="A,B,…",
        ),
    ] = None,
    seed: Annotated[
        int, setting("--seed", "Seed of the simulation: the same seed, the same market.", metavar="N")
    ] = 0,
    scenario: Annotated[
        str, setting("--scenario", "Kind of market to simulate: calm, busy, trend or burst.", metavar="NAME")
    ] = "busy",
    events_per_second: Annotated[
        float | None,
        setting(
            "--events-per-second",
            "Simulated events a second for each symbol. By default the scenario's.",
            metavar="N",
        ),
    ] = None,
    interval_ms: Annotated[
        int, setting("--interval-ms", "Time between two snapshots of a stream.", metavar="MS")
    ] = 300,
    replay: Annotated[
        list[Path] | None,
        setting("--replay", "DBN file to replay (.dbn, .dbn.zst); repeatable.", metavar="FILE"),
    ] = None,
    speed: Annotated[
        str, setting("--speed", "Speed of a replay: a factor of recorded time, or max.", metavar="FACTOR")
    ] = "1",
    rate: Annotated[
        float | None,
        setting("--rate", "Replay N records a second instead of recorded time.", metavar="N"),
    ] = None,
    loop: Annotated[bool, setting("--loop", "Start a replay again when it ends.")] = False,
    limit: Annotated[int | None, setting("--limit", "Replay only the first N records.", metavar="N")] = None,
    feed: Annotated[
        list[str] | None,
        setting(
            "--feed",
            "Live gateway to take (DBN over TCP), with ?dataset=…&symbols=A,B behind the port if need be; repeatable. "
            "Its key is read from MARKET_DEPTH_FEED_KEY.",
            metavar="tcp://HOST:PORT",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        setting("--record", "Record every feed into a DBN file in this directory.", metavar="DIR"),
    ] = None,
    _config: Annotated[
        Path | None,
        setting(
            "--config",
            "TOML file with these options; flags and environment win over it.",
            metavar="FILE",
            callback=load_config_file,
            is_eager=True,
        ),
    ] = None,
) -> None:
    """Serve depth of many symbols over one WebSocket, until Ctrl-C."""
    import trio
    from pydantic import ValidationError

    from market_depth import app as application
    from market_depth.config import ServeConfig, parse_address
    from market_depth.logging import configure

    configure(log_level)
    try:
        settings = ServeConfig.model_validate(
            {
                "address": parse_address(addr),
                "interval_ms": interval_ms,
                "symbols": None if symbols is None else tuple(name.strip() for name in symbols.split(",")),
                "seed": seed,
                "scenario": scenario,
                "events_per_second": events_per_second,
                "replay": tuple(replay or ()),
                "speed": speed,
                "rate": rate,
                "loop": loop,
                "limit": limit,
                "feed": tuple(feed or ()),
                "record": record,
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        message = first["msg"]
        is_own = first["type"] == "value_error"
        reason = message.removeprefix("Value error, ") if is_own else f"{first['input']}: {message.lower()}"
        fail(f"--{option}: {reason}", WRONG_CALL)
    except ValueError as error:
        fail(str(error), WRONG_CALL)
    try:
        trio.run(application.serve, settings, announce)
    except application.StartError as error:
        logging.getLogger("market_depth").log(TRACE, "cannot start", exc_info=error)
        fail(str(error), WRONG_CALL if isinstance(error, application.WrongCallError) else FAILED)


@app.command()
def watch(
    symbol: Annotated[
        str | None,
        typer.Argument(metavar="SYMBOL", help="What to watch, by default BTCUSD."),
    ] = None,
    addr: Annotated[
        str, setting("--addr", "The server, or its ws:// address.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    data_type: Annotated[
        DataTypeChoice,
        typer.Option(case_sensitive=False, help="By price level (MBP), or order by order (MBO)."),
    ] = DataTypeChoice.MBP,
    levels: Annotated[int, typer.Option(metavar="N", help="Price levels to ask for, 1 to 1000.")] = 20,
    once: Annotated[bool, typer.Option("--once", help="Print one book and exit.")] = False,
) -> None:
    """Watch a symbol's book as a ladder in the terminal; q leaves."""
    from market_depth.client.watcher import run_watch

    raise typer.Exit(run_watch(addr, symbol, data_type.value, levels, once))


app.command("replay")(replay_command)
app.command("record")(record_command)
app.command("publish")(publish_command)
app.add_typer(bench)


def announce(address: "Address", symbols: list[str]) -> None:
    """Tell on standard output where the server is."""
    with contextlib.suppress(OSError):  # nobody reads it; the log has it too
        typer.echo(f"Serving {', '.join(symbols)} on ws://{address}/ (page: http://{address}/)")
        sys.stdout.flush()
