"""Tick and lot sizes of a DBN file's instruments, from a file of instrument definitions beside it.

DBN's order records have neither. Its `definition` records do, and they come as a file of their own: to `acme.mbo.dbn.zst`
belongs `acme.definition.dbn`. Recordings of ours always have one.
Source: databento_dbn.InstrumentDefMsg; min_price_increment is the tick size, unit_of_measure_qty the lot size.
"""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from databento_dbn import InstrumentClass, InstrumentDefMsg, Metadata, Schema, SecurityUpdateAction, SType

from market_depth.feeds.base import FeedError
from protocol.events import UNDEF_PRICE
from protocol.instrument import SCALE, Instrument

logger = logging.getLogger(__name__)

SUFFIXES = (".zst", ".dbn", ".mbo")
DEFINITION_SUFFIX = ".definition.dbn"

COUNTED_IN_UNITS = b"UNIT"
"""The `unit_of_measure` that makes a lot so many units of the thing itself, as in recordings of ours. Other measures
tell what a contract stands for, such as barrels, and contracts are counted as contracts."""

MAX_FILE_BYTES = 1 << 26
"""Definitions of 100,000 instruments. A larger file is of a whole market: reading it takes longer than it is worth."""

PREFIX = b"DBN\x03"
OLDER_PREFIXES = (b"DBN\x01", b"DBN\x02")  # their definitions are laid out differently
PREFIX_BYTES = 8  # with the length of the metadata that follow

DEFINITION = np.dtype(
    {
        "names": ["length", "rtype", "instrument_id", "tick_size", "lot_size", "measure"],
        "formats": ["u1", "u1", "<u4", "<i8", "<i8", "S31"],
        "offsets": [0, 1, 4, 24, 80, 360],
        "itemsize": 520,
    }
)
"""What is read of a definition record of DBN 3. databento_dbn's own decoder does not survive damaged files."""

RTYPE_DEFINITION = 0x13


class DefinitionsError(FeedError):
    """The file of definitions makes no sense: its instruments would be shown with wrong quantities."""


class Steps(NamedTuple):
    """What an instrument's definition says; None where it says nothing."""

    tick_size: int | None  # 1e-9
    lot_size: int | None  # 1e-9


def definitions_path(path: Path) -> Path:
    """Where the definitions of a file's instruments are: `acme.definition.dbn` for `acme.mbo.dbn.zst`."""
    stem = path.name
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return path.with_name(stem + DEFINITION_SUFFIX)


def encoded_definitions(instruments: Iterable[Instrument], dataset: str, start_ns: int) -> bytes:
    """A DBN file that defines `instruments` from `start_ns` on. Raises: DBNError for text that DBN cannot hold."""
    header = Metadata(
        dataset=dataset,
        start=start_ns,
        end=start_ns + 1,
        stype_in=SType.from_str("raw_symbol"),
        stype_out=SType.from_str("instrument_id"),
        schema=Schema.from_str("definition"),
        version=3,
    )
    return header.encode() + b"".join(bytes(_definition(one, start_ns)) for one in instruments)


def _definition(instrument: Instrument, start_ns: int) -> InstrumentDefMsg:
    return InstrumentDefMsg(
        publisher_id=0,
        instrument_id=instrument.instrument_id,
        ts_event=start_ns,
        ts_recv=start_ns,
        min_price_increment=instrument.tick_size,
        display_factor=SCALE,
        raw_symbol=instrument.symbol,
        asset="",
        security_type="",
        instrument_class=InstrumentClass.from_str("Y"),  # DBN wants one, and we know of none
        security_update_action=SecurityUpdateAction.from_str("A"),
        unit_of_measure=COUNTED_IN_UNITS.decode(),
        unit_of_measure_qty=instrument.lot_size,
    )


def read_definitions(path: Path) -> dict[int, Steps] | None:
    """The steps of each instrument in a file of definitions, by instrument id; None if there is no such file.

    Raises: DefinitionsError for a file that is no complete DBN file of definitions.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES or content[: len(PREFIX)] in OLDER_PREFIXES:
        logger.warning("%s: is too large or too old; tick sizes are inferred from prices", path.name)
        return None
    records = _definitions(path, content)
    ticks = _defined(records["tick_size"])
    lots = _defined(np.where(records["measure"] == COUNTED_IN_UNITS, records["lot_size"], UNDEF_PRICE))
    return {
        instrument_id: Steps(tick, lot)
        for instrument_id, tick, lot in zip(records["instrument_id"].tolist(), ticks, lots, strict=True)
    }


def _definitions(path: Path, content: bytes) -> npt.NDArray[np.void]:
    body = PREFIX_BYTES + int.from_bytes(content[len(PREFIX) : PREFIX_BYTES], "little")
    if not content.startswith(PREFIX) or body > len(content):
        raise _error(path, "is not a DBN 3 file")
    if (len(content) - body) % DEFINITION.itemsize:
        raise _error(path, "ends inside a record, or holds others than definitions")
    records = np.frombuffer(content, DEFINITION, offset=body)
    if np.any(records["length"] != DEFINITION.itemsize // 4) or np.any(records["rtype"] != RTYPE_DEFINITION):
        raise _error(path, "holds others than definitions")
    return records


def _defined(steps: npt.NDArray[np.int64]) -> list[int | None]:
    return [step if 0 < step < UNDEF_PRICE else None for step in steps.tolist()]


def with_steps(instruments: Iterable[Instrument], definitions: dict[int, Steps]) -> tuple[Instrument, ...]:
    """The instruments with tick and lot sizes as defined, where they are."""

    def defined(instrument: Instrument) -> Instrument:
        steps = definitions.get(instrument.instrument_id, Steps(None, None))
        return replace(
            instrument,
            tick_size=steps.tick_size or instrument.tick_size,
            lot_size=steps.lot_size or instrument.lot_size,
        )

    return tuple(map(defined, instruments))


def _error(path: Path, problem: str) -> DefinitionsError:
    return DefinitionsError(
        path.name, problem, "restore it, or remove it: tick sizes are then inferred from prices"
    )
