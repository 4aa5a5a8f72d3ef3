"""A store is what its URL names, or one line says why not."""

import subprocess
import sys
from pathlib import Path

import pytest

from market_depth.store.base import Store, StoreError, StoreOptionError, StoreUnavailableError
from market_depth.store.opening import make_store
from tests.market_depth.store.conftest import OpenStore


def opened(url: str, directory: Path) -> Store:
    store = make_store(url, directory)
    assert store is not None
    return store


def test_none_is_no_store(tmp_path: Path) -> None:
    assert make_store("none", tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_by_default_a_duckdb_file_of_the_data_directory_which_is_made(tmp_path: Path) -> None:
    opened("duckdb:", tmp_path / "new" / "data").close()
    assert (tmp_path / "new" / "data" / "market-depth.duckdb").is_file()


def test_a_duckdb_file_anywhere(tmp_path: Path) -> None:
    opened(f"duckdb:{tmp_path / 'x y.db'}", tmp_path / "unused").close()
    assert [path.name for path in tmp_path.iterdir()] == ["x y.db"]


@pytest.mark.parametrize("url", ["", "duckdb", "None", "mysql://host/base", "sqlite:a.db", "/a/b.duckdb"])
def test_other_urls_are_no_store(url: str, tmp_path: Path) -> None:
    with pytest.raises(
        StoreOptionError, match=r"is not a store: duckdb: .* postgresql://… or none is expected"
    ):
        make_store(url, tmp_path)


def test_a_url_of_postgresql_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoreOptionError, match="not a PostgreSQL URL"):
        make_store("postgresql://host/base?no_such_option=1", tmp_path)


@pytest.mark.parametrize(
    "url", ["postgresql://me:secret@127.0.0.1:1/base", "postgres://me:secret@127.0.0.1:1/base"]
)
def test_a_postgresql_that_is_not_there_is_named_without_the_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        make_store(url, tmp_path)
    assert str(caught.value).startswith("postgresql://127.0.0.1:1/base: connection failed")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_another_process_has_open(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    program = (
        f"import duckdb, sys; database = duckdb.connect({str(path)!r}); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreUnavailableError) as caught:
            make_store(f"duckdb:{path}", tmp_path)
        other.communicate(b"")
    assert str(caught.value).startswith(f"{path}: ")
    assert f"(PID {other.pid}) has it open, and only one process can" in str(caught.value)
    opened(f"duckdb:{path}", tmp_path).close()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "a.duckdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"a\.duckdb: .*not a valid DuckDB database") as caught:
        make_store(f"duckdb:{tmp_path / 'a.duckdb'}", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Not a directory"):
        make_store("duckdb:", tmp_path / "file" / "b")


def test_a_database_of_a_newer_version(open_store: OpenStore, store_url: str) -> None:
    open_store().close()
    statement = "UPDATE {}schema_version SET version = 1000"
    if store_url.startswith("duckdb:"):
        import duckdb

        with duckdb.connect(store_url.removeprefix("duckdb:")) as database:
            database.execute(statement.format(""))
    else:
        import psycopg

        with psycopg.connect(store_url) as connection:
            connection.execute(statement.format("market_depth.").encode())
    with pytest.raises(StoreError, match=r"made by a newer market-depth \(schema 1000, this one knows \d+\)"):
        open_store()
