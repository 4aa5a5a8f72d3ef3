"""The client side: what connects to a depth server."""
