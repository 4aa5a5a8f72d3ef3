import time

from market_depth.clock import Clock, ManualClock, SystemClock


def test_system_clock_tells_the_machines_time() -> None:
    clock: Clock = SystemClock()
    before = time.time_ns()
    now = clock.wall_ns()
    assert before <= now <= time.time_ns()


def test_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(1_000)
    assert clock.wall_ns() == clock.wall_ns() == 1_000
    clock.advance(1.5)
    assert clock.wall_ns() == 1_500_001_000
