import os
import sys

import pytest

from market_depth.bench.errors import BenchError
from market_depth.bench.processes import Weight, running

SERVER = "print('Serving on ws://127.0.0.1:4711/', flush=True); input()"


def alive(pid: int) -> bool:
    """Whether the process is there, running or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_server_is_found_by_the_line_it_prints() -> None:
    with running(python(SERVER)) as server:
        assert server.address == ("127.0.0.1", 4711)
        assert server.weight.resident_bytes() > 0
        assert server.weight.cpu_s() > 0
        assert server.weight.descriptors() > 2


@pytest.mark.parametrize("cause", [ZeroDivisionError, KeyboardInterrupt])
def test_a_server_has_ended_however_the_block_is_left(cause: type[BaseException]) -> None:
    with pytest.raises(cause), running(python(SERVER)) as server:  # noqa: PT012 it is left from inside
        assert alive(server.weight.pid)
        raise cause
    assert not alive(server.weight.pid)


def test_a_server_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_depth.bench.processes.STOP_TIMEOUT_S", 0.1)
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVER.removesuffix('input()')}signal.pause()"
    with running(python(stubborn)) as server:
        pass
    assert not alive(server.weight.pid)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("import sys; sys.exit('port 80 is taken')", "port 80 is taken"),
        ("pass", "no word of why"),
        ("print('hello')", "no word of why"),
    ],
)
def test_a_server_that_does_not_start_is_reported_with_its_last_words(program: str, problem: str) -> None:
    with pytest.raises(BenchError, match=problem), running(python(program)):
        pass


def test_variables_are_set_beside_ours() -> None:
    program = "import os; print(f'ws://127.0.0.1:{os.environ[\"PORT_TO_PRINT\"]}/', flush=True); input()"
    with running(python(program), {"PORT_TO_PRINT": "4712"}) as server:
        assert server.address.port == 4712


def test_a_process_that_is_not_there_is_reported() -> None:
    with running(python(SERVER)) as server:
        pid = server.weight.pid
    with pytest.raises(BenchError, match=f"there is no process {pid}"):
        Weight(pid)
