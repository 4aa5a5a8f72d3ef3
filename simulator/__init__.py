"""A synthetic venue: seeded order flow, matched in a plain price-time book, published as order events."""
