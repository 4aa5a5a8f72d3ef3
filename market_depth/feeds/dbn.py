"""Recorded DBN files, plain or compressed with zstd, of every DBN version: what they hold, and their order events.

Reading blocks on the disk and needs no event loop: a replay calls it in a thread, other programs directly.
Source: the DBN encoding as databento_dbn reads it.
"""

import logging
import os
import stat
import string
from collections.abc import Iterator
from functools import cached_property
from io import BufferedReader, FileIO
from operator import attrgetter
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from databento_dbn import Metadata, RType, Schema

from market_depth.feeds.base import FeedError
from market_depth.feeds.dbn_decoding import WORD
from market_depth.feeds.dbn_definitions import definitions_path, read_definitions, with_steps
from market_depth.feeds.dbn_instruments import ids_in, instruments_in, mapped_symbols
from market_depth.feeds.dbn_metadata import (
    MAGIC,
    NEWEST_VERSION,
    PREFIX_BYTES,
    BadMetadataError,
    UnknownVersionError,
    decoded_metadata,
    metadata_size,
)
from market_depth.feeds.dbn_records import CHUNK_BYTES, ByteStream, DamagedFileError, RecordReader
from market_depth.feeds.recording import Place
from market_depth.feeds.zstd import MAGIC as MAGIC_ZSTD
from market_depth.feeds.zstd import ZstdStream, is_skippable
from protocol.events import OrderEvents
from protocol.instrument import Instrument

logger = logging.getLogger(__name__)

MAGIC_DBZ = b"DBZ"  # inside a skippable frame of zstd

MAX_METADATA_BYTES = 1 << 30
"""More is damage: every option of the US market over a year stays below."""

RTYPE_NAMES = {int(rtype): str(rtype) for rtype in RType.variants()}

FILE_BUFFER_BYTES = 1 << 16
"""Two zstd blocks or so: with as much at a time, decompressing takes 2 % less than with the usual 8 kB."""

SKIP_STEP_BYTES = 8 * 1024 * 1024
"""Decompressed at a time on the way to a place: 10 ms."""

NO_TIME = 2**64 - 1

LOST = "what was recorded after them is lost, unless the recorder is still at work"

__all__ = ["DamagedFileError", "DbnFile", "FileUnreadableError", "NotDbnError", "SchemaError"]


class FileUnreadableError(FeedError):
    """There is no file at the path, or none that may be read: check the path."""


class NotDbnError(FeedError):
    """The file is not DBN as it is: convert it, or choose another."""


class SchemaError(FeedError):
    """A sound DBN file of another schema: market data by order (MBO) is needed."""


