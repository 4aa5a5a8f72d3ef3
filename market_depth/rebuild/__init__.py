"""The books of a recorded file, rebuilt at full speed: statistics, and a record of each change of their top.

Import `market_depth.rebuild.rebuilding` itself: it loads numba, and this does not.
"""
