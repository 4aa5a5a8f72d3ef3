import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path

import pytest

from market_depth.feeds.zstd import ZstdStream
from market_depth.rebuild.errors import OutputError
from market_depth.rebuild.output import OutputFile

TEXT = b'{"symbol":"ACME"}\n' * 1000


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.dbn"
    path.write_bytes(b"DBN")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    path.mkdir()
    return path


def decompressed(data: bytes) -> bytes:
    stream, content, buffer = ZstdStream(BufferedReader(BytesIO(data))), b"", bytearray(1000)
    while count := stream.readinto(memoryview(buffer)):
        content += buffer[:count]
    return content


def test_a_file_takes_its_place_when_it_is_complete(folder: Path, source: Path) -> None:
    path = folder / "out.ndjson"
    path.write_bytes(b"older")
    with OutputFile(path, source=source) as output:
        output.write(TEXT)
        output.write(TEXT)
        assert path.read_bytes() == b"older"
    assert path.read_bytes() == TEXT * 2
    assert list(folder.iterdir()) == [path]


def test_a_name_that_ends_in_zst_is_compressed(folder: Path, source: Path) -> None:
    path = folder / "out.ndjson.zst"
    with OutputFile(path, source=source) as output:
        for _ in range(100):
            output.write(TEXT)
    data = path.read_bytes()
    assert len(data) < len(TEXT)
    assert decompressed(data) == TEXT * 100


def test_an_empty_output_is_a_file_too(folder: Path, source: Path) -> None:
    for name in ("out.ndjson", "out.ndjson.zst"):
        with OutputFile(folder / name, source=source):
            pass
    assert (
        (folder / "out.ndjson").read_bytes() == decompressed((folder / "out.ndjson.zst").read_bytes()) == b""
    )


@pytest.mark.parametrize("name", ["out.ndjson", "out.ndjson.zst"])
def test_left_by_an_exception_it_leaves_what_was_there(folder: Path, source: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(b"older")
    output = OutputFile(path, source=source)
    output.write(TEXT)
    output.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert path.read_bytes() == b"older"
    assert list(folder.iterdir()) == [path]


def test_a_link_stays_and_what_it_leads_to_is_replaced_with_its_permissions(
    folder: Path, source: Path, tmp_path: Path
) -> None:
    link, target = folder / "link", tmp_path / "target"
    target.write_bytes(b"older")
    target.chmod(0o640)
    link.symlink_to(target)
    with OutputFile(link, source=source) as output:
        output.write(TEXT)
    assert link.is_symlink()
    assert target.read_bytes() == TEXT
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["x" * 255, "nowhere", "round"])
def test_a_name_as_long_as_may_be_and_links_to_nothing_are_places_like_any_other(
    folder: Path, source: Path, name: str
) -> None:
    (folder / "nowhere").symlink_to(folder / "there")
    (folder / "round").symlink_to(folder / "round")
    with OutputFile(folder / name, source=source) as output:
        output.write(TEXT)
    assert (folder / name).read_bytes() == TEXT


def test_a_pipe_is_written_to_as_it_is(folder: Path, source: Path) -> None:
    path = folder / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with OutputFile(path, source=source) as output:
            output.write(b"text\n")
        assert os.read(reader, 100) == b"text\n"
    finally:
        os.close(reader)
    assert path.is_fifo()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("missing/out", "cannot be written: No such file or directory"),
        (".", "cannot be written: Is a directory"),
        ("../source.dbn", "is the file to be read"),
        ("../source.dbn/out", "cannot be written: Not a directory"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_at_once(
    folder: Path, source: Path, name: str, problem: str
) -> None:
    with pytest.raises(OutputError) as raised:
        OutputFile(folder / name, source=source)
    assert str(raised.value) == f"{folder / name}: {problem}"
    assert list(folder.iterdir()) == []
    assert source.read_bytes() == b"DBN"


@contextmanager
def room_for_4_kb() -> Iterator[None]:
    """No file of this process may become larger; Python ignores the signal and raises the error.

    Only for a moment: the file that the test runner's own output goes to is one of them.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["out.ndjson", "out.ndjson.zst"])
@pytest.mark.parametrize("size", [5000, 1_000_000])
def test_no_room_is_one_error_and_leaves_nothing_half_written(
    folder: Path, source: Path, name: str, size: int
) -> None:
    noise = os.urandom(size)
    with (
        pytest.raises(OutputError, match=r"out\.ndjson.*: cannot be written: File too large"),
        room_for_4_kb(),
        OutputFile(folder / name, source=source) as output,
    ):
        output.write(noise)
    assert list(folder.iterdir()) == []


def test_who_interrupts_the_last_moment_leaves_nothing_behind(
    folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt), OutputFile(folder / "out.ndjson", source=source) as output:
        output.write(TEXT)
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device_is_one_error(source: Path) -> None:
    with (
        pytest.raises(OutputError, match="/dev/full: cannot be written: No space left on device"),
        OutputFile(Path("/dev/full"), source=source) as output,
    ):
        output.write(TEXT)
