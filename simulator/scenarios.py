"""Named kinds of market: every number that shapes the order flow, in one place."""

from dataclasses import dataclass

from simulator.errors import UnknownScenarioError


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """The parameters of a market. The defaults are those of `busy`; other scenarios name what differs."""

    name: str
    summary: str
    events_per_second: float = 40.0
    """Participants' actions a second for each instrument, in the long run."""

    # When: see HawkesClock and Activity.
    branching: float = 0.8
    kernels: tuple[tuple[float, float], ...] = ((0.5, 0.05), (0.3, 1.0), (0.2, 20.0))
    activity_periods_s: tuple[float, ...] = (40.0, 160.0, 640.0)
    activity_swing: float = 0.35
    shock_share: float = 0.0
    shock_size: int = 0

    # Where and how many: see distances, marketable_share.
    resting_orders: int = 600
    placement_exponent: float = 1.5
    placement_offset: float = 4.0
    inside_share: float = 0.35
    """How many new orders go inside a spread wider than one tick."""
    near_cancel_share: float = 0.5
    """How many cancels take the nearer to the best price of two orders, and not just any order."""

    # How much, in multiples of the listing's typical size.
    size_spread: float = 1.0

    # Marketable orders: see ParentOrders.
    marketable_share: float = 0.1
    parents: int = 6
    parent_exponent: float = 1.5
    whole_level_share: float = 0.3
    """How many marketable orders take exactly the best level."""
    sweep_share: float = 0.04
    """How many marketable orders reach through the next levels."""
    remainder_share: float = 0.5
    """How many of the sweeping orders leave what was not filled in the book; the others drop it."""

    # Where to.
    trend: float = 0.0
    """By how much a new parent order is likelier than not to go with the trend, 0 to 1."""
    trend_period_s: float = 900.0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="calm",
            summary="few events, evenly spread; a tight spread that rarely moves",
            events_per_second=10,
        ),
        Scenario(name="busy", summary="a lively, liquid market with every statistic of a real one"),
        Scenario(
            name="trend", summary="buyers or sellers lead for a quarter of an hour at a time", trend=0.3
        ),
        Scenario(
            name="burst",
            summary="quiet stretches broken by sudden storms of events",
            shock_share=0.002,
            shock_size=300,
        ),
    )
}
"""Every scenario by name."""

DEFAULT_SCENARIO = "busy"


def scenario(name: str) -> Scenario:
    """The scenario of that name. Raises: UnknownScenarioError, which lists the names there are."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise UnknownScenarioError(name, tuple(SCENARIOS)) from None
