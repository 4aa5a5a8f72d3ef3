"""An output file that is there when it is complete, and not before.

It is written under another name beside its place, and at the end takes that place, instead of what was there. A
device or a pipe is written to as it is.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import zstandard

from market_depth.rebuild.errors import OutputError

if TYPE_CHECKING:
    from types import TracebackType

COMPRESSION_LEVEL = 1
"""Records repeat one another: even so they shrink to a small part, and higher levels take longer for little more."""


class Compressor(Protocol):
    """What of zstandard's writer is used."""

    def write(self, data: bytes | memoryview, /) -> int: ...
    def close(self) -> None: ...


class OutputFile:
    """Takes bytes, and compresses them with zstd if its name ends in `.zst`.

    Use it as a context manager: left by an exception, it leaves nothing behind. Every failure is an OutputError.
    """

    def __init__(self, path: Path, *, source: Path | None = None) -> None:
        """`source` is the file that is being read, if there is one, and that the output must not replace."""
        self._path = path
        try:
            exists = path.exists()
            if exists and source is not None and path.samefile(source):
                raise OutputError(path, "is the file to be read")
            self._is_direct = exists and not stat.S_ISREG(path.stat().st_mode)
            self._place = path if self._is_direct else Path(os.path.realpath(path))
            self._written = path if self._is_direct else beside(self._place)
            self._file = self._written.open("wb" if self._is_direct else "xb")
            if exists and not self._is_direct:
                self._written.chmod(stat.S_IMODE(path.stat().st_mode))
        except OSError as error:
            raise self._failed(error) from error
        self._compressor: Compressor | None = (
            zstandard.ZstdCompressor(COMPRESSION_LEVEL).stream_writer(self._file, closefd=False)
            if path.suffix == ".zst"
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._complete()
        else:
            self._discard()

    def write(self, data: bytes | memoryview) -> None:
        """Append to the file."""
        try:
            (self._compressor or self._file).write(data)
        except OSError as error:
            raise self._failed(error) from error

    def _complete(self) -> None:
        try:
            if self._compressor:
                self._compressor.close()
            self._file.flush()
            if not self._is_direct:
                # Before the name is taken: after a power cut there is the old file or the new one, whole.
                os.fsync(self._file.fileno())
            self._file.close()
            if not self._is_direct:
                self._written.replace(self._place)
        except OSError as error:
            self._discard()
            raise self._failed(error) from error
        except BaseException:  # Ctrl-C while the disk works
            self._discard()
            raise

    def _discard(self) -> None:
        with suppress(OSError):  # what could not be written is not wanted any more
            self._file.close()
        if not self._is_direct:
            self._written.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(self._path, f"cannot be written: {error.strerror or error}")


def beside(path: Path) -> Path:
    """A name in the same folder that nobody else has, and that tells whose it is should the process be killed."""
    return path.with_name(f".market-depth-{secrets.token_hex(8)}.part")
