"""`market-depth export`: what the store holds, as NDJSON, CSV or Parquet."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from market_depth.exits import FAILED, INTERRUPTED, WRONG_CALL, fail, sigterm_like_ctrl_c
from market_depth.export.choices import Format, Kind

if TYPE_CHECKING:
    from market_depth.store.base import Selection, Store


def export(
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Of this session only; by default of all.")
    ] = None,
    symbol: Annotated[
        str | None, typer.Option(metavar="SYMBOL", help="Of this symbol only; by default of all.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From this instant on: RFC 3339, or ns or ms since the epoch."),
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="Up to this instant, included.")] = None,
    kind: Annotated[
        Kind, typer.Option("--kind", help="Best bids and offers, trades, or snapshots of the best levels.")
    ] = Kind.BBO,
    file_format: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.NDJSON,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where to write, by default to standard output; a file of that name is replaced when all is written.",
        ),
    ] = None,
    store: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="MARKET_DEPTH_STORE",
            show_envvar=False,
            help="duckdb: (in the data directory), duckdb:PATH or postgresql://…",
        ),
    ] = "duckdb:",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            envvar="MARKET_DEPTH_DATA_DIR",
            show_envvar=False,
            help="The data directory.",
        ),
    ] = None,
) -> None:
    """Write what the store holds as NDJSON, CSV or Parquet.

    Snapshots are snapshot records in NDJSON, otherwise a row for each level. A DuckDB file belongs to the server that has it
    open: stop that first.
    """
    from market_depth.export.formats import write_parquet, write_text
    from market_depth.rebuild.errors import OutputError
    from market_depth.rebuild.output import OutputFile
    from market_depth.store.base import StoreError, StoreOptionError
    from market_depth.store.opening import data_directory, open_existing

    selection = chosen(session, symbol, start, end)
    if file_format is Format.PARQUET and output is None:
        fail("--format parquet needs a file: name it with --output", WRONG_CALL)
    try:
        with sigterm_like_ctrl_c():
            opened = open_existing(store, data_dir or data_directory())
            try:
                check(opened, selection)
                if file_format is Format.PARQUET:
                    assert output is not None
                    count = write_parquet(opened, kind, selection, output)
                else:
                    with nullcontext() if output is None else OutputFile(output) as file:
                        write = written_out if file is None else file.write
                        count = write_text(opened, kind, selection, file_format, write)
            finally:
                opened.close()
    except BrokenPipeError:  # who reads has enough; what is left in our buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
    except (StoreError, OutputError) as error:
        fail(str(error), WRONG_CALL if isinstance(error, StoreOptionError) else FAILED)
    except OSError as error:
        fail(f"{output}: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if output is not None:
        typer.echo(f"Exported {count:,} {'rows' if kind is not Kind.SNAPSHOTS else 'snapshots'} to {output}")


def chosen(session: str | None, symbol: str | None, start: str | None, end: str | None) -> Selection:
    """What was asked for."""
    from market_depth.store.base import MIN_TS, Selection
    from market_depth.store.rows import MAX_TS
    from protocol.timestamp import instant_ns

    bounds = {"start": MIN_TS, "end": MAX_TS}
    for name, value in (("start", start), ("end", end)):
        if value is not None:
            try:
                bounds[name] = min(instant_ns(value), MAX_TS)
            except ValueError as error:
                fail(f"--{name}: {error}", WRONG_CALL)
    return Selection(session, symbol, bounds["start"], bounds["end"])


def check(store: Store, selection: Selection) -> None:
    """End with one line where the store has no such session or symbol: an empty file would hide a slip of the pen."""
    if selection.session_id is not None and store.session(selection.session_id) is None:
        fail(f"{store.name}: no session {selection.session_id!r}", FAILED)
    if selection.symbol is not None and selection.symbol not in store.symbols():
        known = ", ".join(store.symbols()[:10]) or "none"
        fail(f"{store.name}: nothing of {selection.symbol!r} is stored; symbols: {known}", FAILED)


def written_out(data: bytes) -> None:
    """Write to standard output."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
