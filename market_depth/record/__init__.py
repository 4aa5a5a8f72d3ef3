"""Feeds into DBN files: simulated markets, what this server is fed, and what another server shows."""
