"""Records order events as a DBN file, so that a crash loses the last moment at most.

    written ──► synced ──► closed          every `sync_records` records, and when `sync` is called
       │           └─────► unfinished      the process died, or writing failed: no end in the metadata
       └─────────────────► discarded       nothing was recorded: no file remains

What is synced is on the disk and can be read, also in a compressed file, and stays so whatever happens afterwards. Only
`close` gives the metadata an end, so an unfinished file is known by its lack of one. Beside the file goes another with
the definitions of the instruments, because DBN's order records have no tick and lot sizes.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from databento_dbn import DBNError, Metadata, Schema, SType
from databento_dbn.metadata import MappingInterval

from market_depth.feeds.dbn_definitions import DEFINITION_SUFFIX, definitions_path, encoded_definitions
from market_depth.record.errors import RecordingError, RecordingExistsError, RecordingOptionError
from market_depth.record.zstd_frame import NoFrame, ZstdFrame
from protocol.events import ORDER_EVENT, RECORD_LENGTH, RTYPE_MBO, OrderEvents
from protocol.instrument import Instrument
from protocol.timestamp import NS_PER_S

DBN_VERSION = 3

SYNC_RECORDS = 65_536
"""The most records that are not on the disk: 3.7 MB, a third of a second of the fastest simulated market."""

RECORDING_SUFFIXES = (".dbn", ".dbn.zst", ".mbo.dbn", ".mbo.dbn.zst")
"""Recordings that differ in these alone have the same file of definitions."""

NO_TIME = 2**64 - 1


class DbnWriter:
    """An open recording. It belongs to one thread at a time; every method may wait for the disk."""

    def __init__(
        self,
        path: Path,
        instruments: Sequence[Instrument],
        start_ns: int,
        *,
        overwrite: bool = False,
        sync_records: int = SYNC_RECORDS,
    ) -> None:
        """Create the file, compressed if it is called `.dbn.zst` and plain if it is called `.dbn`.

        `start_ns`: when the recording begins, no later than its first event, in ns since the epoch of the market's
        time. The instruments must be of one venue, which becomes the dataset. `overwrite`: replace an existing file.
        Raises: RecordingOptionError, RecordingExistsError; RecordingError where the file cannot be made.
        """
        self.path = path
        self.records = 0
        """How many order events were taken."""
        self.synced_records = 0
        """How many of them are on the disk."""
        self.bytes = 0
        """How large the file is."""
        self._frame = _frame_for(path)
        self._header = _Header(_venue_of(path, instruments), tuple(instruments), start_ns)
        self._sync_records = sync_records
        self._ids = np.array([instrument.instrument_id for instrument in instruments], np.uint32)
        try:
            definitions = encoded_definitions(instruments, self._header.dataset, start_ns)
            head = self._frame.head(self._header.encoded())
        except DBNError as error:
            raise RecordingOptionError(
                path.name, f"DBN cannot hold its symbols or venue ({error})", "choose others"
            ) from error
        _refuse_shared_definitions(path)
        self._file: int | None = _create(path, overwrite)
        try:
            definitions_file = _create(definitions_path(path), overwrite)
        except RecordingError:
            self._abandon()
            path.unlink()
            raise
        try:
            with self._failing():
                _write_definitions(definitions_file, definitions)
                self._append(head)
                self._sync_file()
                _sync_folder(path.parent)
        except RecordingError:
            self.discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, events: OrderEvents) -> None:
        """Take order events of the recording's instruments, in the order in which they came in.

        Raises: RecordingError where they cannot be written: the file then ends with the events before, and nothing
        more can be written. TypeError for anything but ORDER_EVENT rows; ValueError for rows that are no MBO records
        or of other instruments, none of which is written.
        """
        self._check(events)
        while len(events):
            room = self._sync_records - (self.records - self.synced_records)
            taken, events = events[:room], events[room:]
            self._header.note(taken)
            with self._failing():
                self._append(self._frame.add(taken.tobytes()))
            self.records += len(taken)
            if len(taken) == room:
                self.sync()

    def sync(self) -> None:
        """Put everything taken so far on the disk. Raises: RecordingError, as `write` does."""
        if self.synced_records == self.records:
            return
        with self._failing():
            self._append(self._frame.flush())
            if self._header.needs_rewriting:
                self._rewrite_head()
            self._sync_file()
        self.synced_records = self.records

    def close(self) -> None:
        """Finish the recording. Closing again, or after an error, does nothing. Raises: RecordingError."""
        if self._file is None:
            return
        with self._failing():
            self._append(self._frame.end())
            self._sync_file()
            # Only now: a file with an end is complete.
            self._header.is_closed = True
            self._rewrite_head()
            self._sync_file()
        self.synced_records = self.records
        self._abandon()

    def discard(self) -> None:
        """End the recording and remove its files: it holds nothing worth keeping."""
        self._abandon()
        for path in (self.path, definitions_path(self.path)):
            path.unlink(missing_ok=True)

    def _check(self, events: OrderEvents) -> None:
        if events.dtype != ORDER_EVENT:
            raise TypeError(f"events must be an array of ORDER_EVENT rows, not of {events.dtype}")
        if np.any(events["length"] != RECORD_LENGTH) or np.any(events["rtype"] != RTYPE_MBO):
            raise ValueError("events must have the header of MBO records")
        unknown = events["instrument_id"][~np.isin(events["instrument_id"], self._ids)]
        if len(unknown):
            raise ValueError(f"events of instrument {unknown[0]}, which is not in the recording")

    def _append(self, content: bytes) -> None:
        assert self._file is not None, "a closed recording takes no more"
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        self.bytes += len(content)

    def _rewrite_head(self) -> None:
        assert self._file is not None, "a closed recording takes no more"
        os.pwrite(self._file, self._frame.head(self._header.encoded()), 0)

    def _sync_file(self) -> None:
        assert self._file is not None, "a closed recording takes no more"
        os.fsync(self._file)

    def _abandon(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Turns an error of the disk into a RecordingError, after which the recording stays as it is, unfinished."""
        try:
            yield
        except OSError as error:
            self._abandon()
            raise RecordingError(
                self.path.name,
                f"cannot be written: {error.strerror}, after {self.synced_records:,} synced order events",
                "make room, and record into another file",
            ) from error


