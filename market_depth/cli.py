"""The `market-depth` command. Each subcommand imports what it needs when it runs: `--help` answers at once."""

import contextlib
import logging
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from market_depth.bench.commands import app as bench
from market_depth.exits import FAILED, WRONG_CALL, complain, fail
from market_depth.export.command import export as export_command
from market_depth.logging import TRACE, LogLevel
from market_depth.publish.command import publish as publish_command
from market_depth.rebuild.command import replay as replay_command
from market_depth.record.command import EPILOG as RECORD_EPILOG
from market_depth.record.command import record as record_command
from market_depth.settings import EPILOG, SettingsCommand, load_config_file, setting

if TYPE_CHECKING:
    from pydantic import ValidationError

    from market_depth.config import Address

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


@app.command(cls=SettingsCommand, epilog=EPILOG)
def serve(
    addr: Annotated[
        str, setting("--addr", "Where to listen; port 0 takes a free one.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    interval_ms: Annotated[
        int, setting("--interval-ms", "Time between two snapshots of a stream.", metavar="MS")
    ] = 300,
    log_level: Annotated[
        LogLevel, setting("--log-level", "How much to tell.", case_sensitive=False)
    ] = LogLevel.INFO,
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
    symbols: Annotated[
        str | None,
        setting(
            "--symbols",
            "Symbols to simulate. By default BTCUSD,ETHUSD,ADAUSD; none with --replay or --feed.",
            group="Simulation",
            metavar="A,B,…",
        ),
    ] = None,
    seed: Annotated[
        int,
        setting(
            "--seed",
            "Seed of the simulation: the same seed, the same market.",
            group="Simulation",
            metavar="N",
        ),
    ] = 0,
    scenario: Annotated[
        str,
        setting(
            "--scenario",
            "Kind of market to simulate: calm, busy, trend or burst.",
            group="Simulation",
            metavar="NAME",
        ),
    ] = "busy",
    events_per_second: Annotated[
        float | None,
        setting(
            "--events-per-second",
            "Simulated events a second for each symbol. By default the scenario's.",
            group="Simulation",
            metavar="N",
        ),
    ] = None,
    replay: Annotated[
        list[Path] | None,
        setting(
            "--replay", "DBN file to replay (.dbn, .dbn.zst); repeatable.", group="Replay", metavar="FILE"
        ),
    ] = None,
    speed: Annotated[
        str | None,
        setting(
            "--speed",
            "A factor of recorded time, or max. By default 1.",
            group="Replay",
            metavar="FACTOR",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        setting("--rate", "N records a second instead of recorded time.", group="Replay", metavar="N"),
    ] = None,
    loop: Annotated[bool, setting("--loop", "Start again at the end.", group="Replay")] = False,
    limit: Annotated[
        int | None, setting("--limit", "Only the first N records.", group="Replay", metavar="N")
    ] = None,
    feed: Annotated[
        list[str] | None,
        setting(
            "--feed",
            "Live gateway to take (DBN over TCP), with ?dataset=…&symbols=A,B behind the port if need be; repeatable. "
            "Its key is read from MARKET_DEPTH_FEED_KEY.",
            group="Live feeds and recording",
            metavar="tcp://HOST:PORT",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        setting(
            "--record",
            "Record every feed into a DBN file in this directory.",
            group="Live feeds and recording",
            metavar="DIR",
        ),
    ] = None,
    store: Annotated[
        str | None,
        setting(
            "--store",
            "Where to keep sessions, best bids and offers, snapshots and trades: duckdb:PATH, postgresql://… or none. By "
            "default a DuckDB file in the data directory; while another server has that open, nothing is kept. A password "
            "is better in the environment (MARKET_DEPTH_STORE).",
            group="Store",
            metavar="URL",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        setting(
            "--data-dir",
            "The data directory. By default market-depth in $XDG_DATA_HOME, or in ~/.local/share.",
            group="Store",
            metavar="DIR",
        ),
    ] = None,
    sample: Annotated[
        str,
        setting(
            "--sample",
            "Which states of a book to keep: change (every one), events:N (every Nth) or ms:T (one for every T "
            "milliseconds of the market's time). Trades are kept all.",
            group="Store",
            metavar="HOW",
        ),
    ] = "ms:1000",
    retain_days: Annotated[
        float,
        setting("--retain-days", "Keep nothing that is older.", group="Store", metavar="N"),
    ] = 30,
    retain_bytes: Annotated[
        int,
        setting(
            "--retain-bytes",
            "Keep no more than this of values, 8 bytes each; the oldest go first.",
            group="Store",
            metavar="N",
        ),
    ] = 1_000_000_000,
    token: Annotated[
        str | None,
        setting(
            "--token",
            "What clients must show. Better in the environment (MARKET_DEPTH_TOKEN) or the file: other users of this "
            "machine can read a command line. Required when other machines reach the address.",
            group="Access",
            metavar="TEXT",
        ),
    ] = None,
    insecure: Annotated[
        bool, setting("--insecure", "Let other machines in without a token.", group="Access")
    ] = False,
    allow_origin: Annotated[
        list[str] | None,
        setting(
            "--allow-origin",
            "Let web pages from there use this server, such as https://depth.example.org; * for all; repeatable. "
            "Pages of this server may, and those of a browser's own machine may open a WebSocket.",
            group="Access",
            metavar="ORIGIN",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        setting(
            "--tls-cert",
            "Certificate chain (PEM): serve wss:// and https://.",
            group="Access",
            metavar="FILE",
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, setting("--tls-key", "Its private key (PEM).", group="Access", metavar="FILE")
    ] = None,
    max_connections: Annotated[
        int, setting("--max-connections", "Connections at a time.", group="Limits", metavar="N")
    ] = 16_000,
    max_connections_per_host: Annotated[
        int | None,
        setting(
            "--max-connections-per-host",
            "Connections at a time from one address (IPv6: from one /64). By default 256, and any number from this "
            "machine.",
            group="Limits",
            metavar="N",
        ),
    ] = None,
    handshake_timeout_s: Annotated[
        float,
        setting(
            "--handshake-timeout-s",
            "Time a client has for a request's head, for the WebSocket handshake and for the token.",
            group="Limits",
            metavar="S",
        ),
    ] = 10,
    heartbeat_interval_s: Annotated[
        int,
        setting(
            "--heartbeat-interval-s",
            "Time between two heartbeats, each with a ping; at most 30.",
            group="Limits",
            metavar="S",
        ),
    ] = 30,
    max_unanswered_pings: Annotated[
        int,
        setting(
            "--max-unanswered-pings",
            "A client silent for so many pings is cut when the next is due.",
            group="Limits",
            metavar="N",
        ),
    ] = 3,
    max_message_bytes: Annotated[
        int,
        setting("--max-message-bytes", "Size of a client's message.", group="Limits", metavar="N"),
    ] = 65_536,
    max_streams: Annotated[
        int, setting("--max-streams", "Streams of a connection.", group="Limits", metavar="N")
    ] = 256,
    messages_per_second: Annotated[
        float,
        setting(
            "--messages-per-second",
            "Messages of a connection in the long run.",
            group="Limits",
            metavar="N",
        ),
    ] = 50,
    message_burst: Annotated[
        int,
        setting("--message-burst", "Messages of a connection at once.", group="Limits", metavar="N"),
    ] = 100,
    compression: Annotated[
        bool,
        setting("--compression", "Compress messages for clients that offer it (permessage-deflate)."),
    ] = False,
    conformance_echo: Annotated[
        bool,
        setting(
            "--conformance-echo",
            "Send messages back on the path /conformance-echo, for a client that tests WebSocket servers.",
        ),
    ] = False,
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
                "token": token,
                "insecure": insecure,
                "allow_origin": tuple(allow_origin or ()),
                "tls_cert": tls_cert,
                "tls_key": tls_key,
                "max_connections": max_connections,
                "max_connections_per_host": max_connections_per_host,
                "handshake_timeout_s": handshake_timeout_s,
                "heartbeat_interval_s": heartbeat_interval_s,
                "max_unanswered_pings": max_unanswered_pings,
                "max_message_bytes": max_message_bytes,
                "max_streams": max_streams,
                "messages_per_second": messages_per_second,
                "message_burst": message_burst,
                "compression": compression,
                "conformance_echo": conformance_echo,
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
                "store": store,
                "data_dir": data_dir,
                "sample": sample,
                "retain_days": retain_days,
                "retain_bytes": retain_bytes,
            }
        )
    except ValidationError as error:
        fail(wrong_setting(error), WRONG_CALL)
    except ValueError as error:
        fail(str(error), WRONG_CALL)
    try:
        trio.run(application.serve, settings, partial(announce, settings.is_encrypted))
    except application.StartError as error:
        logging.getLogger("market_depth").log(TRACE, "cannot start", exc_info=error)
        fail(str(error), WRONG_CALL if isinstance(error, application.WrongCallError) else FAILED)


def wrong_setting(error: "ValidationError") -> str:
    """What is wrong with the first of the settings that are."""
    first = error.errors()[0]
    problem = first["msg"]
    if first["type"] == "value_error":  # our own words
        problem = problem.removeprefix("Value error, ")
    else:
        problem = f"{first['input']}: {problem.lower()}"
    # What several settings say together belongs to none of them.
    return f"--{str(first['loc'][0]).replace('_', '-')}: {problem}" if first["loc"] else problem


@app.command()
def watch(
    symbol: Annotated[
        str | None,
        typer.Argument(metavar="SYMBOL", help="What to watch, by default BTCUSD."),
    ] = None,
    addr: Annotated[
        str, setting("--addr", "The server, or its ws:// or wss:// address.", metavar="HOST:PORT")
    ] = "127.0.0.1:8080",
    data_type: Annotated[
        DataTypeChoice,
        typer.Option(case_sensitive=False, help="By price level (MBP), or order by order (MBO)."),
    ] = DataTypeChoice.MBP,
    levels: Annotated[int, typer.Option(metavar="N", help="Price levels to ask for, 1 to 1000.")] = 20,
    once: Annotated[bool, typer.Option("--once", help="Print one book and exit.")] = False,
    token: Annotated[
        str | None,
        setting(
            "--token",
            "What the server asks for. Better in the environment (MARKET_DEPTH_TOKEN): other users of this machine can "
            "read a command line.",
            metavar="TEXT",
        ),
    ] = None,
) -> None:
    """Watch a symbol's book as a ladder in the terminal; q leaves."""
    from market_depth.client.watcher import run_watch

    raise typer.Exit(run_watch(addr, symbol, data_type.value, levels, once, token))


app.command("replay")(replay_command)
app.command("record", cls=SettingsCommand, epilog=RECORD_EPILOG)(record_command)
app.command("publish")(publish_command)
app.command("export")(export_command)
app.add_typer(bench)


def announce(is_encrypted: bool, address: "Address", symbols: list[str]) -> None:
    """Tell on standard output where the server is."""
    with contextlib.suppress(OSError):  # nobody reads it; the log has it too
        s = "s" if is_encrypted else ""
        typer.echo(f"Serving {', '.join(symbols)} on ws{s}://{address}/ (page: http{s}://{address}/)")
        sys.stdout.flush()
