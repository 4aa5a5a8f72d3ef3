"""A store from its URL. Only the database that is asked for is imported."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from market_depth.store.base import StoreOptionError

if TYPE_CHECKING:
    from market_depth.store.base import Store

FILE_NAME = "market-depth.duckdb"


def make_store(url: str, data_directory: Path) -> Store | None:
    """The store that a URL names; None for `none`. It may take seconds: to be called in a thread.

    `duckdb:` is a file of the data directory, `duckdb:PATH` another one, `postgresql://…` a PostgreSQL database.

    Raises: StoreOptionError for what is no such URL, StoreUnavailableError when the database cannot be had now, StoreError
    for one that this version cannot use.
    """
    owner = secrets.randbits(62)
    scheme, colon, rest = url.partition(":")
    if url == "none":
        return None
    if scheme == "duckdb" and colon:
        from market_depth.store.duckdb import DuckDBStore

        return DuckDBStore(Path(rest) if rest else data_directory / FILE_NAME, owner)
    if url.startswith(("postgresql://", "postgres://")):
        from market_depth.store.postgres import PostgresStore

        return PostgresStore(url, owner)
    raise StoreOptionError(
        f"{scheme!r} is not a store: duckdb: (a file of the data directory), duckdb:PATH, postgresql://… or none is expected"
    )