@dataclass
class _Header:
    """What the metadata say of the recording so far; they have the same length whatever that is."""

    dataset: str
    instruments: Sequence[Instrument]
    start_ns: int
    is_closed: bool = False

    def __post_init__(self) -> None:
        self._first_ns = self._last_ns = self.start_ns
        self._encoded_day = self._last_day

    def note(self, events: OrderEvents) -> None:
        """Widen the recording's time by that of `events`, some of which may have none."""
        times = events["ts_recv"]
        times = times[times != NO_TIME]
        if len(times):
            self._first_ns = min(self._first_ns, int(times.min()))
            self._last_ns = max(self._last_ns, int(times.max()))

    @property
    def needs_rewriting(self) -> bool:
        """Whether a day has begun since `encoded`, for which the symbols are not valid there."""
        return self._last_day > self._encoded_day

    @property
    def _last_day(self) -> date:
        return _utc_date(self._last_ns)

    def encoded(self) -> bytes:
        """The metadata: every instrument under its symbol on every day from the first event to the last."""
        self._encoded_day = self._last_day
        days = (_utc_date(self._first_ns), self._last_day + timedelta(days=1))
        return Metadata(
            version=DBN_VERSION,
            dataset=self.dataset,
            schema=Schema.from_str("mbo"),
            start=self._first_ns,
            # The end is exclusive. The last time there is means that there is no end.
            end=min(self._last_ns + 1, NO_TIME - 1) if self.is_closed else None,
            stype_in=SType.from_str("raw_symbol"),
            stype_out=SType.from_str("instrument_id"),
            symbols=[instrument.symbol for instrument in self.instruments],
            mappings=[
                _Mapping(instrument.symbol, [_Interval(*days, str(instrument.instrument_id))])
                for instrument in self.instruments
            ],
            ts_out=False,
        ).encode()


@dataclass
class _Interval:
    start_date: date
    end_date: date  # exclusive
    symbol: str


@dataclass
class _Mapping:
    raw_symbol: str
    intervals: Sequence[MappingInterval]


def _utc_date(ns: int) -> date:
    return datetime.fromtimestamp(ns // NS_PER_S, UTC).date()


def _frame_for(path: Path) -> ZstdFrame | NoFrame:
    if path.name.endswith(".dbn.zst"):
        return ZstdFrame()
    if path.name.endswith(".dbn") and not path.name.endswith(DEFINITION_SUFFIX):
        return NoFrame()
    raise RecordingOptionError(
        path.name or str(path),
        "is no name for a recording",
        "call it NAME.dbn, or NAME.dbn.zst to compress it",
    )


def _venue_of(path: Path, instruments: Sequence[Instrument]) -> str:
    venues = sorted({instrument.venue for instrument in instruments})
    if len(venues) != 1:
        raise RecordingOptionError(
            path.name,
            f"cannot hold instruments of {len(venues)} venues ({', '.join(venues)})",
            "record each venue into a file of its own",
        )
    return venues[0]


def _create(path: Path, overwrite: bool) -> int:
    """A descriptor of the new, empty file."""
    try:
        # To open a pipe would wait for a reader.
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise RecordingOptionError(str(path), "is not a file", "take another name")
        return os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if overwrite else os.O_EXCL), 0o666)
    except FileExistsError as error:
        raise RecordingExistsError(str(path), "exists already", "take another name") from error
    except OSError as error:
        raise RecordingError(
            str(path), f"cannot be created: {error.strerror}", "check the folder, or take another"
        ) from error


def _write_definitions(descriptor: int, definitions: bytes) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(definitions)
        file.flush()
        os.fsync(file.fileno())


def _refuse_shared_definitions(path: Path) -> None:
    """Raises: RecordingOptionError where the file that would hold the definitions is that of another recording."""
    definitions = definitions_path(path)
    for name in RECORDING_SUFFIXES:
        other = path.with_name(definitions.name.removesuffix(DEFINITION_SUFFIX) + name)
        if other != path and other.exists():
            raise RecordingOptionError(
                str(path), f"would share {definitions.name} with {other.name}", "take another name"
            )


def _sync_folder(path: Path) -> None:
    """Make the names of new files in a folder last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
