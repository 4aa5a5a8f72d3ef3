"""Stored rows as NDJSON, CSV or Parquet, part by part: memory does not grow with their number."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from market_depth.export.choices import Format, Kind
from market_depth.store.base import Selection, Store, all_bbo, all_snapshots, all_trades
from market_depth.store.snapshot_text import snapshot_lines
from market_depth.store.texts import (
    BBO_COLUMNS,
    LEVEL_COLUMNS,
    TRADE_COLUMNS,
    bbo_texts,
    level_texts,
    trade_texts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from market_depth.store.rows import Found
    from market_depth.store.texts import Text


COLUMNS = {Kind.BBO: BBO_COLUMNS, Kind.TRADES: TRADE_COLUMNS, Kind.SNAPSHOTS: LEVEL_COLUMNS}

DECIMAL = "DECIMAL(28, 9)"
MIDDLE = "DECIMAL(29, 10)"  # half way between two prices that are a step of 1e-9 apart

PARQUET_TYPES = {
    "ts": "TIMESTAMP_NS",
    "symbol": "VARCHAR",
    "side": "VARCHAR",
    "aggressor": "VARCHAR",
    "level": "INTEGER",
    "count": "BIGINT",
    "mid": MIDDLE,
}
"""Other columns are DECIMAL."""


def texts_of(kind: Kind) -> Callable[[Found], dict[str, Text]]:
    """How rows of a kind become columns of text."""
    return {Kind.BBO: bbo_texts, Kind.TRADES: trade_texts, Kind.SNAPSHOTS: level_texts}[kind]


def parts(store: Store, kind: Kind, selection: Selection) -> Iterator[Found]:
    """All rows of a selection, in parts."""
    read: Callable[[Store, Selection], Iterator[Found]] = {
        Kind.BBO: all_bbo,
        Kind.TRADES: all_trades,
        Kind.SNAPSHOTS: all_snapshots,
    }[kind]
    return read(store, selection)


def write_text(
    store: Store,
    kind: Kind,
    selection: Selection,
    file_format: Format,
    write: Callable[[bytes], object],
) -> int:
    """Write rows as NDJSON or CSV. Returns: how many there were; of snapshots, how many snapshots.

    Snapshots are snapshot records in NDJSON, and a row for each of their levels in CSV.
    """
    count = 0
    if file_format is Format.CSV:
        write(csv_lines([COLUMNS[kind]]))
    for found in parts(store, kind, selection):
        count += len(found)
        if file_format is Format.CSV:
            write(csv_lines(zip(*texts_of(kind)(found).values(), strict=True)))
        elif kind is Kind.SNAPSHOTS:
            write(snapshot_lines(found))
        else:
            write(json_lines(texts_of(kind)(found)))
    return count


def csv_lines(rows: object) -> bytes:
    """Rows as CSV; nothing stands where a side is empty."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return text.getvalue().encode()


def json_lines(columns: dict[str, Text]) -> bytes:
    """Rows as NDJSON."""
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    names = tuple(columns)
    lines = [encode(dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    return "".join(f"{line}\n" for line in lines).encode()


def write_parquet(store: Store, kind: Kind, selection: Selection, path: Path) -> int:
    """Write rows as a Parquet file; snapshots as a row for each of their levels. Returns: how many rows or snapshots.

    A file of that name is replaced when all is written. Raises: OSError.
    """
    import duckdb

    count = 0
    types = {name: PARQUET_TYPES.get(name, DECIMAL) for name in COLUMNS[kind]}
    casts = ", ".join(f"CAST({name} AS {type_name}) AS {name}" for name, type_name in types.items())
    # Beside the file and not in memory: a day of a market may be larger than that.
    with tempfile.TemporaryDirectory(prefix=".market-depth-", dir=path.parent) as folder:
        with duckdb.connect(Path(folder) / "rows.duckdb", config={"memory_limit": "512MB"}) as database:
            database.execute(
                f"CREATE TABLE rows ({', '.join(f'{name} {type_name}' for name, type_name in types.items())})"
            )
            for found in parts(store, kind, selection):
                count += len(found)
                columns = texts_of(kind)(found)
                columns["ts"][:] = [text.removesuffix("Z") for text in columns["ts"]]
                database.register("arrived", columns)
                database.execute(f"INSERT INTO rows SELECT {casts} FROM arrived")
                database.unregister("arrived")
            written = Path(folder) / "rows.parquet"
            database.execute("COPY rows TO $1 (FORMAT parquet, COMPRESSION zstd)", [str(written)])
        written.replace(path)
    return count
