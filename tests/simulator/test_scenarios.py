"""The named kinds of market."""

import pytest

from simulator.errors import UnknownScenarioError
from simulator.scenarios import SCENARIOS, scenario


def test_the_named_scenarios() -> None:
    assert list(SCENARIOS) == ["calm", "busy", "trend", "burst"]
    assert all(scenario(name).name == name for name in SCENARIOS)


def test_scenarios_differ_in_more_than_their_name() -> None:
    assert len({entry.summary for entry in SCENARIOS.values()}) == len(SCENARIOS)


def test_an_unknown_scenario_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownScenarioError) as caught:
        scenario("storm")
    assert str(caught.value) == "unknown scenario 'storm': choose one of calm, busy, trend, burst"
