import json

import pytest

from market_depth.bench import start
from market_depth.bench.errors import BenchError


def test_a_start_with_compiled_kernels_is_measured_from_help_to_data() -> None:
    report = start.run(rounds=1, cold=False)

    assert len(report.help_s) == len(report.warm) == 1
    assert report.cold is None
    assert report.warm[0].accept_s > 0
    assert report.warm[0].first_data_s > 0
    assert any("subscribed" in line for line in report.warm[0].log)
    assert report.lines()[0] == "medians of 1 starts"
    assert json.loads(json.dumps(report.as_dict()))["cold"] is None


@pytest.mark.slow
def test_a_first_start_accepts_and_says_what_it_is_doing() -> None:
    report = start.run(rounds=1)

    assert report.cold is not None
    assert report.cold.health == "warming"
    assert any("compiling" in line for line in report.cold.log)


@pytest.mark.parametrize("rounds", [0, 51])
def test_starts_are_bounded(rounds: int) -> None:
    with pytest.raises(BenchError, match="rounds must be 1 to 50"):
        start.run(rounds)