class DbnFile:
    """An open DBN file: its instruments, and its order events chunk by chunk.

    Instruments are those of the metadata, and of the symbol mappings and order events in the first chunk (16,384
    records); their venue is the dataset. `instruments_in` tells how they get distinct symbols and their tick sizes;
    a file of definitions beside this one knows better, and the lot sizes too.

    A recording that was never closed, because its recorder died or is still at work, ends with a DamagedFileError.
    """

    blocks = True
    """Reading may wait for the disk."""

    def __init__(self, path: Path, *, late_instruments: bool = False) -> None:
        """Open the file and read as far as its first order events.

        `late_instruments`: hand out the order events of instruments that nothing at the beginning names, too;
        `name_late` tells what they are. By default they are left out: a feed tells all its instruments at its start.

        Raises: FileUnreadableError, NotDbnError, SchemaError, DefinitionsError; DamagedFileError where not one order
        event can be had.
        """
        self.name = path.name
        self.left_out = 0
        """How many order events were dropped because nothing at the beginning named their instrument."""
        self._file = _open(path)
        try:
            self._stream = self._content()
            metadata, self._body_offset = self._read_metadata()
            if metadata.schema not in (Schema.MBO, None):
                raise self._wrong_schema(str(metadata.schema))
            self._ts_out = metadata.ts_out
            definitions = read_definitions(definitions_path(path))
            # Recordings of ours have definitions, and an end once they are closed.
            self._is_unfinished = definitions is not None and metadata.end is None
            self._definitions = definitions or {}
            self._reader = RecordReader(
                self._stream, self.name, ts_out=self._ts_out, offset=self._body_offset
            )
            first = self._read_on()
            if metadata.schema is None and not len(first):  # a live capture: its records tell what it holds
                raise self._wrong_schema(
                    ", ".join(map(_rtype_name, sorted(self._reader.other_rtypes))) or "no"
                )
            self._dataset = metadata.dataset
            mapped = mapped_symbols(metadata)
            self._symbols = mapped | self._reader.symbols | mapped  # the metadata come first, and win
        except BaseException:
            self._file.close()
            raise
        self._chunks_kept: int | None = None
        self._first = first
        self._next: OrderEvents | None = first
        times = first["ts_recv"]
        timed = times[times < NO_TIME]
        self.start_ns = int(timed[0]) if len(timed) else 0
        """The first `ts_recv` in the file, ns since the epoch; 0 when there is none."""
        self._late_instruments = late_instruments

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Inferring tick sizes takes up to 1 ms, as long as decompressing a chunk: a reader may have the time only while a
    # second thread decompresses.
    @cached_property
    def instruments(self) -> tuple[Instrument, ...]:
        """What the beginning of the file names, and `name_late` found since."""
        return with_steps(instruments_in(self._symbols, self._dataset, self._first), self._definitions)

    @property
    def size_bytes(self) -> int:
        """The file's size."""
        return os.fstat(self._file.fileno()).st_size

    @property
    def is_compressed(self) -> bool:
        """Whether reading takes a processor's time."""
        return isinstance(self._stream, ZstdStream)

    @property
    def bytes_read(self) -> int:
        """How much of the file was read, to within a block of its compression."""
        return self._file.tell()

    @property
    def records_read(self) -> int:
        """How many records were read, of all types, since the first."""
        return self._reader.records_read

    def name_late(self, events: OrderEvents) -> tuple[Instrument, ...]:
        """The instruments of `events` that `instruments` has not, by id, and they are added to it.

        They get their symbols from mappings passed meanwhile, and their tick sizes from `events`.
        """
        late = [i for i in ids_in(events) if i not in self._known_ids]
        if not late:
            return ()
        symbols = {i: self._reader.symbols[i] for i in late if i in self._reader.symbols}
        own_events = events[np.isin(events["instrument_id"], late)]
        inferred = instruments_in(symbols, self._dataset, own_events, taken=self._taken_symbols)
        added = tuple(sorted(with_steps(inferred, self._definitions), key=attrgetter("instrument_id")))
        self.instruments += added
        self._known_ids.update(late)
        self._taken_symbols.update(instrument.symbol for instrument in added)
        return added

    # Kept, because a hostile file names new instruments in each of its records.
    @cached_property
    def _known_ids(self) -> set[int]:
        return {instrument.instrument_id for instrument in self.instruments}

    @cached_property
    def _taken_symbols(self) -> set[str]:
        return {instrument.symbol for instrument in self.instruments}

    def use_memory_again(self, chunks_kept: int) -> None:
        """From now on let the events of a `read` be gone, their memory used again, with the `chunks_kept`th after it.

        For who reads a whole file: mapping fresh memory takes about as long as reading into it.
        """
        self._chunks_kept = self._reader.chunks_kept = chunks_kept

    def read(self) -> OrderEvents:
        """The next order events, contiguous and aligned, about 16,384 of them at most; none at the end.

        Raises: DamagedFileError, after everything before the damage has been returned.
        """
        while True:
            events = self._read_on() if self._next is None else self._next
            self._next = None
            if self._late_instruments:
                return events
            named = np.isin(events["instrument_id"], self._ids)
            if not len(events) or named.all():
                return events
            if not self.left_out:
                logger.warning("%s: leaves out instruments that nothing at its beginning names", self.name)
            events = events[named]
            self.left_out += len(named) - len(events)
            if len(events):
                return events

    @cached_property
    def _ids(self) -> npt.NDArray[np.uint32]:
        return np.array([instrument.instrument_id for instrument in self.instruments], np.uint32)

    def _read_on(self) -> OrderEvents:
        """The reader's next order events; an unfinished recording does not end without a word."""
        try:
            events = self._reader.read()
        except DamagedFileError as damage:
            if not self._is_unfinished:
                raise
            raise DamagedFileError(self.name, damage.problem, LOST) from damage
        if self._is_unfinished and not len(events) and self._reader.events_read:
            reader = self._reader
            raise DamagedFileError(
                self.name,
                f"was not closed, and ends at byte {reader.offset:,} (record {reader.records_read + 1:,}), "
                f"after {reader.events_read:,} order events",
                LOST,
            )
        return events

    def place(self) -> Place:
        """Where the next `read` begins, for `go_to`."""
        if self._next is not None:
            return Place(self._body_offset)
        reader = self._reader
        place = Place(reader.offset, reader.records_read, reader.events_read)
        if isinstance(self._stream, ZstdStream) and self._stream.frame.content_offset <= place.offset:
            return place._replace(frame=self._stream.frame)
        return place

    def go_to(self, place: Place) -> Iterator[None]:
        """Let the next `read` begin where one began before. Each step of the iterator takes some 10 ms.

        In a compressed file what lies before the place in its frame is decompressed anew, and most files are one frame.
        Raises: DamagedFileError where what was read once cannot be read any more.
        """
        self._next = None
        stream = self._stream
        if isinstance(stream, ZstdStream):
            is_before = place.frame.content_offset <= stream.offset <= place.offset
            if self._reader.is_damaged or not is_before:
                stream = self._stream = ZstdStream(self._file, place.frame)
            yield from self._skip(stream, place.offset)
        else:
            self._file.seek(place.offset)
        self._reader = RecordReader(stream, self.name, ts_out=self._ts_out, offset=place.offset)
        self._reader.chunks_kept = self._chunks_kept
        self._reader.records_read, self._reader.events_read = place.records, place.events

    def _skip(self, stream: ZstdStream, offset: int) -> Iterator[None]:
        scratch = memoryview(bytearray(CHUNK_BYTES))
        step_end = 0
        while left := offset - stream.offset:
            if stream.offset >= step_end:
                yield
                step_end = stream.offset + SKIP_STEP_BYTES
            try:
                count = stream.readinto(scratch[:left])
            except OSError as error:
                raise self._changed(error.strerror or str(error)) from error
            if not count:
                raise self._changed("it has become shorter")

    def _changed(self, problem: str) -> DamagedFileError:
        return DamagedFileError(self.name, f"cannot be read again: {problem}", "fetch the file again")

    def close(self) -> None:
        """Close the file. Closing again does nothing."""
        self._file.close()

    def _content(self) -> ByteStream:
        """What the file holds, from its first byte, without its compression, which shows in its first bytes."""
        self._file.seek(0)
        head = self._file.read(PREFIX_BYTES + len(MAGIC_DBZ))
        self._file.seek(0)
        if not head:
            raise NotDbnError(self.name, "is empty (0 bytes)", "fetch the file again")
        skippable = is_skippable(head)
        if skippable and head[PREFIX_BYTES:] == MAGIC_DBZ:
            raise NotDbnError(
                self.name, "is DBZ, the format before DBN", "convert it with databento's dbn tool"
            )
        return ZstdStream(self._file) if skippable or head.startswith(MAGIC_ZSTD) else self._file

    def _read_metadata(self) -> tuple[Metadata, int]:
        """The metadata, and where the records start in the content."""
        prefix = self._read_header(PREFIX_BYTES)
        if prefix[: len(MAGIC)] != MAGIC:
            raise self._not_dbn(prefix)
        if len(prefix) < PREFIX_BYTES:
            raise self._broken_metadata(len(prefix))
        try:
            size = metadata_size(prefix, MAX_METADATA_BYTES)
            encoded = self._read_header(size)
            if len(encoded) < size:
                raise self._broken_metadata(PREFIX_BYTES + len(encoded))
            return decoded_metadata(prefix + encoded), PREFIX_BYTES + size
        except UnknownVersionError as error:
            raise NotDbnError(self.name, str(error), f"versions 1 to {NEWEST_VERSION} can be read") from error
        except BadMetadataError as error:
            raise NotDbnError(self.name, str(error), "fetch the file again") from error

    def _read_header(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end of the file."""
        header = bytearray()
        buffer = memoryview(bytearray(min(size, CHUNK_BYTES)))
        try:
            while len(header) < size and (count := self._stream.readinto(buffer[: size - len(header)])):
                header += buffer[:count]
        except OSError as error:
            raise NotDbnError(
                self.name,
                f"cannot be read before record 1: {error.strerror or error}",
                "fetch the file again",
            ) from error
        return bytes(header)

    def _not_dbn(self, prefix: bytes) -> NotDbnError:
        is_text = all(byte in string.printable.encode() for byte in prefix)
        if len(prefix) > 1 and not is_text and prefix[0] * WORD >= PREFIX_BYTES and prefix[1] in RTYPE_NAMES:
            return NotDbnError(
                self.name,
                "holds records without DBN's metadata before them",
                "write it again with its metadata",
            )
        return NotDbnError(
            self.name,
            "is not a DBN file (at byte 0, before record 1)",
            "give a .dbn or .dbn.zst file of MBO records",
        )

    def _broken_metadata(self, offset: int) -> NotDbnError:
        return NotDbnError(
            self.name,
            f"breaks off inside its metadata, at byte {offset:,} and before record 1",
            "fetch the file again",
        )

    def _wrong_schema(self, holds: str) -> SchemaError:
        return SchemaError(
            self.name,
            f"holds {holds} records from byte {self._body_offset:,} on (record 1)",
            "market-depth replays mbo",
        )


def _rtype_name(rtype: int) -> str:
    return RTYPE_NAMES.get(rtype, f"type {rtype:#x}")


def _open(path: Path) -> BufferedReader:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FileUnreadableError(str(path), "is not a file", "give the path of a .dbn or .dbn.zst file")
        return BufferedReader(FileIO(path), FILE_BUFFER_BYTES)
    except FileNotFoundError as error:
        raise FileUnreadableError(str(path), "no such file", "check the path") from error
    except OSError as error:
        raise FileUnreadableError(
            str(path), f"cannot be opened: {error.strerror}", "check the path"
        ) from error
