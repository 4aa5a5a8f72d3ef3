"""A store from its URL. Only the database that is asked for is imported."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from market_depth.store.base import StoreError, StoreOptionError

if TYPE_CHECKING:
    from market_depth.store.base import Store

FILE_NAME = "market-depth.duckdb"

POSTGRES = ("postgresql://", "postgres://")


def data_directory() -> Path:
    """Where the server keeps what is its own, if nobody says otherwise."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "market-depth"


def check_url(url: str) -> None:
    """Raises: StoreOptionError for what is no URL of a store. Nothing is opened."""
    scheme, colon, _ = url.partition(":")
    if not (url == "none" or (scheme == "duckdb" and colon) or url.startswith(POSTGRES)):
        raise StoreOptionError(
            f"{scheme!r} is not a store: duckdb: (a file of the data directory), duckdb:PATH, postgresql://… or none is expected"
        )


def make_store(url: str, data_directory: Path) -> Store | None:
    """The store that a URL names; None for `none`. It may take seconds: to be called in a thread.

    `duckdb:` is a file of the data directory, `duckdb:PATH` another one, `postgresql://…` a PostgreSQL database.

    Raises: StoreOptionError for what is no such URL, StoreUnavailableError when the database cannot be had now, StoreError
    for one that this version cannot use.
    """
    check_url(url)
    owner = secrets.randbits(62)
    if url == "none":
        return None
    if url.startswith(POSTGRES):
        from market_depth.store.postgres import PostgresStore

        return PostgresStore(url, owner)
    from market_depth.store.duckdb import DuckDBStore

    _, _, path = url.partition(":")
    return DuckDBStore(Path(path) if path else data_directory / FILE_NAME, owner)


def open_existing(url: str, data_directory: Path) -> Store:
    """The same for who only reads: a DuckDB file that is not there is not made.

    Raises: as `make_store`; StoreError where there is no such file, StoreOptionError for `none`.
    """
    scheme, _, rest = url.partition(":")
    path = Path(rest) if rest else data_directory / FILE_NAME
    if scheme == "duckdb" and not path.exists():
        raise StoreError(f"{path}: there is no such store")
    store = make_store(url, data_directory)
    if store is None:
        raise StoreOptionError("none is no store to read from")
    return store
