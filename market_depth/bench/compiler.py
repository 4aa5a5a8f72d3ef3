"""Programs in C that a benchmark brings: compiled by the machine's compiler, for as long as they are needed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from market_depth.bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def compiled(name: str) -> Iterator[Path]:
    """The program whose source is `name`.c in this folder; it is gone at the end of the block.

    Raises: BenchError where there is no compiler, or when the program does not compile.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchError("this benchmark needs a C compiler (cc or gcc)")
    source = Path(__file__).with_name(f"{name}.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / name
        built = subprocess.run(  # noqa: S603 our own source
            [compiler, "-O2", "-o", program, source], capture_output=True, text=True, check=False
        )
        if built.returncode:
            raise BenchError(f"{compiler} cannot compile {source.name}: {built.stderr.strip()}")
        yield program
