"""A synthetic venue: seeded order flow, matched in a plain price-time book, published as order events."""

from simulator.errors import (
    EmptySideError,
    MalformedSymbolError,
    OrderRejectedError,
    SimulatorError,
    UnknownScenarioError,
)
from simulator.listings import LISTINGS, Listing, listing
from simulator.matching import Fill, MatchingBook, Order
from simulator.scenarios import SCENARIOS, Scenario, scenario
from simulator.venue import PUBLISHER_ID, Venue

__all__ = [
    "LISTINGS",
    "PUBLISHER_ID",
    "SCENARIOS",
    "EmptySideError",
    "Fill",
    "Listing",
    "MalformedSymbolError",
    "MatchingBook",
    "Order",
    "OrderRejectedError",
    "Scenario",
    "SimulatorError",
    "UnknownScenarioError",
    "Venue",
    "listing",
    "scenario",
]
