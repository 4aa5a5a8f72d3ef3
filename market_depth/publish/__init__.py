"""A recorded file served as a live gateway would: DBN over TCP, with Databento's handshake."""

from market_depth.publish.publisher import Publisher

__all__ = ["Publisher"]
