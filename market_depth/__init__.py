"""The depth server and its tools."""
