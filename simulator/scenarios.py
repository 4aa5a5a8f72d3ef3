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
    branching: float = 0.85
    kernels: tuple[tuple[float, float], ...] = ((0.4, 0.05), (0.4, 0.5), (0.2, 10.0))
    activity_periods_s: tuple[float, ...] = (15.0, 90.0, 540.0, 2400.0)
    activity_swing: float = 0.35
    shock_share: float = 0.0
    shock_size: int = 0

    # Where and how many: see distances and marketable_share.
    resting_orders: int = 400
    placement_exponent: float = 1.9
    placement_offset: float = 16.0
    inside_share: float = 0.15
    """How many new orders go inside a spread wider than one tick."""
    near_cancel_share: float = 0.8
    """How many cancels take the nearer to the best price of two orders, and not just any order."""
    replenishment: float = 0.42
    """How much new orders prefer the side that recent trades took from: 0 not at all, 0.5 as much as they can."""
    pressure_trades: float = 30.0
    """Over how many trades that preference remembers."""

    # How much: the deviation of a size's logarithm, around the listing's typical size.
    size_spread: float = 1.0

    # Marketable orders: see ParentOrders.
    marketable_share: float = 0.088
    parents: int = 3
    parent_exponent: float = 1.7
    whole_level_share: float = 0.3
    """How many take the whole best level, and every second of them has something left then."""
    sweep_share: float = 0.018
    """How many reach through the next levels, at ordinary activity; in proportion to it at any other."""
    remainder_share: float = 0.5
    """How many with something left leave it in the book; the others drop it."""

    # Where to.
    trend: float = 0.0
    """By how much likelier than not a new parent order goes with the trend: 0 not at all, 1 always."""
    trend_period_s: float = 900.0


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="calm",
            summary="few events, evenly spread over time, and a price that hardly moves",
            events_per_second=10,
            branching=0.6,
            activity_periods_s=(600.0,),
            activity_swing=0.2,
            whole_level_share=0.15,
            sweep_share=0.004,
        ),
        Scenario(
            name="busy",
            summary="a lively, liquid market, tuned to the statistics of real ones",
        ),
        Scenario(
            name="trend",
            summary="buyers or sellers lead for a quarter of an hour at a time",
            events_per_second=30,
            trend=0.6,
            replenishment=0.2,
        ),
        Scenario(
            name="burst",
            summary="quiet stretches broken by sudden storms of events",
            events_per_second=25,
            branching=0.7,
            activity_periods_s=(),
            shock_share=0.004,
            shock_size=600,
            kernels=((0.3, 0.05), (0.5, 0.5), (0.2, 3.0)),
        ),
    )
}
"""Every scenario by name."""


def scenario(name: str) -> Scenario:
    """The scenario of that name. Raises: UnknownScenarioError, which lists the names there are."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise UnknownScenarioError(name, tuple(SCENARIOS)) from None
